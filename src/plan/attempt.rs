//! Attempts: what became of the Job that carries a step out, and when the next one may start.
//! Used by both decisions in the same way. Must treat every state of a Job, lost and foreign ones too, as an answer.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::api::condition::reason;
use crate::api::status::{JobStatus, StalledStatus, StepStatus};
use crate::contract::{Progress, Report, ReportResult, exit};

use super::names::job_name;
use super::observed::{Failure, JobState, Jobs, ObjectFacts, Trouble};
use super::record::bounded;
use super::step::Limits;

/// Longest text of a failed attempt, in characters.
const MAX_FAILURE: usize = 512;
/// Longest text of what a person is needed for, in characters.
pub(super) const MAX_STALLED: usize = 1024;

/// What became of the step's attempt.
#[derive(Clone, Debug, PartialEq)]
pub enum Attempt {
    /// No attempt is under way.
    Idle,
    /// Recorded, not yet seen in the cluster: to be created (again, if we crashed in between).
    Unseen,
    /// Under way.
    Running {
        progress: Option<Progress>,
        trouble: Option<Trouble>,
    },
    /// Being deleted; pods may still run.
    Terminating,
    Passed(Report),
    /// The answer is no, and asking again is pointless.
    Refused(Refusal),
    /// No answer; another attempt may bring one.
    Lost {
        message: String,
    },
}

/// A permanent failure.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    pub reason: &'static str,
    pub message: String,
    pub report: Option<Report>,
}

/// What became of the attempt that `step` names.
pub fn settle(step: &StepStatus, jobs: &Jobs) -> Attempt {
    let Some(job) = &step.job else {
        return Attempt::Idle;
    };
    match jobs.get(&job.name) {
        None if job.seen => Attempt::Lost { message: format!("Job {} vanished before it ended", job.name) },
        None => Attempt::Unseen,
        Some(JobState::Running { progress, trouble }) => {
            Attempt::Running { progress: progress.clone(), trouble: trouble.clone() }
        }
        Some(JobState::Terminating) => Attempt::Terminating,
        Some(JobState::Foreign) => Attempt::Refused(Refusal {
            reason: reason::JOB_NAME_TAKEN,
            message: format!("Job {} exists and belongs to somebody else; delete it, then request a retry", job.name),
            report: None,
        }),
        Some(JobState::Succeeded { report: Some(report) }) if report.result == ReportResult::Pass => {
            Attempt::Passed(report.clone())
        }
        Some(JobState::Succeeded { report: Some(report) }) => Attempt::Refused(Refusal {
            reason: reason::DATA_DIFFERS,
            message: describe(report, "The step ended without passing"),
            report: Some(report.clone()),
        }),
        // Steps are idempotent and their reports durable: asking again costs little, guessing could cost data.
        Some(JobState::Succeeded { report: None }) => {
            Attempt::Lost { message: format!("the report of Job {} went with its pod", job.name) }
        }
        Some(JobState::Failed(failure)) => judge(failure),
    }
}

fn judge(failure: &Failure) -> Attempt {
    let report = failure.report.as_ref();
    let permanent = match failure.exit_code {
        Some(exit::DATA_DIFFERS) => Some((reason::DATA_DIFFERS, "Refused")),
        Some(exit::INPUT_MISSING) => Some((reason::INPUT_MISSING, "Something the step needs is missing")),
        Some(exit::NOT_PERMITTED) => Some((reason::NOT_PERMITTED, "Permission was refused")),
        Some(exit::MISCONFIGURED) => Some((reason::MISCONFIGURED, "The step cannot use its configuration")),
        _ => None,
    };
    if let Some((reason, what)) = permanent {
        let message = report.map_or_else(|| what.to_owned(), |report| describe(report, what));
        return Attempt::Refused(Refusal { reason, message, report: report.cloned() });
    }
    let code = failure.exit_code.map_or_else(|| "no exit code".to_owned(), |code| format!("exit code {code}"));
    let what = format!("attempt failed ({}, {code})", failure.reason);
    Attempt::Lost { message: report.map_or_else(|| what.clone(), |report| describe(report, &what)) }
}

/// The first finding says what a person needs; the rest is in status and in the evidence file.
fn describe(report: &Report, what: &str) -> String {
    let Some(first) = report.findings.first() else {
        return what.to_owned();
    };
    let more = report.findings.len() - 1 + report.findings_omitted as usize;
    let others = if more > 0 { format!(" (and {more} more)") } else { String::new() };
    let object = if first.object.is_empty() { String::new() } else { format!(" {}", first.object) };
    format!("{what}: {}{object}: {}{others}", first.code, first.message)
}

/// A step that begins now, without an attempt yet: it may be held for as long as it takes, so its time does not run yet.
pub fn begin(name: &str, now: Timestamp) -> StepStatus {
    StepStatus {
        name: name.to_owned(),
        start_time: Time(now),
        deadline: None,
        failures: 0,
        failure: None,
        job: None,
        retry_time: None,
        stalled: None,
    }
}

/// Names the next attempt in `step`; the Job is created after the record, from the spec that `plan` is the digest of.
pub fn start(
    step: &mut StepStatus,
    attempts: &mut i64,
    (owner, now): (&ObjectFacts, Timestamp),
    (limits, plan): (Option<Limits>, String),
) {
    allow_time(step, limits, now);
    *attempts += 1;
    step.retry_time = None;
    step.job = Some(JobStatus {
        name: job_name(&owner.uid, &owner.name, &step.name, *attempts),
        attempt: *attempts,
        plan: Some(plan),
        seen: false,
    });
}

