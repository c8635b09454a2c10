//! Small words that every step's report is made of.
//! Used by the steps. Must not know what any of them does.

use std::time::Instant;

use crate::contract::{Finding, Severity};

/// Milliseconds since `started`, as reports want them.
pub fn milliseconds(started: Instant) -> i64 {
    i64::try_from(started.elapsed().as_millis()).unwrap_or(i64::MAX)
}

/// A number for a report; reports have signed ones.
pub fn signed(number: impl TryInto<i64>) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}

pub fn finding(
    severity: Severity,
    code: &str,
    object: &(impl ToString + ?Sized),
    message: impl Into<String>,
) -> Finding {
    Finding { severity, code: code.to_owned(), object: object.to_string(), message: message.into() }
}

pub fn blocker(code: &str, object: &(impl ToString + ?Sized), message: impl Into<String>) -> Finding {
    finding(Severity::Blocker, code, object, message)
}

pub fn has_blocker(findings: &[Finding]) -> bool {
    findings.iter().any(|finding| finding.severity == Severity::Blocker)
}
