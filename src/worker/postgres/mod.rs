//! PostgreSQL, 13 and later: sessions, catalogue, ledger, fence and what moves rows.
//! Used by `worker::steps`. Must not know Kubernetes, nor read the environment.

pub mod catalog;
pub mod fence;
mod fence_sql;
pub mod identifier;
pub mod ledger;
pub mod model;
pub mod scope;
pub mod session;
pub mod tls;
pub mod token;
