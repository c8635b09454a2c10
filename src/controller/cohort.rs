//! One pass over one Cohort: observe, decide, record, perform.
//! Called by the controller of Cohorts. Must hold no decision of its own.

use kube::runtime::controller::Action;

use super::context::Context;
use super::error::Error;
use super::observe::Key;
use super::observe::cohort::observe_cohort;
use super::perform::{Stage, look_again, perform};
use super::record::{Outcome, record_intent};
use crate::plan;

pub async fn reconcile(ctx: &Context, key: &Key) -> Result<Action, Error> {
    let Some(look) = Box::pin(observe_cohort(ctx, key)).await? else {
        ctx.metrics.forget_cohort(&key.namespace, &key.name);
        return Ok(Action::await_change());
    };
    let decision = plan::cohort::decide(&look.facts, ctx.now());
    let before = &look.facts.status;
    let Outcome::Landed(recorded) = record_intent(ctx, &look.object, decision).await? else {
        return Ok(look_again());
    };
    ctx.metrics.show_cohort(&recorded.object, before);
    let status = recorded.object.status.as_ref();
    let digest = status.and_then(|status| Some(status.plan.as_ref()?.digest.clone()));
    let stage = Stage {
        kind: "Cohort",
        identity: look.facts.object.identity(),
        spec: look.facts.migration.as_ref().map(|migration| &migration.spec),
        plan_digest: digest.as_deref(),
        job_uids: &look.job_uids,
    };
    perform(ctx, *recorded, &stage).await
}
