//! Copy of a large cohort into tables that are empty and nobody's: every table read once, landed bare in pieces, and only then keyed.
//! Called by `copy` where `bare::lay_bare` found the tables to be ours alone; else each chunk lands in tables that live.
//! Must end with every key, index and foreign key in place and checked by the server, or not at all.
//!
//! A piece is one transaction with its checkpoint, as a chunk is. A new attempt has a new snapshot: it passes over the rows whose
//! keys have landed, and takes what is missing, new parents too. What changed meanwhile is for Cutover's difference to bring.

use std::collections::BTreeMap;

use tokio::sync::{Mutex, mpsc};
use tokio_postgres::Transaction;

use super::cohort::{Cohort, Sides, merge_sum};
use super::copy::ChunkState;
use super::snapshot;
use crate::contract::exit;
use crate::worker::Error;
use crate::worker::postgres::bare::{self, Waiting};
use crate::worker::postgres::catalog::read_catalog;
use crate::worker::postgres::closure;
use crate::worker::postgres::identifier::{TableName, quote_identifier, quote_identifiers};
use crate::worker::postgres::key_map::KeyMap;
use crate::worker::postgres::landing::Landing;
use crate::worker::postgres::ledger::{self, Ownership};
use crate::worker::postgres::model::{ForeignKey, OwnedTable, Table};
use crate::worker::postgres::relay::{Pieces, Rows, Shape, read};
use crate::worker::postgres::routing_key::{Key, KeyType};
use crate::worker::postgres::row::{Sum, fields};
use crate::worker::postgres::session::Session;

/// What a crash may cost, and what a transaction on the target may hold.
const PIECE_BYTES: usize = 64 << 20;
/// Checkpoints of pieces; a chunk's is its number.
const PIECE: &str = "piece-";

/// Lands the whole cohort and records it as landed, chunk by chunk, in the end.
pub async fn run(
    cohort: &Cohort<'_>,
    sides: &mut Sides,
    ownership: &Ownership,
    chunks: &std::collections::BTreeSet<i32>,
) -> Result<(), Error> {
    let waiting = bare::waiting(&*sides.target, cohort.subject()).await?.unwrap_or_default();
    let (references, keys): (Vec<Waiting>, Vec<Waiting>) =
        waiting.into_iter().partition(|waiting| waiting.referenced.is_some());
    let mut builder = cohort.job.target().await?;
    let landed = landed_before(cohort, &sides.target).await?;
    let (sender, receiver) = mpsc::unbounded_channel();
    let queue = Mutex::new(receiver);
    let token = sides.target_token.clone();
    let lane = Lane { queue: &queue, token: &token };
    let Sides { source, target, .. } = &mut *sides;
    let load = async {
        let source = snapshot::of(source).await?;
        let load = Load { cohort, source: &source, token: &token, ownership };
        let mut sums = landed.sums;
        let whole = load.is_everybody().await?;
        // The largest first: its keys are built while the others load.
        let mut tables: Vec<&OwnedTable> = cohort.scope.owned.iter().collect();
        tables.sort_by_key(|owned| std::cmp::Reverse(owned.table.bytes));
        let mut number = landed.pieces;
        for owned in tables {
            load.table(target, owned, (whole, landed.pieces > 0), (&mut sums, &mut number)).await?;
            let _ = sender.send(Work::Analyze(owned.table.name.clone()));
            for key in keys.iter().filter(|key| key.table == owned.table.name) {
                let _ = sender.send(Work::Build(key.clone()));
            }
        }
        drop(sender);
        // The rows are in: now both sessions build.
        lane.work(target).await?;
        Ok::<_, Error>(sums)
    };
    let (sums, ()) = futures::try_join!(load, lane.work(&mut builder))?;
    build_references(&references, (&mut sides.target, &mut builder), &token).await?;
    finish(cohort, sides, ownership, (sums, chunks)).await
}

/// What earlier attempts landed.
struct Landed {
    sums: BTreeMap<String, Sum>,
    pieces: usize,
}

async fn landed_before(cohort: &Cohort<'_>, target: &Session) -> Result<Landed, Error> {
    let mut landed = Landed { sums: BTreeMap::new(), pieces: 0 };
    for (part, state) in ledger::checkpoints(&**target, (cohort.subject(), "copy")).await? {
        let Some(number) = part.strip_prefix(PIECE).and_then(|number| number.parse::<usize>().ok()) else {
            continue;
        };
        let state: ChunkState =
            serde_json::from_value(state).map_err(|source| Error::Json { what: "a piece's checkpoint", source })?;
        landed.pieces = landed.pieces.max(number + 1);
        for (table, sum) in state.tables {
            cohort.job.progress.advance(sum.rows);
            merge_sum(&mut landed.sums, table, sum);
        }
    }
    Ok(landed)
}

struct Load<'a> {
    cohort: &'a Cohort<'a>,
    source: &'a Transaction<'a>,
    token: &'a crate::worker::postgres::token::Token,
    ownership: &'a Ownership,
}

