//! What people, triggers and the migration want of a cohort: retry, promote, abort, rollback. Each command is heard once.
//! Used by `cohort.rs` before it goes on. Must only record wishes: `revert.rs` says when the way back begins.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::api::check::TriggerAction;
use crate::api::names::Verb;

use super::cohort::Cohorts;
use super::command::{self, Command};
use super::decision::Note;
use super::observed::MigrationView;
use super::step::CohortStep;
use super::{revert, trigger};

impl Cohorts<'_> {
    /// Commands of people and directives of the migration become wishes.
    pub fn hear(&mut self, migration: &MigrationView) {
        for command in command::take(&self.seen.object, &mut self.status.last_handled) {
            match command.verb {
                Verb::Retry => self.retry(),
                Verb::Promote => self.promote(),
                Verb::Abort => self.abort(&command),
                Verb::Rollback => {
                    let cause = format!("rollback requested at {}", command.value);
                    revert::wish(self, "Rollback", &format!("command-{}", command.value), &cause);
                }
            }
        }
        revert::follow(self, migration);
    }

    fn retry(&mut self) {
        if let Some(alarm) = self.status.alarm.take() {
            // What was measured before the repair would raise it again at once.
            self.status.checks.retain(|check| check.name != alarm.check);
        }
        if self.step() == CohortStep::RolledBack {
            self.start_over("a retry was requested");
        } else {
            self.clear_stall(self.step().limits());
        }
    }

    fn promote(&mut self) {
        if self.step() == CohortStep::Soak {
            self.status.soak_end_time = Some(Time(self.now));
        } else {
            let told = format!("promote skips the rest of a soak; this cohort is at {}", self.step().as_str());
            self.notes.push(Note::warning("CommandRefused", "Promote", told));
        }
    }

    fn abort(&mut self, command: &Command) {
        if self.status.cutover_time.is_some() && !self.step().is_backward() {
            let told = "abort undoes what was not cut over; this cohort was: request a rollback instead";
            self.notes.push(Note::warning("CommandRefused", "Abort", told));
            return;
        }
        let cause = format!("abort requested at {}", command.value);
        revert::wish(self, "Abort", &format!("command-{}", command.value), &cause);
    }

    /// Triggers of a cohort that was cut over.
    pub fn watch(&mut self, migration: &MigrationView) {
        if self.status.rollback.is_some() {
            return;
        }
        let Some(alarm) = trigger::fired(&migration.spec, &self.status, self.now) else {
            return;
        };
        // Only a graver one takes the place of an alarm that nobody has answered yet.
        if self.status.alarm.as_ref().is_some_and(|standing| standing.action >= alarm.action) {
            return;
        }
        let told = format!("{:?}, {:?}: {}", alarm.category, alarm.action, alarm.evidence);
        self.notes.push(Note::warning("RollbackTriggered", "Watch", told));
        if alarm.action == TriggerAction::RollbackCohort {
            let cause = format!("trigger on check {} ({:?}): {}", alarm.check, alarm.category, alarm.evidence);
            revert::wish(self, "Rollback", &format!("trigger-{}-{}", alarm.check, self.status.attempts), &cause);
        }
        // Pause and RollbackMigration are the migration's to carry out; it reads the alarm.
        self.status.alarm = Some(alarm);
    }
}
