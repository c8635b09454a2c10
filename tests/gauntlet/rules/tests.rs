//! Hand-made sequences of writes: one that breaks no rule, and for each rule one that breaks it.

use serde_json::{Value, json};

use super::check;
use crate::audit::{Actor, Event};

fn event(actor: Actor, write: (&str, &str, &str), name: &str, body: Value) -> Event {
    let (verb, resource, subresource) = write;
    Event {
        actor,
        verb: verb.into(),
        resource: resource.into(),
        subresource: subresource.into(),
        name: name.into(),
        code: 200,
        received: 0.0,
        body,
    }
}

fn operator() -> Actor {
    Actor::Operator("first".into())
}

fn by(name: &str, mut event: Event) -> Event {
    event.actor = Actor::Operator(name.into());
    event
}

fn at(seconds: f64, mut event: Event) -> Event {
    event.received = seconds;
    event
}

fn status(resource: &str, name: &str, status: &Value) -> Event {
    event(operator(), ("update", resource, "status"), name, json!({"metadata": {"name": name}, "status": status}))
}

fn cohort(step: &str, attempt: Option<i64>) -> Event {
    status("cohorts", "canary", &at_step(step, attempt))
}

fn at_step(step: &str, attempt: Option<i64>) -> Value {
    let job = attempt.map(|attempt| json!({"name": job_name(step, attempt), "attempt": attempt}));
    json!({"step": {"name": step, "job": job}, "attempts": attempt.unwrap_or_default(), "plan": {"digest": "d1"}})
}

fn with(mut event: Event, key: &str, value: &Value) -> Event {
    event.body["status"][key] = value.clone();
    event
}

fn job_name(step: &str, attempt: i64) -> String {
    format!("canary-{}-{attempt}", step.to_lowercase())
}

fn job(step: &str, attempt: i64) -> Event {
    let labels = json!({"godwit.dev/step": step.to_lowercase(), "godwit.dev/attempt": attempt.to_string(),
        "godwit.dev/cohort": "canary", "godwit.dev/migration": "crm", "godwit.dev/owner-uid": "u1"});
    let name = job_name(step, attempt);
    event(operator(), ("create", "jobs", ""), &name, json!({"metadata": {"name": name, "labels": labels}}))
}

fn job_is(step: &str, attempt: i64, condition: &str) -> Event {
    let actor = Actor::Controller("job-controller".into());
    let body = json!({"status": {"conditions": [{"type": condition, "status": "True"}]}});
    event(actor, ("update", "jobs", "status"), &job_name(step, attempt), body)
}

fn verified() -> Event {
    status("migrations", "crm", &json!({"conditions": [{"type": "BackupVerified", "status": "True"}]}))
}

fn created(spec: &Value) -> Event {
    event(Actor::Person, ("create", "migrations", ""), "crm", json!({"metadata": {"name": "crm"}, "spec": spec}))
}

/// A cohort is copied and validated.
fn orderly() -> Vec<Event> {
    vec![
        created(&json!({})),
        verified(),
        cohort("Copy", Some(1)),
        job("Copy", 1),
        job_is("Copy", 1, "SuccessCriteriaMet"),
        job_is("Copy", 1, "Complete"),
        cohort("Validate", Some(2)),
        job("Validate", 2),
        job_is("Validate", 2, "Complete"),
    ]
}

#[track_caller]
fn breaks(rule: &str, events: &[Event]) {
    let found = check(events);
    assert!(found.iter().any(|text| text.starts_with(&format!("{rule}: "))), "{rule} was not broken: {found:?}");
}

#[test]
fn an_orderly_run_breaks_no_rule() {
    assert_eq!(check(&orderly()), Vec::<String>::new());
}

#[test]
fn tr1_a_copy_before_a_verified_backup() {
    let mut events = orderly();
    events.remove(1);
    breaks("TR1", &events);
}

#[test]
fn tr3_a_job_that_the_recorded_status_does_not_name() {
    breaks("TR3", &[verified(), job("Copy", 1), cohort("Copy", Some(1))]);
    breaks("TR3", &[verified(), cohort("Copy", Some(2)), job("Copy", 1)]);
}

#[test]
fn tr4_a_second_job_of_one_attempt_and_a_name_used_twice() {
    let mut again = orderly();
    again.push(job("Validate", 2));
    breaks("TR4", &again);
    let mut other = job("Validate", 2);
    other.name = "canary-validate-x7f3".into();
    let mut events = orderly();
    events.push(other);
    breaks("TR4", &events);
}

