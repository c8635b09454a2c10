//! The data plane against real PostgreSQL servers: `cargo test --test postgres`. One module per area.

mod backup;
mod base;
mod fence;
mod job;
mod moving;
mod prepare;
mod select;
mod server;
