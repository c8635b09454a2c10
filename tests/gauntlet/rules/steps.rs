//! Rules about the steps that statuses record: what must be true before one ends or begins.

use serde_json::Value;

use super::history::{History, JobState, Subject, recorded};
use crate::audit::Event;

const FORWARD: [&str; 13] = [
    "Assess",
    "Backup",
    "VerifyBackup",
    "Prepare",
    "Move",
    "Finalize",
    "Completed",
    "Pending",
    "Select",
    "Copy",
    "Validate",
    "Cutover",
    "Soak",
];

/// A change of status: the subject, its status before and after.
fn change<'a>(history: &'a History, event: &'a Event) -> Option<(Subject, &'a Value, &'a Value)> {
    let subject = recorded(event)?;
    let before = history.status(&subject);
    Some((subject, before, &event.body["status"]))
}

fn step(status: &Value) -> &str {
    status["step"]["name"].as_str().unwrap_or_default()
}

fn is_backward(status: &Value) -> bool {
    let step = step(status);
    !FORWARD.contains(&step) && !["", "Done", "Cleanup"].contains(&step)
}

/// An attempt of this step is recorded that was not recorded before.
fn begins(before: &Value, after: &Value, name: &str) -> bool {
    step(after) == name
        && after["step"]["job"].is_object()
        && before["step"]["job"]["name"] != after["step"]["job"]["name"]
}

/// TR6: a step ends only after `Complete` or `Failed`, never on the first condition of a pair; or its Job was deleted, or
/// its name occupied.
pub fn a_step_ends_after_its_job(history: &History, event: &Event) -> Option<String> {
    let (subject, before, after) = change(history, event)?;
    let name = before["step"]["job"]["name"].as_str()?;
    if after["step"]["job"]["name"] == name {
        return None;
    }
    let job = history.jobs.get(name)?;
    let over = job.placeholder || !matches!(job.state, JobState::Running | JobState::Decided);
    (!over).then(|| format!("{} {} left {} while Job {name} was {:?}", subject.0, subject.1, step(before), job.state))
}

/// TR7: a gated step begins only while its gates are open. Only conditions of pods can be followed here.
pub fn gates_are_open(history: &History, event: &Event) -> Option<String> {
    let (subject, before, after) = change(history, event)?;
    let gates = history.spec["gates"].as_array()?;
    let begun = ["Copy", "Cutover", "Finalize"].into_iter().find(|step| begins(before, after, step))?;
    let gates =
        gates.iter().filter(|gate| gate["before"].as_array().is_some_and(|steps| steps.iter().any(|one| one == begun)));
    for gate in gates {
        let checks = history.spec["checks"].as_array()?;
        let source = &checks.iter().find(|check| check["name"] == gate["check"])?["condition"];
        if source["kind"] != "Pod" {
            continue;
        }
        let text = |key: &str| source[key].as_str().unwrap_or_default().to_owned();
        let state = history.conditions.get(&(text("name"), text("type"))).map_or("unknown", String::as_str);
        let wanted = source["status"].as_str().unwrap_or("True");
        if state != wanted {
            return Some(format!("{} began {begun} while gate {} was {state}", subject.1, gate["check"]));
        }
    }
    None
}

/// TR8: what waits for an approval begins only with one of exactly the recorded digest.
pub fn approvals_are_there(history: &History, event: &Event) -> Option<String> {
    let (subject, before, after) = change(history, event)?;
    let required = history.spec["approvals"].as_array()?;
    let begun = ["Cutover", "Finalize"].into_iter().find(|step| begins(before, after, step))?;
    let needed = required.iter().find(|one| one["before"] == begun)?["required"].as_u64().unwrap_or(1);
    let given = history.approvals.iter().filter(|approval| {
        approval["subject"]["name"] == subject.1.as_str()
            && approval["before"] == begun
            && approval["digest"] == after["plan"]["digest"]
            && approval["decision"] == "Approve"
    });
    let given: std::collections::BTreeSet<&str> = given.filter_map(|approval| approval["by"].as_str()).collect();
    ((given.len() as u64) < needed).then(|| {
        format!("{} began {begun} with {} of {needed} approvals of {}", subject.1, given.len(), after["plan"]["digest"])
    })
}

/// TR9: no step backwards without a recorded rollback, none forwards while one is under way.
pub fn back_only_with_a_rollback(history: &History, event: &Event) -> Option<String> {
    let (subject, before, after) = change(history, event)?;
    let (from, to) = (step(before), step(after));
    if is_backward(after) && !after["rollback"].is_object() {
        return Some(format!("{} went from {from} to {to} without a recorded rollback", subject.1));
    }
    if is_backward(before) && from != "RolledBack" && !is_backward(after) && to != "Cleanup" {
        return Some(format!("{} went forward from {from} to {to} while it was going back", subject.1));
    }
    let place = |step: &str| FORWARD.iter().position(|known| *known == step);
    let (was, is) = (place(from)?, place(to)?);
    // The list has the Migration's steps first, then the Cohort's; only one's own are compared.
    let repeats = is < was && !(from == "Move" && to == "Backup");
    (repeats && !before.is_null()).then(|| format!("{} went from {from} back to {to} without a rollback", subject.1))
}

/// TR12: generation, epoch and attempts never fall.
pub fn counters_never_fall(history: &History, event: &Event) -> Option<String> {
    let (subject, before, after) = change(history, event)?;
    ["observedGeneration", "attempts", "epoch"].into_iter().find_map(|counter| {
        let (was, is) = (before[counter].as_i64()?, after[counter].as_i64().unwrap_or_default());
        (is < was).then(|| format!("{counter} of {} fell from {was} to {is}", subject.1))
    })
}

/// TR12: a terminal outcome is left only by a retry or a new generation; a cohort also when its Migration starts over.
pub fn ends_are_ends(history: &History, event: &Event) -> Option<String> {
    let (subject, before, after) = change(history, event)?;
    let (from, to) = (step(before), step(after));
    if !["Completed", "RolledBack"].contains(&from) || from == to || to == "Cleanup" {
        return None;
    }
    let retries = |status: &Value| {
        let handled = status["lastHandled"].as_array().cloned().unwrap_or_default();
        handled.into_iter().find(|one| one["verb"] == "retry")
    };
    let new_generation = before["observedGeneration"] != after["observedGeneration"];
    let ordered = before["rollback"]["id"].as_str().is_some_and(|id| id.starts_with("migration-"));
    let left = retries(before) != retries(after) || new_generation || ordered;
    (!left).then(|| format!("{} left {from} for {to} without a retry or a new generation", subject.1))
}
