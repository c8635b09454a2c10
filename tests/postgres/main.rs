//! The data plane against real PostgreSQL servers: `cargo test --test postgres`. One module per area.

mod assess;
mod backup;
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
mod select;
mod server;
