//! Golden traces of whole migrations. They are read by product owners: a change of behaviour is a change of text.
//! `GODWIT_BLESS=1 cargo test --test plan` writes them anew; review the difference before the code.

use std::path::PathBuf;

use godwit::api::approval::{ApprovalSpec, ApprovedStep, Decision, Subject, SubjectKind};
use godwit::api::migration::RequiredApproval;
use godwit::api::names::Verb;
use serde_json::json;

use crate::world::{End, World, migration_spec, spec_with};

fn compare(name: &str, title: &str, world: &World) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/traces/{name}.golden"));
    let text = format!("{title}\n\n{}\n", world.log.trim_end());
    #[expect(clippy::disallowed_methods, reason = "a test asks its own environment")]
    if std::env::var("GODWIT_BLESS").is_ok() {
        std::fs::write(&path, &text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(golden == text, "{} differs from what happened; bless and review:\n{text}", path.display());
}

#[test]
fn three_cohorts_move_one_after_the_other() {
    let mut world = World::new(migration_spec());
    world.run_until_quiet();
    assert_eq!(world.phase("crm"), "Completed");
    compare("happy_path", "Three cohorts move one after the other; nobody has to do anything", &world);
}

#[test]
fn a_failed_validation_removes_what_was_copied_and_holds_the_later_waves() {
    let mut world = World::new(migration_spec());
    world.fail_next("early", "validate", End::Differs("public.invoice"));
    world.run_until_quiet();
    assert_eq!((world.phase("early"), world.phase("rest")), ("RolledBack".into(), "Pending".into()));
    world.request("early", Verb::Retry);
    world.run_until_quiet();
    assert_eq!(world.phase("crm"), "Completed");
    compare("failed_validation", "The second cohort's rows differ; it is undone, and moves after a retry", &world);
}

fn links_check(action: &str) -> godwit::api::MigrationSpec {
    spec_with(&json!({
        "checks": [{"name": "links", "sql": {"side": "Target", "query": "select 0"},
            "passWhen": "value == 0.0", "interval": "300s", "consecutive": 2}],
        "triggers": [{"check": "links", "category": "DataLoss", "action": action}],
    }))
}

#[test]
fn a_trigger_after_cutover_brings_the_cohort_back_by_itself() {
    let mut world = World::new(links_check("RollbackCohort"));
    world.measurements.insert("links".into(), true);
    world.run_until(|world| world.phase("early") == "Soaking");
    world.say("an integration of the new system begins to drop links");
    world.measurements.insert("links".into(), false);
    world.run_until_quiet();
    assert_eq!((world.phase("early"), world.phase("canary")), ("RolledBack".into(), "Done".into()));
    compare(
        "trigger_after_cutover",
        "Links break on the target after the second cutover; the cohort goes back",
        &world,
    );
}

#[test]
fn a_suspended_migration_starts_nothing_and_still_goes_back() {
    let mut world = World::new(migration_spec());
    world.run_until(|world| world.phase("early") == "Copying");
    world.say("a person sets spec.suspend");
    world.migration.as_mut().unwrap().spec.suspend = true;
    world.run_until_quiet();
    assert_eq!(world.phase("early"), "Paused");
    world.request("early", Verb::Rollback);
    world.run_until_quiet();
    assert_eq!(world.phase("early"), "RolledBack");
    world.say("a person takes spec.suspend back");
    world.migration.as_mut().unwrap().spec.suspend = false;
    world.request("early", Verb::Retry);
    world.run_until_quiet();
    assert_eq!(world.phase("crm"), "Completed");
    compare("suspension", "The stop cord is pulled in mid-copy; going back works all the same", &world);
}

#[test]
fn a_cutover_waits_for_an_approval_of_exactly_this_cohort() {
    let mut spec = migration_spec();
    spec.approvals = vec![RequiredApproval { before: ApprovedStep::Cutover, required: 1 }];
    let mut world = World::new(spec);
    world.run_until_quiet();
    assert_eq!(world.phase("canary"), "Holding");
    let approval = |digest: &str| ApprovalSpec {
        subject: Subject { kind: SubjectKind::Cohort, name: "canary".into() },
        before: ApprovedStep::Cutover,
        digest: digest.into(),
        decision: Decision::Approve,
        by: "alice".into(),
        comment: None,
    };
    world.say("alice approves a digest that is not this cohort's");
    world.approvals.push(approval(&format!("sha256:{}", "a".repeat(64))));
    world.run_until_quiet();
    assert_eq!(world.phase("canary"), "Holding");
    world.say("alice approves the digest in status.plan");
    let digest = world.cohorts["canary"].status.plan.clone().unwrap().digest;
    world.approvals.push(approval(&digest));
    world.run_until_quiet();
    assert_eq!(world.phase("canary"), "Done");
    compare("approval_withheld", "Nothing is cut over without an approval of exactly these customers", &world);
}

#[test]
fn a_migration_goes_back_newest_cutover_first() {
    let mut world = World::new(migration_spec());
    world.run_until(|world| world.phase("rest") == "Copying");
    world.request("crm", Verb::Rollback);
    world.run_until_quiet();
    assert_eq!(world.phase("crm"), "RolledBack");
    compare("migration_rollback", "The whole migration goes back while its last cohort is being copied", &world);
}

#[test]
fn lost_attempts_are_repeated_and_a_cutover_that_never_answers_goes_back_by_the_safe_road() {
    let mut world = World::new(migration_spec());
    world.fail_next("crm", "backup", End::Lost);
    for _ in 0..3 {
        world.fail_next("canary", "cutover", End::Lost);
    }
    world.run_until_quiet();
    assert_eq!(world.phase("canary"), "RolledBack");
    compare("lost_attempts", "Pods are lost: the backup is repeated, a cutover without an answer is undone", &world);
}

#[test]
fn a_grave_trigger_brings_the_whole_migration_back() {
    let mut world = World::new(links_check("RollbackMigration"));
    world.measurements.insert("links".into(), true);
    world.run_until(|world| world.phase("early") == "Soaking");
    world.measurements.insert("links".into(), false);
    world.run_until_quiet();
    assert_eq!(world.phase("crm"), "RolledBack");
    assert!(world.cohorts.values().all(|cohort| cohort.status.owner.as_deref() != Some("Target")));
}

#[test]
fn the_order_of_visits_changes_nothing_that_matters() {
    let scenario = |seed: Option<u64>| {
        let mut world = World::new(links_check("RollbackCohort"));
        if let Some(seed) = seed {
            world = world.in_random_order(seed);
        }
        world.measurements.insert("links".into(), true);
        world.fail_next("canary", "copy", End::Lost);
        world.fail_next("early", "validate", End::Differs("public.deal"));
        world.run_until_quiet();
        world.request("early", Verb::Retry);
        world.run_until_quiet();
        world.facts()
    };
    let fixed = scenario(None);
    for seed in 1..60 {
        assert_eq!(scenario(Some(seed * 7919)), fixed, "seed {seed}");
    }
}

#[test]
fn at_every_moment_a_rollback_ends_with_the_source_owning_everything() {
    for minutes in (1..240).step_by(3) {
        let mut world = World::new(migration_spec());
        let stop = world.now + jiff::SignedDuration::from_mins(minutes);
        world.run_until(|world| world.now >= stop);
        if world.phase("crm") == "Completed" || world.phase("crm") == "Finalizing" {
            break;
        }
        world.request("crm", Verb::Rollback);
        world.run_until_quiet();
        assert_eq!(world.phase("crm"), "RolledBack", "asked at minute {minutes}:\n{}", world.log);
        let owners = world.cohorts.values().map(|cohort| cohort.status.owner.as_deref());
        assert!(owners.into_iter().all(|owner| owner != Some("Target") && owner != Some("None")), "{}", world.log);
    }
}

#[test]
fn deleting_the_migration_at_any_moment_lets_go_of_everything() {
    for minutes in (1..240).step_by(7) {
        let mut world = World::new(migration_spec());
        let stop = world.now + jiff::SignedDuration::from_mins(minutes);
        world.run_until(|world| world.now >= stop);
        let now = world.now;
        world.migration.as_mut().unwrap().object.deleted_at = Some(now);
        world.run_until_quiet();
        assert!(world.migration.is_none(), "deleted at minute {minutes}:\n{}", world.log);
        for name in ["canary", "early", "rest"] {
            world.cohorts.get_mut(name).unwrap().object.deleted_at = Some(now);
        }
        world.run_until_quiet();
        assert!(world.cohorts.is_empty(), "deleted at minute {minutes}:\n{}", world.log);
    }
}
