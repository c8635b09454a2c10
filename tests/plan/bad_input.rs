//! What people and clusters get wrong, as far as it is a matter of decisions: each case has a reason of its own, says what to do,
//! goes on when that is done, and loses nothing on the way.

use godwit::api::approval::{ApprovalSpec, ApprovedStep, Decision, Subject, SubjectKind};
use godwit::api::migration::RequiredApproval;
use godwit::api::names::Verb;
use godwit::api::{CohortStatus, MigrationSpec, MigrationStatus};
use godwit::plan::decision::Work;
use godwit::plan::observed::{JobState, Trouble, TroubleKind};
use jiff::SignedDuration;
use serde_json::json;

use crate::world::{End, NEVER, World, WorldJob, after, migration_spec};

/// The Job of an object's step does not get on, for this reason.
fn keep_waiting(world: &mut World, owner: &str, kind: TroubleKind, message: &str) {
    let now = world.now;
    let job = world.running_job(owner);
    job.ends_at = now + NEVER;
    job.state = JobState::Running { progress: None, trouble: Some(Trouble { kind, message: message.to_owned() }) };
}

fn let_go_on(world: &mut World, owner: &str) {
    let now = world.now;
    let job = world.running_job(owner);
    job.ends_at = now + SignedDuration::from_mins(1);
    job.state = JobState::Running { progress: None, trouble: None };
}

fn reason_of(world: &World, name: &str) -> String {
    world.told(name, "Progressing").1
}

#[test]
fn a_job_that_does_not_get_on_names_what_it_waits_for_and_goes_on_by_itself() {
    for (kind, message, reason, stalled, remedy) in [
        (TroubleKind::Secret, "secret \"old-crm\" not found", "SecretNotFound", true, "Create that Secret"),
        (TroubleKind::ConfigMap, "configmap \"flows\" not found", "ConfigMapNotFound", true, "Create that ConfigMap"),
        (TroubleKind::Image, "ErrImagePull: godwit:typo", "ImageNotPulled", true, "Make the image available"),
        (TroubleKind::Container, "CreateContainerError: no such file", "ContainerNotStarted", true, "Repair"),
        (TroubleKind::Scheduling, "0/3 nodes are available", "JobNotStarted", false, "by itself"),
        (
            TroubleKind::Suspended,
            "Job crm-assess-1 is suspended",
            "JobSuspended",
            false,
            "kubectl patch job crm-assess-1",
        ),
        (TroubleKind::Leaving, "pod p is being taken from node n1", "PodEnding", false, "delete the Node"),
    ] {
        let mut world = World::new(migration_spec());
        world.run_until(|world| !world.jobs.is_empty());
        keep_waiting(&mut world, "crm", kind, message);
        world.run_until(|world| reason_of(world, "crm") == reason);
        let (_, _, told) = world.told("crm", "Progressing");
        assert!(told.contains(message) && told.contains(remedy), "{told}");
        assert_eq!(world.told("crm", "Stalled").0, if stalled { "True" } else { "False" }, "{reason}");
        let_go_on(&mut world, "crm");
        world.run_until_quiet();
        assert_eq!(world.phase("crm"), "Completed", "{reason}");
        assert_eq!(world.watch.created["crm assess"], 1, "the attempt that waited is the one that went on");
    }
}

#[test]
fn a_step_that_waited_until_its_deadline_tells_for_what_and_starts_over_on_request() {
    let mut world = World::new(migration_spec());
    world.run_until(|world| !world.jobs.is_empty());
    keep_waiting(&mut world, "crm", TroubleKind::Image, "ErrImagePull: godwit:typo");
    world.run_until_quiet();
    let (stalled, reason, message) = world.told("crm", "Stalled");
    assert_eq!((stalled.as_str(), reason.as_str()), ("True", "ProgressDeadlineExceeded"));
    assert!(message.contains("godwit:typo") && message.contains("request a retry"), "{message}");
    world.request("crm", Verb::Retry);
    world.run_until_quiet();
    assert_eq!(world.phase("crm"), "Completed");
}

#[test]
fn a_database_that_cannot_be_reached_is_named_while_the_next_attempt_is_waited_for_and_when_all_failed() {
    let refused =
        || End::Fails(75, ["ConnectionFailed", "source", "failed to connect to the source database: refused"]);
    let mut world = World::new(migration_spec());
    for _ in 0..5 {
        world.fail_next("crm", "assess", refused());
    }
    world.run_until(|world| reason_of(world, "crm") == "RetryScheduled");
    let (_, _, message) = world.told("crm", "Progressing");
    assert!(message.contains("attempt 1 failed") && message.contains("source database: refused"), "{message}");
    world.run_until_quiet();
    let (_, reason, message) = world.told("crm", "Stalled");
    assert_eq!(reason, "RetriesExhausted");
    assert!(message.contains("5 of 5") && message.contains("source database: refused"), "{message}");
    world.request("crm", Verb::Retry);
    world.run_until_quiet();
    assert_eq!(world.phase("crm"), "Completed");
}

