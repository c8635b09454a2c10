//! One file per step: each has `run(&Job, …)` and ends with a report, or with an error that tells the exit code.
