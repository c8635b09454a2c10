//! What a Job is told: the task and all that it needs beside its secrets.
//! Written by `build/`, read by `worker/`.

use serde::{Deserialize, Serialize};

use super::Side;

/// Everything a worker needs beside its secrets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StepInput {
    /// [`super::VERSION`].
    pub v: u32,
    pub migration: Identity,
    /// Absent for the steps of the migration itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cohort: Option<Identity>,
    /// Rises with every Job attempt of the subject (cohort or migration) over its whole life; the fencing token.
    pub attempt: i64,
    /// The ownership epoch that the operator last saw in a report of this subject; 0 before the first.
    pub epoch: i64,
    pub dataset: Dataset,
    pub storage: Storage,
    pub task: Task,
}

/// What a check's own container finds in [`super::STEP_ENV`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckInput {
    /// [`super::VERSION`].
    pub v: u32,
    pub migration: Identity,
    /// Absent for a check of the migration itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cohort: Option<Identity>,
    /// As in [`StepInput`].
    pub attempt: i64,
    /// As in [`StepInput`].
    pub epoch: i64,
    /// The check's name.
    pub check: String,
}

/// A Kubernetes object, by the three things that identify it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    pub namespace: String,
    pub name: String,
    pub uid: String,
}

/// Which rows belong to the migration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Dataset {
    /// The root table as `schema.table`; one row is one customer.
    pub root_table: String,
    /// The root table's key column.
    pub root_key: String,
    /// Patterns `schema.table` with `*`; empty: every table that reaches the root by foreign keys, and what those reference.
    #[serde(default)]
    pub include: Vec<String>,
    /// Patterns taken out again.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// Tables copied whole and shared by all customers.
    #[serde(default)]
    pub reference: Vec<String>,
    /// Which foreign key decides the owner where several lead to a customer.
    #[serde(default)]
    pub owners: Vec<OwnerPath>,
    #[serde(default)]
    pub keys: KeyStrategy,
}

/// The foreign key (named by its columns) that decides which customer a row of `table` belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OwnerPath {
    pub table: String,
    pub via: Vec<String>,
}

/// How both sides draw new keys without meeting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyStrategy {
    /// The target starts above a range reserved for the source, sized from the source's growth.
    #[default]
    Gap,
    /// The source keeps its parity, the target draws the other one.
    Parity,
    /// Keys do not come from sequences, or the two sides cannot meet.
    None,
}

/// Where backups and evidence live.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Storage {
    /// A folder in the container (a mounted volume).
    Path(String),
    /// An S3 bucket; credentials come as `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`.
    S3(S3Storage),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct S3Storage {
    pub bucket: String,
    #[serde(default)]
    pub prefix: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
}

/// A stored result that a later step builds on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EvidenceRef {
    /// Path of the file below the storage root, as reported in `evidenceURI`.
    pub uri: String,
    /// `sha256:…` of that file.
    pub digest: String,
}

/// What the Job is to do, with what only this step needs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Task {
    // of the migration
    Assess {},
    Backup {
        includes: Vec<String>,
    },
    VerifyBackup {
        backup: EvidenceRef,
    },
    Prepare {},
    Finalize {},
    /// The migration's way back, after its cohorts are back: the target as it was before Prepare.
    Reset {},
    /// Deletion: fences and ledger are removed from both databases; no customer row is touched.
    Cleanup {},
    // of a cohort
    Select {
        selection: Selection,
    },
    Copy {},
    Validate {
        checks: Vec<QueryPair>,
    },
    Cutover {
        checks: Vec<QueryPair>,
    },
    Discard {},
    Freeze {},
    Return {},
    Verify {},
    Reopen {},
    // of a check
    SqlCheck {
        side: Side,
        query: String,
        timeout_seconds: u32,
    },
    /// Integrity of the cohort's rows on the side that owns them.
    IntegrityCheck {},
}

impl Task {
    /// The step's name as `godwit worker <name>`, in labels and in Job names.
    pub fn name(&self) -> &'static str {
        match self {
            Task::Assess {} => "assess",
            Task::Backup { .. } => "backup",
            Task::VerifyBackup { .. } => "verify-backup",
            Task::Prepare {} => "prepare",
            Task::Finalize {} => "finalize",
            Task::Reset {} => "reset",
            Task::Cleanup {} => "cleanup",
            Task::Select { .. } => "select",
            Task::Copy {} => "copy",
            Task::Validate { .. } => "validate",
            Task::Cutover { .. } => "cutover",
            Task::Discard {} => "discard",
            Task::Freeze {} => "freeze",
            Task::Return {} => "return",
            Task::Verify {} => "verify",
            Task::Reopen {} => "reopen",
            Task::SqlCheck { .. } => "sql-check",
            Task::IntegrityCheck {} => "integrity-check",
        }
    }
}

/// Which customers a cohort takes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Selection {
    /// Share of all customers, in percent, 0 < p <= 100; whole groups, lowest risk first when `risk_by` is given.
    Percent {
        percent: f64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        risk_by: Option<String>,
    },
    /// An SQL condition over the root table, whose alias is `customer`.
    Where(String),
    /// A query on the source that returns the keys, one column.
    KeysFrom(String),
    /// Every customer that is in no cohort yet.
    Remainder {},
}

/// Two queries, one a side, whose single numbers must agree within `tolerance`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QueryPair {
    pub name: String,
    pub source: String,
    pub target: String,
    /// Largest accepted absolute difference, a decimal number.
    pub tolerance: String,
}