#[test]
fn what_no_repetition_heals_stops_at_once_with_the_workers_words() {
    for (code, finding, reason) in [
        (77, ["LoginRefused", "source", "password authentication failed; correct user and password"], "NotPermitted"),
        (78, ["TlsFailed", "target", "the server does not offer it; switch TLS on"], "Misconfigured"),
        (66, ["NotInLedger", "", "the ledger does not know cohort canary"], "InputMissing"),
        (65, ["KeyCollision", "public.account", "3 keys exist on both sides"], "BlockedByFindings"),
    ] {
        let mut world = World::new(migration_spec());
        world.fail_next("crm", "assess", End::Fails(code, finding));
        world.run_until_quiet();
        let (stalled, told, message) = world.told("crm", "Stalled");
        assert_eq!((stalled.as_str(), told.as_str()), ("True", reason));
        assert!(finding.iter().all(|word| message.contains(word)) && !message.contains("  "), "{message}");
        assert_eq!(world.watch.created["crm assess"], 1);
        world.request("crm", Verb::Retry);
        world.run_until_quiet();
        assert_eq!(world.phase("crm"), "Completed");
    }
}

#[test]
fn a_selection_that_cannot_be_used_has_its_own_reason_and_undoes_nothing() {
    for (code, reason) in [
        ("SelectionEmpty", "NoCustomersSelected"),
        ("CohortOverlap", "CohortsOverlap"),
        ("KeysUnknown", "CustomersUnknown"),
        ("CohortNameTaken", "DataDiffers"),
    ] {
        let mut world = World::new(migration_spec());
        world.fail_next("early", "select", End::Fails(65, [code, "early", "what is wrong, and what to do"]));
        world.run_until_quiet();
        assert_eq!(world.told("early", "Stalled").1, reason);
        assert!(world.told("early", "Stalled").2.contains("what is wrong, and what to do"));
        assert_eq!((world.phase("canary"), world.phase("rest")), ("Done".into(), "Pending".into()));
        let (_, held, message) = world.told("crm", "Progressing");
        assert_eq!(held, "CohortNeedsAttention");
        assert!(message.contains("early") && message.contains("what is wrong"), "{message}");
        world.request("early", Verb::Retry);
        world.run_until_quiet();
        assert_eq!(world.phase("crm"), "Completed");
    }
}

#[test]
fn keys_that_run_out_hold_the_cohort_where_it_is_and_nothing_of_it_is_undone() {
    for step in ["copy", "validate", "cutover"] {
        let mut world = World::new(migration_spec());
        world.fail_next("early", step, End::Fails(65, ["SequenceReserveSpent", "public.s", "select setval(…)"]));
        world.run_until_quiet();
        assert_eq!(world.told("early", "Stalled").1, "KeyRangeSpent", "{step}");
        assert!(world.told("crm", "Progressing").2.contains("setval"));
        world.request("early", Verb::Retry);
        world.run_until_quiet();
        assert_eq!(world.phase("crm"), "Completed");
        assert!(!world.watch.created.contains_key("early discard"), "{step}");
    }
}

#[test]
fn customers_that_no_cohort_takes_hold_the_end_of_the_move() {
    let mut world = World::new(migration_spec());
    world.cohorts.remove("rest");
    world.run_until_quiet();
    let (_, reason, message) = world.told("crm", "Progressing");
    assert_eq!(reason, "CohortsRequired");
    assert!(message.contains("remainder"), "{message}");
    assert!(!world.watch.created.contains_key("crm finalize"));
    world.add_cohort("rest", 0, &json!({"remainder": {}}));
    world.run_until_quiet();
    assert_eq!(world.phase("crm"), "Completed");
}

#[test]
fn an_approval_for_nobody_or_of_another_step_does_not_count() {
    let mut spec = migration_spec();
    spec.approvals = vec![RequiredApproval { before: ApprovedStep::Cutover, required: 1 }];
    let mut world = World::new(spec);
    world.run_until_quiet();
    let digest = world.cohorts["canary"].status.plan.clone().unwrap().digest;
    let approval = |kind, name: &str, before| ApprovalSpec {
        subject: Subject { kind, name: name.into() },
        before,
        digest: digest.clone(),
        decision: Decision::Approve,
        by: "alice".into(),
        comment: None,
    };
    world.approvals = vec![
        approval(SubjectKind::Cohort, "nobody", ApprovedStep::Cutover),
        approval(SubjectKind::Migration, "canary", ApprovedStep::Cutover),
        approval(SubjectKind::Cohort, "canary", ApprovedStep::Finalize),
    ];
    world.run_until_quiet();
    let (_, reason, message) = world.told("canary", "Progressing");
    assert_eq!(reason, "ApprovalRequired");
    assert!(message.contains(&digest), "the digest to approve stands in {message}");
    world.approvals.push(approval(SubjectKind::Cohort, "canary", ApprovedStep::Cutover));
    world.run_until_quiet();
    assert_eq!(world.phase("canary"), "Done");
}

