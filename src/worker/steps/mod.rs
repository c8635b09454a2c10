//! One file per step: each has `run(&Job, …)` and ends with a report, or with an error that tells the exit code.

pub mod prepare;
pub mod reporting;
pub mod select;
mod selection;