impl Load<'_> {
    /// Whether the cohort is all customers there are, and no row can be anybody else's: then tables are read without a join.
    async fn is_everybody(&self) -> Result<bool, Error> {
        let scope = &self.cohort.scope;
        let certain = scope.owned.iter().flat_map(|owned| &owned.path).all(|key| self.is_certain(key));
        let others = format!(
            "select exists (select from {} as c where not exists (select from godwit.member m where m.customer = c.{} and m.entry = {}))",
            scope.root.sql(),
            quote_identifier(&scope.root_key),
            self.cohort.entry
        );
        let row = self.source.query_one(&others, &[]).await.map_err(Error::database("look for other customers"))?;
        Ok(certain && !row.get::<_, bool>(0))
    }

    /// Every row has the parent that the key names: the database vouches for it.
    fn is_certain(&self, key: &ForeignKey) -> bool {
        let table = self.cohort.source_catalog.tables.get(&key.table);
        let given = |name: &String| table.and_then(|table| table.column(name)).is_some_and(|column| column.not_null);
        key.validated && key.columns.iter().all(given)
    }

    async fn table(
        &self,
        target: &mut Session,
        owned: &OwnedTable,
        (whole, again): (bool, bool),
        (sums, number): (&mut BTreeMap<String, Sum>, &mut usize),
    ) -> Result<(), Error> {
        let (table, shape) = (&owned.table, Shape::from(owned));
        let there = if again { keys_of(target, table, shape).await? } else { KeyMap::default() };
        let types = key_types(table, shape);
        let select = if whole { table.select_all() } else { owned.select_of_entry(self.cohort.entry, None) };
        let name = table.name.to_string();
        let rows = Rows::select(self.source, &select, shape.format, &name).await?;
        let mut pieces = Pieces::new(rows, shape);
        while !pieces.ended() {
            let landing = Landing::begin(target, self.token).await?;
            landing.pass(self.ownership).await?;
            let sink = landing.open((table, shape)).await?;
            let wanted =
                |row: &[u8]| Ok(!again || key_of(row, (&types, shape))?.is_none_or(|key| there.get(key).is_none()));
            let sum = pieces.relay(sink, table, PIECE_BYTES, wanted).await?;
            let state = ChunkState { tables: BTreeMap::from([(name.clone(), sum)]) };
            let state =
                serde_json::to_value(&state).map_err(|source| Error::Json { what: "a piece's checkpoint", source })?;
            let part = format!("{PIECE}{number}");
            ledger::set_checkpoint(&*landing, (self.cohort.subject(), "copy", &part), &state).await?;
            landing.commit().await?;
            self.cohort.job.progress.advance(sum.rows);
            merge_sum(sums, name.clone(), sum);
            *number += 1;
        }
        Ok(())
    }
}

fn key_types(table: &Table, shape: Shape) -> Vec<KeyType> {
    table.copied_columns().iter().take(shape.keys).map(|column| KeyType::of(&column.type_name)).collect()
}

fn key_of(row: &[u8], (types, shape): (&[KeyType], Shape)) -> Result<Option<Key>, Error> {
    let rows = |source| Error::Rows { source };
    let key: Vec<_> = fields(row, shape.format).take(shape.keys).collect::<Result<_, _>>().map_err(rows)?;
    Key::of(&key, types, shape.format).map_err(rows)
}

/// The keys that have landed: two bytes each where they are dense integers.
async fn keys_of(target: &mut Session, table: &Table, shape: Shape) -> Result<KeyMap, Error> {
    let reading = snapshot::of(target).await?;
    let select =
        format!("select {} from {}", quote_identifiers(table.primary_key.iter().map(String::as_str)), table.name.sql());
    let keys_only = Shape { columns: shape.keys, ..shape };
    let types = key_types(table, shape);
    let mut keys = KeyMap::default();
    let mut rows = Rows::select(&reading, &select, shape.format, &table.name.to_string()).await?;
    read(&mut rows, keys_only, None, |row| {
        if let Some(key) = key_of(row, (&types, keys_only))? {
            keys.insert(key, 0);
        }
        Ok(())
    })
    .await?;
    Ok(keys)
}

/// What is done for a table once its rows are in.
enum Work {
    /// Before anybody asks the planner about it; the foreign keys' checks do.
    Analyze(TableName),
    Build(Waiting),
}

/// A session that takes work from a queue until there is none and will be none.
struct Lane<'a> {
    queue: &'a Mutex<mpsc::UnboundedReceiver<Work>>,
    token: &'a crate::worker::postgres::token::Token,
}

impl Lane<'_> {
    async fn work(&self, session: &mut Session) -> Result<(), Error> {
        loop {
            let next = self.queue.lock().await.recv().await;
            match next {
                None => return Ok(()),
                Some(Work::Analyze(table)) => {
                    session.run("analyse the copied tables", &format!("analyze {}", table.sql())).await?;
                }
                Some(Work::Build(waiting)) => built(bare::build(session, self.token, &waiting).await, &waiting)?,
            }
        }
    }
}