fn with_another_dataset(spec: &MigrationSpec) -> MigrationSpec {
    let mut spec = spec.clone();
    spec.dataset.exclude.push("public.note".into());
    spec
}

fn edit(world: &mut World, spec: MigrationSpec) {
    let migration = world.migration.as_mut().unwrap();
    migration.spec = spec;
    migration.object.generation += 1;
}

#[test]
fn a_dataset_that_is_changed_in_mid_run_stops_every_next_step_in_either_direction_until_it_is_undone() {
    let mut held = 0;
    for minutes in (1..240).step_by(5) {
        let mut world = after(minutes);
        if matches!(world.phase("crm").as_str(), "Completed" | "Finalizing") {
            break;
        }
        let prepared = world.watch.created.contains_key("crm prepare");
        edit(&mut world, with_another_dataset(&migration_spec()));
        world.run_until_quiet();
        if !prepared {
            assert_eq!(world.phase("crm"), "Completed", "minute {minutes}: before Prepare it only costs another look");
            continue;
        }
        held += 1;
        let (stalled, reason, message) = world.told("crm", "Stalled");
        assert_eq!((stalled.as_str(), reason.as_str()), ("True", "SpecChanged"), "minute {minutes}\n{}", world.log);
        assert!(message.contains("spec.dataset") && message.contains("undo the change"), "{message}");
        let created = world.watch.created.clone();
        world.request("crm", Verb::Rollback);
        world.run_until_quiet();
        assert_eq!(world.watch.created, created, "minute {minutes}: no Job works with another dataset");
        assert_eq!(world.told("crm", "Stalled").1, "SpecChanged");
        edit(&mut world, migration_spec());
        world.run_until_quiet();
        assert_eq!(world.phase("crm"), "RolledBack", "minute {minutes}\n{}", world.log);
    }
    assert!(held > 15, "only {held} moments were tried");
}

#[test]
fn what_a_job_reports_counts_for_the_dataset_that_it_was_started_with() {
    let mut world = World::new(migration_spec());
    world.run_until(|world| world.watch.created.contains_key("crm prepare"));
    edit(&mut world, with_another_dataset(&migration_spec()));
    world.run_until_quiet();
    assert_eq!(world.told("crm", "Stalled").1, "SpecChanged", "Prepare worked with the former one");
    assert!(!world.watch.created.contains_key("canary select"));
}

#[test]
fn a_job_that_was_recorded_for_one_dataset_is_never_created_for_another() {
    let mut world = World::new(migration_spec());
    world.run_until(|world| !world.jobs.is_empty());
    // The create never reached the API server, and before it is made up for the dataset changes.
    world.jobs.clear();
    edit(&mut world, with_another_dataset(&migration_spec()));
    world.run_until_quiet();
    assert_eq!(world.phase("crm"), "Completed");
    assert_eq!(world.watch.created["crm assess"], 2, "under another name");
}

#[test]
fn a_dataset_that_is_changed_and_changed_back_costs_nothing() {
    for minutes in (1..240).step_by(7) {
        let mut world = after(minutes);
        if matches!(world.phase("crm").as_str(), "Completed" | "Finalizing") {
            break;
        }
        edit(&mut world, with_another_dataset(&migration_spec()));
        let stop = world.now + SignedDuration::from_mins(2);
        world.run_until(|world| world.now >= stop || world.phase("crm") == "Stalled");
        edit(&mut world, migration_spec());
        world.run_until_quiet();
        assert_eq!(world.phase("crm"), "Completed", "minute {minutes}\n{}", world.log);
    }
}

#[test]
fn a_cohorts_status_that_was_wiped_by_hand_is_found_again_and_no_customer_is_moved_twice() {
    let mut over = 0;
    for minutes in (1..240).step_by(6) {
        let mut world = after(minutes);
        if matches!(world.phase("crm").as_str(), "Completed" | "Finalizing") {
            break;
        }
        let owner = world.cohorts["canary"].status.owner.clone();
        world.cohorts.get_mut("canary").unwrap().status = CohortStatus::default();
        world.run_until_quiet();
        assert_eq!(world.phase("crm"), "Completed", "minute {minutes}\n{}", world.log);
        if owner.as_deref() == Some("Target") {
            over += 1;
            assert_eq!(world.watch.created["canary copy"], 1, "minute {minutes}");
            assert_eq!(world.cohorts["canary"].status.owner.as_deref(), Some("Target"));
        }
    }
    assert!(over > 8, "only {over} moments after the cutover were tried");
}

