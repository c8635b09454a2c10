//! One user: draws what to do and for whom, asks who owns the customer, does it there, and records what was confirmed.
//! Started by `traffic/`. Must record an intent before a write, and must not begin the next write before the record has the last.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use godwit::contract::{Owner, Side};
use tokio::time::{MissedTickBehavior, interval};
use tokio_postgres::Client;

use super::Shared;
use super::operations::{self, Act, Done, Write};
use super::stats::Outcome;
use crate::database::{self, Meaning};
use crate::history::Operation;
use crate::record::{Intent, Record, Written};
use crate::routes::{self, UNASSIGNED};

/// A customer that is on neither side for longer than this is lost.
const MISSING_LIMIT: Duration = Duration::from_secs(30);

pub struct Worker {
    shared: Shared,
    index: u32,
    accounts: Vec<i32>,
    /// Accounts known to be in a cohort, so that small cohorts are visited as often as large ones.
    by_cohort: Vec<Vec<i32>>,
    dice: Dice,
    name: String,
    written: i32,
    connections: Connections,
}

/// Opened when first used, and again after they broke.
#[derive(Default)]
struct Connections {
    source: Option<Client>,
    target: Option<Client>,
    record: Option<Record>,
}

/// How an attempt ended.
enum Attempt {
    Confirmed,
    /// The customer is switching, or the route table says so.
    Moving,
    /// This side owns the customer: a fence said so, before the route table does.
    OwnedBy(Side),
    Again,
    NotHere,
    Failed,
}

impl Worker {
    pub fn new(shared: Shared, index: u32, accounts: Vec<i32>) -> Self {
        Self {
            shared,
            index,
            accounts,
            by_cohort: Vec::new(),
            dice: Dice(u64::from(index) + 1),
            // Unique over restarts, so that e-mail addresses are.
            name: format!("{}-{index}", std::process::id() ^ wall_clock_seconds()),
            written: 0,
            connections: Connections::default(),
        }
    }

