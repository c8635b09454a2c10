//! The data plane inside a Job.

pub mod postgres;
pub mod storage;
