//! What passes between the operator and a Job: the input, the report, progress lines and exit codes.
//! Written by `build/` and read by `worker/` (input), written by `worker/` and read by `controller/` (everything else).
//! Public: custom images follow it too. Must know serde only: no Kubernetes, no database.

mod input;
mod report;

use serde::{Deserialize, Serialize};

pub use input::{
    CheckInput, Dataset, EvidenceRef, Identity, KeyStrategy, OwnerPath, QueryPair, S3Storage, Selection, StepInput,
    Storage, Task,
};
pub use report::{Finding, Progress, ProgressLine, Report, ReportResult, Severity};

/// Version of the input and of the report.
pub const VERSION: u32 = 1;

/// Environment variable that holds a [`StepInput`] as JSON.
pub const STEP_ENV: &str = "GODWIT_STEP";
/// Connection URI of the source database (from a Secret, only in Jobs that need it).
pub const SOURCE_URI_ENV: &str = "GODWIT_SOURCE_URI";
/// Connection URI of the target database.
pub const TARGET_URI_ENV: &str = "GODWIT_TARGET_URI";
/// Where the report is written: the container's termination message path.
pub const TERMINATION_PATH_ENV: &str = "GODWIT_TERMINATION_PATH";
/// Default of [`TERMINATION_PATH_ENV`].
pub const TERMINATION_PATH: &str = "/dev/termination-log";
/// Folder where the backup volume is mounted.
pub const STORAGE_MOUNT: &str = "/var/lib/godwit/storage";
/// Folder below which each backup include (a ConfigMap) is mounted, by name.
pub const INCLUDE_MOUNT: &str = "/var/lib/godwit/include";
/// Writable scratch space (an `emptyDir`), used by the sandbox database.
pub const SCRATCH_MOUNT: &str = "/var/lib/godwit/scratch";

/// Largest termination message that Kubernetes keeps for one container, in bytes.
pub const MAX_REPORT_BYTES: usize = 4096;

/// Codes of findings that the operator tells apart; every other code is for people alone.
pub mod code {
    /// A cohort's selection means no customer that is free.
    pub const SELECTION_EMPTY: &str = "SelectionEmpty";
    /// A cohort names customers of another one.
    pub const COHORT_OVERLAP: &str = "CohortOverlap";
    /// A cohort names keys of no customer.
    pub const KEYS_UNKNOWN: &str = "KeysUnknown";
    /// The source runs out of the keys that are reserved for it, or has.
    pub const SEQUENCE_RESERVE_SPENT: &str = "SequenceReserveSpent";
    /// Finalize found customers of the source.
    pub const STILL_ON_SOURCE: &str = "StillOnSource";
    /// The two ledgers do not tell the same.
    pub const LEDGERS_DISAGREE: &str = "LedgersDisagree";
    /// A fence of ours is not in force.
    pub const FENCE_DOWN: &str = "FenceDown";
    /// With these Finalize refuses before it changes anything.
    pub const NOT_FINALIZED: [&str; 3] = [STILL_ON_SOURCE, LEDGERS_DISAGREE, FENCE_DOWN];
}

/// Exit codes of a Job. Any other code, and a killed process, means "try again".
pub mod exit {
    /// The step is done and its report is durable.
    pub const DONE: i32 = 0;
    /// The data differs from what it must be: permanent, never retried.
    pub const DATA_DIFFERS: i32 = 65;
    /// An input (table, file, evidence) is missing: permanent.
    pub const INPUT_MISSING: i32 = 66;
    /// Try again: a connection broke, a lock was not granted, a newer attempt took over.
    pub const TRY_AGAIN: i32 = 75;
    /// The database or the storage refused permission: permanent.
    pub const NOT_PERMITTED: i32 = 77;
    /// The input is unusable (bad URI, bad SQL, bad configuration): permanent.
    pub const MISCONFIGURED: i32 = 78;

    /// The codes after which a retry with the same input is pointless.
    pub const PERMANENT: [i32; 4] = [DATA_DIFFERS, INPUT_MISSING, NOT_PERMITTED, MISCONFIGURED];
}

/// Which of the two systems.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Side {
    Source,
    Target,
}

/// The side that may write a cohort; `None` while it is switching.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Owner {
    Source,
    Target,
    None,
}
