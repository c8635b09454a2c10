//! What only a person can repair, as a condition on the object it was met at: a refused request, an object that cannot be
//! read, a defect of the operator. Used at the edge of a pass (`pass.rs`), and by the record, so that a pass in between does
//! not take the condition away. Must work without reading the object's spec: a malformed one still has metadata and conditions.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Api;
use kube::api::{Patch, PatchParams};
use kube::core::ApiResource;
use serde_json::{Value, json};

use super::call::call;
use super::classify::clipped;
use super::context::Context;
use super::error::{Attempt, Class, Error};
use super::observe::{Loose, lenient, unreadable};
use crate::api::condition::{kind, reason};
use crate::api::names::MANAGER_STATUS;
use crate::api::phase::CohortPhase;
use crate::api::status::MAX_MESSAGE;
use crate::api::{Cohort, Migration};
use crate::plan::conditions::{Situation, Why, stamp, standard};

/// The conditions that a trouble decides; the others keep what the plan said last.
const DECIDED: [&str; 4] = [kind::RECONCILING, kind::STALLED, kind::READY, kind::PROGRESSING];

/// The same word for both kinds.
const PHASE: &str = CohortPhase::Stalled.as_str();

/// Troubles in force, by object, as `full_name` writes it.
#[derive(Debug, Default)]
pub struct Troubles {
    known: Mutex<HashMap<String, Why>>,
}

impl Troubles {
    fn set(&self, object: &str, why: Why) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(object.to_owned(), why);
    }

    /// True when there was one.
    pub fn clear(&self, object: &str) -> bool {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).remove(object).is_some()
    }

    /// Puts a trouble in force over what was decided, and its phase; `before`: the conditions that were read.
    pub fn overlay(&self, object: &str, (conditions, phase): Shown<'_>, before: &[Condition], now: Timestamp) {
        let why = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(object).cloned();
        let Some(why) = why else { return };
        let generation = conditions.first().and_then(|one| one.observed_generation).unwrap_or_default();
        *conditions = over(conditions, &why, before, (generation, now));
        *phase = Some(PHASE.to_owned());
    }
}

/// The parts of a status that show a trouble: conditions and phase.
pub type Shown<'a> = (&'a mut Vec<Condition>, &'a mut Option<String>);

/// Conditions with the trouble's in place of those that it decides; times move only where a status does.
fn over(
    conditions: &[Condition],
    why: &Why,
    before: &[Condition],
    (generation, now): (i64, Timestamp),
) -> Vec<Condition> {
    let facts = standard(&Situation::NeedsHuman(why.clone()));
    let decided: Vec<_> = facts.into_iter().filter(|fact| DECIDED.contains(&fact.kind)).collect();
    let mut decided = stamp(decided, before, generation, now);
    let mut shown: Vec<Condition> = conditions
        .iter()
        .map(|one| match decided.iter().position(|other| other.type_ == one.type_) {
            Some(place) => decided.remove(place),
            None => one.clone(),
        })
        .collect();
    shown.extend(decided);
    shown
}

/// Says on the object what a person has to repair. That the saying fails is logged and holds nothing up.
pub async fn show(ctx: &Context, object: &ObjectReference, name: &str, error: &Error) {
    let why = Why::new(error.reason(), clipped(&format!("{}. {}", error.text(), remedy(error)), MAX_MESSAGE));
    ctx.troubles.set(name, why.clone());
    if let Err(failed) = write(ctx, object, why, error).await
        && failed.class() != Class::Conflict
    {
        tracing::warn!(object = name, error = failed.text(), "Condition could not be written");
    }
}

fn remedy(error: &Error) -> &'static str {
    match error.reason() {
        reason::PERMISSION_DENIED => "Grant it; the operator tries again within five minutes",
        reason::REQUEST_REFUSED => "Change what stands in the way; the operator tries again within five minutes",
        reason::OPERATOR_DEFECT => "Please report it with the operator's log",
        _ => "Correct it; nothing is started from this object meanwhile",
    }
}

