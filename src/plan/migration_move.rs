//! Move and Finalize of a migration: which cohorts may be under way, on how old a backup, and when all of it is over.
//! Used by `migration.rs` when nothing else keeps the migration. Cohorts are only read: they take themselves what is admitted.

use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::api::approval::{ApprovedStep, SubjectKind};
use crate::api::check::GatedStep;
use crate::api::condition::reason;

use super::admission::{self, Waiting};
use super::approval::{self, Question};
use super::cohort;
use super::conditions::{Situation, Why};
use super::digest;
use super::hold::closed_gate;
use super::migration::{Migrations, closed};
use super::record::evidence_for;
use super::step::MigrationStep;

impl Migrations<'_> {
    /// A cohort that was started under a deleted Migration of this name: nothing is known here of what it says of itself.
    fn cohort_of_another_migration(&self) -> Option<Why> {
        let uid = &self.seen.object.uid;
        let mut cohorts = self.seen.cohorts.iter().filter(|cohort| cohort.object.deleted_at.is_none());
        let stranger = cohorts.find(|cohort| cohort::is_of_another_migration(&cohort.status, uid))?;
        let name = &stranger.object.name;
        let told = format!(
            "Cohort {name} was started under a Migration of this name that was deleted; delete that Cohort and create it again"
        );
        Some(Why::new(reason::COHORT_NEEDS_ATTENTION, told))
    }

    pub fn admit_nobody_new(&mut self) {
        let under_way: Vec<String> = self
            .seen
            .cohorts
            .iter()
            .filter(|cohort| admission::is_under_way(cohort))
            .map(|cohort| cohort.object.name.clone())
            .collect();
        self.status.admitted.retain(|name| under_way.contains(name));
    }

    pub fn move_cohorts(&mut self) -> Situation {
        if let Some(why) = self.cohort_of_another_migration() {
            self.admit_nobody_new();
            return Situation::Holding(why);
        }
        let answer = admission::admit(&self.seen.cohorts, self.seen.spec.rollout.max_concurrent_cohorts);
        if answer.starts_new && self.backup_is_old() {
            self.admit_nobody_new();
            if let Some(why) = self.backup_is_never_young() {
                return Situation::NeedsHuman(why);
            }
            if !self.seen.cohorts.iter().any(admission::is_under_way) {
                self.enter(MigrationStep::Backup, "the verified backup is older than backup.maxAge");
                return self.carry_out(MigrationStep::Backup);
            }
            let told = "The verified backup is older than backup.maxAge; it is renewed before the next cohort starts";
            return Situation::Running(Why::new(reason::MOVING, told));
        }
        self.status.admitted = answer.admitted;
        match answer.waits_for {
            Waiting::Cohorts(why) => Situation::Running(why),
            Waiting::Person(why) => Situation::Holding(why),
            Waiting::Nothing => {
                self.enter(MigrationStep::Finalize, "every customer is on the target and every soak is over");
                self.finalize()
            }
        }
    }

    fn backup_is_old(&self) -> bool {
        let plan = digest::data(&self.seen.spec);
        let Some(backup) = evidence_for(&self.status.evidence, MigrationStep::Backup.evidence(), &plan) else {
            return true;
        };
        backup.time.0.saturating_add(self.max_age()).is_ok_and(|until| until <= self.now)
    }

    fn max_age(&self) -> SignedDuration {
        self.seen.spec.backup.max_age.or(SignedDuration::from_hours(24))
    }

    /// It was too old when its restore was proven, and the next one would be: without a word it would be renewed for ever.
    fn backup_is_never_young(&self) -> Option<Why> {
        let plan = digest::data(&self.seen.spec);
        let evidence = |step: MigrationStep| evidence_for(&self.status.evidence, step.evidence(), &plan);
        let (backup, verified) = (evidence(MigrationStep::Backup)?, evidence(MigrationStep::VerifyBackup)?);
        let took = verified.time.0.duration_since(backup.time.0);
        (took >= self.max_age()).then(|| {
            let told = format!(
                "The backup's restore was proven {} minutes after the backup, which is longer than backup.maxAge; raise it",
                took.as_mins()
            );
            Why::new(reason::BACKUP_NEVER_YOUNG, told)
        })
    }

    pub fn finalize(&mut self) -> Situation {
        // A cohort that went back meanwhile, or a new one, has to be moved first; past the point of no return none can be.
        let all_done = self.cohort_of_another_migration().is_none()
            && admission::admit(&self.seen.cohorts, 1).waits_for == Waiting::Nothing;
        if !all_done && !closed(&self.status) {
            self.enter(MigrationStep::Move, "a cohort is not done");
            return self.move_cohorts();
        }
        let spec = &self.seen.spec;
        let measured = (&*self.status.checks, &self.seen.jobs);
        if let Some(why) = closed_gate(spec, GatedStep::Finalize, measured, self.now) {
            self.measure_needed();
            return Situation::Holding(why);
        }
        let digest = self.status.plan.as_ref().map_or("", |plan| plan.digest.as_str());
        let name = self.seen.object.name.as_str();
        let question = Question { kind: SubjectKind::Migration, name, before: ApprovedStep::Finalize, digest };
        if let Some(why) = approval::missing(&spec.approvals, &self.seen.approvals, question) {
            self.measure_needed();
            return Situation::Holding(why);
        }
        let situation = self.carry_out(MigrationStep::Finalize);
        if self.status.step.as_ref().is_some_and(|step| step.job.is_some()) {
            self.status.closed_time.get_or_insert(Time(self.now));
        }
        situation
    }
}
