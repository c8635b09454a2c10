//! Rules about what people and triggers want: the stop cord, the way back, the evidence for it.

use super::history::{History, recorded};
use crate::audit::Event;

/// A pass that looked before the cord was pulled may still record what it decided; none takes longer than this, in seconds.
const ONE_PASS: f64 = 15.0;

const BACKWARD: [&str; 6] = ["Discard", "Freeze", "Return", "Verify", "Reopen", "Reset"];

/// TR11: suspended or paused, no new forward Job, but for a cutover that gave no answer: it is brought to its end.
pub fn suspended_means_no_new_step(history: &History, event: &Event) -> Option<String> {
    let subject = recorded(event)?;
    let since = history.suspended.filter(|since| event.received > since + ONE_PASS)?;
    let (before, after) = (history.status(&subject), &event.body["status"]);
    let step = after["step"]["name"].as_str().unwrap_or_default();
    let starts = after["step"]["job"].is_object() && before["step"]["job"]["name"] != after["step"]["job"]["name"];
    let unanswered = step == "Cutover" && before["owner"].as_str().is_some_and(|owner| owner != "Source");
    (starts && !BACKWARD.contains(&step) && !unanswered).then(|| {
        format!("{} started {step} {:.0} s after the migration was suspended", subject.1, event.received - since)
    })
}

/// TR15: what justifies a rollback is recorded with it or before it.
pub fn evidence_before_rollback(history: &History, event: &Event) -> Option<String> {
    let subject = recorded(event)?;
    let after = &event.body["status"];
    let id = after["rollback"]["id"].as_str().filter(|id| id.starts_with("trigger-"))?;
    let has = |status: &serde_json::Value| status["alarm"]["evidence"].as_str().is_some_and(|text| !text.is_empty());
    // A migration goes back for an alarm that one of its cohorts recorded.
    let recorded = has(after) || history.subjects().any(|(_, status)| has(status));
    (!recorded).then(|| format!("{} goes back by {id} without recorded evidence", subject.1))
}

/// TR10: whatever was asked for or decided, the way back reached its end.
pub fn rollbacks_reach_their_end(history: &History) -> Vec<String> {
    let mut unfinished = Vec::new();
    for (subject, status) in history.subjects() {
        let step = status["step"]["name"].as_str().unwrap_or("Pending");
        let closed = subject.0 == "migrations" && ["Finalize", "Completed"].contains(&step);
        let asked = history.asked_back.contains(subject) && status["rollback"].is_null() && !closed;
        if asked {
            unfinished.push(format!("{} was asked to go back and never recorded it", subject.1));
        }
        if status["rollback"].is_object() && step != "RolledBack" {
            unfinished.push(format!("{} has a recorded rollback and ended at {step}", subject.1));
        }
    }
    unfinished
}
