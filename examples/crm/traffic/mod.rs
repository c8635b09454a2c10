//! The CRM's users: a few workers that read and write until they are told to stop.
//! Run by the traffic Deployment. Must not end with a confirmed write that is not in the record.

mod operations;
mod pause;
mod stats;
mod worker;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use futures::future::try_join_all;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::database::{self, Databases};
use crate::record::Record;
use crate::routes::{RouteOptions, Routes};
use pause::Pauses;
use stats::Stats;
use worker::Worker;

/// The seed may still be running when the traffic starts.
const SEEDED_LIMIT: Duration = Duration::from_secs(600);

#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    databases: Databases,
    #[command(flatten)]
    routes: RouteOptions,
    /// Users at the same time, each with a connection to each database.
    #[arg(long, env = "CRM_USERS", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=64))]
    users: u32,
    /// Requests a second of all users together.
    #[arg(long, env = "CRM_REQUESTS_PER_SECOND", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=1000))]
    requests_per_second: u32,
    /// Where the statistics are served.
    #[arg(long, env = "CRM_LISTEN", default_value = "0.0.0.0:8080")]
    listen: SocketAddr,
}

/// What all workers share.
#[derive(Clone)]
struct Shared {
    databases: Databases,
    routes: Routes,
    stats: Arc<Stats>,
    pauses: Arc<Mutex<Pauses>>,
    started: Instant,
    users: u32,
    /// True once the program is to end.
    stop: watch::Receiver<bool>,
}

impl Shared {
    /// Each customer has one writer, so that the record has the order of the database.
    fn writer_of(&self, account: i32) -> u32 {
        account.unsigned_abs() % self.users
    }
}

pub async fn run(options: Options) -> anyhow::Result<()> {
    let accounts = wait_for_accounts(&options.databases).await?;
    let (stopper, stop) = watch::channel(false);
    let shared = Shared {
        routes: Routes::follow(&options.routes).await?,
        databases: options.databases,
        stats: Arc::default(),
        pauses: Arc::default(),
        started: Instant::now(),
        users: options.users,
        stop,
    };
    let gap = Duration::from_secs(1) * options.users / options.requests_per_second;
    let workers = (0..options.users).map(|index| {
        let mine = accounts.iter().copied().filter(|account| shared.writer_of(*account) == index).collect();
        tokio::spawn(Worker::new(shared.clone(), index, mine).run(gap))
    });
    let workers: Vec<_> = workers.collect();
    let mut told = shared.stop.clone();
    let until = async move { drop(told.wait_for(|stop| *stop).await) };
    let server = tokio::spawn(stats::serve(options.listen, Arc::clone(&shared.stats), until));
    let all = try_join_all(workers);
    tokio::pin!(all);
    tokio::select! {
        // A worker ends on its own only with an error.
        ended = &mut all => { ended?.into_iter().collect::<anyhow::Result<()>>()?; }
        told = told_to_stop() => {
            told?;
            stopper.send_replace(true);
            all.await?.into_iter().collect::<anyhow::Result<()>>()?;
        }
    }
    stopper.send_replace(true);
    server.await??;
    keep_totals(&shared).await
}

async fn told_to_stop() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("failed to listen for signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("failed to listen for signals")?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

async fn keep_totals(shared: &Shared) -> anyhow::Result<()> {
    let record = Record::new(database::connect(&shared.databases.record_uri).await?);
    for (name, value) in shared.stats.totals() {
        record.tally(name, value).await?;
    }
    Ok(())
}

/// Every account of both sides, once there are any.
async fn wait_for_accounts(databases: &Databases) -> anyhow::Result<Vec<i32>> {
    let look = async {
        loop {
            if let Ok(accounts) = list_accounts(databases).await
                && !accounts.is_empty()
            {
                return accounts;
            }
            // There is no event to wait for while the CRM is being set up.
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    timeout(SEEDED_LIMIT, look).await.context("the CRM has no accounts; has it been seeded?")
}

async fn list_accounts(databases: &Databases) -> anyhow::Result<Vec<i32>> {
    let mut accounts = Vec::new();
    for uri in [&databases.source_uri, &databases.target_uri] {
        accounts.extend(operations::accounts(&database::connect(uri).await?).await?);
    }
    accounts.sort_unstable();
    accounts.dedup();
    Ok(accounts)
}
