//! Somebody else writes between the look and the record.

use std::sync::atomic::{AtomicBool, Ordering};

use futures::FutureExt;

use crate::gate::{Death, Gate};
use crate::world::{annotate, is_completed, run};

#[test]
fn a_conflict_means_another_look_and_not_one_effect() {
    run(async |world| {
        let gate = Gate::new(Death::Never);
        let (client, namespace) = (world.client.clone(), world.namespace.clone());
        let done = AtomicBool::new(false);
        // The record that would start the first Job is overtaken by a person's annotation.
        gate.before_write(move |write| {
            let first = write == "PUT migrations/crm/status" && !done.swap(true, Ordering::Relaxed);
            let (client, namespace) = (client.clone(), namespace.clone());
            first.then(|| async move { annotate(&client, &namespace, "crm", "example.org/note", "mine").await }.boxed())
        });
        let operator = world.operator_behind("godwit-1", gate);
        world.create_migration("crm", |_| {}).await;
        world.create_cohort("all", "crm").await;
        world.until_migration("crm", "completed", is_completed).await;

        let answers = operator.gate.answers();
        let conflict = answers.iter().position(|(write, code)| write.ends_with("crm/status") && *code == 409);
        let conflict = conflict.unwrap_or_else(|| panic!("no conflict in {answers:?}"));
        let of_migration = |write: &str| write.contains("migrations/crm") || write == "POST jobs";
        let next = answers[conflict + 1..].iter().find(|(write, _)| of_migration(write)).unwrap();
        assert_eq!(next, &("PUT migrations/crm/status".to_owned(), 200), "{answers:?}");
    });
}
