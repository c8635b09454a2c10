//! The effects of a recorded decision: idempotent, in an order that a crash at any point may cut.
//! Called last in a pass. Takes nothing but what was recorded.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::runtime::controller::Action;
use kube::runtime::events::{Event, EventType};
use kube::{Api, ResourceExt};
use serde_json::json;

use super::backoff::jittered;
use super::call::call;
use super::classify::{clipped, controller_uid};
use super::context::Context;
use super::error::{Attempt, Class, Error, is_namespace_terminating};
use super::record::{Kind, Recorded};
use crate::api::MigrationSpec;
use crate::api::names::{FINALIZER, MANAGER_CHILDREN, MANAGER_ROUTING};
use crate::build::job::owner_of;
use crate::build::{JobOrder, Owner, build_job, build_placeholder, build_route_table};
use crate::contract::Identity;
use crate::plan::decision::{Effects, FinalizerChange, JobRequest, Note, RouteTableContent, Wait};

/// A wake-up may be missed for good: this long after a quiet pass the object is looked at all the same.
const SLOW: Duration = Duration::from_secs(600);
const SOON: Duration = Duration::from_millis(300);
/// Longest note that the events API takes, in characters of any width.
const MAX_NOTE: usize = 1000;

/// What the effects of this object need beside the record.
#[derive(Debug)]
pub struct Stage<'a> {
    /// `Migration` or `Cohort`.
    pub kind: &'static str,
    pub identity: Identity,
    /// The Migration's spec; absent when a Cohort's Migration is not there.
    pub spec: Option<&'a MigrationSpec>,
    pub plan_digest: Option<&'a str>,
    pub job_uids: &'a BTreeMap<String, String>,
}

/// Whether the pass may go on to the next effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    Done,
    /// The world differs from what was observed: look again before doing more.
    LookAgain,
}

/// Look again soon: a write came in between.
pub fn look_again() -> Action {
    Action::requeue(jittered(SOON))
}

pub async fn perform<K: Kind>(ctx: &Context, recorded: Recorded<K>, stage: &Stage<'_>) -> Result<Action, Error> {
    let Recorded { object, effects, notes, wait } = recorded;
    let Effects { jobs, abandoned_jobs, route_table, finalizer } = effects;
    // The finalizer comes before anything that would have to be cleaned up, and goes after everything else.
    if finalizer == Some(FinalizerChange::Add)
        && change_finalizer(ctx, &object, FinalizerChange::Add).await? == Effect::LookAgain
    {
        return Ok(look_again());
    }
    for name in &abandoned_jobs {
        unless_terminating(stop_job(ctx, stage, name).await, ())?;
    }
    let mut effect = Effect::Done;
    for request in &jobs {
        if unless_terminating(ensure_job(ctx, stage, request).await, Effect::Done)? == Effect::LookAgain {
            effect = Effect::LookAgain;
        }
    }
    if let Some(content) = &route_table {
        let applied = apply_route_table(ctx, &stage.identity, content).await;
        if unless_terminating(applied, Effect::Done)? == Effect::LookAgain {
            effect = Effect::LookAgain;
        }
    }
    tell(ctx, &object, &notes).await;
    if finalizer == Some(FinalizerChange::Remove)
        && change_finalizer(ctx, &object, FinalizerChange::Remove).await? == Effect::LookAgain
    {
        effect = Effect::LookAgain;
    }
    Ok(match effect {
        Effect::Done => after(wait, ctx.now()),
        Effect::LookAgain => look_again(),
    })
}

/// A namespace that goes away refuses every create. That must not keep the pass from what can still be done, above all from
/// letting the object go; the object's own deletion mark follows and wakes the next pass.
fn unless_terminating<T>(result: Result<T, Error>, refused: T) -> Result<T, Error> {
    match result {
        Err(Error::Request { attempt, source }) if is_namespace_terminating(&source) => {
            tracing::info!(%attempt, "Namespace is being deleted and takes nothing new");
            Ok(refused)
        }
        other => other,
    }
}

