//! The edge of a pass: metrics, panics, errors and the wait after them.
//! Between the watches and the two reconcilers. A defect met here stops one object and nobody else.

use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use futures::FutureExt;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::controller::Action;
use kube::runtime::events::{Event, EventType};

use super::call::call;
use super::classify::clipped;
use super::context::Context;
use super::error::{Attempt, Class, Error};
use super::observe::Key;
use super::perform::look_again;
use super::trouble;
use crate::metrics::Pass;

/// Runs one pass; every error has been told, counted and turned into a wait when this returns.
pub async fn run(
    ctx: &Context,
    kind: &'static str,
    object: &ObjectReference,
    pass: impl Future<Output = Result<Action, Error>>,
) -> Result<Action, Error> {
    ctx.metrics.pass_began(kind);
    let began = Instant::now();
    let name = full_name(object);
    let result = AssertUnwindSafe(pass).catch_unwind().await.unwrap_or_else(|_| {
        ctx.metrics.pass_panicked(kind);
        Err(Error::Panic { object: name.clone() })
    });
    let ended = match &result {
        Err(_) => Pass::Error,
        Ok(action) if *action == Action::await_change() => Pass::Success,
        Ok(_) => Pass::RequeueAfter,
    };
    ctx.metrics.pass_ended(kind, ended, began.elapsed().as_secs_f64());
    match &result {
        Ok(_) => {
            ctx.backoff.clear(&name);
            if ctx.troubles.clear(&name) {
                // What was shown over the decisions so far comes off with the next record.
                return Ok(look_again());
            }
        }
        Err(error) => tell(ctx, kind, object, error).await,
    }
    result
}

/// The wait after a failed pass.
pub fn wait_after(ctx: &Context, object: &ObjectReference, error: &Error) -> Duration {
    ctx.backoff.next(&full_name(object), error.class())
}

fn full_name(object: &ObjectReference) -> String {
    let kind = object.kind.as_deref().unwrap_or_default();
    let key =
        Key { namespace: object.namespace.clone().unwrap_or_default(), name: object.name.clone().unwrap_or_default() };
    key.of_kind(kind)
}

/// What only a person can repair is said on the object, as a condition and an event; what passes by itself stays in the log.
async fn tell(ctx: &Context, kind: &'static str, object: &ObjectReference, error: &Error) {
    let name = full_name(object);
    let class = error.class();
    tracing::warn!(object = name, reason = error.reason(), error = error.text(), "Pass failed");
    if matches!(class, Class::Transient | Class::Conflict) {
        return;
    }
    ctx.metrics.pass_needs_person(kind);
    trouble::show(ctx, object, &name, error).await;
    let event = Event {
        type_: EventType::Warning,
        reason: error.reason().to_owned(),
        note: Some(clipped(&error.text(), 1000)),
        action: "Reconcile".to_owned(),
        secondary: None,
    };
    let attempt = Attempt::new("create", "events.events.k8s.io", name.as_str());
    if let Err(error) = call(attempt, ctx.recorder.publish(&event, object)).await {
        tracing::warn!(object = name, error = error.text(), "Event could not be published");
    }
}
