//! Copy of a large cohort into tables that are empty and nobody's: every table read once, landed bare in pieces, and only then keyed.
//! Called by `copy` where `bare::lay_bare` found the tables to be ours alone; else each chunk lands in tables that live.
//! Must end with every key, index and foreign key in place and checked by the server, or not at all.
//!
//! A piece is one transaction with its checkpoint, as a chunk is. A new attempt has a new snapshot: it leaves the tables alone that
//! were read to their end, and of the one that was not it lands the rows whose keys are missing. Rows of two snapshots may contradict
//! each other. Doubles under a unique key: that table is emptied and read anew. Rows without their parents: see `strays`. What
//! changed otherwise is for Cutover's difference to bring.

use std::collections::BTreeSet;

use tokio::sync::{Mutex, mpsc};
use tokio_postgres::Transaction;

use super::cohort::{Cohort, Sides};
use super::copy::{ChunkState, prove_reached, share_of};
use super::filled::{self, Filled, FilledTables};
use super::rebuild::{self, Lane, Work};
use super::reporting::blocker;
use super::snapshot;
use crate::contract::exit;
use crate::worker::Error;
use crate::worker::postgres::bare::{self, Waiting};
use crate::worker::postgres::identifier::{TableName, quote_identifier, quote_identifiers};
use crate::worker::postgres::key_map::KeyMap;
use crate::worker::postgres::landing::Landing;
use crate::worker::postgres::ledger::{self, Ownership};
use crate::worker::postgres::model::{ForeignKey, OwnedTable, Table};
use crate::worker::postgres::pieces::Pieces;
use crate::worker::postgres::relay::{Rows, Shape, read_keys};
use crate::worker::postgres::routing_key::{Key, KeyType};
use crate::worker::postgres::row::fields;
use crate::worker::postgres::session::Session;
use crate::worker::postgres::token::Token;

/// What a crash may cost, and what a transaction on the target may hold; never more than the cohort's chunks would.
const PIECE_BYTES: u64 = 64 << 20;

/// Lands the whole cohort and records it as landed, chunk by chunk, in the end.
pub async fn run(
    cohort: &Cohort<'_>,
    sides: &mut Sides,
    ownership: &Ownership,
    chunks: &BTreeSet<i32>,
) -> Result<(), Error> {
    let waiting = bare::waiting(&*sides.target, cohort.subject()).await?.unwrap_or_default();
    let (references, keys): (Vec<Waiting>, Vec<Waiting>) =
        waiting.iter().cloned().partition(|waiting| waiting.foreign_key.is_some());
    bare::fill(&sides.target).await?;
    let mut builder = cohort.job.target().await?;
    let mut filled = FilledTables::load(&*sides.target, cohort.subject()).await?;
    cohort.job.progress.advance(filled.rows());
    loop {
        let refused = load(cohort, (&mut *sides, &mut builder), ownership, (&keys, &mut filled, chunks.len())).await?;
        if refused.is_empty() {
            break;
        }
        empty_mixed(cohort, sides, ownership, (&refused, &mut filled)).await?;
    }
    rebuild::references(cohort, (&mut *sides, &mut builder), ownership, (&references, &mut filled)).await?;
    finish(cohort, sides, (&waiting, filled, chunks)).await
}

/// Lands what is missing in one snapshot of the source, and builds the keys. Returns those that the rows do not obey.
async fn load(
    cohort: &Cohort<'_>,
    (sides, builder): (&mut Sides, &mut Session),
    ownership: &Ownership,
    (keys, filled, chunks): (&[Waiting], &mut FilledTables, usize),
) -> Result<Vec<Waiting>, Error> {
    let bytes: u64 = cohort.scope.owned.iter().map(|owned| owned.table.bytes).sum();
    let piece = share_of(cohort, sides, bytes).await? / (chunks.max(1) as u64);
    let (sender, receiver) = mpsc::unbounded_channel();
    let (queue, refused) = (Mutex::new(receiver), Mutex::default());
    let Sides { source, target, target_token: token, .. } = sides;
    let lane = Lane { queue: &queue, token, refused: &refused };
    let landing = async {
        {
            let source = snapshot::of(source).await?;
            let reading = filled.next_reading();
            let piece_bytes = usize::try_from(piece.clamp(1, PIECE_BYTES)).unwrap_or(usize::MAX);
            let mut load = Load { cohort, source: &source, token, ownership, reading, piece_bytes, whole: false };
            load.whole = load.is_everybody().await?;
            // The largest first: its keys are built while the others load.
            let mut tables: Vec<&OwnedTable> = cohort.scope.owned.iter().collect();
            tables.sort_by_key(|owned| std::cmp::Reverse(owned.table.bytes));
            for owned in tables {
                if !filled.of(&owned.table.name).finished {
                    load.table(target, owned, filled).await?;
                }
                send_work(&sender, &owned.table.name, keys);
            }
        }
        // The rows are in and the source's snapshot is gone: now both sessions build.
        drop(sender);
        lane.work(target).await
    };
    futures::try_join!(landing, lane.work(builder))?;
    Ok(refused.into_inner())
}

