//! The series of Migrations and Cohorts, made from their last recorded status at each scrape: what is gone has none.
//! Filled by `metrics`. Holds names, phases, conditions and counts: never a message, never customer data.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::Labels;
use crate::api::migration::PostgresEngine;
use crate::api::phase::{CohortPhase, MigrationPhase};
use crate::api::status::{Count, Evidence};
use crate::api::{Cohort, CohortStatus, Migration, MigrationStatus};

/// Cohorts that have series of their own; the rest is counted.
const MAX_COHORTS: usize = 2_000;

/// Namespace and name.
pub(super) type Name = (String, String);
type Series<T> = Vec<(Labels, T)>;

#[derive(Debug, Default)]
pub(super) struct Objects {
    migrations: Mutex<BTreeMap<Name, MigrationFacts>>,
    cohorts: Mutex<BTreeMap<Name, CohortFacts>>,
}

#[derive(Debug)]
struct MigrationFacts {
    source: String,
    target: String,
    phase: String,
    conditions: Vec<(String, String)>,
    backup_time: Option<i64>,
}

#[derive(Debug)]
struct CohortFacts {
    migration: String,
    phase: String,
    conditions: Vec<(String, String)>,
    copied: Option<i64>,
    mismatches: Option<i64>,
    pause_millis: Option<i64>,
}

impl MigrationFacts {
    fn of(migration: &Migration, status: &MigrationStatus) -> Self {
        let secret = |side: fn(&PostgresEngine) -> &str| {
            migration.spec.engine.postgres.as_ref().map(|engine| side(engine).to_owned()).unwrap_or_default()
        };
        Self {
            source: secret(|engine| &engine.source.uri_from.secret_key_ref.name),
            target: secret(|engine| &engine.target.uri_from.secret_key_ref.name),
            phase: status.phase.clone().unwrap_or_default(),
            conditions: conditions(&status.conditions),
            backup_time: evidence(&status.evidence, "Backup").map(|backup| backup.time.0.as_second()),
        }
    }
}

impl CohortFacts {
    fn of(cohort: &Cohort, status: &CohortStatus) -> Self {
        let count = |name, count| number(&evidence(&status.evidence, name)?.counts, count);
        Self {
            migration: cohort.spec.migration_ref.name.clone(),
            phase: status.phase.clone().unwrap_or_default(),
            conditions: conditions(&status.conditions),
            copied: count("Copy", "rows"),
            mismatches: count("Validation", "differences"),
            pause_millis: evidence(&status.evidence, "Cutover").and_then(|cutover| number(&cutover.millis, "pause")),
        }
    }
}

fn conditions(conditions: &[Condition]) -> Vec<(String, String)> {
    let pairs = conditions.iter();
    pairs.map(|condition| (condition.type_.clone(), condition.status.clone())).collect()
}

fn evidence<'a>(all: &'a [Evidence], name: &str) -> Option<&'a Evidence> {
    all.iter().find(|evidence| evidence.name == name)
}

fn number(numbers: &[Count], name: &str) -> Option<i64> {
    numbers.iter().find(|number| number.name == name).map(|number| number.value)
}

impl Objects {
    pub fn show_migration(&self, name: Name, migration: &Migration, status: &MigrationStatus) {
        locked(&self.migrations).insert(name, MigrationFacts::of(migration, status));
    }

    pub fn show_cohort(&self, name: Name, cohort: &Cohort, status: &CohortStatus) {
        locked(&self.cohorts).insert(name, CohortFacts::of(cohort, status));
    }

    pub fn forget_migration(&self, name: &Name) {
        locked(&self.migrations).remove(name);
    }

    pub fn forget_cohort(&self, name: &Name) {
        locked(&self.cohorts).remove(name);
    }

    fn encode_migrations(&self, encoder: &mut DescriptorEncoder) -> fmt::Result {
        let (mut info, mut states, mut phases, mut backups) =
            <(Series<i64>, Series<i64>, Series<i64>, Series<i64>)>::default();
        for ((namespace, name), facts) in locked(&self.migrations).iter() {
            let own = || vec![("namespace", namespace.clone()), ("migration", name.clone())];
            let mut systems = own();
            systems.push(("source", facts.source.clone()));
            systems.push(("target", facts.target.clone()));
            info.push((systems, 1));
            add_conditions(&mut states, &own, &facts.conditions);
            let names = MigrationPhase::ALL.iter().map(|phase| phase.as_str());
            add_phases(&mut phases, &own, names, &facts.phase);
            backups.extend(facts.backup_time.map(|time| (own(), time)));
        }
        gauges(encoder, "godwit_migration_info", "A migration and its two systems", &info)?;
        gauges(encoder, "godwit_migration_status_condition", "Conditions of a migration", &states)?;
        gauges(encoder, "godwit_migration_phase", "1 for the phase of a migration", &phases)?;
        let help = "When the last backup succeeded";
        gauges(encoder, "godwit_backup_last_success_timestamp_seconds", help, &backups)
    }

