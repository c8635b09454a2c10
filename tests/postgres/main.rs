//! The data plane against real PostgreSQL servers: `cargo test --test postgres`. One module per area.

#![allow(
    clippy::cast_possible_wrap,
    clippy::similar_names,
    clippy::explicit_counter_loop,
    reason = "small numbers and local names"
)]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]
#![allow(clippy::large_futures, reason = "no stack here is small")]

mod assess;
mod backup;
mod bad_input;
mod bare;
mod base;
mod check;
mod ending;
mod fence;
mod job;
mod moving;
mod moving_faults;
mod moving_validation;
mod prepare;
mod proxy;
mod rights;
mod select;
#[allow(dead_code, reason = "shared with tests/faults")]
mod server;
mod sieve;
