//! The status write: the decision is durable before any of its effects, under the version it was decided from.
//! Called between decide and perform. The only place that writes a status.

use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use kube::api::PostParams;
use kube::core::object::HasStatus;
use kube::{Api, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::call::call;
use super::context::Context;
use super::error::{Attempt, Class, Error};
use super::observe::Key;
use super::trouble::Shown;
use crate::api::names::MANAGER_STATUS;
use crate::plan::decision::{Decision, Effects, Note, Wait};

/// A kind whose status this operator writes.
pub trait Kind:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + HasStatus<Status: Clone + PartialEq + Default>
    + Clone
    + Debug
    + Serialize
    + DeserializeOwned
{
    /// Plural, as RBAC names it.
    const RESOURCE: &'static str;
    /// The parts of a status that show what a person has to repair.
    fn shown(status: &mut Self::Status) -> Shown<'_>;
}

impl Kind for crate::api::Migration {
    const RESOURCE: &'static str = "migrations";
    fn shown(status: &mut Self::Status) -> Shown<'_> {
        (&mut status.conditions, &mut status.phase)
    }
}

impl Kind for crate::api::Cohort {
    const RESOURCE: &'static str = "cohorts";
    fn shown(status: &mut Self::Status) -> Shown<'_> {
        (&mut status.conditions, &mut status.phase)
    }
}

/// A decision that is durable. Only `record_intent` makes one, so that nothing is done that was not recorded.
#[derive(Debug)]
pub struct Recorded<K> {
    /// The object as it stands after the record.
    pub(super) object: K,
    pub(super) effects: Effects,
    pub(super) notes: Vec<Note>,
    pub(super) wait: Wait,
}

/// How a record ended.
#[derive(Debug)]
pub enum Outcome<K> {
    Landed(Box<Recorded<K>>),
    /// Somebody wrote in between: what was decided is void.
    Overtaken,
}

/// Writes the decided status if it differs from what was read.
pub async fn record_intent<K: Kind>(
    ctx: &Context,
    read: &K,
    decision: Decision<K::Status>,
) -> Result<Outcome<K>, Error> {
    let Decision { mut status, effects, notes, wait } = decision;
    let mut before = read.status().cloned().unwrap_or_default();
    let name = Key::of(read).of_kind(&K::kind(&()));
    ctx.troubles.overlay(&name, K::shown(&mut status), K::shown(&mut before).0, ctx.now());
    let object = if read.status() == Some(&status) {
        read.clone()
    } else {
        match write_status(ctx, read, status).await {
            Ok(written) => written,
            Err(error) if is_overtaken(&error) => return Ok(Outcome::Overtaken),
            Err(error) => return Err(error),
        }
    };
    Ok(Outcome::Landed(Box::new(Recorded { object, effects, notes, wait })))
}

/// Replaced whole, not applied: a field that somebody else put into our status would otherwise stay there for ever.
/// The body carries uid and resourceVersion of what was read, so a stale or recreated object answers 409.
async fn write_status<K: Kind>(ctx: &Context, read: &K, status: K::Status) -> Result<K, Error> {
    let name = read.name_any();
    let namespace = read.namespace().unwrap_or_default();
    let api: Api<K> = Api::namespaced(ctx.client.clone(), &namespace);
    let mut body = read.clone();
    body.meta_mut().managed_fields = None;
    *body.status_mut() = Some(status);
    let params = PostParams { field_manager: Some(MANAGER_STATUS.to_owned()), ..PostParams::default() };
    let attempt = Attempt { verb: "update", resource: K::RESOURCE, object: format!("{namespace}/{name} (status)") };
    call(attempt, api.replace_status(&name, &params, &body)).await
}

/// 409, or the object is gone: either way the next look decides anew.
fn is_overtaken(error: &Error) -> bool {
    let gone = matches!(error, Error::Request { source, .. }
        if matches!(&**source, kube::Error::Api(status) if status.is_not_found()));
    gone || error.class() == Class::Conflict
}
