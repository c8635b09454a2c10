//! Measurements: those that the operator takes itself, and those that a check's Job has brought.
//! Called at the end of `observe`. Every failure is an outcome; nothing here decides what follows from it.

pub mod address;
pub mod cel;
pub mod condition;
mod cost;
pub mod http;
pub mod prometheus;

use std::time::Duration;

use futures::future::join_all;
use kube::Client;

use self::cel::Evaluator;
use self::condition::Conditions;
use self::http::Fetcher;
use super::classify::clipped;
use super::error::Error;
use crate::api::status::CheckStatus;
use crate::api::{Check, DurationString};
use crate::contract::{Report, exit};
use crate::plan::observed::{JobState, Jobs, Measured, Outcome};

/// Longest message of an outcome, as status holds it.
const MAX_MESSAGE: usize = 256;
/// Numbers of one measurement, at most.
const MAX_VALUES: usize = 100;
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
const LONGEST_TIMEOUT: Duration = Duration::from_secs(30);

/// What measurements are taken with.
pub struct Checks {
    fetcher: Fetcher,
    conditions: Conditions,
    evaluator: Evaluator,
}

/// Whose checks, and what is known of them.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    pub namespace: &'a str,
    pub checks: &'a [Check],
    pub statuses: &'a [CheckStatus],
    pub jobs: &'a Jobs,
}

/// What a source answered, before `passWhen`.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    Numbers(Vec<f64>),
    Compared {
        passed: bool,
        found: String,
    },
    /// The check's container says that it does not pass, without a number.
    No,
    NoData(String),
    Error(String),
}

impl Checks {
    pub fn new(may_reach_loopback: bool) -> Result<Self, Error> {
        Ok(Self {
            fetcher: Fetcher::new(may_reach_loopback)?,
            conditions: Conditions::default(),
            evaluator: Evaluator::default(),
        })
    }

    /// Takes the due measurements, all at once, and reads those of ended Jobs.
    pub async fn measure(&self, client: &Client, asked: &Asked<'_>, due: &[Check]) -> Vec<Measured> {
        let own = due.iter().map(|check| self.take(client, asked, check));
        let ended = asked.statuses.iter().filter_map(|status| {
            let job = status.job.as_ref()?;
            let check = asked.checks.iter().find(|check| check.name == status.name)?;
            Some((check, asked.jobs.get(&job.name)?))
        });
        let of_jobs = ended.map(|(check, state)| self.read(asked, check, state));
        let (own, of_jobs) = futures::join!(join_all(own), join_all(of_jobs));
        own.into_iter().chain(of_jobs.into_iter().flatten()).collect()
    }

    async fn take(&self, client: &Client, asked: &Asked<'_>, check: &Check) -> Measured {
        let limit = timeout_of(check);
        let asking = self.ask(client, asked.namespace, check);
        let answer = tokio::time::timeout(limit, asking)
            .await
            .unwrap_or_else(|_| Answer::Error(format!("no answer within {} s", limit.as_secs())));
        self.measured(asked, check, answer).await
    }

    async fn ask(&self, client: &Client, namespace: &str, check: &Check) -> Answer {
        if let Some(source) = &check.condition {
            return self.conditions.ask(client, namespace, source).await;
        }
        if let Some(source) = &check.http {
            return self.fetcher.ask_http(source).await;
        }
        if let Some(source) = &check.prometheus {
            return self.fetcher.ask_prometheus(source).await;
        }
        Answer::Error("the check has no source that this version can ask".to_owned())
    }

    /// The measurement that an ended Job brought; `None` while it runs, and for a foreign one, which `plan/` answers.
    async fn read(&self, asked: &Asked<'_>, check: &Check, state: &JobState) -> Option<Measured> {
        let answer = match state {
            JobState::Running { .. } | JobState::Terminating | JobState::Foreign => return None,
            JobState::Succeeded { report } => match report {
                Some(report) => numbers(report),
                None => Answer::NoData("the report went with its pod".to_owned()),
            },
            JobState::Failed(failure) if failure.exit_code == Some(exit::DATA_DIFFERS) => match &failure.report {
                Some(report) if !report.values.is_empty() => numbers(report),
                _ => Answer::No,
            },
            JobState::Failed(failure) => Answer::Error(failed_text(failure)),
        };
        Some(self.measured(asked, check, answer).await)
    }

    async fn measured(&self, asked: &Asked<'_>, check: &Check, answer: Answer) -> Measured {
        let outcome = match answer {
            Answer::Numbers(values) if values.is_empty() => {
                Outcome::NoData { message: "the answer held no number".to_owned() }
            }
            Answer::Numbers(values) => self.judge(asked, check, values).await,
            Answer::No => Outcome::Numbers { values: Vec::new(), passed: false },
            Answer::Compared { passed, found } => Outcome::Compared { passed, found: clipped(&found, MAX_MESSAGE) },
            Answer::NoData(message) => Outcome::NoData { message: clipped(&message, MAX_MESSAGE) },
            Answer::Error(message) => Outcome::Error { message: clipped(&message, MAX_MESSAGE) },
        };
        Measured { check: check.name.clone(), outcome }
    }

    async fn judge(&self, asked: &Asked<'_>, check: &Check, mut values: Vec<f64>) -> Outcome {
        values.truncate(MAX_VALUES);
        let Some(pass_when) = check.pass_when.clone() else {
            return Outcome::Error { message: "the check has no passWhen".to_owned() };
        };
        let samples = samples(asked.statuses, &check.name, values[0]);
        let numbers = cel::Numbers { values: values.clone(), samples };
        match self.evaluator.evaluate(pass_when, numbers).await {
            Ok(passed) => Outcome::Numbers { values, passed },
            Err(message) => Outcome::Error { message: clipped(&format!("passWhen: {message}"), MAX_MESSAGE) },
        }
    }
}

fn numbers(report: &Report) -> Answer {
    Answer::Numbers(report.values.clone())
}

fn failed_text(failure: &crate::plan::observed::Failure) -> String {
    let finding = failure.report.as_ref().and_then(|report| report.findings.first());
    match (finding, failure.exit_code) {
        (Some(finding), _) => finding.message.clone(),
        (None, Some(code)) => format!("the Job failed with exit code {code}"),
        (None, None) => format!("the Job failed: {}", failure.reason),
    }
}

fn timeout_of(check: &Check) -> Duration {
    let parsed = check.timeout.as_ref().and_then(DurationString::parse).and_then(|wait| Duration::try_from(wait).ok());
    parsed.unwrap_or(DEFAULT_TIMEOUT).min(LONGEST_TIMEOUT)
}

/// First numbers of the latest measurements, this one last.
fn samples(statuses: &[CheckStatus], check: &str, value: f64) -> Vec<f64> {
    let earlier = statuses.iter().filter(|status| status.name == check);
    earlier
        .flat_map(|status| &status.measurements)
        .filter_map(|measurement| measurement.value.as_ref()?.parse().ok())
        .chain([value])
        .collect()
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;

#[cfg(test)]
#[path = "hostile_tests.rs"]
mod hostile_tests;
