package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"

	"github.com/vishvananda/netlink"
)

// Addresses of a node's own network. Every node repeats them: no packet of it is ever seen outside.
const (
	podRange      = "10.244.0.0/24"
	bridgeAddress = "10.244.0.1"
	bridgeName    = "cni0"
	uplinkName    = "uplink"
)

// HostNetwork is the two-address network between the host and a node. It is all that the host sees, and it is routed
// nowhere: pods reach nothing outside the node.
type HostNetwork struct {
	HostAddress string `json:"hostAddress"`
	NodeAddress string `json:"nodeAddress"`
}

// chooseHostNetwork takes a /30 of 10.213.0.0/16 that no address of the host lies in.
func chooseHostNetwork() (*HostNetwork, error) {
	used, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("listing the host's addresses: %w", err)
	}
	for range 100 {
		third := rand.IntN(256)
		_, candidate, err := net.ParseCIDR(fmt.Sprintf("10.213.%d.0/30", third))
		if err != nil {
			return nil, err
		}
		if !overlaps(candidate, used) {
			return &HostNetwork{fmt.Sprintf("10.213.%d.1", third), fmt.Sprintf("10.213.%d.2", third)}, nil
		}
	}
	return nil, errors.New("found no free network in 10.213.0.0/16")
}

func overlaps(candidate *net.IPNet, used []net.Addr) bool {
	for _, address := range used {
		network, ok := address.(*net.IPNet)
		if ok && (network.Contains(candidate.IP) || candidate.Contains(network.IP)) {
			return true
		}
	}
	return false
}

// linkToHost makes a pair of network links, one end on the host, the other in the namespace of the process.
func linkToHost(record Record, pid int) error {
	pair := &netlink.Veth{
		LinkAttrs:     netlink.LinkAttrs{Name: record.link()},
		PeerName:      uplinkName,
		PeerNamespace: netlink.NsPid(pid),
	}
	if err := netlink.LinkAdd(pair); err != nil {
		return fmt.Errorf("making the link to the node: %w", err)
	}
	return raise(record.link(), record.Network.HostAddress+"/30")
}

// removeLink deletes the host's end. The kernel also deletes it with the node's network, some time after the node's
// last process, so finding it gone is the usual case.
func removeLink(ctx context.Context, name string) error {
	return await(ctx, "the link "+name+" to go", func(context.Context) error {
		link, err := netlink.LinkByName(name)
		if errors.As(err, &netlink.LinkNotFoundError{}) {
			return nil
		}
		if err != nil {
			return err
		}
		_ = netlink.LinkDel(link)
		return errors.New("it is still there")
	})
}

// setUpNodeNetwork runs inside the node's network namespace.
func setUpNodeNetwork(network HostNetwork) error {
	if err := raise("lo", ""); err != nil {
		return err
	}
	if err := raise(uplinkName, network.NodeAddress+"/30"); err != nil {
		return err
	}
	// Made before the first pod, so that the API server and the kubelet can use its address from the start.
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: bridgeName}}
	if err := netlink.LinkAdd(bridge); err != nil {
		return fmt.Errorf("making the bridge: %w", err)
	}
	if err := raise(bridgeName, bridgeAddress+"/24"); err != nil {
		return err
	}
	// The API server calls webhooks by their Service address: it needs a route before the proxy's rules see the packet.
	_, services, err := net.ParseCIDR(serviceRange)
	if err != nil {
		return err
	}
	if err := netlink.RouteAdd(&netlink.Route{LinkIndex: bridge.Index, Dst: services}); err != nil {
		return fmt.Errorf("making the route to the Services: %w", err)
	}
	// The second makes answers between pods of one bridge pass the rules that undo the Service's address.
	for _, setting := range []string{"net/ipv4/ip_forward", "net/bridge/bridge-nf-call-iptables"} {
		if err := os.WriteFile("/proc/sys/"+setting, []byte("1"), 0o644); err != nil {
			return fmt.Errorf("setting %s: %w", setting, err)
		}
	}
	return nil
}

func raise(name, address string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("finding the link %s: %w", name, err)
	}
	if address != "" {
		parsed, err := netlink.ParseAddr(address)
		if err != nil {
			return err
		}
		if err := netlink.AddrAdd(link, parsed); err != nil {
			return fmt.Errorf("giving %s the address %s: %w", name, address, err)
		}
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("raising the link %s: %w", name, err)
	}
	return nil
}
