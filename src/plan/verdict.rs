//! Verdicts: from measurements to Pass, Fail, Inconclusive or Error, and over several checks the worst.
//! Used by gates and triggers. Must not measure anything itself.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::api::check::{Check, OnNoData};
use crate::api::status::{CheckStatus, MAX_MEASUREMENTS, Measurement, Verdict};

use super::observed::Outcome;
use super::record::bounded;

/// A measurement with its own verdict.
pub fn judge(check: &Check, outcome: &Outcome, now: Timestamp) -> Measurement {
    let (verdict, value, message) = match outcome {
        Outcome::Numbers { values, passed } => {
            let verdict = if *passed { Verdict::Pass } else { Verdict::Fail };
            (verdict, values.first().map(|value| bounded(&value.to_string(), 32)), None)
        }
        Outcome::Compared { passed, found } => {
            let verdict = if *passed { Verdict::Pass } else { Verdict::Fail };
            (verdict, Some(bounded(found, 32)), None)
        }
        Outcome::NoData { message } => {
            let verdict = match check.on_no_data {
                OnNoData::Inconclusive => Verdict::Inconclusive,
                OnNoData::Fail => Verdict::Fail,
                OnNoData::Pass => Verdict::Pass,
            };
            (verdict, None, Some(bounded(message, 256)))
        }
        Outcome::Error { message } => (Verdict::Error, None, Some(bounded(message, 256))),
    };
    Measurement { time: Time(now), verdict, value, message }
}

/// Adds a measurement and judges anew.
pub fn add(status: &mut CheckStatus, check: &Check, measurement: Measurement) {
    status.measurements.push(measurement);
    let excess = status.measurements.len().saturating_sub(MAX_MEASUREMENTS);
    status.measurements.drain(..excess);
    status.verdict = over(check, &status.measurements);
}

/// The verdict over the latest measurements: Pass or Fail only when enough of them were taken and the latest agree.
pub fn over(check: &Check, measurements: &[Measurement]) -> Verdict {
    let Some(latest) = measurements.last() else {
        return Verdict::Inconclusive;
    };
    let wanted = check.consecutive.max(1) as usize;
    if measurements.len() < (check.min_samples as usize).max(wanted) {
        return Verdict::Inconclusive;
    }
    let agreeing = measurements.iter().rev().take_while(|one| one.verdict == latest.verdict).count();
    if agreeing >= wanted { latest.verdict } else { Verdict::Inconclusive }
}

/// The worst of several; Pass when there is none.
pub fn worst(verdicts: impl IntoIterator<Item = Verdict>) -> Verdict {
    verdicts.into_iter().max().unwrap_or(Verdict::Pass)
}

/// What was measured against what, in one sentence: the evidence of a gate or trigger.
pub fn describe(check: &Check, status: &CheckStatus) -> String {
    let latest: Vec<String> = status
        .measurements
        .iter()
        .rev()
        .take(check.consecutive.max(1) as usize)
        .map(|one| {
            let shown = one.value.clone().or_else(|| one.message.clone()).unwrap_or_else(|| "no value".to_owned());
            format!("{shown} at {}", one.time.0)
        })
        .collect();
    let wanted = check.pass_when.as_deref().map_or_else(
        || {
            check.condition.as_ref().map_or_else(String::new, |condition| {
                format!(" (wanted {}={})", condition.type_, condition.status.as_str())
            })
        },
        |expression| format!(" (wanted {expression})"),
    );
    bounded(&format!("check {} measured {}{wanted}", check.name, latest.join(", ")), 512)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A check of source `http` with the smallest settings.
    pub(crate) fn check(name: &str) -> Check {
        serde_json::from_value(serde_json::json!({
            "name": name, "http": {"url": "http://crm/health"}, "passWhen": "value < 5.0", "interval": "10s"
        }))
        .unwrap()
    }

    fn measured(check: &Check, samples: &[Option<bool>]) -> CheckStatus {
        let mut status = CheckStatus {
            name: check.name.clone(),
            digest: None,
            verdict: Verdict::Inconclusive,
            measurements: vec![],
            job: None,
        };
        for sample in samples {
            let outcome = match sample {
                Some(passed) => Outcome::Numbers { values: vec![3.0], passed: *passed },
                None => Outcome::NoData { message: "the answer is empty".into() },
            };
            let one = judge(check, &outcome, Timestamp::UNIX_EPOCH);
            add(&mut status, check, one);
        }
        status
    }

    #[test]
    fn there_is_no_verdict_before_enough_samples() {
        let check = Check { min_samples: 3, ..check("quiet") };
        assert_eq!(measured(&check, &[Some(false), Some(false)]).verdict, Verdict::Inconclusive);
        assert_eq!(measured(&check, &[Some(false), Some(false), Some(false)]).verdict, Verdict::Fail);
    }

    #[test]
    fn a_single_outlier_is_inconclusive_when_two_in_a_row_are_wanted() {
        let check = Check { consecutive: 2, ..check("quiet") };
        assert_eq!(measured(&check, &[Some(true), Some(true), Some(false)]).verdict, Verdict::Inconclusive);
        assert_eq!(measured(&check, &[Some(true), Some(false), Some(false)]).verdict, Verdict::Fail);
    }

    #[test]
    fn no_data_is_inconclusive_unless_the_user_says_otherwise() {
        assert_eq!(measured(&check("quiet"), &[None]).verdict, Verdict::Inconclusive);
        let strict = Check { on_no_data: OnNoData::Fail, ..check("quiet") };
        assert_eq!(measured(&strict, &[None]).verdict, Verdict::Fail);
    }

    #[test]
    fn the_worst_verdict_wins_and_a_failure_is_worse_than_an_error() {
        assert_eq!(worst([Verdict::Pass, Verdict::Error, Verdict::Inconclusive]), Verdict::Error);
        assert_eq!(worst([Verdict::Fail, Verdict::Error]), Verdict::Fail);
        assert_eq!(worst([]), Verdict::Pass);
    }

    #[test]
    fn only_the_latest_ten_measurements_are_kept() {
        assert_eq!(measured(&check("quiet"), &[Some(true); 14]).measurements.len(), 10);
    }
}
