//! One pass over one Migration: observe, decide, record, perform.
//! Called by the controller of Migrations. Must hold no decision of its own.

use kube::runtime::controller::Action;

use super::context::Context;
use super::error::Error;
use super::observe::Key;
use super::observe::migration::observe_migration;
use super::perform::{Stage, look_again, perform};
use super::record::{Outcome, record_intent};
use crate::plan;

pub async fn reconcile(ctx: &Context, key: &Key) -> Result<Action, Error> {
    let Some(look) = Box::pin(observe_migration(ctx, key)).await? else {
        ctx.metrics.forget_migration(&key.namespace, &key.name);
        return Ok(Action::await_change());
    };
    let decision = plan::migration::decide(&look.facts, ctx.now());
    let before = &look.facts.status;
    let Outcome::Landed(recorded) = record_intent(ctx, &look.object, decision).await? else {
        return Ok(look_again());
    };
    ctx.metrics.show_migration(&recorded.object, before);
    let status = recorded.object.status.as_ref();
    let digest = status.and_then(|status| Some(status.plan.as_ref()?.digest.clone()));
    let stage = Stage {
        kind: "Migration",
        identity: look.facts.object.identity(),
        spec: Some(&look.facts.spec),
        plan_digest: digest.as_deref(),
        job_uids: &look.job_uids,
    };
    perform(ctx, *recorded, &stage).await
}
