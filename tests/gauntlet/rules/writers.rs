//! Rules about who writes: one leader at a time, and only what its role lists.

use super::history::{History, owner_of};
use crate::audit::Event;

/// TR13: after a new leader's first accepted write none of an old one's is accepted, but a status that no new leader has written yet, and
/// the Job that the record names: such a write is one that came in time. See `docs/decisions`, on late writes.
pub fn a_deposed_leader_writes_nothing(history: &History, event: &Event) -> Option<String> {
    let name = event.operator().filter(|_| event.accepted())?;
    let (newest, older) = history.writers.split_last()?;
    let turn = older.iter().position(|old| old == name)?;
    let successors = &history.writers[turn + 1..];
    let came_in_time = match (event.verb.as_str(), event.resource.as_str(), event.subresource.as_str()) {
        ("update", _, "status") => history.last_writer(event).is_none_or(|last| !successors.contains(last)),
        ("create", "jobs", "") => history.status(&owner_of(event))["step"]["job"]["name"] == event.name,
        _ => false,
    };
    (!came_in_time).then(|| {
        format!("{} {}/{} of {name} was accepted after {newest} had written", event.verb, event.resource, event.name)
    })
}

/// TR14: only these, never a spec. Leases and events are not in the log that is read here.
pub fn only_what_the_role_lists(_: &History, event: &Event) -> Option<String> {
    let name = event.operator()?;
    let metadata_only = || event.body.as_object().is_some_and(|body| body.keys().all(|key| key == "metadata"));
    // What a person has to repair, told where no pass could be made.
    let trouble_only = || {
        let told = ["conditions", "phase", "observedGeneration"];
        event.body["status"].as_object().is_some_and(|status| status.keys().all(|key| told.contains(&key.as_str())))
    };
    let allowed = match (event.verb.as_str(), event.resource.as_str(), event.subresource.as_str()) {
        ("create" | "delete", "jobs", "")
        | ("create" | "patch", "configmaps", "")
        | ("update", "migrations" | "cohorts", "status") => true,
        ("patch", "migrations" | "cohorts", "") => metadata_only(),
        ("patch", "migrations" | "cohorts", "status") => trouble_only(),
        _ => false,
    };
    (!allowed).then(|| format!("{name}: {} {}/{} {}", event.verb, event.resource, event.name, event.subresource))
}