    fn encode_cohorts(&self, encoder: &mut DescriptorEncoder) -> fmt::Result {
        let (mut states, mut phases, mut mismatches) = <(Series<i64>, Series<i64>, Series<i64>)>::default();
        let (mut copied, mut pauses) = (Series::<u64>::new(), Series::<f64>::new());
        let cohorts = locked(&self.cohorts);
        for ((namespace, name), facts) in cohorts.iter().take(MAX_COHORTS) {
            let own = || {
                vec![("namespace", namespace.clone()), ("migration", facts.migration.clone()), ("cohort", name.clone())]
            };
            add_conditions(&mut states, &own, &facts.conditions);
            let names = CohortPhase::ALL.iter().map(|phase| phase.as_str());
            add_phases(&mut phases, &own, names, &facts.phase);
            copied.extend(facts.copied.and_then(|rows| Some((own(), u64::try_from(rows).ok()?))));
            mismatches.extend(facts.mismatches.map(|count| (own(), count)));
            // Milliseconds of a pause are far below 2^52.
            #[allow(clippy::cast_precision_loss)]
            pauses.extend(facts.pause_millis.map(|millis| (own(), millis as f64 / 1000.0)));
        }
        gauges(encoder, "godwit_cohort_status_condition", "Conditions of a cohort", &states)?;
        gauges(encoder, "godwit_cohort_phase", "1 for the phase of a cohort", &phases)?;
        counters(encoder, "godwit_records_copied", "Rows that the finished copy of a cohort brought over", &copied)?;
        let help = "Differences found by the last validation";
        gauges(encoder, "godwit_validation_mismatches", help, &mismatches)?;
        let help = "How long the databases refused writes to a cohort at its cutover";
        gauges(encoder, "godwit_cohort_write_pause_seconds", help, &pauses)?;
        let dropped = cohorts.len().saturating_sub(MAX_COHORTS);
        let dropped = vec![(Labels::new(), i64::try_from(dropped).unwrap_or(i64::MAX))];
        let help = "Cohorts without series of their own because there are too many";
        gauges(encoder, "godwit_series_dropped", help, &dropped)
    }
}

impl Collector for Objects {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        self.encode_migrations(&mut encoder)?;
        self.encode_cohorts(&mut encoder)
    }
}

/// A panic while a map was filled leaves a map that can still be read.
fn locked<T>(facts: &Mutex<BTreeMap<Name, T>>) -> MutexGuard<'_, BTreeMap<Name, T>> {
    facts.lock().unwrap_or_else(PoisonError::into_inner)
}

fn add_conditions(series: &mut Series<i64>, own: &dyn Fn() -> Labels, conditions: &[(String, String)]) {
    for (kind, status) in conditions {
        for possible in ["True", "False", "Unknown"] {
            let mut labels = own();
            labels.push(("type", kind.clone()));
            labels.push(("status", possible.to_lowercase()));
            series.push((labels, i64::from(status == possible)));
        }
    }
}

fn add_phases(
    series: &mut Series<i64>,
    own: &dyn Fn() -> Labels,
    phases: impl Iterator<Item = &'static str>,
    current: &str,
) {
    for phase in phases {
        let mut labels = own();
        labels.push(("phase", phase.to_owned()));
        series.push((labels, i64::from(phase == current)));
    }
}

pub(super) fn gauges<T: EncodeGaugeValue + Copy>(
    encoder: &mut DescriptorEncoder,
    name: &str,
    help: &str,
    series: &Series<T>,
) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (labels, value) in series {
        ConstGauge::new(*value).encode(metric.encode_family(labels)?)?;
    }
    Ok(())
}

/// The library adds `_total`.
fn counters(encoder: &mut DescriptorEncoder, name: &str, help: &str, series: &Series<u64>) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (labels, value) in series {
        ConstCounter::new(*value).encode(metric.encode_family(labels)?)?;
    }
    Ok(())
}