/// The step's time runs from its first attempt. Time that ran out between two attempts was spent being held, and runs anew.
pub fn allow_time(step: &mut StepStatus, limits: Option<Limits>, now: Timestamp) {
    let runs = step.deadline.as_ref().is_some_and(|deadline| deadline.0 > now);
    if let Some(limits) = limits.filter(|_| !runs) {
        step.start_time = Time(now);
        step.deadline = Some(Time(now.saturating_add(limits.deadline).unwrap_or(Timestamp::MAX)));
    }
}

/// Books a failed attempt: another one later, or a person is needed.
pub fn book_failure(step: &mut StepStatus, limits: Limits, message: &str, now: Timestamp) {
    step.job = None;
    step.failures += 1;
    step.failure = Some(bounded(message, MAX_FAILURE));
    if step.failures >= limits.attempts {
        step.stalled = Some(StalledStatus {
            reason: reason::RETRIES_EXHAUSTED.to_owned(),
            message: bounded(
                &format!("{} of {} attempts failed; the last: {message}", step.failures, limits.attempts),
                MAX_STALLED,
            ),
        });
    } else {
        step.retry_time = Some(Time(now.saturating_add(backoff(step.failures)).unwrap_or(Timestamp::MAX)));
    }
}

/// 10 s, doubled with each failure, 5 min at most.
fn backoff(failures: u32) -> SignedDuration {
    let doubled = 10_i64.saturating_mul(1_i64 << failures.saturating_sub(1).min(10));
    SignedDuration::from_secs(doubled.min(300))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::{Finding, Severity};

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn step_with_job(seen: bool) -> StepStatus {
        let mut step = begin("Copy", NOW);
        step.job = Some(JobStatus { name: "canary-copy-7".into(), attempt: 7, plan: None, seen });
        step
    }

    fn jobs(state: JobState) -> Jobs {
        Jobs::from([("canary-copy-7".to_owned(), state)])
    }

    fn failed(exit_code: Option<i32>) -> JobState {
        JobState::Failed(Failure { exit_code, reason: "PodFailurePolicy".into(), report: None })
    }

    #[test]
    fn a_recorded_job_that_nobody_saw_is_created_and_one_that_vanished_is_a_failed_attempt() {
        assert_eq!(settle(&step_with_job(false), &Jobs::new()), Attempt::Unseen);
        assert!(matches!(settle(&step_with_job(true), &Jobs::new()), Attempt::Lost { .. }));
    }

    #[test]
    fn the_published_permanent_exit_codes_are_never_retried_and_all_others_are() {
        for code in exit::PERMANENT {
            assert!(matches!(settle(&step_with_job(true), &jobs(failed(Some(code)))), Attempt::Refused(_)), "{code}");
        }
        for code in [Some(1), Some(75), Some(137), None] {
            assert!(matches!(settle(&step_with_job(true), &jobs(failed(code))), Attempt::Lost { .. }), "{code:?}");
        }
    }

    #[test]
    fn success_without_a_report_is_asked_again_rather_than_believed() {
        let state = JobState::Succeeded { report: None };
        assert!(matches!(settle(&step_with_job(true), &jobs(state)), Attempt::Lost { .. }));
    }

    #[test]
    fn a_foreign_job_of_our_name_is_refused_with_the_remedy() {
        let Attempt::Refused(refusal) = settle(&step_with_job(false), &jobs(JobState::Foreign)) else { panic!() };
        assert_eq!(refusal.reason, reason::JOB_NAME_TAKEN);
        assert!(refusal.message.contains("canary-copy-7"));
    }

    #[test]
    fn a_refusal_names_the_first_finding_and_counts_the_others() {
        let finding = |object: &str| Finding {
            severity: Severity::Blocker,
            code: "RowsDiffer".into(),
            object: object.into(),
            message: "14 rows differ".into(),
        };
        let mut report = Report::new(ReportResult::Fail);
        report.findings = vec![finding("public.invoice"), finding("public.deal")];
        let failure = Failure { exit_code: Some(65), reason: String::new(), report: Some(report) };
        let Attempt::Refused(refusal) = settle(&step_with_job(true), &jobs(JobState::Failed(failure))) else {
            panic!()
        };
        assert_eq!(refusal.message, "Refused: RowsDiffer public.invoice: 14 rows differ (and 1 more)");
    }

    #[test]
    fn attempts_back_off_and_end_with_a_person() {
        let limits = Limits { attempts: 3, deadline: SignedDuration::from_hours(1) };
        let mut step = step_with_job(true);
        book_failure(&mut step, limits, "x", NOW);
        assert_eq!(step.retry_time, Some(Time(NOW + SignedDuration::from_secs(10))));
        book_failure(&mut step, limits, "x", NOW);
        assert_eq!(step.retry_time, Some(Time(NOW + SignedDuration::from_secs(20))));
        book_failure(&mut step, limits, "the database is away", NOW);
        let stalled = step.stalled.unwrap();
        assert_eq!(stalled.reason, reason::RETRIES_EXHAUSTED);
        assert_eq!(stalled.message, "3 of 3 attempts failed; the last: the database is away");
    }

    #[test]
    fn the_attempt_number_never_falls_and_names_the_job() {
        let owner = ObjectFacts { uid: "u".into(), name: "canary".into(), ..ObjectFacts::default() };
        let mut step = begin("Copy", NOW);
        let mut attempts = 41;
        start(&mut step, &mut attempts, (&owner, NOW), (None, "sha256:x".into()));
        assert_eq!(attempts, 42);
        assert_eq!(step.job.unwrap().attempt, 42);
    }
}
