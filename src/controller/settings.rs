//! What the operator was started with.
//! Filled by `cli.rs`; read once. Must not read the environment.

use std::net::SocketAddr;
use std::time::Duration;

use crate::build::PodSettings;

#[derive(Clone, Debug)]
pub struct Settings {
    /// Namespaces that are watched; empty: all.
    pub namespaces: Vec<String>,
    /// Passes at the same time, per kind and watched scope.
    pub concurrency: u16,
    pub pods: PodSettings,
    pub lease: LeaseSettings,
    /// Address of `/livez`, `/readyz`, `/metrics`.
    pub listen: SocketAddr,
    /// Name of this pod, for events and the lease.
    pub instance: String,
    /// Lets http and prometheus checks reach this machine itself: for an operator that runs outside its cluster.
    pub checks_may_reach_loopback: bool,
}

#[derive(Clone, Debug)]
pub struct LeaseSettings {
    pub namespace: String,
    pub name: String,
    /// Unique to this process.
    pub identity: String,
    /// How long others wait before they take a lease that is not renewed.
    pub duration: Duration,
    /// How long the holder tries to renew before it gives up; shorter than `duration`.
    pub renew_deadline: Duration,
    /// Pause between two tries.
    pub retry: Duration,
}

impl LeaseSettings {
    pub fn new(namespace: String, name: String, identity: String) -> Self {
        Self {
            namespace,
            name,
            identity,
            duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry: Duration::from_secs(2),
        }
    }
}
