//! One file per step: each has `run(&Job, …)` and ends with a report, or with an error that tells the exit code.

pub mod assess;
mod audit;
pub mod backup;
pub mod check;
pub mod cohort;
pub mod copy;
pub mod cutover;
pub mod discard;
pub mod evidence;
pub mod freeze;
pub mod newborn;
pub mod pairs;
pub mod prepare;
pub mod references;
pub mod removal;
pub mod reopen;
pub mod reporting;
pub mod resume;
pub mod return_;
pub mod select;
mod selection;
pub mod snapshot;
pub mod validate;
pub mod verify;
pub mod verify_backup;
