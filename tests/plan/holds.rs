//! What may hold a step, for how long, on which measurements; and what nothing may hold.

use godwit::api::approval::{ApprovalSpec, ApprovedStep, Decision, Subject, SubjectKind};
use godwit::api::migration::{OnFailure, RequiredApproval};
use godwit::api::names::Verb;
use godwit::contract::exit;
use jiff::SignedDuration;
use serde_json::{Value, json};

use crate::world::{End, NEVER, World, migration_spec, spec_with};

fn approve(world: &mut World, kind: SubjectKind, name: &str, before: ApprovedStep) {
    let plan = match kind {
        SubjectKind::Cohort => world.cohorts[name].status.plan.clone(),
        SubjectKind::Migration => world.migration.as_ref().unwrap().status.plan.clone(),
    };
    let subject = Subject { kind, name: name.into() };
    let (digest, by) = (plan.unwrap().digest, "alice".to_owned());
    world.approvals.push(ApprovalSpec { subject, before, digest, decision: Decision::Approve, by, comment: None });
}

#[test]
fn the_time_of_a_step_does_not_run_while_a_person_is_waited_for() {
    let mut spec = migration_spec();
    let wanted = |before| RequiredApproval { before, required: 1 };
    spec.approvals = vec![wanted(ApprovedStep::Cutover), wanted(ApprovedStep::Finalize)];
    let mut world = World::new(spec);
    for cohort in ["canary", "early", "rest"] {
        world.run_until_quiet();
        assert_eq!(world.phase(cohort), "Holding", "{}", world.log);
        world.now += SignedDuration::from_hours(100);
        approve(&mut world, SubjectKind::Cohort, cohort, ApprovedStep::Cutover);
    }
    world.run_until_quiet();
    assert_eq!(world.phase("crm"), "Holding", "{}", world.log);
    world.now += SignedDuration::from_hours(100);
    approve(&mut world, SubjectKind::Migration, "crm", ApprovedStep::Finalize);
    world.run_until_quiet();
    assert_eq!(world.phase("crm"), "Completed", "{}", world.log);
}

#[test]
fn time_that_passed_between_two_attempts_because_of_a_suspension_is_not_counted() {
    let mut world = World::new(migration_spec());
    world.fail_next("canary", "copy", End::Lost);
    world.run_until(|world| world.told("canary", "Progressing").1 == "RetryScheduled");
    world.migration.as_mut().unwrap().spec.suspend = true;
    world.run_until_quiet();
    world.now += SignedDuration::from_hours(100);
    world.migration.as_mut().unwrap().spec.suspend = false;
    world.run_until_quiet();
    assert_eq!(world.phase("crm"), "Completed", "{}", world.log);
}

fn errors(action: &str) -> Value {
    json!({
        "checks": [{"name": "errors", "http": {"url": "http://crm/errors"}, "passWhen": "value < 5.0"}],
        "gates": [{"check": "errors", "before": ["Cutover"]}],
        "triggers": [{"check": "errors", "category": "CoreWorkflow", "action": action}],
    })
}

/// The gate fails because of the very customers that wait for its end.
#[test]
fn a_cutover_that_gave_no_answer_is_brought_to_its_end_whatever_holds_other_steps() {
    let mut world = World::new(spec_with(&errors("Alert")));
    world.measurements.insert("errors".into(), true);
    world.fail_next("canary", "cutover", End::Lost);
    world.run_until(|world| world.phase("canary") == "CuttingOver");
    world.measurements.insert("errors".into(), false);
    let spec = &mut world.migration.as_mut().unwrap().spec;
    spec.suspend = true;
    spec.validation.checks.clear();
    world.run_until(|world| world.phase("canary") == "Soaking");
    assert_eq!(world.watch.created["canary cutover"], 2, "{}", world.log);
    assert_eq!(world.cohorts["canary"].status.owner.as_deref(), Some("Target"));
}

#[test]
fn a_cutover_that_does_not_end_in_time_is_undone_by_the_road_that_asks_both_ledgers() {
    for revert in [true, false] {
        let mut spec = migration_spec();
        spec.rollout.on_failure = if revert { OnFailure::Revert } else { OnFailure::Hold };
        let mut world = World::new(spec);
        world.run_until(|world| world.phase("canary") == "CuttingOver");
        world.running_job("canary").ends_at += NEVER;
        world.run_until_quiet();
        if !revert {
            assert_eq!(world.told("canary", "Stalled").1, "ProgressDeadlineExceeded");
            world.request("canary", Verb::Rollback);
            world.run_until_quiet();
        }
        assert_eq!(world.phase("canary"), "RolledBack", "{}", world.log);
        assert!(world.watch.created.contains_key("canary freeze"), "{}", world.log);
    }
}

