//! One pass over one object: the status as it will be recorded, and what follows from it. The same for both kinds:
//! attempts are started, watched, repeated and given up here. Used by `cohort.rs` and `migration.rs`, which know the steps.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::api::condition::reason;
use crate::api::status::{CheckStatus, ProgressStatus, StalledStatus, StepStatus};
use crate::api::{Check, CohortStatus, MigrationSpec, MigrationStatus};
use crate::contract::Progress;

use super::attempt::{self, Attempt};
use super::conditions::{Situation, Why};
use super::decision::{Effects, JobRequest, Note, Wait, Work};
use super::observed::{Jobs, ObjectFacts, ObservedCohort, ObservedMigration, Trouble, TroubleKind};
use super::record::{bounded, progress_of};
use super::step::Limits;
use super::{check, task};

/// How often a running Job's progress is read, in seconds.
pub(super) const PROGRESS_POLL: i64 = 10;

/// While a Job that no record names comes to its end.
pub(super) const FORMER_JOB: &str = "Waiting for an earlier Job of this object to end";

/// What a pass needs of an observation, whatever its kind.
pub(super) trait Observed {
    type Status: StepStatusBearer;
    fn object(&self) -> &ObjectFacts;
    fn jobs(&self) -> &Jobs;
    fn status(&self) -> &Self::Status;
    fn namespace_terminating(&self) -> bool;
}

/// The parts of a status that attempts touch.
pub(super) trait StepStatusBearer: Clone {
    fn parts(&mut self) -> Parts<'_>;
    fn step(&self) -> Option<&StepStatus>;
    fn checks(&self) -> &[CheckStatus];
}

pub(super) struct Parts<'a> {
    pub step: &'a mut Option<StepStatus>,
    pub attempts: &'a mut i64,
    pub progress: &'a mut Option<ProgressStatus>,
    pub checks: &'a mut Vec<CheckStatus>,
}

macro_rules! bear_steps {
    ($observed:ty, $status:ty) => {
        impl Observed for $observed {
            type Status = $status;
            fn object(&self) -> &ObjectFacts {
                &self.object
            }
            fn jobs(&self) -> &Jobs {
                &self.jobs
            }
            fn status(&self) -> &$status {
                &self.status
            }
            fn namespace_terminating(&self) -> bool {
                self.namespace_terminating
            }
        }
        impl StepStatusBearer for $status {
            fn parts(&mut self) -> Parts<'_> {
                Parts {
                    step: &mut self.step,
                    attempts: &mut self.attempts,
                    progress: &mut self.progress,
                    checks: &mut self.checks,
                }
            }
            fn step(&self) -> Option<&StepStatus> {
                self.step.as_ref()
            }
            fn checks(&self) -> &[CheckStatus] {
                &self.checks
            }
        }
    };
}
bear_steps!(ObservedCohort, CohortStatus);
bear_steps!(ObservedMigration, MigrationStatus);

/// A step's words, as far as a pass needs them.
#[derive(Clone, Copy)]
pub(super) struct Words<'a> {
    pub step: &'static str,
    pub reason: &'static str,
    pub message: &'a str,
    /// Digest of the part of the spec that the step depends on, as the spec is now.
    pub plan: &'a dyn Fn() -> String,
    pub limits: Option<Limits>,
}

pub(super) struct Pass<'a, O: Observed> {
    pub seen: &'a O,
    pub now: Timestamp,
    pub status: O::Status,
    pub effects: Effects,
    pub notes: Vec<Note>,
    wake: Option<Timestamp>,
}

impl<'a, O: Observed> Pass<'a, O> {
    pub fn new(seen: &'a O, now: Timestamp) -> Self {
        let mut status = seen.status().clone();
        // The number is the fencing token: below that of a Job of ours it would be refused by the ledgers.
        let attempts = status.parts().attempts;
        *attempts = (*attempts).max(seen.object().last_attempt);
        Self { seen, now, status, effects: Effects::default(), notes: Vec::new(), wake: None }
    }

    pub fn wait(&self) -> Wait {
        Wait::ForChange.sooner(self.wake)
    }

    pub fn wake_at(&mut self, at: Timestamp) {
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }

