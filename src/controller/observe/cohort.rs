//! Everything that a Cohort's next decision depends on.
//! Called by `controller/cohort.rs`. Reads only.

use kube::Api;

use super::jobs::{self, Wanted};
use super::{Key, Look, approvals, facts_of, namespace_is_terminating};
use crate::api::approval::SubjectKind;
use crate::api::{Cohort, Migration};
use crate::controller::call::call;
use crate::controller::checks;
use crate::controller::context::Context;
use crate::controller::error::{Attempt, Error};
use crate::plan::check::due_for_cohort;
use crate::plan::observed::{MigrationView, ObjectFacts, ObservedCohort};

/// `None`: the object is gone.
pub async fn observe_cohort(ctx: &Context, key: &Key) -> Result<Option<Look<Cohort, ObservedCohort>>, Error> {
    let api: Api<Cohort> = Api::namespaced(ctx.client.clone(), &key.namespace);
    let attempt = Attempt::new("get", "cohorts", key.to_string());
    let Some(object) = call(attempt, api.get_opt(&key.name)).await? else {
        return Ok(None);
    };
    let facts = facts_of(&object);
    let status = object.status.clone().unwrap_or_default();
    let wanted = Wanted::new(key, &facts.uid, status.step.as_ref(), &status.checks);
    let (seen, migration, approvals, namespace_terminating) = tokio::try_join!(
        jobs::observe_jobs(ctx, &wanted),
        migration(ctx, key, &object.spec.migration_ref.name),
        approvals(ctx, key, SubjectKind::Cohort),
        namespace_is_terminating(ctx, &facts),
    )?;
    let mut observed = ObservedCohort {
        object: ObjectFacts { last_attempt: seen.last_attempt, ..facts },
        spec: object.spec.clone(),
        status,
        jobs: seen.states,
        migration,
        approvals,
        measured: Vec::new(),
        namespace_terminating,
    };
    let due = due_for_cohort(&observed, ctx.now());
    let migration = observed.migration.as_ref();
    let asked = checks::Asked {
        namespace: &key.namespace,
        checks: migration.map_or(&[], |migration| &migration.spec.checks),
        statuses: &observed.status.checks,
        jobs: &observed.jobs,
    };
    observed.measured = ctx.checks.measure(&ctx.client, &asked, &due).await;
    Ok(Some(Look { object, facts: observed, job_uids: seen.uids }))
}

async fn migration(ctx: &Context, key: &Key, name: &str) -> Result<Option<MigrationView>, Error> {
    let api: Api<Migration> = Api::namespaced(ctx.client.clone(), &key.namespace);
    let attempt = Attempt::new("get", "migrations", format!("{}/{name}", key.namespace));
    let found = call(attempt, api.get_opt(name)).await?;
    Ok(found.map(|migration| MigrationView {
        object: facts_of(&migration),
        spec: migration.spec,
        status: migration.status.unwrap_or_default(),
    }))
}
