//! The watches that wake passes: each kind, its Jobs, and the objects it depends on.
//! Started by `run` while the lease is held. A cache here only wakes; what is true is read live.

use std::sync::Arc;

use futures::StreamExt;
use futures::future::{BoxFuture, select_all};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::batch::v1::Job;
use kube::core::{DeserializeGuard, PartialObjectMeta};
use kube::runtime::controller::{Action, Config, Controller};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher;
use kube::{Api, Client, Resource, ResourceExt};

use super::context::Context;
use super::link::CohortLink;
use super::observe::Key;
use super::settings::Settings;
use super::wake::{Bulletin, Concerned};
use super::{Error, Stop, cohort, migration, pass};
use crate::api::approval::SubjectKind;
use crate::api::names::{LABEL_MANAGED_BY, MANAGED_BY};
use crate::api::{Approval, Migration};
use crate::metrics::Metrics;

type MigrationMeta = PartialObjectMeta<Migration>;

/// Watches every wanted namespace; returns when asked to stop and all passes have ended.
pub async fn run(client: &Client, settings: &Settings, metrics: &Arc<Metrics>, stop: &Stop) -> Result<(), Error> {
    let context = |kind| {
        metrics.concurrency(kind, settings.concurrency);
        Context::new(client.clone(), settings.clone(), Arc::clone(metrics), kind).map(Arc::new)
    };
    let (of_migrations, of_cohorts) = (context("migration")?, context("cohort")?);
    let scopes = if settings.namespaces.is_empty() {
        vec![Scope(None)]
    } else {
        settings.namespaces.iter().cloned().map(|name| Scope(Some(name))).collect()
    };
    let mut controllers: Vec<BoxFuture<'static, ()>> = Vec::new();
    for scope in &scopes {
        controllers.push(Box::pin(migrations(Arc::clone(&of_migrations), scope.clone(), stop.clone())));
        controllers.push(Box::pin(cohorts(Arc::clone(&of_cohorts), scope.clone(), stop.clone())));
    }
    while !controllers.is_empty() {
        let ((), _, rest) = select_all(controllers).await;
        if stop.peek().is_none() {
            return Err(Error::TaskEnded { task: "watch" });
        }
        controllers = rest;
    }
    Ok(())
}

/// One namespace, or all of them.
#[derive(Clone, Debug)]
struct Scope(Option<String>);

impl Scope {
    fn api<K>(&self, client: &Client) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        match &self.0 {
            Some(namespace) => Api::namespaced(client.clone(), namespace),
            None => Api::all(client.clone()),
        }
    }
}

fn whole() -> watcher::Config {
    watcher::Config::default()
}

fn managed() -> watcher::Config {
    watcher::Config::default().labels(&format!("{LABEL_MANAGED_BY}={MANAGED_BY}"))
}

fn config(ctx: &Context) -> Config {
    Config::default().concurrency(ctx.settings.concurrency)
}

async fn migrations(ctx: Arc<Context>, scope: Scope, stop: Stop) {
    let client = &ctx.client;
    let outcomes = Controller::new(scope.api::<MigrationMeta>(client), whole())
        .owns(scope.api::<PartialObjectMeta<Job>>(client), managed())
        .watches(scope.api::<CohortLink>(client), whole(), |cohort| {
            let namespace = cohort.namespace().unwrap_or_default();
            let named = !cohort.migration.is_empty();
            named.then(|| ObjectRef::new(&cohort.migration).within(&namespace))
        })
        .watches(scope.api::<DeserializeGuard<Approval>>(client), whole(), |approval| {
            subject(&approval, SubjectKind::Migration)
        })
        .with_config(config(&ctx))
        .graceful_shutdown_on(stop)
        .run(reconcile_migration, after_error, Arc::clone(&ctx));
    drain("migration", outcomes).await;
}

