//! Jobs that nothing records: a deposed leader's create that landed late.

use godwit::contract::Task;
use godwit::plan::decision::Work;
use godwit::plan::observed::JobState;
use jiff::SignedDuration;

use crate::world::{World, WorldJob, migration_spec};

#[test]
fn an_unfinished_job_of_ours_that_no_record_names_is_stopped() {
    let mut world = World::new(migration_spec());
    world.run_until(|world| world.phase("canary") == "Soaking");
    let copies = |job: &&WorldJob| job.owner == "canary" && matches!(job.request.work, Work::Worker(Task::Copy {}));
    let request = world.jobs.values().find(copies).unwrap().request.clone();
    let stray = WorldJob {
        owner: "canary".to_owned(),
        request,
        ends_at: world.now + SignedDuration::from_hours(1_000),
        state: JobState::Running { progress: None, trouble: None },
    };
    world.jobs.insert("canary-copy-99-late".to_owned(), stray);
    world.run_until(|world| !world.jobs.contains_key("canary-copy-99-late"));
    assert!(!world.jobs.contains_key("canary-copy-99-late"), "it was left running");
}