/// The next look: when the decision asked for it, and slowly in any case.
fn after(wait: Wait, now: Timestamp) -> Action {
    let asked = match wait {
        Wait::ForChange => SLOW,
        Wait::Until(at) => Duration::try_from(at.duration_since(now)).unwrap_or_default(),
    };
    if asked >= SLOW {
        return Action::requeue(jittered(SLOW));
    }
    // Never at once: a decision that asks for the past must not spin.
    Action::requeue(asked.max(Duration::from_millis(50)))
}

/// Creates the Job. A Job of that name that is ours is the same Job; one that is not is for the next decision to see.
async fn ensure_job(ctx: &Context, stage: &Stage<'_>, request: &JobRequest) -> Result<Effect, Error> {
    let spec = stage.spec.ok_or_else(|| Error::NoMigration { job: request.name.clone() })?;
    let job = build_job(&JobOrder { request, spec, plan_digest: stage.plan_digest, settings: &ctx.settings.pods })?;
    if create_job(ctx, &job).await? {
        tracing::info!(job = request.name, owner = %stage.identity.name, "Created Job");
        return Ok(Effect::Done);
    }
    let api: Api<Job> = Api::namespaced(ctx.client.clone(), &request.migration.namespace);
    let attempt = Attempt::new("get", "jobs", full_name(&stage.identity, &request.name));
    let found = call(attempt, api.get_opt(&request.name)).await?;
    let ours = found.is_some_and(|found| {
        let same = |key: &str| found.labels().get(key) == job.labels().get(key);
        controller_uid(&found) == Some(owner_of(request).identity.uid.as_str())
            && same(crate::api::names::LABEL_STEP)
            && same(crate::api::names::LABEL_ATTEMPT)
    });
    Ok(if ours { Effect::Done } else { Effect::LookAgain })
}

/// False: there is an object of that name already.
async fn create_job(ctx: &Context, job: &Job) -> Result<bool, Error> {
    let namespace = job.namespace().unwrap_or_default();
    let api: Api<Job> = Api::namespaced(ctx.client.clone(), &namespace);
    let params = PostParams { field_manager: Some(MANAGER_CHILDREN.to_owned()), ..PostParams::default() };
    let attempt = Attempt::new("create", "jobs", format!("{namespace}/{}", job.name_any()));
    match call(attempt, api.create(&params, job)).await {
        Ok(_) => Ok(true),
        Err(error) if error.class() == Class::Conflict => Ok(false),
        Err(error) => Err(error),
    }
}

/// Ends an attempt that was given up: its pods are gone before the Job is. One that was never seen may still be on its way
/// to the API server, so its name is occupied instead.
async fn stop_job(ctx: &Context, stage: &Stage<'_>, name: &str) -> Result<(), Error> {
    let Some(uid) = stage.job_uids.get(name) else {
        let owner = Owner { kind: stage.kind, identity: &stage.identity };
        let placeholder = build_placeholder(&owner, name, &ctx.settings.pods);
        return create_job(ctx, &placeholder).await.map(|_| ());
    };
    let params =
        DeleteParams::foreground().preconditions(Preconditions { uid: Some(uid.clone()), resource_version: None });
    let api: Api<Job> = Api::namespaced(ctx.client.clone(), &stage.identity.namespace);
    let attempt = Attempt::new("delete", "jobs", full_name(&stage.identity, name));
    match call(attempt, api.delete(name, &params)).await {
        Ok(_) => {
            tracing::info!(job = name, owner = %stage.identity.name, "Deleted Job");
            Ok(())
        }
        // Gone, or another object by now: either way not ours to delete.
        Err(error) if is_gone(&error) || error.class() == Class::Conflict => Ok(()),
        Err(error) => Err(error),
    }
}

fn is_gone(error: &Error) -> bool {
    matches!(error, Error::Request { source, .. }
        if matches!(&**source, kube::Error::Api(status) if status.is_not_found()))
}

fn full_name(identity: &Identity, name: &str) -> String {
    format!("{}/{name}", identity.namespace)
}