#[test]
fn a_gate_rests_on_what_was_measured_for_its_step() {
    let mut parts = errors("Alert");
    parts["gates"][0]["before"] = json!(["Copy", "Cutover"]);
    parts["checks"][0]["interval"] = json!("24h");
    let mut world = World::new(spec_with(&parts));
    world.measurements.insert("errors".into(), true);
    world.run_until(|world| world.phase("canary") == "Copying");
    world.measurements.insert("errors".into(), false);
    let asked = |world: &World| world.told("canary", "Progressing").1 == "GateFailed";
    world.run_until(|world| asked(world) || world.watch.created.contains_key("canary cutover"));
    assert!(asked(&world) && !world.watch.created.contains_key("canary cutover"), "{}", world.log);
}

#[test]
fn a_gate_that_passed_before_a_long_pause_is_measured_again() {
    let mut parts = errors("Alert");
    parts["approvals"] = json!([{"before": "Cutover", "required": 1}]);
    // Measured by a Job: what is due is not there yet when the pause ends.
    parts["checks"][0] =
        json!({"name": "errors", "sql": {"side": "Target", "query": "select 0"}, "passWhen": "value < 5.0"});
    let mut world = World::new(spec_with(&parts));
    world.measurements.insert("errors".into(), true);
    let stop = world.now + SignedDuration::from_hours(1);
    world.run_until(|world| world.told("canary", "Progressing").1 == "ApprovalRequired" || world.now > stop);
    world.migration.as_mut().unwrap().spec.suspend = true;
    world.run_until_quiet();
    world.measurements.insert("errors".into(), false);
    world.now += SignedDuration::from_hours(100);
    approve(&mut world, SubjectKind::Cohort, "canary", ApprovedStep::Cutover);
    world.migration.as_mut().unwrap().spec.suspend = false;
    let stop = world.now + SignedDuration::from_hours(1);
    world.run_until(|world| world.told("canary", "Progressing").1 == "GateFailed" || world.now > stop);
    assert_eq!(world.told("canary", "Progressing").1, "GateFailed", "{}", world.log);
    assert!(!world.watch.created.contains_key("canary cutover"), "{}", world.log);
}

#[test]
fn a_soak_does_not_end_on_a_verdict_that_nobody_measured_again() {
    let mut parts = errors("RollbackCohort");
    parts["checks"][0] = json!({"name": "errors", "job": {"image": "x"}, "passWhen": "value < 5.0", "interval": "60s"});
    let mut world = World::new(spec_with(&parts));
    world.measurements.insert("errors".into(), true);
    world.run_until(|world| world.phase("canary") == "Soaking" && !world.cohorts["canary"].status.checks.is_empty());
    world.run_until(|world| world.cohorts["canary"].status.checks[0].job.is_none());
    world.run_until(|world| world.jobs.values().any(|job| job.owner == "canary" && job.ends_at > world.now));
    world.running_job("canary").ends_at += NEVER;
    let stop = world.now + SignedDuration::from_hours(2);
    world.run_until(|world| world.now > stop);
    assert_eq!(world.phase("canary"), "Soaking", "{}", world.log);
    assert!(world.told("canary", "Progressing").2.contains("was last measured at"), "{}", world.log);
}

#[test]
fn an_alarm_that_pauses_does_not_keep_a_graver_trigger_from_acting() {
    let mut parts = errors("Pause");
    parts["checks"].as_array_mut().unwrap().push(json!(
        {"name": "links", "sql": {"side": "Target", "query": "select 0"}, "passWhen": "value == 0.0"}));
    parts["triggers"].as_array_mut().unwrap().push(json!(
        {"check": "links", "category": "DataLoss", "action": "RollbackCohort"}));
    let mut world = World::new(spec_with(&parts));
    world.measurements.extend([("errors".into(), true), ("links".into(), true)]);
    world.run_until(|world| world.phase("canary") == "Soaking");
    world.measurements.insert("errors".into(), false);
    world.run_until(|world| world.phase("crm") == "Paused");
    world.measurements.insert("links".into(), false);
    let stop = world.now + SignedDuration::from_hours(1);
    world.run_until(|world| world.phase("canary") == "RolledBack" || world.now > stop);
    assert_eq!(world.phase("canary"), "RolledBack", "{}", world.log);
}

#[test]
fn a_retry_after_an_alarm_measures_anew_whatever_measures() {
    for source in
        [json!({"http": {"url": "http://crm/errors"}}), json!({"sql": {"side": "Target", "query": "select 0"}})]
    {
        let mut parts = errors("Pause");
        parts["checks"][0] = source;
        parts["checks"][0]["name"] = json!("errors");
        parts["checks"][0]["passWhen"] = json!("value < 5.0");
        let mut world = World::new(spec_with(&parts));
        world.measurements.insert("errors".into(), true);
        world.run_until(|world| world.phase("canary") == "Soaking");
        world.measurements.insert("errors".into(), false);
        world.run_until(|world| world.phase("crm") == "Paused");
        world.measurements.insert("errors".into(), true);
        world.request("canary", Verb::Retry);
        world.run_until_quiet();
        assert_eq!(world.phase("crm"), "Completed", "{}", world.log);
    }
}

