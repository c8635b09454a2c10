//! The operator against a real etcd, API server and controller-manager; pods are finished by the tests.
//! One cluster serves the tests that run at the same time and is removed with the last of them.

mod cluster;
mod conflict;
mod crash;
mod gate;
mod hazards;
mod kubelet;
mod leader;
mod life;
mod world;
