//! How facts enter a status: set by key, bounded, repetition is a no-op.
//! Used by both decisions. Must never increment what a replay would increment again, and never let customer data in.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::api::names::Verb;
use crate::api::status::{
    Count, Evidence, FindingStatus, HandledCommand, HistoryEntry, MAX_FINDINGS, MAX_HISTORY, ProgressStatus, StepStatus,
};
use crate::contract::{Finding, Progress, Report, Severity};

/// Longest history message, in characters.
const MAX_HISTORY_MESSAGE: usize = 256;
/// Progress is rewritten at most this often, in seconds.
const PROGRESS_INTERVAL: i64 = 10;

/// Text cut to `max` characters.
pub fn bounded(text: &str, max: usize) -> String {
    text.chars().take(max).collect()
}

/// Adds a change of step; the oldest entries fall out.
pub fn note_history(history: &mut Vec<HistoryEntry>, step: &str, message: &str, now: Timestamp) {
    history.push(HistoryEntry {
        time: Time(now),
        step: step.to_owned(),
        message: bounded(message, MAX_HISTORY_MESSAGE),
    });
    let excess = history.len().saturating_sub(MAX_HISTORY);
    history.drain(..excess);
}

/// Sets the evidence of that name.
pub fn put_evidence(all: &mut Vec<Evidence>, evidence: Evidence) {
    all.retain(|other| other.name != evidence.name);
    all.push(evidence);
}

/// The evidence of that name, for whatever plan it was made.
pub fn evidence_named<'a>(all: &'a [Evidence], name: &str) -> Option<&'a Evidence> {
    all.iter().find(|evidence| evidence.name == name)
}

/// The evidence of that name, if it was made for this plan.
pub fn evidence_for<'a>(all: &'a [Evidence], name: &str, plan: &str) -> Option<&'a Evidence> {
    evidence_named(all, name).filter(|evidence| evidence.plan == plan)
}

/// A report as evidence.
pub fn evidence_of(name: &str, report: &Report, plan: &str, now: Timestamp) -> Evidence {
    let counts = |numbers: &std::collections::BTreeMap<String, i64>, max| {
        numbers.iter().take(max).map(|(name, value)| Count { name: bounded(name, 40), value: *value }).collect()
    };
    Evidence {
        name: name.to_owned(),
        digest: report.digest.as_deref().map(|digest| bounded(digest, 80)),
        uri: report.evidence_uri.as_deref().map(|uri| bounded(uri, 512)),
        time: Time(now),
        plan: plan.to_owned(),
        counts: counts(&report.counts, 32),
        millis: counts(&report.timings, 16),
    }
}

/// A number of some evidence.
pub fn count_of(all: &[Evidence], name: &str, count: &str) -> Option<i64> {
    evidence_named(all, name)?.counts.iter().find(|entry| entry.name == count).map(|entry| entry.value)
}

/// Findings as status shows them, worst first.
pub fn findings_of(findings: &[Finding]) -> Vec<FindingStatus> {
    let mut sorted: Vec<&Finding> = findings.iter().collect();
    sorted.sort_by_key(|finding| finding.severity);
    sorted
        .into_iter()
        .take(MAX_FINDINGS)
        .map(|finding| FindingStatus {
            severity: match finding.severity {
                Severity::Blocker => "Blocker",
                Severity::Warning => "Warning",
                Severity::Info => "Info",
            }
            .to_owned(),
            code: bounded(&finding.code, 64),
            object: bounded(&finding.object, 256),
            message: bounded(&finding.message, 512),
        })
        .collect()
}

/// Remembers that a command's text was answered.
pub fn mark_handled(handled: &mut Vec<HandledCommand>, verb: Verb, value: &str) {
    handled.retain(|command| command.verb != verb.as_str());
    handled.push(HandledCommand { verb: verb.as_str().to_owned(), value: bounded(value, 64) });
    handled.sort_by(|a, b| a.verb.cmp(&b.verb));
}

/// Whether a command's text was answered before. Texts are compared for equality: their order means nothing.
pub fn was_handled(handled: &[HandledCommand], verb: Verb, value: &str) -> bool {
    handled.iter().any(|command| command.verb == verb.as_str() && command.value == bounded(value, 64))
}

/// Progress with rate and expected end; unchanged when the last one is too young or nothing moved.
pub fn progress_of(
    before: Option<&ProgressStatus>,
    seen: Option<&Progress>,
    step: &StepStatus,
    now: Timestamp,
) -> Option<ProgressStatus> {
    let Some(seen) = seen else {
        return before.cloned();
    };
    let completed = i64::try_from(seen.done).unwrap_or(i64::MAX);
    let total = i64::try_from(seen.total).unwrap_or(i64::MAX);
    if let Some(before) = before {
        let young = now.as_second() - before.update_time.0.as_second() < PROGRESS_INTERVAL;
        let same = before.completed == completed && before.total == total && before.unit == seen.unit;
        if same || (young && before.unit == seen.unit) {
            return Some(before.clone());
        }
    }
    let elapsed = (now.as_second() - step.start_time.0.as_second()).max(1);
    let rate = completed / elapsed;
    let remaining = total.saturating_sub(completed);
    let end = (rate > 0 && total > 0 && remaining >= 0)
        .then(|| Timestamp::from_second(now.as_second().saturating_add(remaining / rate)).ok())
        .flatten();
    Some(ProgressStatus {
        unit: bounded(&seen.unit, 20),
        total,
        completed,
        rate_per_second: Some(rate),
        estimated_completion_time: end.map(Time),
        update_time: Time(now),
    })
}

/// `63%`; nothing while the total is unknown.
pub fn percent(completed: i64, total: i64) -> Option<String> {
    (total > 0).then(|| format!("{}%", (completed.clamp(0, total)) * 100 / total))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn history_keeps_the_newest_twenty() {
        let mut history = Vec::new();
        for n in 0..25 {
            note_history(&mut history, &format!("step-{n}"), "m", at(n));
        }
        assert_eq!(history.len(), 20);
        assert_eq!(history[0].step, "step-5");
    }

    #[test]
    fn a_command_is_the_same_only_when_its_text_is() {
        let mut handled = Vec::new();
        mark_handled(&mut handled, Verb::Retry, "2026-01-02T00:00:00Z");
        assert!(was_handled(&handled, Verb::Retry, "2026-01-02T00:00:00Z"));
        // An older time is another command all the same: clocks of people differ.
        assert!(!was_handled(&handled, Verb::Retry, "2026-01-01T00:00:00Z"));
        assert!(!was_handled(&handled, Verb::Rollback, "2026-01-02T00:00:00Z"));
    }

    #[test]
    fn progress_has_a_rate_and_an_end_and_is_not_rewritten_every_second() {
        let step = crate::plan::attempt::begin("Copy", at(0));
        let seen = |done| Progress { unit: "rows".into(), done, total: 1000 };
        let first = progress_of(None, Some(&seen(200)), &step, at(10)).unwrap();
        assert_eq!(first.rate_per_second, Some(20));
        assert_eq!(first.estimated_completion_time, Some(Time(at(50))));
        let soon = progress_of(Some(&first), Some(&seen(300)), &step, at(15)).unwrap();
        assert_eq!(soon, first);
        let later = progress_of(Some(&first), Some(&seen(400)), &step, at(20)).unwrap();
        assert_eq!(later.completed, 400);
    }
}
