//! One file per step: each has `run(&Job, …)` and ends with a report, or with an error that tells the exit code.

pub mod backup;
pub mod check;
pub mod cohort;
pub mod copy;
pub mod evidence;
pub mod pairs;
pub mod references;
pub mod resume;
pub mod snapshot;
pub mod validate;
pub mod verify_backup;