/// By a merge patch of the conditions alone, under the version that was read.
async fn write(ctx: &Context, object: &ObjectReference, why: Why, error: &Error) -> Result<(), Error> {
    let is_cohort = object.kind.as_deref() == Some("Cohort");
    let resource = if is_cohort { ApiResource::erase::<Cohort>(&()) } else { ApiResource::erase::<Migration>(&()) };
    let plural = if is_cohort { "cohorts" } else { "migrations" };
    let (namespace, name) = (object.namespace.clone().unwrap_or_default(), object.name.clone().unwrap_or_default());
    let api: Api<Loose> = Api::namespaced_with(ctx.client.clone(), &namespace, &resource);
    let target = format!("{namespace}/{name}");
    let attempt = Attempt { verb: "get", resource: plural, object: target.clone() };
    let Some(found) = call(attempt, api.get_opt(&name)).await? else {
        return Ok(());
    };
    let itself = error.is_about(plural, &target);
    let why = if itself { named(is_cohort, &found, why) } else { why };
    let read: Vec<Condition> = lenient(&found.data["status"]["conditions"]).unwrap_or_default();
    let generation = found.metadata.generation.unwrap_or_default();
    let shown = over(&read, &why, &read, (generation, ctx.now()));
    let mut status = json!({"conditions": shown, "phase": PHASE});
    // An object that cannot be read has been looked at, and there will be no other look at this generation of it. Of any
    // other object the plan must still hear that its spec is a new one.
    if itself {
        status["observedGeneration"] = json!(generation);
    }
    if same(&found.data["status"], &status) {
        return Ok(());
    }
    let patch = json!({"metadata": {"resourceVersion": found.metadata.resource_version}, "status": status});
    let params = PatchParams { field_manager: Some(MANAGER_STATUS.to_owned()), ..PatchParams::default() };
    let attempt = Attempt { verb: "patch", resource: plural, object: format!("{target} (status)") };
    call(attempt, api.patch_status(&name, &params, &Patch::Merge(&patch))).await?;
    Ok(())
}

fn same(read: &Value, wanted: &Value) -> bool {
    wanted.as_object().into_iter().flatten().all(|(field, value)| read.get(field) == Some(value))
}

/// For an object that cannot be read: the field that is the reason, where it can be found.
fn named(is_cohort: bool, found: &Loose, why: Why) -> Why {
    let Ok(value) = serde_json::to_value(found) else { return why };
    let field = if is_cohort { unreadable::<Cohort>(&value) } else { unreadable::<Migration>(&value) };
    let Some((path, problem)) = field else { return why };
    let how = if path.starts_with("status") { " with kubectl edit --subresource=status" } else { "" };
    let told =
        format!("{path} cannot be read: {problem}. Correct it{how}; nothing is started from this object meanwhile");
    Why::new(why.reason, clipped(&told, MAX_MESSAGE))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn decided() -> Vec<Condition> {
        let situation = Situation::Running(Why::new(reason::COPYING, "Copy is under way"));
        stamp(standard(&situation), &[], 3, at(10))
    }

    fn of<'a>(conditions: &'a [Condition], kind: &str) -> &'a Condition {
        conditions.iter().find(|one| one.type_ == kind).unwrap()
    }

    #[test]
    fn a_trouble_in_force_lies_over_every_decision_until_it_is_cleared() {
        let troubles = Troubles::default();
        let read = over(&decided(), &Why::new(reason::PERMISSION_DENIED, "no"), &decided(), (3, at(20)));
        troubles.set("Cohort shop/canary", Why::new(reason::PERMISSION_DENIED, "no"));
        let (mut conditions, mut phase) = (decided(), Some("Copying".to_owned()));
        troubles.overlay("Cohort shop/canary", (&mut conditions, &mut phase), &read, at(30));
        // Nothing to write: it is what was read, times too.
        assert_eq!(conditions, read);
        assert_eq!(phase.as_deref(), Some("Stalled"));
        let stalled = of(&conditions, kind::STALLED);
        assert_eq!((stalled.status.as_str(), stalled.reason.as_str()), ("True", "PermissionDenied"));
        assert_eq!(of(&conditions, kind::SUCCEEDED), of(&decided(), kind::SUCCEEDED));

        let (mut other, mut phase) = (decided(), None);
        troubles.overlay("Cohort shop/early", (&mut other, &mut phase), &[], at(30));
        assert_eq!((other, phase), (decided(), None));
        assert!(troubles.clear("Cohort shop/canary") && !troubles.clear("Cohort shop/canary"));
    }

    #[test]
    fn an_object_without_conditions_gets_those_of_the_trouble() {
        let shown = over(&[], &Why::new(reason::INVALID_SPEC, "spec.wave"), &[], (2, at(5)));
        let kinds: Vec<&str> = shown.iter().map(|one| one.type_.as_str()).collect();
        assert_eq!(kinds, DECIDED);
        assert!(shown.iter().all(|one| one.observed_generation == Some(2)));
    }

    #[test]
    fn the_field_that_cannot_be_read_is_named() {
        let found: Loose = serde_json::from_value(json!({
            "apiVersion": "godwit.dev/v1alpha1", "kind": "Cohort", "metadata": {"name": "odd"},
            "spec": {"migrationRef": {"name": "crm"}, "select": {"percent": 1}},
            "status": {"step": {"name": "Copy", "startTime": "2026-03-01T10:00:00Z", "failures": 5_000_000_000_u64}},
        }))
        .unwrap();
        let why = named(true, &found, Why::new(reason::INVALID_SPEC, "?"));
        assert!(why.message.starts_with("status.step.failures cannot be read"), "{}", why.message);
        assert!(why.message.contains("--subresource=status"));
    }
}
