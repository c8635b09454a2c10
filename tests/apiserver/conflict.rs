//! Somebody else writes between the look and the record.

use std::sync::atomic::{AtomicBool, Ordering};

use futures::FutureExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

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

#[test]
fn a_route_table_that_somebody_wrote_meanwhile_is_looked_at_again_and_not_overwritten_unseen() {
    run(async |world| {
        let gate = Gate::new(Death::Never);
        let tables: Api<ConfigMap> = world.api();
        let done = AtomicBool::new(false);
        // A deposed leader's table would come as late as this one.
        gate.before_write(move |write| {
            let first = write == "PATCH configmaps/routes" && !done.swap(true, Ordering::Relaxed);
            let tables = tables.clone();
            let note = Patch::Merge(json!({"metadata": {"annotations": {"example.org/note": "mine"}}}));
            first.then(|| async move { drop(tables.patch("routes", &PatchParams::default(), &note).await) }.boxed())
        });
        let operator = world.operator_behind("godwit-1", gate);
        world.create_migration("crm", |_| {}).await;
        world.create_cohort("all", "crm").await;
        world.until_migration("crm", "completed", is_completed).await;

        let answers = operator.gate.answers();
        let tables: Vec<u16> =
            answers.iter().filter(|(write, _)| write == "PATCH configmaps/routes").map(|(_, code)| *code).collect();
        assert_eq!(tables.first(), Some(&409), "{answers:?}");
        assert!(tables[1..].iter().any(|code| *code < 300), "{answers:?}");
        let routes = world.api::<ConfigMap>().get("routes").await.unwrap().data.unwrap();
        assert!(routes["routes.json"].contains("Target"), "{routes:?}");
    });
}
