//! Metrics of the operator: the stock controller names that dashboards query already, and `godwit_*` about the objects.
//! Written by `controller/`, read by `server.rs`. No label ever holds customer data, a message or an error's text.

mod objects;
mod process;

use std::sync::Arc;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::api::status::{CheckStatus, RollbackStatus};
use crate::api::{Cohort, CohortStatus, Migration, MigrationStatus};
use objects::Objects;
use process::Process;

type Labels = Vec<(&'static str, String)>;

/// How a pass ended, in controller-runtime's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    Success,
    Error,
    RequeueAfter,
}

impl Pass {
    fn as_str(self) -> &'static str {
        match self {
            Pass::Success => "success",
            Pass::Error => "error",
            Pass::RequeueAfter => "requeue_after",
        }
    }
}

pub struct Metrics {
    registry: Registry,
    passes: Family<Labels, Counter>,
    pass_errors: Family<Labels, Counter>,
    terminal_errors: Family<Labels, Counter>,
    panics: Family<Labels, Counter>,
    pass_seconds: Family<Labels, Histogram>,
    active: Family<Labels, Gauge>,
    at_most: Family<Labels, Gauge>,
    requests: Family<Labels, Counter>,
    request_seconds: Family<Labels, Histogram>,
    leader: Family<Labels, Gauge>,
    gates: Family<Labels, Counter>,
    rollbacks: Family<Labels, Counter>,
    objects: Arc<Objects>,
}

