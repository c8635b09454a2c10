//! What passes between the operator and a Job: the input, the report, progress lines and exit codes.
//! Written by `build/` and read by `worker/` (input), written by `worker/` and read by `controller/` (everything else).
//! Public: custom images follow it too. Must know serde only: no Kubernetes, no database.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

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

/// Exit codes of a Job. Any other code, and a killed process, means "try again".
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
}

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

/// Everything a worker needs beside its secrets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StepInput {
    /// [`VERSION`].
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

/// What a check's own container finds in [`STEP_ENV`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckInput {
    /// [`VERSION`].
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

/// What a Job leaves at its termination path: at most [`MAX_REPORT_BYTES`] of JSON, no customer data.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    pub v: u32,
    pub result: ReportResult,
    /// Plain numbers by name, such as `rows`, `customers`, `differences`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub counts: BTreeMap<String, i64>,
    /// `sha256:…` of the evidence file, or of the result itself where there is no file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The evidence file, below the storage root.
    #[serde(default, rename = "evidenceURI", skip_serializing_if = "Option::is_none")]
    pub evidence_uri: Option<String>,
    /// Milliseconds by name, such as `pause`, `drain`, `copy`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub timings: BTreeMap<String, i64>,
    /// What was found, worst first. Names of schema objects only, never values.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<Finding>,
    /// Findings that did not fit; they are in the evidence file.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub findings_omitted: u32,
    /// A check's measurement.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<f64>,
    /// The subject's ownership after this step, as the ledger has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<i64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReportResult {
    Pass,
    /// The step ran to its end and the answer is no.
    #[default]
    Fail,
    /// The step could not come to an answer.
    Error,
}

/// One thing that a person may have to act on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    pub severity: Severity,
    /// `CamelCase`, stable, such as `PrimaryKeyMissing`.
    pub code: String,
    /// The schema object concerned, such as `public.deal_contact`; never a key or a value.
    pub object: String,
    /// What is wrong and what to do about it, in one sentence or two.
    pub message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Severity {
    /// The step does not pass with it.
    Blocker,
    Warning,
    Info,
}

/// A line of standard output that the operator shows while the Job runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgressLine {
    pub progress: Progress,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// `rows`, `bytes` or `tables`.
    pub unit: String,
    pub done: u64,
    /// May change while the step learns more; 0 when not known.
    pub total: u64,
}

impl Report {
    /// A report without findings.
    pub fn new(result: ReportResult) -> Self {
        Self { v: VERSION, result, ..Self::default() }
    }

    /// The report as JSON that fits [`MAX_REPORT_BYTES`]: findings are dropped from the end, and counted, until it does.
    pub fn to_termination_message(&self) -> String {
        let mut report = self.clone();
        report.findings.sort_by_key(|finding| finding.severity);
        loop {
            let text = serde_json::to_string(&report).unwrap_or_default();
            if text.len() <= MAX_REPORT_BYTES || report.findings.pop().is_none() {
                return text;
            }
            report.findings_omitted += 1;
        }
    }

    /// Reads a termination message; `None` when it is not a report of a version we know.
    pub fn from_termination_message(text: &str) -> Option<Self> {
        serde_json::from_str::<Self>(text).ok().filter(|report| report.v == VERSION)
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature serde asks for")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_with_too_many_findings_keeps_the_worst_and_counts_the_rest() {
        let mut report = Report::new(ReportResult::Fail);
        for n in 0..200 {
            report.findings.push(Finding {
                severity: if n == 199 { Severity::Blocker } else { Severity::Info },
                code: "PrimaryKeyMissing".into(),
                object: format!("public.table_{n}"),
                message: "The table has no primary key; declare one.".into(),
            });
        }
        let text = report.to_termination_message();
        let read = Report::from_termination_message(&text).unwrap();
        assert!(text.len() <= MAX_REPORT_BYTES);
        assert_eq!(read.findings[0].object, "public.table_199");
        assert_eq!(read.findings.len() + read.findings_omitted as usize, 200);
    }

    #[test]
    fn a_message_of_another_version_is_not_a_report() {
        assert_eq!(Report::from_termination_message(r#"{"v":2,"result":"pass"}"#), None);
        assert_eq!(Report::from_termination_message("Killed"), None);
    }
}
