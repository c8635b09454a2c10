//! The truth table of the standard conditions, the same for both kinds.
//! Used at the end of every decision. Statuses are a contract with kubectl wait, Flux, Argo CD and Helm: they may not change.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use crate::api::condition::{kind, reason};
use crate::api::status::MAX_MESSAGE;

/// Where an object stands, in the words of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Situation {
    /// The spec is being digested; nothing has been decided about it.
    Digesting(Why),
    /// A step runs.
    Running(Why),
    /// A step waits for its turn, a gate, a person or time.
    Holding(Why),
    /// The stop cord was pulled.
    Paused(Why),
    /// Nothing goes on until a person acts.
    NeedsHuman(Why),
    /// The way back was taken to its end.
    RolledBack(Why),
    /// Done.
    Complete(Why),
}

/// A reason and the sentence that an SRE wants to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Why {
    pub reason: String,
    pub message: String,
}

impl Why {
    pub fn new(reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self { reason: reason.into(), message: message.into() }
    }
}

impl Situation {
    pub fn why(&self) -> &Why {
        match self {
            Self::Digesting(why)
            | Self::Running(why)
            | Self::Holding(why)
            | Self::Paused(why)
            | Self::NeedsHuman(why)
            | Self::RolledBack(why)
            | Self::Complete(why) => why,
        }
    }
}

/// A condition before it gets its times.
pub struct Fact {
    pub kind: &'static str,
    pub status: &'static str,
    pub why: Why,
}

impl Fact {
    pub fn new(kind: &'static str, status: &'static str, why: Why) -> Self {
        Self { kind, status, why }
    }
}

/// Types in list order, which is part of kstatus' contract, each with what it says when it has nothing to tell.
const STANDARD: [(&str, &str, &str); 6] = [
    (kind::RECONCILING, reason::ACCEPTED, "The latest spec has been observed."),
    (kind::STALLED, reason::NOT_STALLED, "Nothing needs a person."),
    (kind::READY, reason::ACCEPTED, "The spec is accepted and under control."),
    (kind::PROGRESSING, reason::RUNNING, "Work is under way."),
    (kind::SUCCEEDED, reason::RUNNING, "The outcome is not decided yet."),
    (kind::PAUSED, reason::NOT_PAUSED, "Nothing is paused."),
];

/// The published table: statuses of the six types, and which of them carry the situation's own reason.
fn row(situation: &Situation) -> ([&'static str; 6], [bool; 6]) {
    const T: bool = true;
    const F: bool = false;
    match situation {
        Situation::Digesting(_) => (["True", "False", "Unknown", "Unknown", "Unknown", "False"], [T, F, T, T, F, F]),
        Situation::Running(_) => (["False", "False", "True", "True", "Unknown", "False"], [F, F, F, T, F, F]),
        Situation::Holding(_) => (["False", "False", "True", "False", "Unknown", "False"], [F, F, F, T, F, F]),
        Situation::Paused(_) => (["False", "False", "True", "False", "Unknown", "True"], [F, F, F, T, F, T]),
        Situation::NeedsHuman(_) => (["False", "True", "False", "False", "Unknown", "False"], [F, T, T, T, F, F]),
        Situation::RolledBack(_) => (["False", "True", "False", "False", "False", "False"], [F, T, T, T, T, F]),
        Situation::Complete(_) => (["False", "False", "True", "False", "True", "False"], [F, F, F, T, T, F]),
    }
}

/// The six standard conditions of a situation.
pub fn standard(situation: &Situation) -> Vec<Fact> {
    let (statuses, speaking) = row(situation);
    STANDARD
        .into_iter()
        .zip(statuses.into_iter().zip(speaking))
        .map(|((kind, reason, message), (status, speaks))| {
            let why = if speaks { situation.why().clone() } else { Why::new(reason, message) };
            Fact::new(kind, status, why)
        })
        .collect()
}

/// Facts as conditions: the transition time moves only when the status does.
pub fn stamp(facts: Vec<Fact>, before: &[Condition], generation: i64, now: Timestamp) -> Vec<Condition> {
    facts
        .into_iter()
        .map(|fact| {
            let unchanged_since = before
                .iter()
                .find(|old| old.type_ == fact.kind && old.status == fact.status)
                .map(|old| old.last_transition_time.clone());
            Condition {
                type_: fact.kind.to_owned(),
                status: fact.status.to_owned(),
                reason: fact.why.reason,
                message: fact.why.message.chars().take(MAX_MESSAGE).collect(),
                observed_generation: Some(generation),
                last_transition_time: unchanged_since.unwrap_or(Time(now)),
            }
        })
        .collect()
}

/// Status of a condition, `Unknown` when it is not there.
pub fn status_of<'a>(conditions: &'a [Condition], kind: &str) -> &'a str {
    conditions.iter().find(|condition| condition.type_ == kind).map_or("Unknown", |condition| condition.status.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statuses(situation: &Situation) -> Vec<&'static str> {
        standard(situation).into_iter().map(|fact| fact.status).collect()
    }

    #[test]
    fn every_situation_has_the_statuses_of_the_published_table() {
        let why = || Why::new("R", "m");
        // Reconciling, Stalled, Ready, Progressing, Succeeded, Paused
        assert_eq!(statuses(&Situation::Digesting(why())), ["True", "False", "Unknown", "Unknown", "Unknown", "False"]);
        assert_eq!(statuses(&Situation::Running(why())), ["False", "False", "True", "True", "Unknown", "False"]);
        assert_eq!(statuses(&Situation::Holding(why())), ["False", "False", "True", "False", "Unknown", "False"]);
        assert_eq!(statuses(&Situation::Paused(why())), ["False", "False", "True", "False", "Unknown", "True"]);
        assert_eq!(statuses(&Situation::NeedsHuman(why())), ["False", "True", "False", "False", "Unknown", "False"]);
        assert_eq!(statuses(&Situation::RolledBack(why())), ["False", "True", "False", "False", "False", "False"]);
        assert_eq!(statuses(&Situation::Complete(why())), ["False", "False", "True", "False", "True", "False"]);
    }

    #[test]
    fn a_transition_time_moves_only_when_the_status_does() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let fact = |status, message: &str| vec![Fact::new(kind::READY, status, Why::new("R", message))];
        let first = stamp(fact("True", "a"), &[], 1, at(10));
        let same = stamp(fact("True", "b"), &first, 1, at(20));
        let other = stamp(fact("False", "b"), &same, 1, at(30));
        assert_eq!(same[0].last_transition_time.0, at(10));
        assert_eq!(other[0].last_transition_time.0, at(30));
    }
}
