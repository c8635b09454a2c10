//! Faults of the data plane, against real PostgreSQL servers, with the worker as the process that a Job starts.
//! `cargo test --test faults -- --nocapture` tells the figures by step. One module per kind of fault.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]
#![allow(clippy::print_stdout, reason = "figures are for whoever asks for them")]
#![allow(clippy::large_futures, reason = "no stack here is small")]

mod case;
mod connections;
mod crm;
mod frames;
mod kills;
mod life;
mod pod;
mod prints;
mod random;
mod repetition;
mod rivals;
#[allow(dead_code, reason = "shared with tests/postgres")]
#[path = "../postgres/server.rs"]
mod server;
mod wire;
mod world;
