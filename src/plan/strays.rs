//! Jobs in the way: of a step that is given up for the way back, and those that no record names.
//! Used by both decisions before they start anything. Must not stop a Job that has to end by itself.

use super::names::job_name;
use super::observed::{JobState, ObjectFacts};
use super::pass::{Observed, PROGRESS_POLL, Pass, StepStatusBearer};

impl<O: Observed> Pass<'_, O> {
    /// Whether a forward Job stands in the way of going back: one that runs is stopped unless it must end by itself, one
    /// that nobody saw yet is given up (its name is then occupied) or created and seen, so that no late create follows its end.
    pub fn forward_job_in_the_way(&mut self, may_stop: bool) -> bool {
        // Marks a Job that is there as seen: once it is gone, its absence must not read as "never created".
        self.settle();
        let Some(job) = self.status.step().and_then(|step| step.job.clone()) else { return false };
        match self.seen.jobs().get(&job.name) {
            Some(JobState::Running { .. }) if may_stop => {
                self.effects.abandoned_jobs.push(job.name);
                true
            }
            Some(JobState::Running { .. } | JobState::Terminating) => true,
            None if may_stop && !job.seen => {
                self.effects.abandoned_jobs.push(job.name);
                true
            }
            None => !job.seen,
            _ => false,
        }
    }

    /// A Job of one of these steps that no record names has not ended: of a status that was edited or lost, or of an operator
    /// that was deposed. Nothing is started beside it; `stop_strays` ends it.
    pub fn stray_in_the_way(&mut self, steps: &[&str]) -> bool {
        let ObjectFacts { uid, name: owner, .. } = self.seen.object();
        let found = self.seen.jobs().iter().any(|(name, state)| {
            let attempt = name.rsplit('-').nth(1).and_then(|text| text.parse().ok());
            let of_step = |step: &str| attempt.is_some_and(|attempt| *name == job_name(uid, owner, step, attempt));
            matches!(state, JobState::Running { .. } | JobState::Terminating) && steps.iter().copied().any(of_step)
        });
        if found {
            self.wake_in(PROGRESS_POLL);
        }
        found
    }

    /// Unfinished Jobs of ours that no record names must not run: an operator that was deposed may have left them.
    pub fn stop_strays(&mut self) {
        let step_job = self.status.step().and_then(|step| step.job.as_ref()).map(|job| job.name.as_str());
        let checks = self.status.checks();
        let named = |name: &str| {
            step_job == Some(name) || checks.iter().any(|check| check.job.as_ref().is_some_and(|job| job.name == name))
        };
        let abandoned = &self.effects.abandoned_jobs;
        let strays: Vec<String> = self
            .seen
            .jobs()
            .iter()
            .filter(|(name, state)| matches!(state, JobState::Running { .. }) && !named(name))
            .map(|(name, _)| name.clone())
            .filter(|name| !abandoned.contains(name))
            .collect();
        self.effects.abandoned_jobs.extend(strays);
    }
}