impl Default for Metrics {
    fn default() -> Self {
        let seconds = || Family::new_with_constructor(latency as fn() -> Histogram);
        let mut metrics = Self {
            registry: Registry::default(),
            passes: Family::default(),
            pass_errors: Family::default(),
            terminal_errors: Family::default(),
            panics: Family::default(),
            pass_seconds: seconds(),
            active: Family::default(),
            at_most: Family::default(),
            requests: Family::default(),
            request_seconds: seconds(),
            leader: Family::default(),
            gates: Family::default(),
            rollbacks: Family::default(),
            objects: Arc::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&mut self) {
        let registry = &mut self.registry;
        // The library adds `_total` to counters.
        for (name, help, family) in [
            ("controller_runtime_reconcile", "Passes by controller and result", &self.passes),
            ("controller_runtime_reconcile_errors", "Passes that failed", &self.pass_errors),
            (
                "controller_runtime_terminal_reconcile_errors",
                "Passes that failed in a way that only a person can repair",
                &self.terminal_errors,
            ),
            ("controller_runtime_reconcile_panics", "Passes that panicked", &self.panics),
            ("rest_client_requests", "Requests to the API server by code, method and host", &self.requests),
            ("godwit_gate_evaluations", "Measurements of checks by verdict", &self.gates),
            ("godwit_rollbacks", "Ways back that began, by what asked for them", &self.rollbacks),
        ] {
            registry.register(name, help, family.clone());
        }
        for (name, help, family) in [
            ("controller_runtime_active_workers", "Passes under way", &self.active),
            ("controller_runtime_max_concurrent_reconciles", "Passes that may be under way", &self.at_most),
            ("leader_election_master_status", "1 while this process holds the lease", &self.leader),
        ] {
            registry.register(name, help, family.clone());
        }
        for (name, help, family) in [
            ("controller_runtime_reconcile_time_seconds", "Length of a pass", &self.pass_seconds),
            ("rest_client_request_duration_seconds", "Time until the API server's answer began", &self.request_seconds),
        ] {
            registry.register(name, help, family.clone());
        }
        registry.register_collector(Box::new(Arc::clone(&self.objects)));
        registry.register_collector(Box::new(Process));
    }

    /// Everything as Prometheus reads it.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing into a String cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }

    pub fn pass_began(&self, controller: &'static str) {
        self.active.get_or_create(&of(controller)).inc();
    }

    pub fn pass_ended(&self, controller: &'static str, pass: Pass, seconds: f64) {
        self.active.get_or_create(&of(controller)).dec();
        self.pass_seconds.get_or_create(&of(controller)).observe(seconds);
        let mut labels = of(controller);
        labels.push(("result", pass.as_str().to_owned()));
        self.passes.get_or_create(&labels).inc();
        if pass == Pass::Error {
            self.pass_errors.get_or_create(&of(controller)).inc();
        }
    }

    pub fn pass_panicked(&self, controller: &'static str) {
        self.panics.get_or_create(&of(controller)).inc();
    }

    pub fn pass_needs_person(&self, controller: &'static str) {
        self.terminal_errors.get_or_create(&of(controller)).inc();
    }

    pub fn concurrency(&self, controller: &'static str, at_most: u16) {
        self.at_most.get_or_create(&of(controller)).set(i64::from(at_most));
    }

    pub fn request(&self, method: &str, host: &str, code: &str, seconds: f64) {
        let labels = vec![("code", code.to_owned()), ("method", method.to_owned()), ("host", host.to_owned())];
        self.requests.get_or_create(&labels).inc();
        let labels = vec![("verb", method.to_owned()), ("host", host.to_owned())];
        self.request_seconds.get_or_create(&labels).observe(seconds);
    }

    pub fn leading(&self, lease: &str, leads: bool) {
        let labels = vec![("name", lease.to_owned())];
        self.leader.get_or_create(&labels).set(i64::from(leads));
    }

    /// Takes a Migration's recorded status over, and counts what is new in it.
    pub fn show_migration(&self, migration: &Migration, before: &MigrationStatus) {
        let Some(status) = &migration.status else {
            return;
        };
        let namespace = migration.metadata.namespace.clone().unwrap_or_default();
        let name = migration.metadata.name.clone().unwrap_or_default();
        self.count_gates(&namespace, &before.checks, &status.checks);
        self.count_rollback(&namespace, before.rollback.as_ref(), status.rollback.as_ref());
        self.objects.show_migration((namespace, name), migration, status);
    }

    pub fn show_cohort(&self, cohort: &Cohort, before: &CohortStatus) {
        let Some(status) = &cohort.status else {
            return;
        };
        let namespace = cohort.metadata.namespace.clone().unwrap_or_default();
        let name = cohort.metadata.name.clone().unwrap_or_default();
        self.count_gates(&namespace, &before.checks, &status.checks);
        self.count_rollback(&namespace, before.rollback.as_ref(), status.rollback.as_ref());
        self.objects.show_cohort((namespace, name), cohort, status);
    }

    pub fn forget_migration(&self, namespace: &str, name: &str) {
        self.objects.forget_migration(&(namespace.to_owned(), name.to_owned()));
    }

    pub fn forget_cohort(&self, namespace: &str, name: &str) {
        self.objects.forget_cohort(&(namespace.to_owned(), name.to_owned()));
    }

    fn count_gates(&self, namespace: &str, before: &[CheckStatus], after: &[CheckStatus]) {
        for status in after {
            let known = before.iter().find(|known| known.name == status.name);
            let last = known.and_then(|known| known.measurements.last()).map(|last| last.time.0);
            let new = status.measurements.iter().filter(|one| Some(one.time.0) > last);
            for measurement in new {
                let labels = vec![
                    ("namespace", namespace.to_owned()),
                    ("gate", status.name.clone()),
                    ("result", format!("{:?}", measurement.verdict).to_lowercase()),
                ];
                self.gates.get_or_create(&labels).inc();
            }
        }
    }

    fn count_rollback(&self, namespace: &str, before: Option<&RollbackStatus>, after: Option<&RollbackStatus>) {
        let Some(after) = after else {
            return;
        };
        if before.is_some_and(|before| before.id == after.id) {
            return;
        }
        let labels = vec![("namespace", namespace.to_owned()), ("trigger", asked_by(&after.id).to_owned())];
        self.rollbacks.get_or_create(&labels).inc();
    }
}

fn latency() -> Histogram {
    Histogram::new([0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0])
}

fn of(controller: &'static str) -> Labels {
    vec![("controller", controller.to_owned())]
}

/// The id of a way back begins with what asked for it, or is the text of a command annotation.
fn asked_by(id: &str) -> &'static str {
    match id.split('-').next() {
        Some("trigger") => "trigger",
        Some("failed") => "failure",
        Some("migration") => "migration",
        Some("deleted") => "deletion",
        _ => "command",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn migration(status: &serde_json::Value) -> Migration {
        serde_json::from_value(json!({
            "apiVersion": "godwit.dev/v1alpha1", "kind": "Migration",
            "metadata": {"name": "crm", "namespace": "shop"},
            "spec": {
                "engine": {"postgres": {
                    "source": {"uriFrom": {"secretKeyRef": {"name": "old", "key": "uri"}}},
                    "target": {"uriFrom": {"secretKeyRef": {"name": "new", "key": "uri"}}},
                }},
                "dataset": {"root": {"table": "public.account", "key": "id"}},
                "backup": {"storage": {}},
                "rollback": {"mode": "RestoreOnly"},
            },
            "status": status,
        }))
        .unwrap()
    }

    #[test]
    fn a_migration_shows_its_phase_and_conditions_until_it_is_gone() {
        let metrics = Metrics::default();
        let moving = migration(&json!({
            "phase": "Moving",
            "conditions": [{"type": "Ready", "status": "True", "reason": "Running", "message": "secret text",
                "lastTransitionTime": "2026-03-01T10:00:00Z"}],
            "evidence": [{"name": "Backup", "time": "2026-03-01T10:00:00Z", "plan": "p"}],
        }));
        metrics.show_migration(&moving, &MigrationStatus::default());
        let text = metrics.text();
        for line in [
            r#"godwit_migration_info{namespace="shop",migration="crm",source="old",target="new"} 1"#,
            r#"godwit_migration_phase{namespace="shop",migration="crm",phase="Moving"} 1"#,
            r#"godwit_migration_phase{namespace="shop",migration="crm",phase="Stalled"} 0"#,
            r#"godwit_migration_status_condition{namespace="shop",migration="crm",type="Ready",status="true"} 1"#,
            r#"godwit_migration_status_condition{namespace="shop",migration="crm",type="Ready",status="false"} 0"#,
            r#"godwit_backup_last_success_timestamp_seconds{namespace="shop",migration="crm"} 1772359200"#,
        ] {
            assert!(text.contains(line), "{line}\nin\n{text}");
        }
        assert!(!text.contains("secret text"));
        metrics.forget_migration("shop", "crm");
        assert!(!metrics.text().contains("crm"));
    }

    #[test]
    fn a_cohort_shows_what_it_copied_and_how_long_its_writes_paused() {
        let cohort: Cohort = serde_json::from_value(json!({
            "apiVersion": "godwit.dev/v1alpha1", "kind": "Cohort",
            "metadata": {"name": "canary", "namespace": "shop"},
            "spec": {"migrationRef": {"name": "crm"}, "wave": 1, "select": {"percent": 1}},
            "status": {"phase": "Soaking", "evidence": [
                {"name": "Copy", "time": "2026-03-01T10:00:00Z", "plan": "p", "counts": [{"name": "rows", "value": 6898}]},
                {"name": "Cutover", "time": "2026-03-01T10:00:00Z", "plan": "p", "millis": [{"name": "pause", "value": 125}]},
            ]},
        }))
        .unwrap();
        let metrics = Metrics::default();
        metrics.show_cohort(&cohort, &CohortStatus::default());
        let text = metrics.text();
        for line in [
            r#"godwit_records_copied_total{namespace="shop",migration="crm",cohort="canary"} 6898"#,
            r#"godwit_cohort_write_pause_seconds{namespace="shop",migration="crm",cohort="canary"} 0.125"#,
            r#"godwit_cohort_phase{namespace="shop",migration="crm",cohort="canary",phase="Soaking"} 1"#,
        ] {
            assert!(text.contains(line), "{line}\nin\n{text}");
        }
        assert!(!text.contains("godwit_validation_mismatches{"), "no validation, no series: {text}");
    }

    #[test]
    fn a_measurement_and_a_way_back_are_counted_once() {
        let metrics = Metrics::default();
        let status = json!({
            "checks": [{"name": "quiet", "verdict": "Fail", "measurements": [
                {"time": "2026-03-01T10:00:00Z", "verdict": "Pass"},
                {"time": "2026-03-01T10:01:00Z", "verdict": "Fail"},
            ]}],
            "rollback": {"id": "trigger-links-7", "kind": "Rollback", "cause": "c", "time": "2026-03-01T10:01:00Z"},
        });
        let migration = migration(&status);
        let before: MigrationStatus = serde_json::from_value(json!({
            "checks": [{"name": "quiet", "verdict": "Pass", "measurements": [
                {"time": "2026-03-01T10:00:00Z", "verdict": "Pass"},
            ]}],
        }))
        .unwrap();
        metrics.show_migration(&migration, &before);
        metrics.show_migration(&migration, migration.status.as_ref().unwrap());
        let text = metrics.text();
        assert!(
            text.contains(r#"godwit_gate_evaluations_total{namespace="shop",gate="quiet",result="fail"} 1"#),
            "{text}"
        );
        assert!(!text.contains(r#"result="pass""#));
        assert!(text.contains(r#"godwit_rollbacks_total{namespace="shop",trigger="trigger"} 1"#), "{text}");
    }

    #[test]
    fn stock_names_are_those_that_dashboards_query() {
        let metrics = Metrics::default();
        metrics.pass_began("migration");
        metrics.pass_ended("migration", Pass::RequeueAfter, 0.02);
        metrics.request("GET", "api:443", "200", 0.01);
        metrics.leading("godwit", true);
        let text = metrics.text();
        for line in [
            r#"controller_runtime_reconcile_total{controller="migration",result="requeue_after"} 1"#,
            r#"controller_runtime_active_workers{controller="migration"} 0"#,
            r#"rest_client_requests_total{code="200",method="GET",host="api:443"} 1"#,
            r#"leader_election_master_status{name="godwit"} 1"#,
            "controller_runtime_reconcile_time_seconds_bucket",
            "process_resident_memory_bytes ",
            "process_cpu_seconds_total ",
        ] {
            assert!(text.contains(line), "{line}\nin\n{text}");
        }
    }
}
