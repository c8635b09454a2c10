//! The data plane's PostgreSQL.

pub mod row;
pub mod sandbox;
