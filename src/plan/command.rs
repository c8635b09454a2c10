//! Commands: annotations that people and Argo CD set, each handled once per distinct text.
//! Read at the start of both decisions. Must not act: a command only becomes a wish.

use crate::api::names::Verb;
use crate::api::status::HandledCommand;

use super::observed::ObjectFacts;
use super::record::{mark_handled, was_handled};

/// A command that was not answered yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    pub verb: Verb,
    /// The annotation's text; identifies the command.
    pub value: String,
}

/// Takes the unanswered commands, gravest last, and remembers them as answered.
pub fn take(object: &ObjectFacts, handled: &mut Vec<HandledCommand>) -> Vec<Command> {
    // A rollback asked for together with a retry must win: it comes last and overrules.
    let order = [Verb::Promote, Verb::Retry, Verb::Abort, Verb::Rollback];
    let mut commands = Vec::new();
    for verb in order {
        let Some(value) = object.requested(verb) else {
            continue;
        };
        if value.is_empty() || was_handled(handled, verb, value) {
            continue;
        }
        mark_handled(handled, verb, value);
        commands.push(Command { verb, value: value.to_owned() });
    }
    commands
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_taken_once_and_a_rollback_overrules_a_retry() {
        let mut object = ObjectFacts::default();
        object.annotations.insert(Verb::Rollback.annotation(), "t1".into());
        object.annotations.insert(Verb::Retry.annotation(), "t1".into());
        let mut handled = Vec::new();
        let verbs: Vec<Verb> = take(&object, &mut handled).into_iter().map(|command| command.verb).collect();
        assert_eq!(verbs, [Verb::Retry, Verb::Rollback]);
        assert!(take(&object, &mut handled).is_empty());
    }
}
