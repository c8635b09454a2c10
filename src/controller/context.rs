//! What every pass needs: the client, the clock, settings, events, metrics.
//! Made once by `run`. The only place of the operator that asks what time it is.

use std::sync::Arc;

use jiff::Timestamp;
use kube::Client;
use kube::runtime::events::{Recorder, Reporter};

use super::backoff::Backoff;
use super::checks::Checks;
use super::error::Error;
use super::settings::Settings;
use super::trouble::Troubles;
use crate::metrics::Metrics;

pub struct Context {
    pub client: Client,
    pub settings: Settings,
    pub metrics: Arc<Metrics>,
    pub checks: Checks,
    pub backoff: Backoff,
    pub troubles: Troubles,
    pub recorder: Recorder,
}

impl Context {
    /// The context of one kind's controller, such as `migration`.
    pub fn new(client: Client, settings: Settings, metrics: Arc<Metrics>, kind: &str) -> Result<Self, Error> {
        let reporter =
            Reporter { controller: format!("godwit.dev/{kind}-controller"), instance: Some(settings.instance.clone()) };
        Ok(Self {
            recorder: Recorder::new(client.clone(), reporter),
            checks: Checks::new(settings.checks_may_reach_loopback)?,
            backoff: Backoff::default(),
            troubles: Troubles::default(),
            client,
            settings,
            metrics,
        })
    }

    pub fn now(&self) -> Timestamp {
        now()
    }
}

/// The operator's clock.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place where the controller reads the time that it passes to decisions"
)]
pub fn now() -> Timestamp {
    Timestamp::now()
}
