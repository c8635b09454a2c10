//! Godwit moves customer data from one system to another, cohort by cohort, and can go back.
//!
//! The rooms, and who may name whom:
//! - [`api`]: the public contract: kinds, conditions, reasons, labels. Knows no other room.
//! - [`contract`]: what passes between the operator and its Jobs. Knows serde only.
//! - [`plan`]: what should happen next. Pure: no client, no clock, no environment. Names `api` and `contract`.
//! - [`build`]: a decision becomes Kubernetes objects. Pure. Names `api`, `contract` and the types of `plan`.
//! - [`controller`]: the only room with a Kubernetes client: observe, record, perform.
//! - [`worker`]: the data plane inside a Job. Names `contract` only.
//! - [`mod@reference`]: the reference pages, made from the constants of `api`, `plan` and `contract`.
//! - [`cli`]: the only reader of flags and environment; [`server`], [`readiness`], [`metrics`], [`telemetry`] serve the operator.
//!
//! `tests/rooms_do_not_leak.rs` keeps the arrows.

pub mod api;
pub mod build;
pub mod cli;
pub mod contract;
pub mod controller;
pub mod metrics;
pub mod plan;
pub mod readiness;
pub mod reference;
pub mod server;
pub mod telemetry;
pub mod worker;
