//! Leader election on a `Lease`: one operator acts, the others wait.
//! Used by `run`. Fail-stop: who cannot renew in time has no mandate to write any more, is told that the lease is lost, and ends.
//! Safety does not rest on it (versions, names and the fence do); it only keeps two operators from doing the same work.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::time::Instant;

use super::context;
use super::mandate::Mandate;
use super::settings::LeaseSettings;
use crate::api::names::MANAGER_CHILDREN;

/// A lease that is held.
#[derive(Debug)]
pub struct Held {
    elector: Elector,
    lease: Lease,
    /// When the request was sent that renewed it last: others count from a later moment.
    renewed: Instant,
    mandate: Arc<Mandate>,
}

/// Why a lease is no longer held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lost {
    /// Somebody else holds it.
    Taken { by: String },
    /// The API server could not be reached, or did not answer, for too long.
    NotRenewed,
}

#[derive(Clone, Debug)]
struct Elector {
    api: Api<Lease>,
    settings: LeaseSettings,
}

/// The lease as it was when it last changed, by our own monotonic clock: other machines' clocks are not compared with.
struct LastChange {
    version: Option<String>,
    seen: Instant,
}

/// Waits until this process holds the lease.
pub async fn acquire(client: &Client, settings: &LeaseSettings, mandate: Arc<Mandate>) -> Held {
    let elector = Elector { api: Api::namespaced(client.clone(), &settings.namespace), settings: settings.clone() };
    let mut last: Option<LastChange> = None;
    loop {
        let began = Instant::now();
        match elector.attempt(&mut last, began).await {
            Ok(Some(lease)) => {
                tracing::info!(lease = settings.name, identity = settings.identity, "Acquired Lease");
                let mut held = Held { elector, lease, renewed: began, mandate };
                held.renewed_at(began);
                return held;
            }
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(error, lease = settings.name, "Lease could not be acquired");
            }
        }
        tokio::time::sleep(settings.retry).await;
    }
}

impl Elector {
    /// One try: `None` while somebody else holds it.
    async fn attempt(&self, last: &mut Option<LastChange>, now: Instant) -> Result<Option<Lease>, String> {
        let limit = self.settings.renew_deadline;
        let Some(found) = timed(limit, self.api.get_opt(&self.settings.name)).await? else {
            let lease = self.lease(None);
            let created = timed(limit, self.api.create(&params(), &lease)).await;
            return created.map(Some);
        };
        if !self.may_take(&found, last, now) {
            return Ok(None);
        }
        let lease = self.lease(Some(&found));
        timed(limit, self.replace(&lease)).await.map(Some)
    }

    /// Free, or not renewed for the time that its holder promised, counted from when we saw it change last.
    fn may_take(&self, found: &Lease, last: &mut Option<LastChange>, now: Instant) -> bool {
        if holder(found).is_none() {
            return true;
        }
        let version = found.metadata.resource_version.clone();
        let changed = last.as_ref().is_none_or(|last| last.version != version);
        if changed {
            *last = Some(LastChange { version, seen: now });
            return false;
        }
        let promised = found.spec.as_ref().and_then(|spec| spec.lease_duration_seconds);
        let promised = promised.and_then(|seconds| u64::try_from(seconds).ok());
        let patience = promised.map_or(self.settings.duration, Duration::from_secs);
        last.as_ref().is_some_and(|last| now.duration_since(last.seen) > patience)
    }

