//! What the API definitions promise, shown on a real API server: each rule with an accepted and a refused case, defaults,
//! columns, names, strict fields, the largest object, every manifest of `examples/` and of the guide.
//! `GODWIT_CLUSTER_TOOL` names the tool that brings the control plane up (default: `target/cluster`); kubectl is on the PATH.

#![allow(
    clippy::needless_pass_by_value,
    clippy::too_many_lines,
    clippy::cast_possible_truncation,
    reason = "tables of cases, written to be read"
)]
#![allow(clippy::unwrap_used, reason = "a test ends where an expectation is broken")]

mod approval;
mod case;
mod client_side;
#[path = "../apiserver/cluster.rs"]
#[allow(dead_code, reason = "the API-server tests share a cluster without definitions")]
mod cluster;
mod cohort;
mod manifests;
mod migration;
mod objects;
mod reading;
mod schema;
mod server;
