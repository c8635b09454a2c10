//! Which side owns a customer: the route table that the operator keeps, and the ledger that says who is in which cohort.
//! Asked by `traffic/` before each request and by `verify.rs` at the end. Must not guess: an unreadable table is an error.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use godwit::contract::Owner;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client};
use serde::Deserialize;
use tokio::sync::{Notify, watch};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::database;

/// How often the table is asked without a reason; an application that polls pays a pause of this length at most.
const ASK_EVERY: Duration = Duration::from_millis(300);
/// After a refusal it is asked at once, but never more often than this.
const ASK_GAP: Duration = Duration::from_millis(50);
const REQUEST_LIMIT: Duration = Duration::from_secs(5);

/// Customers in no cohort are recorded under this name.
pub const UNASSIGNED: &str = "unassigned";

/// Where the route table is.
#[derive(Args, Clone)]
pub struct RouteOptions {
    /// Name of the `ConfigMap`, in this pod's namespace.
    #[arg(long, env = "CRM_ROUTE_TABLE", default_value = "crm-routes")]
    route_table: String,
    /// Outside a cluster: a file with the content of `routes.json` instead.
    #[arg(long)]
    route_table_file: Option<PathBuf>,
}

/// The content of `routes.json`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct RouteTable {
    unassigned: Route,
    #[serde(default)]
    cohorts: BTreeMap<String, Route>,
}

#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub struct Route {
    pub owner: Owner,
    pub epoch: i64,
}

impl RouteTable {
    /// Before the operator has written one, everything is where it always was.
    fn untouched() -> Self {
        let unassigned = Route { owner: Owner::Source, epoch: 0 };
        Self { unassigned, cohorts: BTreeMap::new() }
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        serde_json::from_str(text).context("failed to read the route table")
    }

    /// The owner of a cohort; a cohort that is not listed has not left the customers that are in none.
    pub fn owner_of(&self, cohort: &str) -> Owner {
        self.cohorts.get(cohort).unwrap_or(&self.unassigned).owner
    }
}

/// Where the table is read from.
enum Place {
    ConfigMap { api: Box<Api<ConfigMap>>, name: String },
    File(PathBuf),
}

impl Place {
    async fn open(options: &RouteOptions) -> anyhow::Result<Self> {
        if let Some(path) = &options.route_table_file {
            return Ok(Self::File(path.clone()));
        }
        let client = Client::try_default().await.context("failed to set up a client of the cluster")?;
        Ok(Self::ConfigMap { api: Box::new(Api::default_namespaced(client)), name: options.route_table.clone() })
    }

    async fn read(&self) -> anyhow::Result<RouteTable> {
        let text = match self {
            Self::ConfigMap { api, name } => timeout(REQUEST_LIMIT, api.get_opt(name))
                .await
                .context("the API server did not answer in time")?
                .context("failed to get the route table")?
                .and_then(|map| map.data?.remove("routes.json")),
            Self::File(path) => tokio::fs::read_to_string(path).await.ok(),
        };
        text.map_or_else(|| Ok(RouteTable::untouched()), |text| RouteTable::parse(&text))
    }
}

/// The table as it is now, read once.
pub async fn read(options: &RouteOptions) -> anyhow::Result<RouteTable> {
    Place::open(options).await?.read().await
}

/// A route table that keeps itself current.
#[derive(Clone)]
pub struct Routes {
    table: watch::Receiver<RouteTable>,
    ask: Arc<Notify>,
}

impl Routes {
    /// Reads the table once, then keeps reading it in the background.
    pub async fn follow(options: &RouteOptions) -> anyhow::Result<Self> {
        let place = Place::open(options).await?;
        let (sender, table) = watch::channel(place.read().await?);
        let ask = Arc::new(Notify::new());
        tokio::spawn(keep_current(place, sender, Arc::clone(&ask)));
        Ok(Self { table, ask })
    }

    pub fn table(&self) -> RouteTable {
        self.table.borrow().clone()
    }

    /// Asks again and waits until the table has changed, or for a moment: a refusal may come before the change is published.
    pub async fn ask_again(&mut self) {
        self.table.mark_unchanged();
        self.ask.notify_one();
        // No change in time is no failure: the caller tries its write again either way.
        let _unchanged = timeout(ASK_GAP * 2, self.table.changed()).await;
    }
}

async fn keep_current(place: Place, sender: watch::Sender<RouteTable>, ask: Arc<Notify>) {
    let mut tick = interval(ASK_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !sender.is_closed() {
        tokio::select! {
            _ = tick.tick() => {}
            () = ask.notified() => sleep(ASK_GAP).await,
        }
        match place.read().await {
            Ok(table) => {
                sender.send_if_modified(|known| {
                    let changed = *known != table;
                    *known = table;
                    changed
                });
            }
            // The last known table stays: the fence refuses whatever has become wrong in it.
            Err(error) => eprintln!("{error:#}"),
        }
    }
}

/// The cohort of each of these customers that is in one, from the old CRM's copy of the ledger.
pub async fn cohorts_of(source: &tokio_postgres::Client, accounts: &[i32]) -> anyhow::Result<BTreeMap<i32, String>> {
    let rows = source
        .query(
            "select m.customer, o.name from godwit.member m join godwit.ownership o on o.entry = m.entry \
             where m.customer = any($1) and o.entry >= 16",
            &[&accounts],
        )
        .await;
    match rows {
        Ok(rows) => Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect()),
        Err(error) if database::is_absent(&error) => Ok(BTreeMap::new()),
        Err(error) => Err(error).context("failed to ask the ledger for cohorts"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOVING: &str = r#"{"migration":"crm","unassigned":{"owner":"Source","epoch":0},
        "cohorts":{"canary":{"owner":"Target","epoch":2},"early":{"owner":"None","epoch":1}}}"#;

    #[test]
    fn a_customer_follows_its_cohort_and_one_in_no_cohort_follows_unassigned() {
        let table = RouteTable::parse(MOVING).unwrap();
        assert_eq!(table.owner_of("canary"), Owner::Target);
        assert_eq!(table.owner_of("early"), Owner::None);
        assert_eq!(table.owner_of(UNASSIGNED), Owner::Source);
    }

    #[test]
    fn a_cohort_that_the_table_does_not_list_yet_is_where_it_always_was() {
        let table = RouteTable::parse(MOVING).unwrap();
        assert_eq!(table.owner_of("rest"), Owner::Source);
    }

    #[test]
    fn without_a_table_everybody_is_where_they_always_were() {
        assert_eq!(RouteTable::untouched().owner_of("rest"), Owner::Source);
    }

    #[test]
    fn a_table_that_cannot_be_read_is_an_error() {
        assert!(RouteTable::parse(r#"{"unassigned":{"owner":"Both","epoch":0}}"#).is_err());
    }
}
