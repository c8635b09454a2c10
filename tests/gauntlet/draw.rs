//! Which plans are run: drawn by a seed, or all of them. The same seed over the same undisturbed run draws the same plans.
//! Used by `campaign.rs`.

use crate::plan::{Action, Cut, Fault, Plan, Pods, Subject, Trigger};
use crate::traffic::Sent;

/// xorshift64: reproducible by its seed, which is all that is asked of it.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        let mut dice = Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        for _ in 0..8 {
            dice.throw(2);
        }
        dice
    }

    /// A number below `sides`.
    fn throw(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % sides as u64).unwrap_or_default()
    }

    fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.throw(choices.len())]
    }
}

const REFUSALS: [u16; 6] = [409, 422, 429, 500, 503, 504];
const LOST: [u16; 3] = [0, 500, 504];
const CUTS: [Cut; 5] = [Cut::End, Cut::InEvent, Cut::Gone, Cut::Failure, Cut::Again];
const RESOURCES: [&str; 4] = ["jobs", "cohorts", "migrations", "configmaps"];

/// Each subject once with each of these; two of what must never fail.
const SAMPLE: [&str; 16] =
    ["C1", "C1", "C2", "C2", "C3", "C3", "C4", "C4", "C5", "C6", "C7", "W1", "W2", "W3", "W4", "A1"];
/// Drawn beside the sweep of every write, and how many of each for every subject.
const BY_SEED: [(&str, usize); 10] = [
    ("C4", 18),
    ("C5", 8),
    ("C6", 10),
    ("C7", 12),
    ("W1", 6),
    ("W2", 6),
    ("W3", 4),
    ("W4", 10),
    ("A1", 4),
    ("none", 1),
];

fn trigger(writes: &[Sent], index: usize) -> Trigger {
    let sent = &writes[index];
    Trigger { write: sent.number, of: Some(sent.key.clone()), nth: sent.nth }
}

fn action(class: &str, turn: usize, dice: &mut Dice) -> Action {
    match class {
        "C1" => Action::KillBefore,
        "C2" => Action::KillAfter,
        "C3" => Action::LoseAnswer { code: LOST[turn % LOST.len()] },
        "C4" => Action::Refuse { code: REFUSALS[turn % REFUSALS.len()] },
        "C5" => Action::Twice { later: dice.one_of(&[0, 1, 3, 6]) },
        "C6" => Action::Zombie { writes: dice.one_of(&[1, 2, 4, 8]) },
        "W1" => Action::FreezeWatches { writes: dice.one_of(&[3, 10, 30]), gone: false },
        "W2" => Action::FreezeWatches { writes: dice.one_of(&[3, 10, 30]), gone: true },
        "W3" => Action::OldLists,
        "W4" => Action::CutWatches { how: CUTS[turn % CUTS.len()] },
        "A1" => {
            let code = dice.one_of(&[401, 403]);
            let resource = (code == 403).then(|| dice.one_of(&RESOURCES).to_owned());
            Action::Deny { code, millis: 3000, resource }
        }
        other => panic!("there is no class {other}"),
    }
}

/// What plans are drawn over: a story, and its writes when nothing is disturbed.
struct Undisturbed {
    subject: Subject,
    writes: Vec<Sent>,
    seed: u64,
}

/// One plan of this class; `turn` walks through its variants.
fn drawn(class: &str, over: &Undisturbed, turn: usize, dice: &mut Dice) -> Plan {
    let Undisturbed { subject, writes, seed } = over;
    let pods = if dice.throw(4) == 0 { Pods::AtOnce } else { Pods::WhenSeen };
    let first = dice.throw(writes.len());
    let faults = match class {
        "none" => Vec::new(),
        "C7" => {
            let second = first + 1 + dice.throw(6);
            let kill = |dice: &mut Dice| if dice.throw(2) == 0 { Action::KillBefore } else { Action::KillAfter };
            // The second one strikes while the first is being recovered from, so it counts from there.
            let then = Trigger::at(second as u64 + 1);
            vec![
                Fault { at: Trigger::at(first as u64 + 1), action: kill(dice) },
                Fault { at: then, action: kill(dice) },
            ]
        }
        class => vec![Fault { at: trigger(writes, first), action: action(class, turn, dice) }],
    };
    Plan { seed: *seed, subject: *subject, pods, faults }
}

/// The seeded sample: at least this many plans, over all classes and subjects.
pub fn sample(count: usize, seed: u64, writes: impl Fn(Subject) -> Vec<Sent>) -> Vec<Plan> {
    let mut dice = Dice::new(seed);
    let mut plans: Vec<Plan> = Vec::new();
    for turn in 0..count {
        let subject = Subject::ALL[turn % Subject::ALL.len()];
        let class = SAMPLE[(turn / Subject::ALL.len()) % SAMPLE.len()];
        let over = Undisturbed { subject, writes: writes(subject), seed };
        let plan = drawn(class, &over, turn, &mut dice);
        if plans.iter().all(|known| known.name() != plan.name()) {
            plans.push(plan);
        }
    }
    plans
}

/// Every write of every subject, killed before, killed after, answer lost; and the other classes by seed.
pub fn sweep(seed: u64, writes: impl Fn(Subject) -> Vec<Sent>) -> Vec<Plan> {
    let mut dice = Dice::new(seed);
    let mut plans: Vec<Plan> = Vec::new();
    for subject in Subject::ALL {
        let over = Undisturbed { subject, writes: writes(subject), seed };
        let writes = &over.writes;
        for index in 0..writes.len() {
            for class in ["C1", "C2", "C3"] {
                let fault = Fault { at: trigger(writes, index), action: action(class, index, &mut dice) };
                plans.push(Plan { seed, subject, pods: Pods::WhenSeen, faults: vec![fault] });
            }
        }
        for (class, count) in BY_SEED {
            for turn in 0..count {
                plans.push(drawn(class, &over, turn, &mut dice));
            }
        }
    }
    let mut names = std::collections::BTreeSet::new();
    plans.retain(|plan| names.insert(plan.name()));
    plans
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn writes(_: Subject) -> Vec<Sent> {
        (1..=80)
            .map(|number| Sent { number, key: format!("PUT cohorts/{}/status", number % 3), nth: number / 3 })
            .collect()
    }

    #[test]
    fn the_sample_covers_every_class_of_every_subject_and_is_drawn_the_same_again() {
        let plans = sample(64, 7, writes);
        assert!(plans.len() >= 60, "{}", plans.len());
        let covered: BTreeSet<_> = plans.iter().map(|plan| (plan.subject, plan.class())).collect();
        let classes: BTreeSet<_> = SAMPLE.into_iter().collect();
        assert_eq!(covered.len(), classes.len() * Subject::ALL.len());
        assert_eq!(sample(64, 7, writes), plans);
        assert_ne!(sample(64, 8, writes), plans);
    }

    #[test]
    fn the_sweep_has_every_write_killed_before_killed_after_and_with_its_answer_lost() {
        let plans = sweep(1, writes);
        for subject in Subject::ALL {
            for class in ["C1", "C2", "C3"] {
                let at: BTreeSet<_> = plans
                    .iter()
                    .filter(|plan| plan.subject == subject && plan.class() == class)
                    .map(|plan| plan.faults[0].at.write)
                    .collect();
                assert_eq!(at.len(), 80, "{subject:?} {class}");
            }
        }
    }

    #[test]
    fn a_plan_that_was_written_down_is_the_same_plan() {
        for plan in sweep(3, writes) {
            let text = serde_json::to_string(&plan).unwrap();
            assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan, "{text}");
        }
    }
}
