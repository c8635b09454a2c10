//! What the traffic program tells about itself over HTTP, for the demo's checks: GET /stats, and /healthz for the kubelet.
//! Counted by `worker.rs`. Must hold numbers only.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{future::Future, sync::Arc};

use anyhow::Context;
use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

/// The error rate is that of this much time.
const WINDOW: Duration = Duration::from_secs(30);

#[derive(Default)]
pub struct Stats {
    counts: Mutex<Counts>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Read,
    Write,
    /// A request that ended in an error for the user.
    Error,
    /// A customer that could be found on no side.
    Missing,
}

#[derive(Default)]
struct Counts {
    reads: i64,
    writes: i64,
    errors: i64,
    missing: i64,
    latest: VecDeque<(Instant, bool)>,
}

impl Stats {
    pub fn count(&self, outcome: Outcome, now: Instant) {
        let mut counts = self.lock();
        match outcome {
            Outcome::Read => counts.reads += 1,
            Outcome::Write => counts.writes += 1,
            Outcome::Error => counts.errors += 1,
            Outcome::Missing => counts.missing += 1,
        }
        let good = matches!(outcome, Outcome::Read | Outcome::Write);
        counts.latest.push_back((now, good));
        while counts.latest.front().is_some_and(|(at, _)| now.duration_since(*at) > WINDOW) {
            counts.latest.pop_front();
        }
    }

    /// The totals under the names they have in the record.
    pub fn totals(&self) -> [(&'static str, i64); 4] {
        let counts = self.lock();
        [("reads", counts.reads), ("writes", counts.writes), ("errors", counts.errors), ("missing", counts.missing)]
    }

    fn as_json(&self) -> Value {
        let counts = self.lock();
        let bad = counts.latest.iter().filter(|(_, good)| !good).count();
        #[expect(clippy::cast_precision_loss, reason = "half a minute of requests is far below 2^52")]
        let rate = bad as f64 / counts.latest.len().max(1) as f64;
        json!({
            "reads": counts.reads, "writes": counts.writes, "errors": counts.errors, "missing": counts.missing,
            "errorRate": rate,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        // Counting cannot leave the numbers half-changed, so a panic elsewhere is no reason to stop.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub async fn serve(
    address: SocketAddr,
    stats: Arc<Stats>,
    until: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    let router = Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/stats", get(|State(stats): State<Arc<Stats>>| async move { Json(stats.as_json()) }))
        .with_state(stats);
    let listener =
        tokio::net::TcpListener::bind(address).await.with_context(|| format!("failed to listen on {address}"))?;
    axum::serve(listener, router).with_graceful_shutdown(until).await.context("failed to serve the statistics")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_rate_is_that_of_the_last_half_minute() {
        let stats = Stats::default();
        let start = Instant::now();
        stats.count(Outcome::Error, start);
        stats.count(Outcome::Read, start + Duration::from_secs(1));
        assert_eq!(stats.as_json()["errorRate"], 0.5);
        stats.count(Outcome::Write, start + Duration::from_secs(31));
        assert_eq!(stats.as_json()["errorRate"], 0.0);
        assert_eq!(stats.as_json()["errors"], 1);
    }
}
