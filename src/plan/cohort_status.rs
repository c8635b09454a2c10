//! What a cohort's status shows: phase, conditions, progress, what going back would cost.
//! Used at the end of `cohort.rs`' decision. Must only derive: nothing here decides.

use crate::api::CohortStatus;
use crate::api::condition::{kind, reason};
use crate::api::phase::CohortPhase;

use super::cohort::Cohorts;
use super::conditions::{Fact, Situation, Why, stamp, standard};
use super::decision::Decision;
use super::migration::REFUSED;
use super::record::{count_of, evidence_named, percent};
use super::step::CohortStep;
use super::{migration, reversibility, revert};

impl Cohorts<'_> {
    /// The decision, with everything that follows from the situation.
    pub fn finish(mut self, situation: &Situation) -> Decision<CohortStatus> {
        self.stop_strays();
        let generation = self.seen.object.generation;
        // Not before the spec was looked at: an object that only waits for its finalizer keeps -1.
        self.status.observed_generation = Some(generation);
        let step = self.step();
        self.status.phase = Some(phase(step, situation).as_str().to_owned());
        self.status.progress_summary = self
            .status
            .progress
            .as_ref()
            .and_then(|progress| percent(progress.completed, progress.total))
            .or_else(|| (step == CohortStep::Done).then(|| "100%".to_owned()));
        let closed = self.seen.migration.as_ref().is_some_and(migration::is_closed);
        let class = revert::class(&self.status, closed);
        self.status.reversibility = Some(reversibility::status(class));
        let mut facts = standard(situation);
        facts.push(self.data_validated());
        facts.push(reversibility::available(class));
        self.status.conditions = stamp(facts, &self.seen.status.conditions, generation, self.now);
        let wait = self.wait();
        Decision { status: self.status, effects: self.effects, notes: self.notes, wait }
    }

    fn data_validated(&self) -> Fact {
        let validation = evidence_named(&self.status.evidence, CohortStep::Validate.evidence());
        let differences = count_of(&self.status.evidence, CohortStep::Validate.evidence(), "differences").unwrap_or(0);
        match validation {
            Some(evidence) if evidence.plan == REFUSED => {
                let told = format!("{differences} differences; the evidence file names them");
                Fact::new(kind::DATA_VALIDATED, "False", Why::new(reason::DATA_DIFFERS, told))
            }
            Some(evidence) => {
                let rows = count_of(&self.status.evidence, CohortStep::Validate.evidence(), "rows").unwrap_or(0);
                let told = format!("{rows} rows were compared at {}", evidence.time.0);
                Fact::new(kind::DATA_VALIDATED, "True", Why::new(reason::VALIDATED, told))
            }
            None => {
                let told = "No comparison has passed yet";
                Fact::new(kind::DATA_VALIDATED, "Unknown", Why::new(reason::NOT_YET_VALIDATED, told))
            }
        }
    }
}

fn phase(step: CohortStep, situation: &Situation) -> CohortPhase {
    match (situation, step) {
        (Situation::Paused(_), _) => CohortPhase::Paused,
        (Situation::NeedsHuman(_), _) => CohortPhase::Stalled,
        (Situation::RolledBack(_), _) => CohortPhase::RolledBack,
        (_, CohortStep::Pending) => CohortPhase::Pending,
        (_, CohortStep::Soak) => CohortPhase::Soaking,
        (_, CohortStep::Done) => CohortPhase::Done,
        (Situation::Holding(_), _) => CohortPhase::Holding,
        (_, CohortStep::Select) => CohortPhase::Selecting,
        (_, CohortStep::Copy) => CohortPhase::Copying,
        (_, CohortStep::Validate) => CohortPhase::Validating,
        (_, CohortStep::Cutover) => CohortPhase::CuttingOver,
        (_, _) => CohortPhase::Reverting,
    }
}
