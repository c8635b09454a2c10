//! The data plane against real PostgreSQL servers: `cargo test --test postgres`. One module per area.

mod assess;
mod base;
mod ending;
mod fence;
mod job;
mod prepare;
mod select;
mod moving;
mod server;
