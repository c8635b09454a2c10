//! What a migration's status shows: phase, conditions, cohorts and customers in one glance, the route table.
//! Used at the end of `migration.rs`' decision. Must only derive: nothing here decides.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::api::MigrationStatus;
use crate::api::condition::{kind, reason};
use crate::api::phase::MigrationPhase;
use crate::api::status::{ProgressStatus, ReversibilityClass};

use super::cohort::step_of as cohort_step;
use super::conditions::{Fact, Situation, Why, stamp, standard};
use super::decision::{Decision, RouteTableContent};
use super::migration::{Migrations, closed};
use super::observed::{CohortView, RouteTableSeen};
use super::record::{count_of, evidence_for, percent};
use super::step::{CohortStep, MigrationStep};
use super::{digest, retreat, reversibility, routes};

impl Migrations<'_> {
    /// The decision, with everything that follows from the situation.
    pub fn finish(mut self, situation: &Situation) -> Decision<MigrationStatus> {
        self.stop_strays();
        let generation = self.seen.object.generation;
        self.status.observed_generation = Some(generation);
        let step = self.step();
        self.status.phase = Some(phase(step, situation).as_str().to_owned());
        self.summarise();
        let class = class(&self.status, &self.seen.cohorts);
        self.status.reversibility = Some(reversibility::status(class));
        self.publish_routes();
        let mut facts = standard(situation);
        facts.push(self.backup_verified());
        facts.push(reversibility::available(class));
        self.status.conditions = stamp(facts, &self.seen.status.conditions, generation, self.now);
        let wait = self.wait();
        Decision { status: self.status, effects: self.effects, notes: self.notes, wait }
    }

    /// Cohorts and customers in one glance.
    fn summarise(&mut self) {
        let cohorts = &self.seen.cohorts;
        let done = cohorts.iter().filter(|cohort| cohort_step(&cohort.status) == CohortStep::Done).count();
        self.status.cohort_summary = Some(format!("{done}/{}", cohorts.len()));
        if self.step() == MigrationStep::Move {
            let total = count_of(&self.status.evidence, MigrationStep::Assess.evidence(), "customers").unwrap_or(0);
            let moved: i64 = cohorts
                .iter()
                .filter(|cohort| cohort.status.owner.as_deref() == Some("Target"))
                .filter_map(|cohort| cohort.status.customers)
                .sum();
            let unchanged =
                self.status.progress.as_ref().is_some_and(|old| old.completed == moved && old.total == total);
            if !unchanged {
                self.status.progress = Some(ProgressStatus {
                    unit: "customers".to_owned(),
                    total,
                    completed: moved,
                    rate_per_second: None,
                    estimated_completion_time: None,
                    update_time: Time(self.now),
                });
            }
        }
        let of_step = self.status.progress.as_ref().and_then(|progress| percent(progress.completed, progress.total));
        let ended =
            matches!(self.step(), MigrationStep::Finalize | MigrationStep::Completed).then(|| "100%".to_owned());
        self.status.progress_summary = of_step.or(ended);
    }

    fn publish_routes(&mut self) {
        // A table that is going away with its namespace cannot be written, and must not stand in the way of letting go.
        if self.seen.object.deleted_at.is_some() || self.seen.namespace_terminating {
            return;
        }
        let Some(routing) = &self.seen.spec.routing else {
            return;
        };
        let seen = self.seen.route_table.as_ref();
        let is_anothers =
            |seen: &RouteTableSeen| seen.routes.is_some() && seen.migration_uid.as_ref() != Some(&self.seen.object.uid);
        // What a deleted Migration left is true until this one changes something in the databases.
        if seen.is_some_and(is_anothers) && !retreat::prepared(self) {
            return;
        }
        let routes = routes::text(&self.seen.object.name, self.step(), &self.seen.cohorts);
        if seen.and_then(|seen| seen.routes.as_deref()) != Some(routes.as_str()) {
            let config_map = routing.route_table.config_map_name.clone();
            let replaces = seen.map(|seen| seen.version.clone());
            self.effects.route_table = Some(RouteTableContent { config_map, routes, replaces });
        }
    }

    fn backup_verified(&self) -> Fact {
        let plan = digest::data(&self.seen.spec);
        if let Some(proof) = evidence_for(&self.status.evidence, MigrationStep::VerifyBackup.evidence(), &plan) {
            let told = format!("The backup was restored and compared at {}", proof.time.0);
            Fact::new(kind::BACKUP_VERIFIED, "True", Why::new(reason::RESTORED, told))
        } else {
            let told = "No backup of this plan has been restored yet";
            Fact::new(kind::BACKUP_VERIFIED, "False", Why::new(reason::NOT_YET_RESTORED, told))
        }
    }
}

/// What going back would cost the whole migration now.
fn class(status: &MigrationStatus, cohorts: &[CohortView]) -> ReversibilityClass {
    let on_target = cohorts.iter().any(|cohort| cohort.status.owner.as_deref() == Some("Target"));
    match (closed(status), on_target) {
        (true, _) => ReversibilityClass::Closed,
        (false, true) => ReversibilityClass::Lossy,
        (false, false) => ReversibilityClass::Lossless,
    }
}

fn phase(step: MigrationStep, situation: &Situation) -> MigrationPhase {
    match (situation, step) {
        (Situation::Paused(_), _) => MigrationPhase::Paused,
        (Situation::NeedsHuman(_), _) => MigrationPhase::Stalled,
        (Situation::RolledBack(_), _) => MigrationPhase::RolledBack,
        (Situation::Complete(_), _) => MigrationPhase::Completed,
        (Situation::Holding(_), _) => MigrationPhase::Holding,
        (_, MigrationStep::Assess) => MigrationPhase::Assessing,
        (_, MigrationStep::Backup) => MigrationPhase::BackingUp,
        (_, MigrationStep::VerifyBackup) => MigrationPhase::VerifyingBackup,
        (_, MigrationStep::Prepare) => MigrationPhase::Preparing,
        (_, MigrationStep::Move) => MigrationPhase::Moving,
        (_, MigrationStep::Finalize) => MigrationPhase::Finalizing,
        (_, MigrationStep::Cleanup) => MigrationPhase::CleaningUp,
        (_, _) => MigrationPhase::Reverting,
    }
}