    pub fn wake_in(&mut self, seconds: i64) {
        self.wake_at(self.now.saturating_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX));
    }

    /// What became of the attempt under way; a running one is marked as seen and its progress shown.
    pub fn settle(&mut self) -> Attempt {
        let Some(step) = self.status.step() else { return Attempt::Idle };
        let outcome = attempt::settle(step, self.seen.jobs());
        match &outcome {
            Attempt::Running { progress, .. } => self.mark_seen(progress.as_ref()),
            Attempt::Terminating => self.mark_seen(None),
            _ => {}
        }
        outcome
    }

    fn mark_seen(&mut self, progress: Option<&Progress>) {
        let now = self.now;
        let parts = self.status.parts();
        let Some(step) = parts.step else { return };
        if let Some(job) = &mut step.job {
            job.seen = true;
        }
        *parts.progress = progress_of(parts.progress.as_ref(), progress, step, now);
    }

    /// Books a failed attempt: another one later, or a person is needed.
    pub fn book_failure(&mut self, limits: Limits, message: &str) {
        let now = self.now;
        let Some(step) = self.status.parts().step else { return };
        attempt::book_failure(step, limits, message, now);
        let told = format!("{} attempt {} of {}: {message}", step.name, step.failures, limits.attempts);
        self.notes.push(Note::warning("AttemptFailed", "Retry", told));
    }

    /// Nothing goes on until a person acts.
    pub fn stall(&mut self, reason: &str, message: &str) {
        if let Some(step) = self.status.parts().step {
            step.job = None;
            step.stalled =
                Some(StalledStatus { reason: reason.to_owned(), message: bounded(message, attempt::MAX_STALLED) });
        }
    }

    pub fn stalled(&self) -> Option<&StalledStatus> {
        self.status.step().and_then(|step| step.stalled.as_ref())
    }

    /// A retry, or a new generation: the step begins again where it stands.
    pub fn clear_stall(&mut self, limits: Option<Limits>) {
        let now = self.now;
        let Some(step) = self.status.parts().step else { return };
        step.stalled = None;
        step.failures = 0;
        step.failure = None;
        step.retry_time = None;
        step.deadline = None;
        if step.job.is_some() {
            attempt::allow_time(step, limits, now);
        }
    }

    /// The situation of a step that is stalled, retried later, or has an attempt under way; `None` when one may start.
    pub fn not_free(
        &mut self,
        words: Words<'_>,
        request: impl FnOnce(&Self, &str, i64) -> Option<JobRequest>,
    ) -> Option<Situation> {
        let step = self.status.step()?;
        if let Some(stalled) = &step.stalled {
            return Some(Situation::NeedsHuman(Why::new(stalled.reason.clone(), stalled.message.clone())));
        }
        if step.job.is_some() {
            return Some(self.under_way(words, request));
        }
        let retry_time = step.retry_time.as_ref()?.0;
        let why = step.failure.as_ref().map_or_else(String::new, |failure| format!(" ({failure})"));
        let told =
            format!("{}: attempt {} failed; the next one starts at {retry_time}{why}", words.step, step.failures);
        if retry_time <= self.now {
            return None;
        }
        self.wake_at(retry_time);
        Some(Situation::Running(Why::new(reason::RETRY_SCHEDULED, told)))
    }

    /// Names the next attempt; its Job is created after the record, from the spec that `plan` is the digest of.
    pub fn start_attempt(&mut self, limits: Option<Limits>, plan: String) {
        let owner = (self.seen.object(), self.now);
        let parts = self.status.parts();
        *parts.progress = None;
        if let Some(step) = parts.step {
            attempt::start(step, parts.attempts, owner, (limits, plan));
        }
    }

    /// Digest of the part of the spec that the attempt under way was made from.
    pub fn plan_of_attempt(&self) -> Option<String> {
        self.status.step()?.job.as_ref()?.plan.clone()
    }

    /// A Job is recorded: it is created if nobody saw it, watched, and given up at the deadline.
    pub fn under_way(
        &mut self,
        words: Words<'_>,
        request: impl FnOnce(&Self, &str, i64) -> Option<JobRequest>,
    ) -> Situation {
        let running = Situation::Running(Why::new(words.reason, words.message));
        let Some((step, job)) = self.status.step().and_then(|step| Some((step, step.job.clone()?))) else {
            return running;
        };
        let late = step.deadline.as_ref().is_some_and(|deadline| deadline.0 <= self.now);
        match attempt::settle(step, self.seen.jobs()) {
            Attempt::Unseen => {
                // Recorded long ago, by an operator that went away before it created the Job: nothing has run.
                self.allow_time(words.limits);
                if job.plan.as_ref().is_some_and(|plan| *plan != (words.plan)()) {
                    // Made now it would do something else than was recorded: its name is occupied, and another attempt follows.
                    self.effects.abandoned_jobs.push(job.name);
                } else {
                    let request = request(self, &job.name, job.attempt);
                    self.effects.jobs.extend(request);
                }
            }
            Attempt::Running { trouble, .. } if late => {
                return self.stall_late(words.step, job.name, trouble.as_ref());
            }
            _ if late => return self.stall_late(words.step, job.name, None),
            Attempt::Running { trouble: Some(trouble), .. } => {
                self.wake_in(PROGRESS_POLL);
                return waiting(words.step, &job.name, &trouble);
            }
            _ => self.wake_in(PROGRESS_POLL),
        }
        if let Some(deadline) = self.status.step().and_then(|step| step.deadline.clone()) {
            self.wake_at(deadline.0);
        }
        running
    }

    fn allow_time(&mut self, limits: Option<Limits>) {
        let now = self.now;
        if let Some(step) = self.status.parts().step {
            attempt::allow_time(step, limits, now);
        }
    }

    fn stall_late(&mut self, step: &str, job: String, trouble: Option<&Trouble>) -> Situation {
        self.effects.abandoned_jobs.push(job);
        let found = trouble.map_or_else(|| "Find out why".to_owned(), |found| format!("It waited: {}", found.message));
        let told = format!("{step} did not end in time; its Job was stopped. {found}; then request a retry");
        self.stall(reason::PROGRESS_DEADLINE_EXCEEDED, &told);
        Situation::NeedsHuman(Why::new(reason::PROGRESS_DEADLINE_EXCEEDED, told))
    }

    /// Measures by Job what is due, and asks to be woken for the rest.
    pub fn measure(
        &mut self,
        needed: &[&Check],
        spec: &MigrationSpec,
        request: impl Fn(&Self, &str, i64, Work) -> JobRequest,
    ) {
        if self.seen.namespace_terminating() {
            return;
        }
        let (object, now) = (self.seen.object(), self.now);
        let parts = self.status.parts();
        check::settle_jobs(parts.checks, self.seen.jobs());
        let wake = check::start_jobs(needed, parts.checks, parts.attempts, object, now);
        let unseen = |name: &str| !self.seen.jobs().contains_key(name);
        let requests: Vec<JobRequest> = self
            .status
            .checks()
            .iter()
            .filter_map(|status| {
                let job = status.job.as_ref().filter(|job| unseen(&job.name))?;
                let check = spec.checks.iter().find(|check| check.name == status.name)?;
                Some(request(self, &job.name, job.attempt, task::of_check(check)?))
            })
            .collect();
        self.effects.jobs.extend(requests);
        if self.status.checks().iter().any(|status| status.job.is_some()) {
            // Why a pod does not start shows on no Job: it has to be looked for.
            self.wake_in(PROGRESS_POLL);
        }
        if let Some(wake) = wake {
            self.wake_at(wake);
        }
    }
}

