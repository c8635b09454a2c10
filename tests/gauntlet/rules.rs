//! Rules over the audit log. (First cut: one Job per attempt, no zombie writes.)

use crate::audit::Event;
use std::collections::BTreeMap;

pub fn check(events: &[Event]) -> Vec<String> {
    let mut problems = Vec::new();
    let mut created: BTreeMap<String, usize> = BTreeMap::new();
    for event in events.iter().filter(|event| event.operator().is_some() && event.is("create", "jobs", "")) {
        *created.entry(event.name.clone()).or_default() += 1;
    }
    problems
        .extend(created.into_iter().filter(|(_, n)| *n != 1).map(|(name, n)| format!("TR4: {name} created {n} times")));
    let mut past: Vec<&str> = Vec::new();
    for event in events.iter().filter(|event| event.accepted()) {
        let Some(name) = event.operator() else { continue };
        match past.iter().position(|one| *one == name) {
            Some(position) if position + 1 == past.len() => {}
            Some(_) => problems.push(format!(
                "TR13: {} {} {} of {name} after {}",
                event.verb,
                event.resource,
                event.name,
                past[past.len() - 1]
            )),
            None => past.push(name),
        }
    }
    problems
}