#[test]
fn a_wiped_cohort_that_the_target_owns_goes_back_by_the_road_that_asks_both_ledgers() {
    let mut world = World::new(migration_spec());
    world.run_until(|world| world.phase("early") == "Soaking");
    world.cohorts.get_mut("early").unwrap().status = CohortStatus::default();
    world.run_until(|world| world.cohorts["early"].status.owner.as_deref() == Some("Target"));
    world.request("early", Verb::Rollback);
    world.run_until_quiet();
    assert_eq!(world.phase("early"), "RolledBack");
    assert!(world.watch.created.contains_key("early return") && !world.watch.created.contains_key("early discard"));
}

#[test]
fn a_migrations_status_that_was_wiped_by_hand_is_found_again() {
    for minutes in (1..240).step_by(7) {
        let mut world = after(minutes);
        if matches!(world.phase("crm").as_str(), "Completed" | "Finalizing") {
            break;
        }
        world.migration.as_mut().unwrap().status = MigrationStatus::default();
        world.run_until_quiet();
        assert_eq!(world.phase("crm"), "Completed", "minute {minutes}\n{}", world.log);
        for cohort in ["canary", "early", "rest"] {
            assert_eq!(world.watch.created[&format!("{cohort} cutover")], 1, "minute {minutes}");
        }
    }
}

#[test]
fn a_gate_says_that_the_image_of_its_check_cannot_be_pulled() {
    let mut spec = serde_json::to_value(migration_spec()).unwrap();
    spec["checks"] = json!([{"name": "orders", "job": {"image": "checks:typo"}, "passWhen": "value == 0.0"}]);
    spec["gates"] = json!([{"check": "orders", "before": ["Cutover"]}]);
    let mut world = World::new(serde_json::from_value(spec).unwrap());
    world.run_until(|world| world.jobs.values().any(|job| job.owner == "canary" && job.request.attempt == 4));
    world.run_until(|world| world.told("canary", "Progressing").2.contains("not measured yet"));
    let (_, next_look) = world.round();
    let soon = world.now + SignedDuration::from_secs(10);
    assert!(next_look.is_some_and(|at| at <= soon), "a pod that does not start changes no Job: it is looked for");
    keep_waiting(&mut world, "canary", TroubleKind::Image, "ErrImagePull: checks:typo");
    world.run_until(|world| world.told("canary", "Progressing").2.contains("checks:typo"));
    assert_eq!(reason_of(&world, "canary"), "GateInconclusive");
    let_go_on(&mut world, "canary");
    world.measurements.insert("orders".into(), true);
    world.run_until_quiet();
    assert_eq!(world.phase("canary"), "Done");
}

#[test]
fn a_check_that_is_corrected_is_measured_at_once_and_what_was_measured_before_counts_no_more() {
    let mut spec = serde_json::to_value(migration_spec()).unwrap();
    spec["checks"] = json!([
        {"name": "orders", "job": {"image": "checks:typo"}, "passWhen": "value == 0.0", "interval": "6h"},
        {"name": "links", "sql": {"side": "Target", "query": "select 1"}, "passWhen": "value == 0.0", "interval": "6h"},
    ]);
    spec["gates"] = json!([{"check": "orders", "before": ["Copy"]}, {"check": "links", "before": ["Copy"]}]);
    let mut world = World::new(serde_json::from_value(spec).unwrap());
    world.measurements.insert("links".into(), false);
    let of_orders = |job: &WorldJob| matches!(&job.request.work, Work::Container { check } if check == "orders");
    world.run_until(|world| world.jobs.values().any(of_orders));
    let waiting = world.jobs.values_mut().find(|job| of_orders(job)).unwrap();
    waiting.ends_at += NEVER;
    let waiting = waiting.request.name.clone();
    world.run_until(|world| world.told("canary", "Progressing").1 == "GateFailed");

    let migration = world.migration.as_mut().unwrap();
    migration.spec.checks[0].job.as_mut().unwrap().image = "checks:1".into();
    migration.spec.checks[1].sql.as_mut().unwrap().query = "select 0".into();
    let corrected = world.now;
    world.measurements.insert("orders".into(), true);
    world.measurements.insert("links".into(), true);
    world.run_until(|world| world.phase("canary") == "Copying");
    assert!(!world.jobs.contains_key(&waiting), "the Job that asks for what is no longer asked is stopped");
    assert!(world.now < corrected + SignedDuration::from_mins(5), "neither the interval nor the Job is waited for");
    world.run_until_quiet();
    assert_eq!(world.phase("crm"), "Completed");
}