#[test]
fn an_approval_counts_for_the_checks_that_it_saw() {
    let mut spec = spec_with(&json!({"validation": {"checks": [
        {"name": "open", "source": "select 1", "target": "select 1", "tolerance": "0"}]}}));
    spec.approvals = vec![RequiredApproval { before: ApprovedStep::Cutover, required: 1 }];
    let mut world = World::new(spec);
    world.run_until(|world| world.phase("canary") == "Validating");
    approve(&mut world, SubjectKind::Cohort, "canary", ApprovedStep::Cutover);
    let migration = world.migration.as_mut().unwrap();
    migration.spec.validation.checks.clear();
    migration.object.generation += 1;
    world.run_until_quiet();
    assert_eq!(world.told("canary", "Progressing").1, "ApprovalRequired", "{}", world.log);
    approve(&mut world, SubjectKind::Cohort, "canary", ApprovedStep::Cutover);
    world.run_until(|world| world.phase("canary") == "Done");
}

#[test]
fn after_a_trigger_brought_the_migration_back_a_retry_starts_it_anew() {
    let mut world = World::new(spec_with(&errors("RollbackMigration")));
    world.measurements.insert("errors".into(), true);
    world.run_until(|world| world.phase("early") == "Soaking");
    world.measurements.insert("errors".into(), false);
    world.run_until_quiet();
    assert_eq!(world.phase("crm"), "RolledBack");
    world.measurements.insert("errors".into(), true);
    world.request("crm", Verb::Retry);
    world.run_until_quiet();
    assert_eq!(world.phase("crm"), "Completed", "{}", world.log);
    assert_eq!(world.watch.created["crm reset"], 1, "{}", world.log);
}

#[test]
fn the_point_of_no_return_is_remembered_whatever_is_retried_and_reached_only_by_what_may_change_something() {
    for refused in [None, Some("StillOnSource"), Some("LedgersDisagree"), Some("FenceDown")] {
        let mut world = World::new(migration_spec());
        if let Some(code) = refused {
            let finding = [code, "canary", "it was looked at, and nothing was changed"];
            world.fail_next("crm", "finalize", End::Fails(exit::DATA_DIFFERS, finding));
        } else {
            for _ in 0..10 {
                world.fail_next("crm", "finalize", End::Lost);
            }
        }
        world.run_until(|world| world.told("crm", "Stalled").0 == "True");
        world.migration.as_mut().unwrap().spec.suspend = true;
        world.request("crm", Verb::Retry);
        world.run_until_quiet();
        world.request("crm", Verb::Rollback);
        world.run_until_quiet();
        let back = world.phase("crm") == "RolledBack";
        assert_eq!(back, refused.is_some(), "{}", world.log);
        assert_eq!(world.told("crm", "RollbackAvailable").0 == "True", refused.is_some(), "{}", world.log);
    }
}

#[test]
fn a_backup_that_is_too_old_once_it_is_proven_is_not_renewed_for_ever() {
    let mut spec = migration_spec();
    spec.backup.max_age = "1m".into();
    let mut world = World::new(spec);
    world.run_until_quiet();
    assert_eq!(world.told("crm", "Stalled").1, "BackupNeverYoung", "{}", world.log);
    assert_eq!(world.watch.created["crm backup"], 1, "{}", world.log);
    world.migration.as_mut().unwrap().spec.backup.max_age = "24h".into();
    world.run_until_quiet();
    assert_eq!(world.phase("crm"), "Completed", "{}", world.log);
}

#[test]
fn a_suspended_cohort_takes_no_place_from_others_of_its_wave_and_is_named_when_only_it_is_left() {
    let mut spec = migration_spec();
    spec.backup.max_age = "24h".into();
    let mut world = World::new(spec);
    world.add_cohort("aside", 1, &json!({"percent": 1}));
    world.cohorts.get_mut("aside").unwrap().spec.suspend = true;
    world.run_until_quiet();
    assert_eq!(world.phase("canary"), "Done", "{}", world.log);
    let (_, reason, message) = world.told("crm", "Progressing");
    assert!(reason == "CohortNeedsAttention" && message.contains("aside"), "{reason}: {message}");
    world.now += SignedDuration::from_hours(100);
    world.run_until_quiet();
    assert_eq!(world.watch.created["crm backup"], 1, "{}", world.log);
    world.cohorts.get_mut("aside").unwrap().spec.suspend = false;
    world.run_until_quiet();
    assert_eq!(world.phase("crm"), "Completed", "{}", world.log);
}
