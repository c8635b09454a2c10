//! Admission: which cohorts may be under way now, by wave and concurrency.
//! Used by the Migration's decision; cohorts read the answer from its status. Must never take back what is under way.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::api::condition::{kind, reason};
use crate::api::status::MAX_ADMITTED;

use super::cohort::step_of;
use super::conditions::Why;
use super::observed::CohortView;
use super::step::CohortStep;

/// The answer: who may be under way, and what the migration waits for.
#[derive(Clone, Debug, PartialEq)]
pub struct Admission {
    /// Names, in the order in which they start.
    pub admitted: Vec<String>,
    /// A cohort would start now if the backup is young enough.
    pub starts_new: bool,
    pub waits_for: Waiting,
}

/// What the Move step waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// Cohorts are under way or start now.
    Cohorts(Why),
    /// Nothing moves until a person acts.
    Person(Why),
    /// Every customer is on the target and every soak is over.
    Nothing,
}

/// Decides over all cohorts of the migration.
pub fn admit(cohorts: &[CohortView], max_concurrent: u32) -> Admission {
    let mut ordered: Vec<&CohortView> = cohorts.iter().filter(|cohort| !is_leaving(cohort)).collect();
    // The remainder takes whoever is left, so it comes after everything else, whatever its wave says.
    ordered.sort_by_key(|cohort| (turn_of(cohort), cohort.object.name.clone()));

    let under_way: Vec<&CohortView> = ordered.iter().copied().filter(|cohort| is_under_way(cohort)).collect();
    // Who goes back takes a place, but needs no leave.
    let mut admitted = names(under_way.iter().filter(|cohort| step_of(&cohort.status).is_forward()));
    admitted.truncate(MAX_ADMITTED);
    let Some(turn) =
        ordered.iter().find(|cohort| step_of(&cohort.status) != CohortStep::Done).map(|open| turn_of(open))
    else {
        return ended(&ordered);
    };
    let turn: Vec<&CohortView> = ordered.into_iter().filter(|cohort| turn_of(cohort) == turn).collect();
    if let Some(back) = turn.iter().find(|cohort| step_of(&cohort.status).is_backward()) {
        return Admission { admitted, starts_new: false, waits_for: Waiting::Person(attention(back)) };
    }
    let free = (max_concurrent as usize).min(MAX_ADMITTED).saturating_sub(under_way.len());
    let pending = turn.into_iter().filter(|cohort| step_of(&cohort.status) == CohortStep::Pending);
    let (held, open): (Vec<&CohortView>, Vec<&CohortView>) =
        pending.partition(|cohort| cohort.spec.suspend || cohort.object.paused());
    let starting: Vec<&CohortView> = open.into_iter().take(free).collect();
    admitted.extend(names(&starting));
    let waits_for = match (under_way.iter().chain(&starting).find(|cohort| needs_person(cohort)), held.first()) {
        (Some(stalled), _) => Waiting::Person(attention(stalled)),
        (None, Some(held)) if under_way.is_empty() && starting.is_empty() => Waiting::Person(Why::new(
            reason::COHORT_NEEDS_ATTENTION,
            format!("Cohort {} is suspended or paused, and later ones wait for it", held.object.name),
        )),
        (None, _) => {
            let busy = names(under_way.iter().chain(&starting));
            Waiting::Cohorts(Why::new(reason::MOVING, format!("Under way: {}", listed(&busy))))
        }
    };
    Admission { admitted, starts_new: !starting.is_empty(), waits_for }
}

/// Cohorts of one turn may move together; turns follow each other.
fn turn_of(cohort: &CohortView) -> (bool, i32) {
    match cohort.spec.select.remainder {
        Some(_) => (true, 0),
        None => (false, cohort.spec.wave),
    }
}

fn names<'a>(cohorts: impl IntoIterator<Item = &'a &'a CohortView>) -> Vec<String> {
    cohorts.into_iter().map(|cohort| cohort.object.name.clone()).collect()
}

/// Deleted, with nothing of it on the target: it starts no more.
fn is_leaving(cohort: &CohortView) -> bool {
    cohort.object.deleted_at.is_some()
        && matches!(step_of(&cohort.status), CohortStep::Pending | CohortStep::RolledBack)
}

fn ended(ordered: &[&CohortView]) -> Admission {
    let waits_for = if ordered.iter().any(|cohort| cohort.spec.select.remainder.is_some()) {
        Waiting::Nothing
    } else {
        let message = if ordered.is_empty() {
            "There is no Cohort yet; create Cohorts that name this Migration, the last one with select {remainder: {}}"
        } else {
            "Every Cohort is done, but none takes the remaining customers; create one with select {remainder: {}}"
        };
        Waiting::Person(Why::new(reason::COHORTS_REQUIRED, message))
    };
    Admission { admitted: Vec::new(), starts_new: false, waits_for }
}