/// Forced: the key `routes.json` is ours by the Migration's spec, and applications that read a stale table are refused by the
/// fence until it is right. Other keys of the `ConfigMap` stay with whoever wrote them. Only the version that was observed is
/// replaced, and only an absent table is created: an apply alone would let a deposed leader bring an old table back.
async fn apply_route_table(ctx: &Context, migration: &Identity, content: &RouteTableContent) -> Result<Effect, Error> {
    let table = build_route_table(migration, content);
    let api: Api<ConfigMap> = Api::namespaced(ctx.client.clone(), &migration.namespace);
    let name = full_name(migration, &content.config_map);
    let written = if content.replaces.is_some() {
        let params = PatchParams::apply(MANAGER_ROUTING).force();
        let patch = Patch::Apply(&table);
        call(Attempt::new("patch", "configmaps", name), api.patch(&content.config_map, &params, &patch)).await
    } else {
        let params = PostParams { field_manager: Some(MANAGER_ROUTING.to_owned()), ..PostParams::default() };
        call(Attempt::new("create", "configmaps", name), api.create(&params, &table)).await
    };
    match written {
        Ok(_) => Ok(Effect::Done),
        Err(error) if is_gone(&error) || error.class() == Class::Conflict => Ok(Effect::LookAgain),
        Err(error) => Err(error),
    }
}

async fn change_finalizer<K: Kind>(ctx: &Context, object: &K, change: FinalizerChange) -> Result<Effect, Error> {
    let mut finalizers: Vec<String> = object.finalizers().to_vec();
    finalizers.retain(|name| name != FINALIZER);
    if change == FinalizerChange::Add {
        finalizers.push(FINALIZER.to_owned());
    }
    // The version makes this a compare-and-set: another party's finalizer is never overwritten.
    let patch = json!({"metadata": {
        "uid": object.uid(), "resourceVersion": object.resource_version(), "finalizers": finalizers,
    }});
    let name = object.name_any();
    let namespace = object.namespace().unwrap_or_default();
    let api: Api<K> = Api::namespaced(ctx.client.clone(), &namespace);
    let params = PatchParams { field_manager: Some(MANAGER_CHILDREN.to_owned()), ..PatchParams::default() };
    let attempt = Attempt { verb: "patch", resource: K::RESOURCE, object: format!("{namespace}/{name} (finalizers)") };
    let patch = Patch::Merge(&patch);
    let request = api.patch_metadata(&name, &params, &patch);
    match call(attempt, request).await {
        Ok(_) => Ok(Effect::Done),
        Err(error) if is_gone(&error) => Ok(Effect::Done),
        Err(error) if error.class() == Class::Conflict => Ok(Effect::LookAgain),
        Err(error) => Err(error),
    }
}

/// Events are for people: one that cannot be published is logged and holds nothing up.
async fn tell<K: Kind>(ctx: &Context, object: &K, notes: &[Note]) {
    let regarding = object.object_ref(&());
    for note in notes {
        let event = Event {
            type_: if note.warning { EventType::Warning } else { EventType::Normal },
            reason: note.reason.to_owned(),
            note: Some(clipped(&note.message, MAX_NOTE)),
            action: note.action.to_owned(),
            secondary: None,
        };
        let attempt = Attempt::new("create", "events.events.k8s.io", object.name_any());
        if let Err(error) = call(attempt, ctx.recorder.publish(&event, &regarding)).await {
            tracing::warn!(error = error.text(), reason = note.reason, "Event could not be published");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    #[test]
    fn a_wait_for_a_change_still_looks_again_after_ten_minutes() {
        let action = format!("{:?}", after(Wait::ForChange, NOW));
        assert!(action.contains("requeue_after: Some(6") || action.contains("requeue_after: Some(7"), "{action}");
    }

    #[test]
    fn a_wait_for_the_past_does_not_spin() {
        let past = Timestamp::from_second(-60).unwrap();
        assert_eq!(after(Wait::Until(past), NOW), Action::requeue(Duration::from_millis(50)));
    }

    #[test]
    fn a_wait_until_a_time_looks_again_then() {
        let then = Timestamp::from_second(15).unwrap();
        assert_eq!(after(Wait::Until(then), NOW), Action::requeue(Duration::from_secs(15)));
    }
}
