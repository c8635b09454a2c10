//! PostgreSQL, 13 and later: sessions, catalogue, ledger, fence and what moves rows.
//! Used by `worker::steps`. Must not know Kubernetes, nor read the environment.

pub mod agreement;
pub mod baseline;
pub mod catalog;
pub mod closure;
pub mod collision;
pub mod compare;
pub mod dependency;
pub mod difference;
pub mod dump;
pub mod fence;
mod fence_sql;
pub mod group;
pub mod identifier;
pub mod key_map;
pub mod keys;
pub mod landing;
pub mod ledger;
pub mod manifest;
pub mod model;
pub mod partition;
pub mod relay;
pub mod remnant;
pub mod restore;
pub mod restore_point;
pub mod routing_key;
pub mod row;
pub mod sandbox;
pub mod schema;
pub mod scope;
pub mod sequence;
pub mod session;
pub mod soundness;
pub mod split;
pub mod spool;
pub mod tls;
pub mod token;