    /// One request per `gap`, until told to stop.
    pub async fn run(mut self, gap: Duration) -> anyhow::Result<()> {
        let mut tick = interval(gap);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut stop = self.shared.stop.clone();
        let mut refreshed = None::<Instant>;
        loop {
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return Ok(()),
                _ = tick.tick() => {}
            }
            if refreshed.is_none_or(|at| at.elapsed() > Duration::from_secs(5)) {
                refreshed = Some(Instant::now());
                self.refresh_cohorts().await;
            }
            let act = Act::drawn(self.dice.below(100));
            let account = self.draw_account();
            if act == Act::Look {
                self.look(account).await;
            } else {
                self.write(act, account).await?;
            }
        }
    }

    async fn refresh_cohorts(&mut self) {
        let Ok(source) = self.connections.side(&self.shared, Side::Source).await else {
            return;
        };
        if let Ok(cohorts) = routes::cohorts_of(source, &self.accounts).await {
            let mut sorted = std::collections::BTreeMap::<String, Vec<i32>>::new();
            for (account, cohort) in cohorts {
                sorted.entry(cohort).or_default().push(account);
            }
            self.by_cohort = sorted.into_values().collect();
        }
    }

    /// Half of the time anybody, half of the time somebody of a cohort drawn first.
    fn draw_account(&mut self) -> i32 {
        let cohorts = self.by_cohort.len();
        let pool = if cohorts > 0 && self.dice.below(2) == 0 {
            &self.by_cohort[self.dice.index(cohorts)]
        } else {
            &self.accounts
        };
        pool.get(self.dice.index(pool.len())).copied().unwrap_or(1)
    }

    /// Reads until the customer is found; a stale route is no loss, a customer found nowhere is.
    async fn look(&mut self, account: i32) {
        let began = Instant::now();
        loop {
            let seen = match self.reading_side(account).await {
                Ok(side) => match self.connections.side(&self.shared, side).await {
                    Ok(client) => operations::look(client, account).await.map_err(anyhow::Error::from),
                    Err(error) => Err(error),
                },
                Err(error) => Err(error),
            };
            match seen {
                Ok(true) => return self.shared.stats.count(Outcome::Read, Instant::now()),
                Ok(false) if began.elapsed() > MISSING_LIMIT => {
                    return self.shared.stats.count(Outcome::Missing, Instant::now());
                }
                Ok(false) => self.shared.routes.ask_again().await,
                Err(error) => {
                    eprintln!("reading failed: {error:#}");
                    return self.shared.stats.count(Outcome::Error, Instant::now());
                }
            }
        }
    }

    /// While a cohort switches, its customers are still read where they were: on the old side until the new one opens.
    async fn reading_side(&mut self, account: i32) -> anyhow::Result<Side> {
        let (_, owner) = self.owner(Some(account)).await?;
        Ok(if owner == Owner::Target { Side::Target } else { Side::Source })
    }

    async fn write(&mut self, act: Act, account: i32) -> anyhow::Result<()> {
        self.written += 1;
        let write = Write {
            act,
            account: (act != Act::OpenAccount).then_some(account),
            mark: format!("{}-{}", self.name, self.written),
            number: self.written,
        };
        let began = Instant::now();
        let mut told = None;
        loop {
            if *self.shared.stop.borrow() {
                return Ok(());
            }
            match self.attempt(&write, told.take()).await? {
                Attempt::Confirmed => {
                    self.shared.stats.count(Outcome::Write, Instant::now());
                    return Ok(());
                }
                Attempt::Again => {}
                Attempt::OwnedBy(side) => told = Some(side),
                Attempt::NotHere if began.elapsed() > MISSING_LIMIT => {
                    self.shared.stats.count(Outcome::Missing, Instant::now());
                    return Ok(());
                }
                Attempt::Moving | Attempt::NotHere => self.shared.routes.ask_again().await,
                Attempt::Failed => {
                    self.shared.stats.count(Outcome::Error, Instant::now());
                    return Ok(());
                }
            }
        }
    }

    /// Tries it where the customer's owner is: as a fence told, else as the route table says.
    async fn attempt(&mut self, write: &Write, told: Option<Side>) -> anyhow::Result<Attempt> {
        let tried_at = self.now();
        let (cohort, owner) = match self.owner(write.account).await {
            Ok(found) => found,
            Err(error) => {
                eprintln!("no owner could be found: {error:#}");
                return Ok(Attempt::Failed);
            }
        };
        let side = match (told, owner) {
            (Some(side), _) => side,
            (None, Owner::Source) => Side::Source,
            (None, Owner::Target) => Side::Target,
            (None, Owner::None) => {
                self.pauses(|pauses, now| pauses.refused(&cohort, now));
                return Ok(Attempt::Moving);
            }
        };
        let intent = Intent { side, account: write.account, cohort };
        let number = self.connections.record(&self.shared).await?.intend(&intent).await?;
        let client = self.connections.side(&self.shared, side).await?;
        let done = operations::perform(client, write).await;
        let record = self.connections.record(&self.shared).await?;
        match done {
            Ok(Done::Written(written)) => {
                record.confirm(number, &intent, &written).await?;
                self.adopt(&written);
                self.confirmed(&intent, tried_at).await?;
                Ok(Attempt::Confirmed)
            }
            Ok(Done::NotHere) => {
                record.refuse(number, &intent).await?;
                Ok(Attempt::NotHere)
            }
            Err(error) => {
                let meaning = database::meaning(&error);
                // A write whose answer got lost stays an intent: nobody knows whether it happened.
                if meaning != Meaning::Lost {
                    record.refuse(number, &intent).await?;
                }
                Ok(self.after_error(&error, meaning, &intent))
            }
        }
    }

    /// An account that was opened just now is visited from now on, by the worker that all its writes belong to.
    fn adopt(&mut self, written: &[Written]) {
        let opened = written.iter().filter(|w| w.operation == Operation::Insert && w.row.table == "account");
        let mine = opened.map(|w| w.account).filter(|account| self.shared.writer_of(*account) == self.index);
        self.accounts.extend(mine);
    }

    fn after_error(&mut self, error: &tokio_postgres::Error, meaning: Meaning, intent: &Intent) -> Attempt {
        match meaning {
            Meaning::Moving => {
                self.pauses(|pauses, now| pauses.refused(&intent.cohort, now));
                Attempt::Moving
            }
            Meaning::Elsewhere => {
                self.pauses(|pauses, now| pauses.refused(&intent.cohort, now));
                Attempt::OwnedBy(if intent.side == Side::Source { Side::Target } else { Side::Source })
            }
            Meaning::Again => Attempt::Again,
            Meaning::Lost | Meaning::Wrong => {
                let state = error.code().map_or("none", |code| code.code());
                eprintln!("writing failed, SQLSTATE {state}: {error}");
                Attempt::Failed
            }
        }
    }

    async fn confirmed(&mut self, intent: &Intent, tried_at: i64) -> anyhow::Result<()> {
        let ended = self.pauses(|pauses, now| pauses.confirmed(&intent.cohort, tried_at, now));
        if let Some(pause) = ended {
            let record = self.connections.record(&self.shared).await?;
            record.pause(intent, pause.millis, pause.attempts).await?;
        }
        Ok(())
    }

    async fn owner(&mut self, account: Option<i32>) -> anyhow::Result<(String, Owner)> {
        let mut cohort = UNASSIGNED.to_owned();
        if let Some(account) = account {
            let source = self.connections.side(&self.shared, Side::Source).await?;
            if let Some(found) = routes::cohorts_of(source, &[account]).await?.remove(&account) {
                cohort = found;
            }
        }
        let owner = self.shared.routes.table().owner_of(&cohort);
        Ok((cohort, owner))
    }

    fn pauses<T>(&self, change: impl FnOnce(&mut super::Pauses, i64) -> T) -> T {
        let mut pauses = self.shared.pauses.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut pauses, self.now())
    }

    /// Milliseconds of the monotonic clock that all workers share.
    fn now(&self) -> i64 {
        i64::try_from(self.shared.started.elapsed().as_millis()).unwrap_or(i64::MAX)
    }
}

impl Connections {
    async fn side(&mut self, shared: &Shared, side: Side) -> anyhow::Result<&mut Client> {
        let (slot, uri) = match side {
            Side::Source => (&mut self.source, &shared.databases.source_uri),
            Side::Target => (&mut self.target, &shared.databases.target_uri),
        };
        let client = match slot.take().filter(|client| !client.is_closed()) {
            Some(client) => client,
            None => database::connect(uri).await?,
        };
        Ok(slot.insert(client))
    }

    async fn record(&mut self, shared: &Shared) -> anyhow::Result<&Record> {
        let record = match self.record.take().filter(|record| !record.is_closed()) {
            Some(record) => record,
            None => Record::new(database::connect(&shared.databases.record_uri).await?),
        };
        Ok(self.record.insert(record))
    }
}

#[expect(clippy::disallowed_methods, reason = "a name that is unique over restarts, not a decision")]
fn wall_clock_seconds() -> u32 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| u32::try_from(since.as_secs() & 0xffff_ffff).unwrap_or(0))
}

/// SplitMix64: a few lines instead of a dependency, and the same sequence on every run.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(u64::try_from(length).unwrap_or(u64::MAX))).unwrap_or(0)
    }
}
