//! Everything that a Migration's next decision depends on.
//! Called by `controller/migration.rs`. Reads only.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::ListParams;
use kube::core::ApiResource;
use kube::{Api, ResourceExt};

use super::jobs::{self, Wanted};
use super::{Key, Look, Loose, approvals, facts_of, lenient, namespace_is_terminating, salvage};
use crate::api::approval::SubjectKind;
use crate::api::cohort::Remainder;
use crate::api::names::LABEL_OWNER_UID;
use crate::api::{Cohort, CohortSpec, Migration};
use crate::build::route_table::ROUTES_KEY;
use crate::controller::call::{call, list};
use crate::controller::checks;
use crate::controller::context::Context;
use crate::controller::error::{Attempt, Error};
use crate::plan::check::due_for_migration;
use crate::plan::observed::{CohortView, ObjectFacts, ObservedMigration, RouteTableSeen};

/// `None`: the object is gone.
pub async fn observe_migration(ctx: &Context, key: &Key) -> Result<Option<Look<Migration, ObservedMigration>>, Error> {
    let api: Api<Migration> = Api::namespaced(ctx.client.clone(), &key.namespace);
    let attempt = Attempt::new("get", "migrations", key.to_string());
    let Some(object) = call(attempt, api.get_opt(&key.name)).await? else {
        return Ok(None);
    };
    let facts = facts_of(&object);
    let status = object.status.clone().unwrap_or_default();
    let wanted = Wanted::new(key, &facts.uid, status.step.as_ref(), &status.checks);
    let (seen, cohorts, approvals, route_table, namespace_terminating) = tokio::try_join!(
        jobs::observe_jobs(ctx, &wanted),
        cohorts(ctx, key),
        approvals(ctx, key, SubjectKind::Migration),
        route_table(ctx, key, &object),
        namespace_is_terminating(ctx, &facts),
    )?;
    let mut observed = ObservedMigration {
        object: ObjectFacts { last_attempt: seen.last_attempt, ..facts },
        spec: object.spec.clone(),
        status,
        jobs: seen.states,
        cohorts,
        approvals,
        measured: Vec::new(),
        route_table,
        namespace_terminating,
    };
    let due = due_for_migration(&observed, ctx.now());
    let asked = checks::Asked {
        namespace: &key.namespace,
        checks: &observed.spec.checks,
        statuses: &observed.status.checks,
        jobs: &observed.jobs,
    };
    observed.measured = ctx.checks.measure(&ctx.client, &asked, &due).await;
    Ok(Some(Look { object, facts: observed, job_uids: seen.uids }))
}

async fn cohorts(ctx: &Context, key: &Key) -> Result<Vec<CohortView>, Error> {
    let resource = ApiResource::erase::<Cohort>(&());
    let api: Api<Loose> = Api::namespaced_with(ctx.client.clone(), &key.namespace, &resource);
    let of_migration = ListParams::default().fields(&format!("spec.migrationRef.name={}", key.name));
    let found = list("cohorts", &api, of_migration).await?;
    Ok(found.iter().map(view).collect())
}

/// A cohort whose spec cannot be read comes last and is suspended: it holds the end of the migration, not the others.
fn view(cohort: &Loose) -> CohortView {
    let spec = lenient(&cohort.data["spec"]).unwrap_or_else(|| {
        tracing::warn!(cohort = cohort.name_any(), "Cohort cannot be read and holds the migration's end");
        unreadable_spec(&cohort.data["spec"])
    });
    // Owner and epoch go into the route table: they must not be lost with some other field.
    CohortView { object: facts_of(cohort), spec, status: salvage(&cohort.data["status"]) }
}

fn unreadable_spec(spec: &serde_json::Value) -> CohortSpec {
    // Who takes the remainder also decides where new customers are routed.
    let remainder = spec["select"]["remainder"].is_object();
    CohortSpec {
        migration_ref: crate::api::cohort::MigrationRef { name: String::new() },
        wave: i32::MAX,
        select: crate::api::cohort::Select {
            percent: None,
            risk_by: None,
            where_: None,
            keys_from: None,
            remainder: remainder.then(Remainder::default),
        },
        soak: None,
        suspend: true,
    }
}

/// The table as it stands, in whoever's `ConfigMap`: only the key `routes.json` is ours.
async fn route_table(ctx: &Context, key: &Key, migration: &Migration) -> Result<Option<RouteTableSeen>, Error> {
    let Some(routing) = &migration.spec.routing else {
        return Ok(None);
    };
    let name = &routing.route_table.config_map_name;
    let api: Api<ConfigMap> = Api::namespaced(ctx.client.clone(), &key.namespace);
    let attempt = Attempt::new("get", "configmaps", format!("{}/{name}", key.namespace));
    let found = call(attempt, api.get_opt(name)).await?;
    Ok(found.map(|map| {
        let version = map.resource_version().unwrap_or_default();
        let migration_uid = map.labels().get(LABEL_OWNER_UID).cloned();
        RouteTableSeen { routes: map.data.and_then(|mut data| data.remove(ROUTES_KEY)), migration_uid, version }
    }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_cohort_that_cannot_be_read_is_seen_as_suspended_in_the_last_wave() {
        let loose: Loose = serde_json::from_value(json!({
            "apiVersion": "godwit.dev/v1alpha1", "kind": "Cohort",
            "metadata": {"name": "odd", "namespace": "shop", "uid": "u"},
            "spec": {"migrationRef": {"name": "crm"}, "wave": "many"},
            "status": {"owner": "Target"},
        }))
        .unwrap();
        let view = view(&loose);
        assert_eq!(view.spec.wave, i32::MAX);
        assert!(view.spec.suspend);
        assert_eq!(view.status.owner.as_deref(), Some("Target"));
        assert_eq!(view.object.name, "odd");
    }
}
