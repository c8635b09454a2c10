//! Deletion of a Cohort: what was copied is removed, and customers that the target serves are not let go of while there is a way back.
//! Used by `cohort.rs`. Must let go at once where nothing can be done or undone, and must say what it waits for.

use crate::api::condition::reason;

use super::cohort::{Cohorts, is_of_another_migration};
use super::conditions::{Situation, Why};
use super::decision::{FinalizerChange, Note};
use super::migration;
use super::observed::MigrationView;
use super::record::evidence_named;
use super::revert;
use super::step::CohortStep;

impl Cohorts<'_> {
    pub fn leave(&mut self) -> Situation {
        if !self.seen.object.has_finalizer {
            return Situation::Running(Why::new(reason::CLEANING_UP, "Deleted"));
        }
        let own = |migration: &&MigrationView| {
            migration.object.deleted_at.is_none() && !is_of_another_migration(&self.seen.status, &migration.object.uid)
        };
        let migration = self.seen.migration.as_ref().filter(own);
        let Some(migration) = migration.filter(|_| !self.seen.namespace_terminating) else {
            return self.let_go("There is no Migration under which anything could be undone");
        };
        match self.step() {
            CohortStep::Pending => self.let_go("Nothing was written for it"),
            CohortStep::RolledBack => self.release(migration),
            CohortStep::Soak | CohortStep::Done => self.stay(migration),
            step => self.abandon(step, migration),
        }
    }

    fn let_go(&mut self, told: &str) -> Situation {
        self.effects.finalizer = Some(FinalizerChange::Remove);
        if self.step() == CohortStep::Done {
            return Situation::Complete(Why::new(reason::COMPLETED, told));
        }
        Situation::Running(Why::new(reason::CLEANING_UP, told))
    }

    /// A cohort that went back after its cutover still has its customers in the ledger: nobody else could ever select them.
    fn release(&mut self, migration: &MigrationView) -> Situation {
        let passed = |step: CohortStep| evidence_named(&self.status.evidence, step.evidence()).is_some();
        if !passed(CohortStep::Reopen) || passed(CohortStep::Discard) {
            return self.let_go("Nothing is left to undo");
        }
        self.enter(CohortStep::Discard, "the Cohort is being deleted");
        self.carry_out(CohortStep::Discard, migration)
    }

    /// Without this object nothing would watch these customers, and nothing could bring them back.
    fn stay(&mut self, migration: &MigrationView) -> Situation {
        if migration::is_closed(migration) {
            return self.let_go("The target serves these customers for good");
        }
        let situation = self.run(migration);
        if !matches!(self.step(), CohortStep::Soak | CohortStep::Done) {
            return situation;
        }
        let told = "Deletion waits: the target serves these customers and they can still be brought back. It goes on after the \
                    Migration's Finalize or deletion, or after a rollback of this Cohort";
        Situation::Holding(Why::new(reason::CUSTOMERS_ON_TARGET, told))
    }

    fn abandon(&mut self, step: CohortStep, migration: &MigrationView) -> Situation {
        self.take_up(migration);
        if !step.is_backward() {
            revert::wish(self, "Abort", "deleted", "the Cohort is being deleted");
        }
        revert::turn(self);
        if self.step() == CohortStep::RolledBack {
            return self.release(migration);
        }
        if self.stalled().is_some() {
            let told = "The Cohort was deleted with its way back unfinished; its customers' ledger entries remain";
            self.notes.push(Note::warning("CleanupIncomplete", "Delete", told));
            self.effects.finalizer = Some(FinalizerChange::Remove);
        }
        match self.step() {
            step if step.is_backward() => self.carry_out(step, migration),
            step => self.occupied(step).unwrap_or_else(|| {
                Situation::Running(Why::new(reason::REVERTING, "Waiting for the running Job to end"))
            }),
        }
    }
}