#[test]
fn tr5_a_second_writer_before_the_first_has_ended() {
    let mut events = orderly();
    events.pop();
    events.extend([cohort("Validate", Some(3)), job("Validate", 3)]);
    breaks("TR5", &events);
    let going = event(operator(), ("delete", "jobs", ""), &job_name("Validate", 2), json!({}));
    let gone = event(
        Actor::Controller("generic-garbage-collector".into()),
        ("patch", "jobs", ""),
        &job_name("Validate", 2),
        json!({"metadata": {"finalizers": null}}),
    );
    let mut events = orderly();
    events.pop();
    events.extend([going.clone(), cohort("Discard", Some(3)), job("Discard", 3)]);
    breaks("TR5", &events);
    let mut events = orderly();
    events.pop();
    let back = with(cohort("Discard", Some(3)), "rollback", &json!({"id": "command-1"}));
    let done = with(cohort("RolledBack", None), "rollback", &json!({"id": "command-1"}));
    let done = with(done, "attempts", &json!(3));
    events.extend([going, gone, back, job("Discard", 3), job_is("Discard", 3, "Complete"), done]);
    assert_eq!(check(&events), Vec::<String>::new());
}

#[test]
fn tr6_a_step_that_ends_on_the_first_condition_of_a_pair() {
    let mut events = orderly();
    events.remove(5);
    breaks("TR6", &events);
    events.remove(4);
    breaks("TR6", &events);
}

fn gated() -> Value {
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "name": "app", "type": "Ready"});
    json!({"checks": [{"name": "app", "condition": pod}], "gates": [{"check": "app", "before": ["Copy"]}]})
}

fn app(ready: &str) -> Event {
    let body = json!({"status": {"conditions": [{"type": "Ready", "status": ready}]}});
    event(Actor::Person, ("patch", "pods", "status"), "app", body)
}

#[test]
fn tr7_a_step_that_begins_before_its_gate_is_open() {
    let mut events = orderly();
    events[0] = created(&gated());
    events.insert(1, app("False"));
    breaks("TR7", &events);
    events[1] = app("True");
    assert_eq!(check(&events), Vec::<String>::new());
}

#[test]
fn tr8_a_cutover_without_an_approval_of_exactly_this_digest() {
    let approval = |digest: &str| {
        let spec = json!({"subject": {"kind": "Cohort", "name": "canary"}, "before": "Cutover", "digest": digest,
            "decision": "Approve", "by": "alice"});
        event(Actor::Person, ("create", "approvals", ""), "a", json!({"spec": spec}))
    };
    let mut events = orderly();
    events[0] = created(&json!({"approvals": [{"before": "Cutover", "required": 1}]}));
    events.push(cohort("Cutover", Some(3)));
    breaks("TR8", &events);
    let last = events.len() - 1;
    events.insert(last, approval("d0"));
    breaks("TR8", &events);
    events.insert(last, approval("d1"));
    assert_eq!(check(&events), Vec::<String>::new());
}

#[test]
fn tr9_a_way_back_that_nobody_recorded_and_a_way_forward_in_the_middle_of_one() {
    let mut events = orderly();
    events.push(cohort("Discard", Some(3)));
    breaks("TR9", &events);
    let mut events = orderly();
    let back = with(cohort("Discard", None), "rollback", &json!({"id": "command-1"}));
    events.extend([back, with(cohort("Copy", Some(3)), "rollback", &json!({"id": "command-1"}))]);
    breaks("TR9", &events);
    let mut events = orderly();
    events.push(cohort("Copy", Some(3)));
    breaks("TR9", &events);
}

#[test]
fn tr10_a_rollback_that_was_asked_for_and_never_came() {
    let asked = json!({"metadata": {"annotations": {"godwit.dev/rollback-requested-at": "now"}}});
    let mut events = orderly();
    events.push(event(Actor::Person, ("patch", "cohorts", ""), "canary", asked));
    breaks("TR10", &events);
    events.push(with(with(cohort("Discard", None), "rollback", &json!({"id": "command-now"})), "attempts", &json!(2)));
    breaks("TR10", &events);
    events.push(with(
        with(cohort("RolledBack", None), "rollback", &json!({"id": "command-now"})),
        "attempts",
        &json!(2),
    ));
    assert_eq!(check(&events), Vec::<String>::new());
}

