//! Measurements from Jobs, and what surrounds every measurement.
//! Beside `mod.rs`; the sources have their own tests.

use std::collections::BTreeMap;

use serde_json::json;

use super::*;
use crate::contract::ReportResult;
use crate::plan::observed::Failure;

fn check() -> Check {
    serde_json::from_value(json!({"name": "links", "passWhen": "value < 5.0", "job": {"image": "i"}})).unwrap()
}

fn statuses() -> Vec<CheckStatus> {
    serde_json::from_value(json!([{
        "name": "links", "verdict": "Pass", "job": {"name": "links-1", "attempt": 1, "seen": true},
        "measurements": [
            {"time": "2026-03-01T10:00:00Z", "verdict": "Pass", "value": "2"},
            {"time": "2026-03-01T10:01:00Z", "verdict": "Error"},
            {"time": "2026-03-01T10:02:00Z", "verdict": "Pass", "value": "3.5"},
        ],
    }]))
    .unwrap()
}

fn report(values: &[f64]) -> Report {
    Report { values: values.to_vec(), ..Report::new(ReportResult::Pass) }
}

async fn outcome(state: JobState) -> Option<Outcome> {
    let checks = Checks::new(false).unwrap();
    let asked = Asked {
        namespace: "shop",
        checks: &[check()],
        statuses: &statuses(),
        jobs: &BTreeMap::from([("links-1".to_owned(), state.clone())]),
    };
    let measured = checks.read(&asked, &check(), &state).await?;
    assert_eq!(measured.check, "links");
    Some(measured.outcome)
}

fn failed(exit_code: Option<i32>, report: Option<Report>) -> JobState {
    JobState::Failed(Failure { exit_code, reason: "BackoffLimitExceeded".into(), report })
}

#[tokio::test]
async fn the_numbers_of_an_ended_job_are_held_against_pass_when() {
    let report_of = |values: &[f64]| JobState::Succeeded { report: Some(report(values)) };
    assert_eq!(outcome(report_of(&[4.0, 9.0])).await, Some(Outcome::Numbers { values: vec![4.0, 9.0], passed: true }));
    assert_eq!(outcome(report_of(&[7.0])).await, Some(Outcome::Numbers { values: vec![7.0], passed: false }));
    assert!(matches!(outcome(report_of(&[])).await, Some(Outcome::NoData { .. })));
}

#[tokio::test]
async fn a_job_that_says_65_fails_the_check_and_any_other_failure_is_an_error() {
    assert_eq!(outcome(failed(Some(65), None)).await, Some(Outcome::Numbers { values: vec![], passed: false }));
    for code in [Some(66), Some(75), Some(1), None] {
        assert!(matches!(outcome(failed(code, None)).await, Some(Outcome::Error { .. })), "{code:?}");
    }
}

#[tokio::test]
async fn a_job_that_runs_or_is_not_ours_brings_no_measurement() {
    let running = JobState::Running { progress: None, trouble: None };
    for state in [running, JobState::Terminating, JobState::Foreign] {
        assert_eq!(outcome(state).await, None);
    }
}

#[tokio::test]
async fn a_lost_report_is_no_data() {
    let state = JobState::Succeeded { report: None };
    assert!(matches!(outcome(state).await, Some(Outcome::NoData { .. })));
}

#[test]
fn samples_are_the_earlier_numbers_with_this_one_last() {
    assert_eq!(samples(&statuses(), "links", 9.0), [2.0, 3.5, 9.0]);
    assert_eq!(samples(&statuses(), "other", 9.0), [9.0]);
}

#[test]
fn no_measurement_waits_longer_than_thirty_seconds() {
    let mut check = check();
    check.timeout = Some("10m".into());
    assert_eq!(timeout_of(&check), Duration::from_secs(30));
    check.timeout = Some("3s".into());
    assert_eq!(timeout_of(&check), Duration::from_secs(3));
}
