//! Move and Finalize of a migration: which cohorts may be under way, on how old a backup, and when all of it is over.
//! Used by `migration.rs` when nothing else keeps the migration. Cohorts are only read: they take themselves what is admitted.

use jiff::SignedDuration;

use crate::api::approval::{ApprovedStep, SubjectKind};
use crate::api::check::GatedStep;
use crate::api::condition::reason;

use super::admission::{self, Waiting};
use super::approval::{self, Question};
use super::check;
use super::cohort;
use super::conditions::{Situation, Why};
use super::digest;
use super::hold::gate_answer;
use super::migration::Migrations;
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
            if self.status.admitted.is_empty() {
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
        let max_age = self.seen.spec.backup.max_age.or(SignedDuration::from_hours(24));
        backup.time.0.saturating_add(max_age).is_ok_and(|until| until <= self.now)
    }

    pub fn finalize(&mut self) -> Situation {
        // A cohort that went back meanwhile, or a new one, has to be moved first.
        let all_done = self.cohort_of_another_migration().is_none()
            && admission::admit(&self.seen.cohorts, 1).waits_for == Waiting::Nothing;
        if !all_done {
            self.enter(MigrationStep::Move, "a cohort is not done");
            return self.move_cohorts();
        }
        let spec = &self.seen.spec;
        let verdicts = check::verdicts(check::gates_before(spec, GatedStep::Finalize), spec, &self.status.checks);
        let kept = check::kept(check::gates_before(spec, GatedStep::Finalize), &self.status.checks, &self.seen.jobs);
        if let Some(why) = gate_answer(&verdicts, kept, "Finalize") {
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
        self.carry_out(MigrationStep::Finalize)
    }
}