    /// The lease as ours, over the version that was read: of two who take it at once, one gets a conflict.
    fn lease(&self, found: Option<&Lease>) -> Lease {
        let spec = found.and_then(|found| found.spec.clone()).unwrap_or_default();
        let renewal = spec.holder_identity.as_deref() == Some(&self.settings.identity);
        let now = Some(MicroTime(context::now()));
        let seconds = i32::try_from(self.settings.duration.as_secs().max(1)).unwrap_or(i32::MAX);
        Lease {
            metadata: found.map_or_else(
                || ObjectMeta {
                    name: Some(self.settings.name.clone()),
                    namespace: Some(self.settings.namespace.clone()),
                    ..ObjectMeta::default()
                },
                |found| ObjectMeta { managed_fields: None, ..found.metadata.clone() },
            ),
            spec: Some(LeaseSpec {
                acquire_time: if renewal { spec.acquire_time } else { now.clone() },
                holder_identity: Some(self.settings.identity.clone()),
                lease_duration_seconds: Some(seconds),
                lease_transitions: Some(spec.lease_transitions.unwrap_or(0) + i32::from(!renewal)),
                renew_time: now,
                ..LeaseSpec::default()
            }),
        }
    }

    async fn replace(&self, lease: &Lease) -> kube::Result<Lease> {
        self.api.replace(&self.settings.name, &params(), lease).await
    }
}

impl Held {
    /// Renews until that fails for good; returns why.
    pub async fn keep(&mut self) -> Lost {
        loop {
            tokio::time::sleep(self.elector.settings.retry).await;
            let began = Instant::now();
            let deadline = self.renewed + self.elector.settings.renew_deadline;
            let Some(left) = deadline.checked_duration_since(began) else {
                return Lost::NotRenewed;
            };
            // One deadline over all the calls of a renewal: two that each may take as long would outlast the lease.
            match tokio::time::timeout(left, self.renew(left)).await {
                Ok(Ok(None)) => self.renewed_at(began),
                Ok(Ok(Some(by))) => return Lost::Taken { by },
                Ok(Err(error)) => tracing::warn!(error, "Lease could not be renewed yet"),
                Err(_) => return Lost::NotRenewed,
            }
        }
    }

    fn renewed_at(&mut self, began: Instant) {
        self.renewed = began;
        self.mandate.extend(began + self.elector.settings.renew_deadline);
    }

    /// One renewal; `Some`: the lease is another's.
    async fn renew(&mut self, left: Duration) -> Result<Option<String>, String> {
        let lease = self.elector.lease(Some(&self.lease));
        match timed(left, self.elector.replace(&lease)).await {
            Ok(renewed) => {
                self.lease = renewed;
                Ok(None)
            }
            // A conflict, or an answer that was lost: what stands there says whose it is.
            Err(error) => {
                let name = &self.elector.settings.name;
                let found = timed(left, self.elector.api.get_opt(name)).await?;
                let by = found.as_ref().and_then(holder).unwrap_or_default();
                if by != self.elector.settings.identity {
                    return Ok(Some(by));
                }
                if let Some(found) = found {
                    self.lease = found;
                }
                Err(error)
            }
        }
    }

    /// Gives the lease up, so that another operator need not wait for it.
    pub async fn release(mut self) {
        if let Some(spec) = &mut self.lease.spec {
            spec.holder_identity = None;
            spec.lease_duration_seconds = Some(1);
        }
        self.lease.metadata.managed_fields = None;
        let limit = self.elector.settings.retry;
        match timed(limit, self.elector.replace(&self.lease)).await {
            Ok(_) => tracing::info!(lease = self.elector.settings.name, "Released Lease"),
            Err(error) => tracing::warn!(error, "Lease could not be released"),
        }
    }
}

fn holder(lease: &Lease) -> Option<String> {
    let holder = lease.spec.as_ref()?.holder_identity.clone()?;
    (!holder.is_empty()).then_some(holder)
}

fn params() -> PostParams {
    PostParams { field_manager: Some(MANAGER_CHILDREN.to_owned()), ..PostParams::default() }
}

async fn timed<T>(limit: Duration, request: impl Future<Output = kube::Result<T>>) -> Result<T, String> {
    match tokio::time::timeout(limit, request).await {
        Err(_) => Err("no answer in time".to_owned()),
        Ok(answer) => answer.map_err(|error| match error {
            kube::Error::Api(status) => status.message,
            other => other.to_string(),
        }),
    }
}

#[cfg(test)]
#[path = "lease_tests.rs"]
mod tests;
