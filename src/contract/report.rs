//! What a Job says: its report at the end, progress lines on the way.
//! Written by `worker/` and by custom images, read by `controller/`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{MAX_REPORT_BYTES, Owner, VERSION};

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