/// What is waited for by a Job that does not get on. The attempt stays: it goes on by itself once that is mended, and its
/// deadline ends it otherwise.
fn waiting(step: &str, job: &str, trouble: &Trouble) -> Situation {
    let why = |reason: &str, remedy: &str| Why::new(reason, format!("{step} waits: {}. {remedy}", trouble.message));
    match trouble.kind {
        TroubleKind::Secret => Situation::NeedsHuman(why(
            reason::SECRET_NOT_FOUND,
            "Create that Secret with that key; the pod then starts by itself",
        )),
        TroubleKind::ConfigMap => Situation::NeedsHuman(why(
            reason::CONFIG_MAP_NOT_FOUND,
            "Create that ConfigMap; the pod then starts by itself",
        )),
        TroubleKind::Image => Situation::NeedsHuman(why(
            reason::IMAGE_NOT_PULLED,
            "Make the image available under that name; the pod then starts by itself",
        )),
        TroubleKind::Container => Situation::NeedsHuman(why(
            reason::CONTAINER_NOT_STARTED,
            "Repair what the node names; the pod then starts by itself",
        )),
        TroubleKind::Scheduling => {
            Situation::Holding(why(reason::JOB_NOT_STARTED, "The pod starts by itself when what is named is there"))
        }
        TroubleKind::Suspended => Situation::Holding(why(
            reason::JOB_SUSPENDED,
            &format!("Resume it: kubectl patch job {job} --type=merge -p '{{\"spec\":{{\"suspend\":false}}}}'"),
        )),
        TroubleKind::Leaving => Situation::Holding(why(
            reason::POD_ENDING,
            "If that lasts, its node does not answer: bring it back, or delete the Node; another pod then takes over",
        )),
    }
}

/// A moment as status shows it.
pub(super) fn after(now: Timestamp, duration: SignedDuration) -> Time {
    Time(now.saturating_add(duration).unwrap_or(Timestamp::MAX))
}