#[test]
fn tr11_a_step_that_starts_long_after_the_stop_cord_was_pulled() {
    let suspend = event(Actor::Person, ("patch", "migrations", ""), "crm", json!({"spec": {"suspend": true}}));
    let mut events = orderly();
    events.extend([at(100.0, suspend), at(200.0, cohort("Cutover", Some(3)))]);
    breaks("TR11", &events);
    let last = events.len() - 1;
    events[last] = at(101.0, cohort("Cutover", Some(3)));
    assert_eq!(check(&events), Vec::<String>::new(), "a pass that had already looked");
}

#[test]
fn tr12_a_counter_that_falls_and_an_end_that_is_left() {
    let mut events = orderly();
    events.push(with(cohort("Cutover", None), "attempts", &json!(1)));
    breaks("TR12", &events);
    let completed = status("migrations", "crm", &json!({"step": {"name": "Completed"}, "observedGeneration": 1}));
    let again = status("migrations", "crm", &json!({"step": {"name": "Assess"}, "observedGeneration": 1}));
    breaks("TR12", &[created(&json!({})), completed, again]);
}

#[test]
fn tr13_a_write_of_a_deposed_leader_after_its_successors_first() {
    let routes = || event(operator(), ("patch", "configmaps", ""), "routes", json!({}));
    let mut events = orderly();
    events.extend([by("second", routes()), by("first", routes())]);
    breaks("TR13", &events);
    let last = events.len() - 1;
    events[last].code = 409;
    assert_eq!(check(&events), Vec::<String>::new(), "a write that was refused");
}

#[test]
fn tr13_a_status_over_the_version_before_the_successor_came_in_time_and_over_the_successors_own_did_not() {
    let mut events = orderly();
    let last = events.iter().rfind(|event| event.resource == "cohorts" && event.operator().is_some()).unwrap().clone();
    let routes = event(operator(), ("patch", "configmaps", ""), "routes", json!({}));
    events.extend([by("second", routes), by("first", last.clone())]);
    assert_eq!(check(&events), Vec::<String>::new());
    events.extend([by("second", last.clone()), by("first", last)]);
    breaks("TR13", &events);
}

#[test]
fn tr13_a_job_that_the_record_names_came_in_time_and_one_that_the_successor_gave_up_did_not() {
    let mut events = orderly();
    let is_create = |event: &&Event| (event.verb.as_str(), event.resource.as_str()) == ("create", "jobs");
    let at = events.iter().rposition(|event| is_create(&event)).unwrap();
    let create = events.remove(at);
    events.truncate(at);
    let record = events.iter().rfind(|event| super::history::recorded(event).is_some()).unwrap().clone();
    let routes = event(operator(), ("patch", "configmaps", ""), "routes", json!({}));
    events.extend([by("second", routes), by("first", create.clone())]);
    assert_eq!(check(&events), Vec::<String>::new());
    let at = events.len() - 1;
    events.insert(at, by("second", record.clone()));
    assert_eq!(check(&events), Vec::<String>::new(), "the successor goes on with the attempt");
    events[at].body["status"]["step"]["job"] = Value::Null;
    breaks("TR13", &events);
}

#[test]
fn tr14_a_patch_of_a_status_that_does_more_than_say_what_a_person_has_to_repair() {
    let patch = |status: Value| event(operator(), ("patch", "cohorts", "status"), "canary", json!({"status": status}));
    let told = json!({"conditions": [], "phase": "Stalled"});
    assert_eq!(check(&[patch(told)]), Vec::<String>::new());
    breaks("TR14", &[patch(json!({"step": {"name": "Cutover"}}))]);
}

#[test]
fn tr14_a_spec_that_the_operator_writes_and_a_resource_that_is_not_its_own() {
    let spec = event(operator(), ("patch", "cohorts", ""), "canary", json!({"spec": {"suspend": true}}));
    breaks("TR14", &[spec]);
    let secret = event(operator(), ("create", "secrets", ""), "s", json!({}));
    breaks("TR14", &[secret]);
    let finalizer = json!({"metadata": {"finalizers": ["godwit.dev/finalizer"]}});
    let finalizer = event(operator(), ("patch", "cohorts", ""), "canary", finalizer);
    assert_eq!(check(&[finalizer]), Vec::<String>::new());
}

#[test]
fn tr15_a_rollback_by_a_trigger_without_its_evidence() {
    let freeze = with(cohort("Freeze", None), "rollback", &json!({"id": "trigger-links-3"}));
    let freeze = with(freeze, "attempts", &json!(2));
    let mut events = orderly();
    events.push(freeze.clone());
    breaks("TR15", &events);
    let last = events.len() - 1;
    events[last] = with(freeze, "alarm", &json!({"evidence": "31 links broken"}));
    assert!(check(&events).iter().all(|text| !text.starts_with("TR15")));
}
