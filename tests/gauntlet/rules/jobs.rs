//! Rules about Jobs: what must be recorded before one is created, and that there is one of each.

use super::history::{History, JobState, is_check, is_placeholder, owner_of};
use crate::audit::Event;

/// The operator's accepted create of a Job that does something.
fn created(event: &Event) -> bool {
    event.operator().is_some() && event.is("create", "jobs", "") && !is_placeholder(event)
}

/// TR1: no Job that writes to the target before `BackupVerified=True` was recorded.
pub fn nothing_is_written_before_a_verified_backup(history: &History, event: &Event) -> Option<String> {
    if !created(event) || !["prepare", "copy", "cutover"].contains(&event.label("step")) {
        return None;
    }
    let migration = ("migrations".to_owned(), event.label("migration").to_owned());
    let conditions = history.status(&migration)["conditions"].as_array();
    let verified =
        conditions.into_iter().flatten().any(|one| one["type"] == "BackupVerified" && one["status"] == "True");
    (!verified).then(|| format!("Job {} was created before a verified backup was recorded", event.name))
}

/// TR3: the recorded status names step and attempt before the Job is created.
pub fn intent_comes_first(history: &History, event: &Event) -> Option<String> {
    if !created(event) {
        return None;
    }
    let status = history.status(&owner_of(event));
    let of_step = &status["step"]["job"];
    let of_checks = status["checks"].as_array().into_iter().flatten().map(|check| &check["job"]);
    let named = std::iter::once(of_step).chain(of_checks).any(|job| {
        job["name"] == event.name
            && job["attempt"].as_i64().is_some_and(|attempt| event.label("attempt").parse() == Ok(attempt))
    });
    (!named).then(|| format!("Job {} was created, but the recorded status names {}", event.name, of_step["name"]))
}

/// TR4: one Job per owner, step and attempt; no name ever twice.
pub fn one_job_per_attempt(history: &History, event: &Event) -> Option<String> {
    if !event.is("create", "jobs", "") || event.operator().is_none() {
        return None;
    }
    if history.jobs.contains_key(&event.name) {
        return Some(format!("the name {} was used twice", event.name));
    }
    let attempt =
        (event.label("owner-uid").to_owned(), event.label("step").to_owned(), event.label("attempt").to_owned());
    let known = history.attempts.get(&attempt).filter(|_| !is_placeholder(event))?;
    Some(format!("Jobs {known} and {} are the same attempt", event.name))
}

/// TR5: never two unfinished Jobs that write for one owner.
pub fn one_writer_at_a_time(history: &History, event: &Event) -> Option<String> {
    if !created(event) || is_check(event.label("step")) {
        return None;
    }
    let owner = owner_of(event);
    let unfinished = |state: JobState| !matches!(state, JobState::Ended | JobState::Gone);
    let rival = history.jobs.iter().find(|(name, job)| {
        **name != event.name && job.owner == owner && !job.placeholder && !is_check(&job.step) && unfinished(job.state)
    });
    rival.map(|(name, job)| format!("Job {} was created while {name} was {:?}", event.name, job.state))
}
