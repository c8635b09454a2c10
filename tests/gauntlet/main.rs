//! The gauntlet: the operator as it is shipped, a real API server, and a proxy between them that disturbs at chosen
//! writes. `docs/reliability.md` says what is injected and what is asked; `settings.rs` what can be set.
//!
//! `cargo test --test gauntlet` runs a seeded sample; `GODWIT_GAUNTLET=full` sweeps every write and can be resumed.

#![allow(clippy::unwrap_used, reason = "a test ends where an expectation is broken")]
#![allow(clippy::print_stdout, reason = "a sweep of an hour tells how far it is")]

mod audit;
mod board;
mod campaign;
#[path = "../apiserver/cluster.rs"]
#[allow(dead_code, reason = "the API-server tests share one cluster; a batch has its own")]
mod cluster;
mod draw;
mod facts;
#[path = "../apiserver/ground.rs"]
mod ground;
mod kubelet;
mod operator;
mod plan;
#[path = "../apiserver/pod_end.rs"]
mod pod_end;
mod proxy;
mod rules;
mod run;
mod settings;
mod stage;
mod subject;
mod sweep;
mod traffic;
mod watches;
mod wire;

#[test]
fn whatever_is_disturbed_the_migration_ends_as_if_nothing_had_happened() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let failed = sweep::run();
    assert!(failed.is_empty(), "{} plans failed: {}", failed.len(), failed.join(", "));
}