/// What is done for a table that is full. Whoever takes it has gone only with an error, which ends the copy.
fn send_work(sender: &mpsc::UnboundedSender<Work>, table: &TableName, keys: &[Waiting]) {
    let of_table = keys.iter().filter(|key| key.table == *table);
    let builds = of_table.map(|key| Work::Build(Box::new(key.clone())));
    for work in std::iter::once(Work::Analyze(table.clone())).chain(builds) {
        let _ = sender.send(work);
    }
}

struct Load<'a> {
    cohort: &'a Cohort<'a>,
    source: &'a Transaction<'a>,
    token: &'a Token,
    ownership: &'a Ownership,
    /// The number of this snapshot.
    reading: u32,
    piece_bytes: usize,
    /// Tables are read without a join.
    whole: bool,
}

impl Load<'_> {
    /// Whether the cohort is all customers there are, and no row can be anybody else's.
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

    async fn table(&self, target: &mut Session, owned: &OwnedTable, filled: &mut FilledTables) -> Result<(), Error> {
        let (table, shape) = (&owned.table, Shape::from(owned));
        let again = !filled.of(&table.name).readings.is_empty();
        let there = if again { keys_of(target, table, shape).await? } else { KeyMap::default() };
        let types = key_types(table, shape);
        let select = if self.whole { table.select_all() } else { owned.select_of_entry(self.cohort.entry, None) };
        let rows = Rows::select(self.source, &select, shape.format, &table.name.to_string()).await?;
        let mut pieces = Pieces::new(rows, shape);
        while !pieces.ended() {
            let landing = Landing::begin(target, self.token).await?;
            landing.pass(self.ownership).await?;
            let sink = landing.open((table, shape)).await?;
            let wanted =
                |row: &[u8]| Ok(!again || key_of(row, (&types, shape))?.is_none_or(|key| there.get(key).is_none()));
            let sum = pieces.relay(sink, table, self.piece_bytes, wanted).await?;
            let state = filled.of(&table.name);
            state.sum.merge(sum);
            state.finished = pieces.ended();
            state.readings.insert(self.reading);
            filled.store(&*landing, &table.name).await?;
            landing.commit().await?;
            self.cohort.job.progress.advance(sum.rows);
        }
        Ok(())
    }
}

fn key_types(table: &Table, shape: Shape) -> Vec<KeyType> {
    table.copied_columns().iter().take(shape.keys).map(|column| KeyType::of(&column.type_name)).collect()
}

fn key_of(row: &[u8], (types, shape): (&[KeyType], Shape)) -> Result<Option<Key>, Error> {
    let key: Vec<_> = fields(row, shape.format).take(shape.keys).collect::<Result<_, _>>()?;
    Ok(Key::of(&key, types, shape.format)?)
}

/// The keys that have landed: two bytes each where they are dense integers.
async fn keys_of(target: &mut Session, table: &Table, shape: Shape) -> Result<KeyMap, Error> {
    let reading = snapshot::of(target).await?;
    let select =
        format!("select {} from {}", quote_identifiers(table.primary_key.iter().map(String::as_str)), table.name.sql());
    read_keys(&reading, &select, (&key_types(table, shape), shape.format), &table.name.to_string()).await
}

/// A value that moved from one row to another between two snapshots stands against its unique key in neither of them. Where there was
/// only one snapshot, the rows themselves do.
async fn empty_mixed(
    cohort: &Cohort<'_>,
    sides: &mut Sides,
    ownership: &Ownership,
    (refused, filled): (&[Waiting], &mut FilledTables),
) -> Result<(), Error> {
    let landing = Landing::begin(&mut sides.target, &sides.target_token).await?;
    landing.pass(ownership).await?;
    let violated: Vec<_> =
        refused.iter().filter(|one| filled.of(&one.table).readings.len() < 2).map(rebuild::violated).collect();
    if !violated.is_empty() {
        return Err(Error::Refused { exit: exit::DATA_DIFFERS, findings: violated });
    }
    let tables: BTreeSet<&TableName> = refused.iter().map(|one| &one.table).collect();
    for table in tables {
        truncate(&landing, &[table]).await?;
        *filled.of(table) = Filled::default();
        filled.store(&*landing, table).await?;
        tracing::info!(table = %table, of = cohort.subject(), "two snapshots contradict each other; the table is read anew");
    }
    landing.commit().await
}

