//! Which addresses a check may reach: none that answers for this machine or hands out a cloud's credentials.
//! Asked after name resolution, for every resolved address and for literal ones. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What is refused beside link-local addresses: metadata services on addresses of their own.
const METADATA_V4: [Ipv4Addr; 3] = [
    Ipv4Addr::new(100, 100, 100, 200), // Alibaba
    Ipv4Addr::new(168, 63, 129, 16),   // Azure
    Ipv4Addr::new(192, 0, 0, 192),     // Oracle
];
const METADATA_V6: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), // AWS
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),  // Google
];

/// Why an address is refused; `None`: it may be reached.
pub fn refusal(address: IpAddr, loopback_allowed: bool) -> Option<&'static str> {
    let address = plain(address);
    if address.is_loopback() {
        return (!loopback_allowed).then_some("it is the operator's own machine");
    }
    if address.is_unspecified() {
        return Some("it is no address of a server");
    }
    let is_metadata = match address {
        IpAddr::V4(v4) => METADATA_V4.contains(&v4),
        IpAddr::V6(v6) => METADATA_V6.contains(&v6),
    };
    if is_metadata {
        return Some("it is a cloud's metadata service");
    }
    let (link_local, many) = match address {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.is_broadcast() || v4.is_multicast()),
        IpAddr::V6(v6) => (v6.is_unicast_link_local(), v6.is_multicast()),
    };
    if link_local {
        return Some("it is link-local, as metadata services are");
    }
    many.then_some("it is no address of a server")
}

/// An IPv4 address in the guise of IPv6 (mapped, compatible, translated by NAT64 or 6to4) is judged as what it is.
fn plain(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else {
        return address;
    };
    if let Some(mapped) = v6.to_ipv4_mapped() {
        return mapped.into();
    }
    let [prefix @ .., high, low] = v6.segments();
    let embedded = |high: u16, low: u16| {
        let [h0, h1] = high.to_be_bytes();
        let [l0, l1] = low.to_be_bytes();
        IpAddr::V4(Ipv4Addr::new(h0, h1, l0, l1))
    };
    match prefix {
        [0x64, 0xff9b, 0, 0, 0, 0] => embedded(high, low),
        [0, 0, 0, 0, 0, 0] if high != 0 => embedded(high, low),
        [0x2002, v4_high, v4_low, ..] => embedded(v4_high, v4_low),
        _ => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_and_link_local_addresses_are_refused_in_every_guise() {
        for text in [
            "169.254.169.254",
            "169.254.0.1",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
            "::ffff:169.254.169.254",
            "::169.254.169.254",
            "64:ff9b::169.254.169.254",
            "2002:a9fe:a9fe::1",
            "fe80::1",
            "fd00:ec2::254",
            "fd20:ce::254",
            "0.0.0.0",
            "::",
            "255.255.255.255",
            "224.0.0.1",
            "ff02::1",
        ] {
            let address: IpAddr = text.parse().unwrap();
            assert!(refusal(address, true).is_some(), "{text}");
        }
    }

    #[test]
    fn the_operators_own_machine_is_refused_unless_allowed() {
        for text in ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"] {
            let address: IpAddr = text.parse().unwrap();
            assert!(refusal(address, false).is_some(), "{text}");
            assert!(refusal(address, true).is_none(), "{text}");
        }
    }

    #[test]
    fn servers_inside_and_outside_the_cluster_may_be_reached() {
        for text in ["10.96.0.12", "192.168.7.1", "172.16.0.1", "8.8.8.8", "fd12::1", "2606:4700::1"] {
            assert!(refusal(text.parse().unwrap(), false).is_none(), "{text}");
        }
    }
}