/// Two at a time, of different tables: each locks both of its own.
async fn build_references(
    references: &[Waiting],
    (one, other): (&mut Session, &mut Session),
    token: &crate::worker::postgres::token::Token,
) -> Result<(), Error> {
    let mut left: Vec<&Waiting> = references.iter().collect();
    while let Some(first) = left.pop() {
        let apart = |it: &&Waiting| !it.tables().any(|table| first.tables().any(|taken| taken == table));
        let second = left.iter().rposition(apart).map(|at| left.remove(at));
        let build_second = async {
            match second {
                Some(second) => built(bare::build(other, token, second).await, second),
                None => Ok(()),
            }
        };
        let build_first = async { built(bare::build(one, token, first).await, first) };
        futures::try_join!(build_first, build_second)?;
    }
    Ok(())
}

/// Rows that do not obey a constraint are a finding; they were no accident of ours that a retry could mend.
fn built(outcome: Result<(), Error>, waiting: &Waiting) -> Result<(), Error> {
    match outcome {
        Err(Error::Database { source, .. })
            if source.sqlstate.as_deref().is_some_and(|state| state.starts_with("23")) =>
        {
            Err(Error::refused(
                exit::DATA_DIFFERS,
                super::reporting::blocker(
                    "ConstraintViolated",
                    &waiting.table.to_string(),
                    format!(
                        "The copied rows do not obey {}, which the target has; correct them on the source, then retry.",
                        waiting.name
                    ),
                ),
            ))
        }
        outcome => outcome,
    }
}

/// The proofs that a chunk's landing makes, for all of them; with them what landed is recorded, and nothing waits any more.
async fn finish(
    cohort: &Cohort<'_>,
    sides: &mut Sides,
    ownership: &Ownership,
    (sums, chunks): (BTreeMap<String, Sum>, &std::collections::BTreeSet<i32>),
) -> Result<(), Error> {
    let catalog = read_catalog(&sides.target).await?;
    let landing = Landing::begin_in_snapshot(&mut sides.target, &sides.target_token).await?;
    landing.pass(ownership).await?;
    for owned in &cohort.scope.owned {
        let landed = sums.get(&owned.table.name.to_string()).map_or(0, |sum| sum.rows);
        // A row whose path is not null and checked by the server leads to a row of the root; and of those all must be members.
        let certain = |key: &ForeignKey| {
            let there = catalog.tables.get(&key.table);
            let given = |name: &String| there.and_then(|it| it.column(name)).is_some_and(|column| column.not_null);
            catalog.foreign_keys.iter().any(|it| it.validated && (&it.table, &it.columns) == (&key.table, &key.columns))
                && key.columns.iter().all(given)
        };
        let count = if !owned.path.is_empty() && owned.path.iter().all(certain) {
            format!("select count(*) from {}", owned.table.name.sql())
        } else {
            owned.count_of_entry(cohort.entry, None)
        };
        super::copy::prove_reached(&landing, &owned.table.name, &count, landed).await?;
    }
    let catalogue = (&cohort.scope, &catalog);
    closure::refuse(&closure::of_entry(&landing, catalogue, cohort.entry, None).await?)?;
    let mut state = ChunkState { tables: sums };
    for chunk in chunks {
        let value =
            serde_json::to_value(&state).map_err(|source| Error::Json { what: "a chunk's checkpoint", source })?;
        ledger::set_checkpoint(&*landing, (cohort.subject(), "copy", &chunk.to_string()), &value).await?;
        // The first one carries the sums of all: they landed together.
        state = ChunkState::default();
    }
    for begin in [PIECE, bare::PART] {
        ledger::clear_pieces(&*landing, cohort.subject(), begin).await?;
    }
    landing.commit().await
}

/// Gives a copy into bare tables up: the rows, which are ours alone, go, and what waits comes back.
pub async fn undo(cohort: &Cohort<'_>, sides: &mut Sides) -> Result<(), Error> {
    let Some(waiting) = bare::waiting(&*sides.target, cohort.subject()).await? else {
        return Ok(());
    };
    let ownership = ledger::ownership(&*sides.target, cohort.entry).await?;
    let landing = Landing::begin(&mut sides.target, &sides.target_token).await?;
    landing.pass(&ownership).await?;
    let tables: Vec<String> = cohort.scope.owned.iter().map(|owned| owned.table.name.sql()).collect();
    let failed = || Error::database("empty the tables that a copy filled");
    landing.batch_execute(&format!("truncate {}", tables.join(", "))).await.map_err(failed())?;
    ledger::clear_pieces(&*landing, cohort.subject(), PIECE).await?;
    landing.commit().await?;
    for waiting in &waiting {
        bare::build(&mut sides.target, &sides.target_token, waiting).await?;
    }
    ledger::clear_pieces(&*sides.target, cohort.subject(), bare::PART).await
}