async fn cohorts(ctx: Arc<Context>, scope: Scope, stop: Stop) {
    let client = &ctx.client;
    let controller = Controller::new(scope.api::<CohortLink>(client), whole());
    let known = controller.store();
    let bulletin = Bulletin::default();
    let outcomes = controller
        .owns(scope.api::<PartialObjectMeta<Job>>(client), managed())
        .watches(scope.api::<DeserializeGuard<Migration>>(client), whole(), move |migration| {
            concerned(&known, &bulletin, &migration)
        })
        .watches(scope.api::<DeserializeGuard<Approval>>(client), whole(), |approval| {
            subject(&approval, SubjectKind::Cohort)
        })
        .with_config(config(&ctx))
        .graceful_shutdown_on(stop)
        .run(reconcile_cohort, after_error, Arc::clone(&ctx));
    drain("cohort", outcomes).await;
}

/// The cohorts that a change of their Migration concerns.
fn concerned(
    known: &Store<CohortLink>,
    bulletin: &Bulletin,
    migration: &DeserializeGuard<Migration>,
) -> Vec<ObjectRef<CohortLink>> {
    let namespace = migration.namespace();
    let name = migration.name_any();
    let whom = match &migration.0 {
        Ok(migration) => bulletin.concerned(migration),
        Err(_) => Concerned::Everybody,
    };
    match whom {
        Concerned::Nobody => Vec::new(),
        Concerned::Only(names) => {
            let namespace = namespace.unwrap_or_default();
            let names = names.iter();
            names.map(|name| ObjectRef::new(name).within(&namespace)).collect()
        }
        Concerned::Everybody => known
            .state_filter(|cohort| cohort.migration == name && cohort.namespace() == namespace)
            .iter()
            .map(|cohort| ObjectRef::from_obj(&**cohort))
            .collect(),
    }
}

fn subject<K>(approval: &DeserializeGuard<Approval>, kind: SubjectKind) -> Option<ObjectRef<K>>
where
    K: Resource<DynamicType = ()>,
{
    let namespace = approval.namespace().unwrap_or_default();
    let subject = &approval.0.as_ref().ok()?.spec.subject;
    (subject.kind == kind).then(|| ObjectRef::new(&subject.name).within(&namespace))
}

async fn reconcile_migration(object: Arc<MigrationMeta>, ctx: Arc<Context>) -> Result<Action, Error> {
    let key = Key::of(&*object);
    let reference = object.object_ref(&());
    pass::run(&ctx, "migration", &reference, Box::pin(migration::reconcile(&ctx, &key))).await
}

async fn reconcile_cohort(object: Arc<CohortLink>, ctx: Arc<Context>) -> Result<Action, Error> {
    let key = Key::of(&*object);
    let reference = object.object_ref(&());
    pass::run(&ctx, "cohort", &reference, Box::pin(cohort::reconcile(&ctx, &key))).await
}

#[expect(clippy::needless_pass_by_value, reason = "the signature that the runtime asks for")]
fn after_error<K>(object: Arc<K>, error: &Error, ctx: Arc<Context>) -> Action
where
    K: Resource<DynamicType = ()>,
{
    Action::requeue(pass::wait_after(&ctx, &object.object_ref(&()), error))
}

/// An error of a pass was told where it happened; what is left are errors of the watches, which go on by themselves.
async fn drain<K, S>(kind: &'static str, outcomes: S)
where
    K: Resource,
    S: futures::Stream<Item = Result<(ObjectRef<K>, Action), kube::runtime::controller::Error<Error, watcher::Error>>>,
    K::DynamicType: std::fmt::Debug,
{
    outcomes
        .for_each(|outcome| async move {
            match outcome {
                Ok(_)
                | Err(
                    kube::runtime::controller::Error::ReconcilerFailed(..)
                    | kube::runtime::controller::Error::ObjectNotFound(_),
                ) => {}
                Err(error) => tracing::warn!(kind, %error, "Watch failed and is resumed"),
            }
        })
        .await;
}
