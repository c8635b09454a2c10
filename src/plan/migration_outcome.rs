//! What became of a migration's attempt: evidence and the next step, another attempt later, or a stall.
//! Used by `migration.rs` at the start of a pass, and by a deletion. The outcome of a Job enters only here.

use crate::api::condition::reason;
use crate::contract::{Report, code};

use super::attempt::{Attempt, Refusal};
use super::decision::Note;
use super::digest;
use super::migration::{Migrations, REFUSED};
use super::record::{evidence_for, evidence_of, findings_of, put_evidence};
use super::step::MigrationStep;

impl Migrations<'_> {
    /// Takes up what became of the attempt under way.
    pub fn take_up(&mut self) {
        let current = self.step();
        let Some(limits) = current.limits() else { return };
        match self.settle() {
            Attempt::Passed(report) => self.pass_step(current, &report),
            // Stopped for the way back: that is no failure.
            Attempt::Lost { .. } if self.status.rollback.is_some() && !current.is_backward() => {
                if let Some(step) = &mut self.status.step {
                    step.job = None;
                }
            }
            Attempt::Lost { message } => self.book_failure(limits, &message),
            Attempt::Refused(refusal) => self.refuse_step(current, &refusal),
            Attempt::Idle | Attempt::Unseen | Attempt::Running { .. } | Attempt::Terminating => {}
        }
    }

    fn pass_step(&mut self, current: MigrationStep, report: &Report) {
        // Counts for what the Job worked with: the spec may have been edited while it ran.
        let plan = self.plan_of_attempt().unwrap_or_else(|| digest::data(&self.seen.spec));
        put_evidence(&mut self.status.evidence, evidence_of(current.evidence(), report, &plan, self.now));
        self.status.findings = findings_of(&report.findings);
        let prepared = evidence_for(&self.status.evidence, MigrationStep::Prepare.evidence(), &plan).is_some();
        let next = match current {
            MigrationStep::Assess => MigrationStep::Backup,
            MigrationStep::Backup => MigrationStep::VerifyBackup,
            // A backup that was only renewed in the middle of the move goes back to it.
            MigrationStep::VerifyBackup if prepared => MigrationStep::Move,
            MigrationStep::VerifyBackup => MigrationStep::Prepare,
            MigrationStep::Prepare => MigrationStep::Move,
            MigrationStep::Finalize => MigrationStep::Completed,
            MigrationStep::Reset => MigrationStep::RolledBack,
            other => other,
        };
        let told = summary(current, report);
        self.enter(next, &told);
    }

    fn refuse_step(&mut self, current: MigrationStep, refusal: &Refusal) {
        let reason = if current == MigrationStep::Assess && refusal.reason == reason::DATA_DIFFERS {
            reason::BLOCKED_BY_FINDINGS
        } else {
            refusal.reason
        };
        if let Some(report) = &refusal.report {
            put_evidence(&mut self.status.evidence, evidence_of(current.evidence(), report, REFUSED, self.now));
            self.status.findings = findings_of(&report.findings);
        }
        let told = match current {
            MigrationStep::Assess => "PreflightFailed",
            MigrationStep::Backup | MigrationStep::VerifyBackup => "BackupFailed",
            _ => "StepFailed",
        };
        let findings = refusal.report.as_ref().map_or(&[][..], |report| &report.findings);
        let looked_only = findings.iter().all(|finding| code::NOT_FINALIZED.contains(&&*finding.code));
        if current == MigrationStep::Finalize && looked_only && !findings.is_empty() {
            self.status.closed_time = None;
        }
        self.notes.push(Note::warning(told, current.as_str(), refusal.message.clone()));
        self.stall(reason, &refusal.message);
    }
}

fn summary(step: MigrationStep, report: &Report) -> String {
    let number = |name: &str| report.counts.get(name).map(|count| format!("{count} {name}"));
    let parts: Vec<String> =
        ["customers", "tables", "rows", "files", "bytes"].iter().filter_map(|name| number(name)).collect();
    if parts.is_empty() { format!("{} done", step.as_str()) } else { parts.join(", ") }
}
