//! Deletions: what is let go of at once, what is undone first, and what stays because its customers could not be brought back else.

use std::collections::BTreeMap;

use godwit::api::MigrationSpec;
use godwit::api::names::Verb;
use godwit::contract::Task;
use godwit::plan::decision::Work;
use godwit::plan::observed::JobState;
use godwit::plan::routes::Routes;
use serde_json::json;

use crate::world::{End, World, WorldJob, after, migration_spec, spec_with};

/// Else the fences would refuse the users' writes for ever, with nobody left who could open them.
#[test]
fn a_deleted_migration_goes_only_when_fences_and_ledger_are_out_of_the_databases() {
    let has_ended = |world: &World, task: &Task| {
        let of_task = |job: &&WorldJob| job.request.work == Work::Worker(task.clone());
        world.jobs.values().filter(of_task).any(|job| matches!(job.state, JobState::Succeeded { .. }))
    };
    let mut cleaned = 0;
    for minutes in (2..240).step_by(7) {
        let mut world = after(minutes);
        if world.phase("crm") == "Completed" {
            break;
        }
        let prepared = has_ended(&world, &Task::Prepare {});
        let now = world.now;
        world.migration.as_mut().unwrap().object.deleted_at = Some(now);
        world.run_until(|world| world.migration.is_none());
        assert!(!prepared || has_ended(&world, &Task::Cleanup {}), "minute {minutes}\n{}", world.log);
        cleaned += usize::from(prepared);
    }
    assert!(cleaned > 5, "deleted {cleaned} times with something to clean up");
}

/// The object and its Jobs go; what refers to it by name stays.
fn delete_and_create_again(world: &mut World, uid: &str) {
    let now = world.now;
    world.migration.as_mut().unwrap().object.deleted_at = Some(now);
    world.run_until(|world| world.migration.is_none());
    world.jobs.retain(|_, job| job.owner != "crm");
    let mut fresh = World::new(migration_spec()).migration.unwrap();
    uid.clone_into(&mut fresh.object.uid);
    world.migration = Some(fresh);
}

#[test]
fn a_migration_created_again_under_its_name_in_any_step_takes_no_cohort_of_the_former_over() {
    let mut replaced = 0;
    for minutes in (2..240).step_by(7) {
        let mut world = after(minutes);
        if world.phase("crm") == "Completed" {
            break;
        }
        delete_and_create_again(&mut world, "uid-of-the-second");
        world.run_until_quiet();
        let started: Vec<String> =
            world.cohorts.keys().filter(|name| world.told(name, "Stalled").1 == "MigrationReplaced").cloned().collect();
        if started.is_empty() {
            assert_eq!(world.phase("crm"), "Completed", "minute {minutes}\n{}", world.log);
            continue;
        }
        replaced += 1;
        let (_, reason, message) = world.told("crm", "Progressing");
        assert_eq!(reason, "CohortNeedsAttention", "minute {minutes}");
        assert!(message.contains(&started[0]) && message.contains("create it again"), "{message}");
        for (number, name) in started.iter().enumerate() {
            let wave = world.cohorts[name].spec.wave;
            let select = serde_json::to_value(&world.cohorts[name].spec.select).unwrap();
            let now = world.now;
            world.cohorts.get_mut(name).unwrap().object.deleted_at = Some(now);
            world.run_until(|world| !world.cohorts.contains_key(name));
            world.jobs.retain(|_, job| job.owner != *name);
            world.add_cohort(name, wave, &select);
            world.cohorts.get_mut(name).unwrap().object.uid = format!("uid-{name}-{number}-again");
        }
        world.run_until_quiet();
        assert_eq!(world.phase("crm"), "Completed", "minute {minutes}\n{}", world.log);
    }
    assert!(replaced > 8, "only {replaced} moments were tried");
}

fn owners(world: &World) -> BTreeMap<String, String> {
    let table = world.route_table.as_ref().unwrap().routes.as_ref().unwrap();
    let table: Routes = serde_json::from_str(table).unwrap();
    let cohorts = table.cohorts.into_iter().map(|(name, route)| (name, route.owner));
    cohorts.chain([("unassigned".to_owned(), table.unassigned.owner)]).collect()
}

fn delete(world: &mut World, cohort: &str) {
    let now = world.now;
    world.cohorts.get_mut(cohort).unwrap().object.deleted_at = Some(now);
}