fn attention(cohort: &CohortView) -> Why {
    let name = &cohort.object.name;
    let stalled = cohort.status.step.as_ref().and_then(|step| step.stalled.as_ref());
    let told = match (stalled, step_of(&cohort.status)) {
        (Some(stalled), step) => format!("Cohort {name} is stalled at {}: {}", step.as_str(), stalled.message),
        (None, step) if !step.is_backward() => {
            let why =
                told_stalled(cohort).map_or_else(String::new, |told| format!(": {}: {}", told.reason, told.message));
            format!("Cohort {name} needs a person{why}")
        }
        (None, CohortStep::RolledBack) => format!("Cohort {name} was rolled back; later cohorts wait for its retry"),
        (None, _) => format!("Cohort {name} is going back; later cohorts wait for it"),
    };
    Why::new(reason::COHORT_NEEDS_ATTENTION, told)
}

/// Takes a place in the concurrency limit: forward and not done, or on its way back.
pub fn is_under_way(cohort: &CohortView) -> bool {
    let step = step_of(&cohort.status);
    step.is_forward() || (step.is_backward() && step != CohortStep::RolledBack)
}

/// Waits for a person in the middle of a step.
pub fn is_stalled(cohort: &CohortView) -> bool {
    cohort.status.step.as_ref().is_some_and(|step| step.stalled.is_some())
}

/// Says of itself that nothing goes on: stalled, or something that is no matter of a step, such as an object that cannot be read.
fn needs_person(cohort: &CohortView) -> bool {
    is_stalled(cohort) || told_stalled(cohort).is_some()
}

fn told_stalled(cohort: &CohortView) -> Option<&Condition> {
    let mut conditions = cohort.status.conditions.iter();
    conditions.find(|condition| condition.type_ == kind::STALLED && condition.status == "True")
}

/// At most five names, and how many more.
fn listed(names: &[String]) -> String {
    let shown = names.iter().take(5).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > 5 { format!("{shown} and {} more", names.len() - 5) } else { shown }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::attempt::begin;
    use jiff::Timestamp;

    fn cohort(name: &str, wave: i32, step: CohortStep) -> CohortView {
        let select =
            if name == "rest" { serde_json::json!({"remainder": {}}) } else { serde_json::json!({"percent": 1}) };
        let spec = serde_json::from_value(
            serde_json::json!({"migrationRef": {"name": "crm"}, "wave": wave, "select": select}),
        );
        let mut view = CohortView {
            object: crate::plan::observed::ObjectFacts { name: name.into(), ..Default::default() },
            spec: spec.unwrap(),
            status: crate::api::CohortStatus::default(),
        };
        if step != CohortStep::Pending {
            view.status.step = Some(begin(step.as_str(), Timestamp::UNIX_EPOCH));
        }
        view
    }

    use CohortStep::{Done, Pending, RolledBack, Soak};

    #[test]
    fn a_later_wave_waits_until_the_earlier_one_is_done() {
        let waves = |first| [cohort("late", 2, Pending), cohort("early", 1, first)];
        assert_eq!(admit(&waves(Pending), 5).admitted, ["early"]);
        assert_eq!(admit(&waves(Soak), 5).admitted, ["early"]);
        assert_eq!(admit(&waves(Done), 5).admitted, ["late"]);
    }

    #[test]
    fn one_wave_shares_the_concurrency_limit() {
        let wave = [cohort("a", 1, Soak), cohort("b", 1, Pending), cohort("c", 1, Pending)];
        assert_eq!(admit(&wave, 1).admitted, ["a"]);
        assert_eq!(admit(&wave, 2).admitted, ["a", "b"]);
    }

    #[test]
    fn the_remainder_comes_last_whatever_its_wave_says() {
        let all = |other| [cohort("rest", 0, Pending), cohort("other", 7, other)];
        assert_eq!(admit(&all(Pending), 5).admitted, ["other"]);
        assert_eq!(admit(&all(Done), 5).admitted, ["rest"]);
    }

    #[test]
    fn a_rolled_back_cohort_holds_the_waves_behind_it() {
        let answer = admit(&[cohort("first", 1, RolledBack), cohort("second", 2, Pending)], 5);
        assert_eq!(answer.admitted, Vec::<String>::new());
        assert!(matches!(answer.waits_for, Waiting::Person(why) if why.reason == reason::COHORT_NEEDS_ATTENTION));
    }

    #[test]
    fn without_a_remainder_the_move_never_ends_by_itself() {
        let answer = admit(&[cohort("only", 1, Done)], 5);
        assert!(matches!(answer.waits_for, Waiting::Person(why) if why.reason == reason::COHORTS_REQUIRED));
        let whole = admit(&[cohort("only", 1, Done), cohort("rest", 1, Done)], 5);
        assert_eq!(whole.waits_for, Waiting::Nothing);
    }
}
