//! The operator's only room with a Kubernetes client: it observes, asks `plan/`, records, performs.
//! Started by `cli`. Must not decide: what should happen next is `plan/`'s answer to what was observed.

pub mod backoff;
pub mod call;
pub mod checks;
pub mod classify;
pub mod client;
pub mod cohort;
pub mod context;
pub mod error;
pub mod lease;
pub mod link;
pub mod mandate;
pub mod migration;
pub mod observe;
pub mod pass;
pub mod perform;
pub mod record;
pub mod served;
pub mod settings;
pub mod trouble;
pub mod wake;
pub mod watch;

use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt, Shared};

pub use client::Connection;
pub use context::Context;
pub use error::Error;
pub use settings::{LeaseSettings, Settings};

use crate::metrics::Metrics;
use crate::readiness::Readiness;
use lease::{Held, Lost};

/// How long passes that are under way may take to end after a signal to stop.
const GRACE: Duration = Duration::from_secs(20);

/// A signal to stop that several tasks wait for.
pub type Stop = Shared<BoxFuture<'static, ()>>;

/// Runs until `stop`, or until this process must not go on. The caller ends the process when this returns an error:
/// requests in flight are then presumed to land.
pub async fn run(
    connection: Connection,
    settings: Settings,
    metrics: Arc<Metrics>,
    readiness: Arc<Readiness>,
    stop: Stop,
) -> Result<(), Error> {
    let Connection { client, mandate } = connection;
    let prepared = async {
        served::wait_for_kinds(&client, &readiness).await;
        // A standby is ready: it does all that it is there for.
        readiness.ready();
        lease::acquire(&client, &settings.lease, Arc::clone(&mandate)).await
    };
    let mut held: Held = tokio::select! {
        held = prepared => held,
        () = stop.clone() => return Ok(()),
    };
    metrics.leading(&settings.lease.name, true);
    let watching = watch::run(&client, &settings, &metrics, &stop);
    let outcome = tokio::select! {
        lost = held.keep() => Err(lease_lost(&settings, &lost)),
        ended = watching => ended,
        () = late(&stop) => Ok(()),
    };
    metrics.leading(&settings.lease.name, false);
    mandate.end();
    if outcome.is_ok() {
        held.release().await;
    }
    outcome
}

async fn late(stop: &Stop) {
    stop.clone().await;
    tokio::time::sleep(GRACE).await;
}

fn lease_lost(settings: &Settings, lost: &Lost) -> Error {
    Error::LeaseLost {
        lease: settings.lease.name.clone(),
        reason: match lost {
            Lost::Taken { by } => format!("it is held by {by:?} now"),
            Lost::NotRenewed => "it could not be renewed in time".to_owned(),
        },
    }
}

/// The signals with which Kubernetes and a terminal ask a process to end.
pub fn stop_on_signal() -> std::io::Result<Stop> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("Asked to stop");
    };
    Ok(stop.boxed().shared())
}
