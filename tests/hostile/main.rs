//! Hostile schemas, hostile data and injected corruption against real PostgreSQL servers: `cargo test --test hostile`.
//! One module per area; servers and the running of steps are those of the PostgreSQL tier.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]
#![allow(clippy::large_futures, reason = "no stack here is small")]

mod apps;
mod backup_damage;
mod base;
mod corruption;
mod encodings;
mod journey;
mod names;
mod oracle;
mod refusals;
mod settings;
mod shapes;
mod triggers;
mod types;

#[path = "../postgres/job.rs"]
#[allow(dead_code, reason = "shared with the PostgreSQL tier, which uses the rest")]
mod job;
#[path = "../postgres/server.rs"]
#[allow(dead_code, reason = "shared with the PostgreSQL tier, which uses the rest")]
mod server;