#[test]
fn the_route_table_outlives_its_migration_and_the_next_of_that_name_leaves_it_until_it_prepares() {
    let mut world = World::new(migration_spec());
    world.run_until(|world| world.phase("early") == "Soaking");
    let left = owners(&world);
    delete_and_create_again(&mut world, "uid-of-the-second");
    world.cohorts.clear();
    world.run_until(|world| world.phase("crm") == "VerifyingBackup");
    assert_eq!(owners(&world), left);
    world.run_until(|world| world.phase("crm") == "Holding");
    assert_eq!(world.route_table.as_ref().unwrap().migration_uid.as_deref(), Some("uid-of-the-second"));
    assert_eq!(owners(&world), [("unassigned".to_owned(), "Source".to_owned())].into());
}

#[test]
fn a_cohort_that_is_deleted_after_its_cutover_stays_under_watch_until_the_move_is_closed() {
    for phase in ["Soaking", "Done"] {
        let mut world = World::new(watched());
        world.measurements.insert("links".into(), true);
        world.run_until(|world| world.phase("canary") == phase);
        delete(&mut world, "canary");
        world.run_until(|world| world.phase("early") == "Copying");
        let (status, reason, message) = world.told("canary", "Progressing");
        assert_eq!((&*status, &*reason), ("False", "CustomersOnTarget"), "{message}");
        assert_eq!(owners(&world)["canary"], "Target");
        world.run_until_quiet();
        assert_eq!(world.phase("crm"), "Completed", "{}", world.log);
        assert!(!world.cohorts.contains_key("canary"), "{}", world.log);
        assert_eq!(owners(&world)["unassigned"], "Target");
    }
}

fn watched() -> MigrationSpec {
    spec_with(&json!({
        "checks": [{"name": "links", "http": {"url": "http://crm/links"}, "passWhen": "value == 0.0"}],
        "triggers": [{"check": "links", "category": "DataLoss", "action": "RollbackCohort"}],
    }))
}

#[test]
fn a_cohort_that_is_being_deleted_still_goes_back_when_a_trigger_fails_and_frees_its_customers() {
    let mut world = World::new(watched());
    world.measurements.insert("links".into(), true);
    world.run_until(|world| world.phase("canary") == "Soaking");
    delete(&mut world, "canary");
    world.measurements.insert("links".into(), false);
    world.run_until(|world| !world.cohorts.contains_key("canary"));
    let of = |task: &str| world.watch.created.get(&format!("canary {task}")).copied();
    assert_eq!((of("reopen"), of("discard")), (Some(1), Some(1)), "{}", world.log);
}

#[test]
fn a_cohort_that_went_back_after_its_cutover_frees_its_customers_when_it_is_deleted() {
    let mut world = World::new(migration_spec());
    world.run_until(|world| world.phase("canary") == "Soaking");
    world.request("canary", Verb::Rollback);
    world.run_until_quiet();
    assert_eq!(world.phase("canary"), "RolledBack");
    delete(&mut world, "canary");
    world.run_until(|world| !world.cohorts.contains_key("canary"));
    assert_eq!(world.watch.created.get("canary discard"), Some(&1), "{}", world.log);
    world.run_until_quiet();
    assert_eq!(world.phase("crm"), "Completed", "{}", world.log);
}

#[test]
fn a_cohort_that_is_deleted_between_two_attempts_of_its_selection_is_undone() {
    let mut world = World::new(migration_spec());
    world.fail_next("canary", "select", End::Lost);
    world.run_until(|world| world.told("canary", "Progressing").1 == "RetryScheduled");
    delete(&mut world, "canary");
    world.run_until(|world| !world.cohorts.contains_key("canary"));
    assert_eq!(world.watch.created.get("canary discard"), Some(&1), "{}", world.log);
}

#[test]
fn a_remainder_that_is_being_deleted_still_ends_the_move_and_later_waves_wait_for_whoever_soaks() {
    let mut world = World::new(migration_spec());
    world.run_until(|world| world.phase("canary") == "Soaking");
    delete(&mut world, "canary");
    world.run_until(|world| world.phase("early") != "Pending" && world.phase("early") != "Holding");
    assert_eq!(world.phase("canary"), "Done", "{}", world.log);
    world.run_until(|world| world.phase("rest") == "Soaking");
    delete(&mut world, "rest");
    world.run_until_quiet();
    assert_eq!(world.phase("crm"), "Completed", "{}", world.log);
}
