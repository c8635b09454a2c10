//! What must hold after every decision, in every trace and in every order.
//! Called by the world; a violation ends the test with the sentence that was broken.

use std::collections::{BTreeMap, BTreeSet};

use godwit::api::{CohortStatus, MigrationStatus};
use godwit::contract::Task;
use godwit::plan::cohort::step_of;
use godwit::plan::decision::{JobRequest, Work};
use godwit::plan::observed::{CohortView, JobState, MigrationView};
use godwit::plan::step::CohortStep;

use crate::world::WorldJob;

#[derive(Default)]
pub struct Watch {
    names: BTreeSet<String>,
    pub created: BTreeMap<String, u32>,
}

impl Watch {
    pub fn migration(before: &MigrationStatus, after: &MigrationStatus) {
        assert!(after.attempts >= before.attempts, "the attempt number never falls");
        assert!(after.observed_generation >= before.observed_generation, "observedGeneration never falls");
        assert!(after.history.len() <= 20, "history is bounded");
        assert_eq!(after.conditions.len(), 8, "every condition is set on the first visit");
        let step = after.step.as_ref().map(|step| step.name.as_str());
        let succeeded = after.conditions.iter().any(|one| one.type_ == "Succeeded" && one.status == "True");
        assert!(
            !succeeded || step == Some("Completed"),
            "only a completed migration says that it succeeded, not {step:?}"
        );
    }

    pub fn cohort(name: &str, before: &CohortStatus, after: &CohortStatus) {
        assert!(after.attempts >= before.attempts, "the attempt number of {name} never falls");
        assert!(after.epoch >= before.epoch, "the epoch of {name} never falls");
        let (from, to) = (step_of(before), step_of(after));
        if !from.is_backward() && to.is_backward() {
            assert!(after.rollback.is_some(), "{name} goes back only with a recorded rollback");
        }
        if from.is_backward() && from != CohortStep::RolledBack {
            assert!(to.is_backward(), "{name} never goes forward while a way back is under way ({from:?} -> {to:?})");
        }
    }

    /// A Job is about to be created.
    pub fn job(
        &mut self,
        owner: &str,
        request: &JobRequest,
        objects: (Option<&MigrationView>, Option<&CohortView>),
        jobs: &BTreeMap<String, WorldJob>,
    ) {
        let (migration, cohort) = objects;
        assert!(self.names.insert(request.name.clone()), "no Job name is ever used twice: {}", request.name);
        let Work::Worker(task) = &request.work else { return };
        *self.created.entry(format!("{owner} {}", task.name())).or_default() += 1;
        if matches!(task, Task::SqlCheck { .. } | Task::IntegrityCheck {}) {
            return;
        }
        let rival = jobs.values().find(|job| {
            job.owner == owner
                && matches!(job.state, JobState::Running { .. })
                && !matches!(job.request.work, Work::Worker(Task::SqlCheck { .. } | Task::IntegrityCheck {}))
        });
        assert!(rival.is_none(), "{owner}: never two unfinished Jobs of steps");
        let Some(migration) = migration else { return };
        let writes_target = matches!(task, Task::Prepare {} | Task::Copy {} | Task::Cutover { .. });
        let verified =
            migration.status.conditions.iter().any(|one| one.type_ == "BackupVerified" && one.status == "True");
        assert!(verified || !writes_target, "no {} before a verified backup", task.name());
        let Some(cohort) = cohort else { return };
        let recorded = cohort.status.step.as_ref().and_then(|step| step.job.as_ref());
        assert_eq!(
            recorded.map(|job| (job.name.as_str(), job.attempt)),
            Some((request.name.as_str(), request.attempt)),
            "intent is recorded before a Job is created"
        );
        // A cutover that gave no answer still runs as far as its users can tell: it is brought to its end.
        let unanswered = matches!(task, Task::Cutover { .. }) && cohort.status.owner.as_deref() != Some("Source");
        let forward = step_of(&cohort.status).is_forward() && !unanswered;
        assert!(!(forward && migration.spec.suspend), "suspended: no new forward step");
    }
}
