//! The temporal rules TR1 to TR15 over the API server's audit log (TR2 speaks of rehearsals, which do not exist yet).
//! Called by `campaign.rs` with the writes of one run, in their order. Each rule looks at one write and at the world as
//! the accepted writes before it made it; it must not know which faults were injected: the rules hold under all of them.

mod history;
mod jobs;
mod steps;
#[cfg(test)]
mod tests;
mod wishes;
mod writers;

use crate::audit::Event;
use history::History;

/// What is wrong with this write, if anything.
type Rule = fn(&History, &Event) -> Option<String>;

const RULES: &[(&str, Rule)] = &[
    ("TR1", jobs::nothing_is_written_before_a_verified_backup),
    ("TR3", jobs::intent_comes_first),
    ("TR4", jobs::one_job_per_attempt),
    ("TR5", jobs::one_writer_at_a_time),
    ("TR6", steps::a_step_ends_after_its_job),
    ("TR7", steps::gates_are_open),
    ("TR8", steps::approvals_are_there),
    ("TR9", steps::back_only_with_a_rollback),
    ("TR11", wishes::suspended_means_no_new_step),
    ("TR12", steps::counters_never_fall),
    ("TR12", steps::ends_are_ends),
    ("TR13", writers::a_deposed_leader_writes_nothing),
    ("TR14", writers::only_what_the_role_lists),
    ("TR15", wishes::evidence_before_rollback),
];

/// Every violation, as a sentence that begins with the rule's number.
pub fn check(events: &[Event]) -> Vec<String> {
    let mut history = History::default();
    let mut violations = Vec::new();
    for event in events {
        for (name, rule) in RULES {
            if let Some(text) = rule(&history, event) {
                violations.push(format!("{name}: {text}"));
            }
        }
        history.apply(event);
    }
    violations.extend(wishes::rollbacks_reach_their_end(&history).into_iter().map(|text| format!("TR10: {text}")));
    violations
}