async fn truncate(landing: &Landing<'_>, tables: &[&TableName]) -> Result<(), Error> {
    let names: Vec<String> = tables.iter().map(|table| table.sql()).collect();
    landing
        .batch_execute(&format!("truncate {}", names.join(", ")))
        .await
        .map_err(Error::database("empty the tables that a copy filled"))
}

/// Records what landed; from here on nothing waits any more. All of it in one transaction, so that a copy is done with everything back
/// in place, or not done.
///
/// The foreign keys, checked by the server, lead from each row to a row of the root; the root's rows must be the cohort's customers,
/// and no table may hold a row that did not land.
async fn finish(
    cohort: &Cohort<'_>,
    sides: &mut Sides,
    (waiting, filled, chunks): (&[Waiting], FilledTables, &BTreeSet<i32>),
) -> Result<(), Error> {
    let landing = Landing::begin_in_snapshot(&mut sides.target, &sides.target_token).await?;
    bare::forget(&*landing, cohort.subject(), waiting).await?;
    filled::forget(&*landing, cohort.subject()).await?;
    let sums = filled.into_sums();
    for owned in &cohort.scope.owned {
        let landed = sums.get(&owned.table.name.to_string()).map_or(0, |sum| sum.rows);
        let count =
            if owned.path.is_empty() { owned.count_of_entry(cohort.entry, None) } else { count_of(&owned.table) };
        prove_reached(&landing, &owned.table.name, &count, landed).await?;
    }
    let mut state = ChunkState { tables: sums };
    for chunk in chunks {
        let value =
            serde_json::to_value(&state).map_err(|source| Error::Json { what: "a chunk's checkpoint", source })?;
        ledger::set_checkpoint(&*landing, (cohort.subject(), "copy", &chunk.to_string()), &value).await?;
        // The first one carries the sums of all: they landed together.
        state = ChunkState::default();
    }
    landing.commit().await
}

fn count_of(table: &Table) -> String {
    format!("select count(*) from {}", table.name.sql())
}

/// Gives a copy into bare tables up: the rows, which are ours alone, go, and what waits comes back.
pub async fn undo(cohort: &Cohort<'_>, sides: &mut Sides) -> Result<(), Error> {
    let Some(waiting) = bare::waiting(&*sides.target, cohort.subject()).await? else {
        return Ok(());
    };
    empty(cohort, sides).await?;
    for one in &waiting {
        bare::build(&mut sides.target, &sides.target_token, one).await?;
    }
    let landing = Landing::begin(&mut sides.target, &sides.target_token).await?;
    bare::forget(&*landing, cohort.subject(), &waiting).await?;
    landing.commit().await
}

async fn empty(cohort: &Cohort<'_>, sides: &mut Sides) -> Result<(), Error> {
    let ownership = ledger::ownership(&*sides.target, cohort.entry).await?;
    let landing = Landing::begin(&mut sides.target, &sides.target_token).await?;
    landing.pass(&ownership).await?;
    let tables: Vec<&TableName> = cohort.scope.owned.iter().map(|owned| &owned.table.name).collect();
    let names: Vec<String> = tables.iter().map(|table| table.sql()).collect();
    let lock = format!("lock table {} in access exclusive mode", names.join(", "));
    landing.batch_execute(&lock).await.map_err(Error::database("empty the tables that a copy filled"))?;
    let mut filled = FilledTables::load(&*landing, cohort.subject()).await?;
    for owned in &cohort.scope.owned {
        let rows: i64 = landing
            .query_one(&count_of(&owned.table), &[])
            .await
            .and_then(|row| row.try_get(0))
            .map_err(Error::database(format!("count the landed rows of {}", owned.table.name)))?;
        let landed = filled.of(&owned.table.name).sum.rows;
        if u64::try_from(rows) != Ok(landed) {
            let told = format!(
                "{landed} rows landed and the table has {rows}: somebody else wrote it. Remove those rows, then retry."
            );
            return Err(Error::refused(exit::DATA_DIFFERS, blocker("RowsOfOthers", &owned.table.name, told)));
        }
    }
    truncate(&landing, &tables).await?;
    filled::forget(&*landing, cohort.subject()).await?;
    landing.commit().await
}
