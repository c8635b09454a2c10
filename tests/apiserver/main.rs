//! The operator against a real etcd, API server and controller-manager; pods are finished by the tests.
//! One cluster serves the tests that run at the same time and is removed with the last of them.

#![allow(clippy::unwrap_used, clippy::match_wild_err_arm, reason = "a test ends where an expectation is broken")]

mod away;
mod bad_jobs;
mod cluster;
mod conditions;
mod conflict;
mod crash;
mod gate;
mod ground;
mod hazards;
mod kubelet;
mod leader;
mod life;
mod line;
mod pod_end;
mod recreated;
mod refused;
mod world;
