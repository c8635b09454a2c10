//! The data plane against real PostgreSQL servers: `cargo test --test postgres`. One module per area.

mod backup;
mod base;
mod check;
mod fence;
mod moving;
mod server;
