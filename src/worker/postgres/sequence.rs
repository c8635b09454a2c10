//! Sequences that both sides would draw from: split in Prepare so that new keys never meet, watched, joined again in Finalize.
//! Used by Assess (is there room?), Prepare, Copy, Validate and Cutover (does the reserve hold?), Finalize, Reset and Cleanup.
//! Must not trust a cached value: the state is read in the transaction that changes it.

use serde::{Deserialize, Serialize};
use tokio_postgres::GenericClient;

use super::identifier::{TableName, quote_identifier, quote_literal};
use super::model::Sequence;
use super::session::Session;
use crate::contract::{Finding, KeyStrategy, Severity, code};
use crate::worker::error::Error;

/// The least number of keys reserved for the source.
const LEAST_RESERVE: i64 = 1_000_000;
/// The reserve in multiples of what the source has drawn in its life so far.
const GROWTH: i64 = 10;
/// Under so many keys the source is likely to reach the target's before the last cohort has moved.
const SMALLEST_ROOM: i64 = 10_000;

/// A sequence's state; what PostgreSQL knows as `last_value`, `is_called` and its increment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    pub last: i64,
    pub called: bool,
    pub increment: i64,
}

impl State {
    /// The value drawn next.
    pub fn next(self) -> i64 {
        if self.called { self.last.saturating_add(self.increment) } else { self.last }
    }
}

/// What Prepare did to one sequence, kept in the ledger of both sides until Finalize or Reset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Split {
    pub sequence: TableName,
    /// The column that draws from it.
    pub table: TableName,
    pub column: String,
    /// Further columns that draw from it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<(TableName, String)>,
    pub strategy: String,
    /// As the two were before.
    pub source: State,
    pub target: State,
    /// The first key of the target.
    pub boundary: i64,
}

const GAP: &str = "Gap";
const PARITY: &str = "Parity";

/// Where the target starts with `Gap`: above a reserve for the source; `None` when the type has no room for it.
pub fn gap(source: State, target: State, min: i64, max: i64) -> Option<i64> {
    let from = source.next().max(target.next());
    let drawn = source.last.saturating_sub(min).max(0);
    let wanted = drawn.saturating_mul(GROWTH).max(LEAST_RESERVE);
    // At least half of what is left stays the target's.
    let room = max.saturating_sub(from) / 2;
    let reserve = wanted.min(room);
    (reserve >= SMALLEST_ROOM).then(|| from.saturating_add(reserve))
}

/// What stands against splitting a sequence.
pub fn finding(sequence: &Sequence, strategy: KeyStrategy) -> Option<Finding> {
    let block = |code: &str, message: &str| {
        Some(Finding {
            severity: Severity::Blocker,
            code: code.to_owned(),
            object: sequence.name.to_string(),
            message: message.to_owned(),
        })
    };
    let state = State {
        last: sequence.last_value.unwrap_or(sequence.start),
        called: sequence.last_value.is_some(),
        increment: sequence.increment,
    };
    match strategy {
        KeyStrategy::Gap if sequence.increment < 1 => block(
            "SequenceDescends",
            "The sequence descends, which Gap cannot split; use keys.strategy None and keep the two sides' keys apart yourself.",
        ),
        KeyStrategy::Gap if gap(state, state, sequence.min, sequence.max).is_none() => block(
            "SequenceNearlySpent",
            "The sequence has no room left for a range of its own on the target; widen the column's type, or use keys.strategy Parity.",
        ),
        KeyStrategy::Parity if sequence.increment != 1 => {
            block("SequenceIncrement", "Parity needs a sequence with increment 1; use keys.strategy Gap.")
        }
        KeyStrategy::Gap | KeyStrategy::Parity | KeyStrategy::None => None,
    }
}

/// Reads a sequence's state.
pub async fn read(client: &impl GenericClient, name: &TableName) -> Result<State, Error> {
    let sql = format!(
        "select v.last_value, v.is_called, s.seqincrement from {} v, pg_catalog.pg_sequence s \
         where s.seqrelid = {}::pg_catalog.regclass",
        name.sql(),
        quote_literal(&name.sql())
    );
    let row = client.query_one(&sql, &[]).await.map_err(Error::database(format!("read the sequence {name}")))?;
    Ok(State { last: row.get(0), called: row.get(1), increment: row.get(2) })
}

/// Plans a sequence's split from the state of both sides (with `Parity`, of the source after [`halve_source`]). `None`: nothing to split.
pub fn plan(
    sequence: &Sequence,
    strategy: KeyStrategy,
    (source, target): (State, State),
) -> Result<Option<Split>, Error> {
    let mut columns = sequence.columns.clone();
    if columns.is_empty() {
        return Ok(None);
    }
    let (table, column) = columns.remove(0);
    let (strategy, boundary) = match strategy {
        KeyStrategy::None => return Ok(None),
        KeyStrategy::Gap => (GAP, gap(source, target, sequence.min, sequence.max)),
        KeyStrategy::Parity => {
            let from = source.next().max(target.next());
            let other = from + i64::from((from - source.next()) % 2 == 0);
            (PARITY, (other < sequence.max).then_some(other))
        }
    };
    let boundary = boundary.ok_or_else(|| {
        Error::refused(
            crate::contract::exit::DATA_DIFFERS,
            finding(sequence, KeyStrategy::Gap).unwrap_or_else(|| Finding {
                severity: Severity::Blocker,
                code: "SequenceNearlySpent".into(),
                object: sequence.name.to_string(),
                message: "The sequence has no room left for the target's keys; widen the column's type.".into(),
            }),
        )
    })?;
    Ok(Some(Split {
        sequence: sequence.name.clone(),
        table,
        column,
        also: columns,
        strategy: strategy.to_owned(),
        source: State { increment: sequence.increment, ..source },
        target,
        boundary,
    }))
}

/// Makes the source leave every second key out, from its next one on; with `Gap` the source stays as it is.
///
/// ALTER SEQUENCE keeps drawers waiting until the transaction ends, so the state read after it cannot move on.
pub async fn halve_source(transaction: &tokio_postgres::Transaction<'_>, sequence: &TableName) -> Result<(), Error> {
    transaction
        .batch_execute(&format!("alter sequence {} increment by 2", sequence.sql()))
        .await
        .map_err(Error::database(format!("split the sequence {sequence}")))
}

/// Sets the target's sequence to keys of its own. It may have drawn on since the plan: the boundary is the least that it starts at.
pub async fn split_target(transaction: &tokio_postgres::Transaction<'_>, split: &Split) -> Result<(), Error> {
    let attempted = format!("split the sequence {}", split.sequence);
    let parity = split.strategy == PARITY;
    if parity {
        halve_source(transaction, &split.sequence).await?;
    }
    let now = read(transaction, &split.sequence).await?;
    let next = State { increment: 1, ..now }.next();
    let mut start = split.boundary.max(next);
    if parity && (start - split.boundary) % 2 != 0 {
        start += 1;
    }
    transaction.batch_execute(&set(&split.sequence, start, false)).await.map_err(Error::database(attempted))
}

fn set(sequence: &TableName, value: i64, called: bool) -> String {
    format!("select pg_catalog.setval({}::pg_catalog.regclass, {value}, {called});", quote_literal(&sequence.sql()))
}

/// Whether the two sides' next keys are still apart; a finding for each sequence where they are about to meet, or have.
pub async fn watch(source: &Session, target: &Session, splits: &[Split]) -> Result<Vec<Finding>, Error> {
    let mut findings = Vec::new();
    for split in splits.iter().filter(|split| split.strategy == GAP) {
        let own = read(&**source, &split.sequence).await?.next();
        let others = read(&**target, &split.sequence).await?.next();
        if room((source, own), (target, others), split).await? < split.least_room() {
            findings.push(spent(split, (own, others)));
        }
    }
    Ok(findings)
}

/// How many keys the lower of the two can draw before it meets one of the other side.
async fn room((source, own): (&Session, i64), (target, others): (&Session, i64), split: &Split) -> Result<i64, Error> {
    if own < split.boundary {
        return Ok(split.boundary.saturating_sub(own));
    }
    // Past the reserve, or set anew by hand: what is there decides.
    let (lower, upper, above) = if own <= others { (own, others, target) } else { (others, own, source) };
    let met = least_key_from(above, split, lower).await?.unwrap_or(upper);
    Ok(met.min(upper).saturating_sub(lower))
}

/// The smallest key of a side at or above a value.
async fn least_key_from(session: &Session, split: &Split, from: i64) -> Result<Option<i64>, Error> {
    let column = quote_identifier(&split.column);
    let sql =
        format!("select pg_catalog.min({column})::pg_catalog.int8 from {} where {column} >= {from}", split.table.sql());
    session
        .query_one(&sql, &[])
        .await
        .map(|row| row.get(0))
        .map_err(Error::database(format!("read the keys of {}", split.table)))
}

fn spent(split: &Split, (own, others): (i64, i64)) -> Finding {
    let name = quote_literal(&split.sequence.sql());
    let from = own.max(others);
    let above = from.saturating_add(split.reserve());
    Finding {
        severity: Severity::Blocker,
        code: code::SEQUENCE_RESERVE_SPENT.to_owned(),
        object: split.sequence.to_string(),
        message: format!(
            "The source's next key is {own}, {} is the end of its reserve, and the target's next key is {others}: new keys of both \
             sides are about to meet. Run on the target: select setval({name}, {above}); then on the source: select \
             setval({name}, {from}); then request a retry.",
            split.boundary,
        ),
    }
}

impl Split {
    /// Keys that were reserved for the source.
    fn reserve(&self) -> i64 {
        self.boundary.saturating_sub(self.source.next().max(self.target.next())).max(0)
    }

    /// With less than a tenth of the reserve left nothing more is moved: a person needs time to make room.
    fn least_room(&self) -> i64 {
        (self.reserve() / 10).max(1)
    }
}

/// Finalize: the target draws every key above all that either side has drawn, by the original increment.
pub async fn join_target(client: &impl GenericClient, split: &Split, source: Option<State>) -> Result<(), Error> {
    let target = read(client, &split.sequence).await?;
    let own = State { increment: split.target.increment, ..target };
    let source_next = source.map_or(i64::MIN, |state| State { increment: split.source.increment, ..state }.next());
    let next = own.next().max(source_next);
    let sql = format!(
        "alter sequence {} increment by {};{}",
        split.sequence.sql(),
        split.target.increment,
        set(&split.sequence, next, false)
    );
    client.batch_execute(&sql).await.map_err(Error::database(format!("join the sequence {}", split.sequence)))
}

/// The source draws by its original increment again; its position stays.
pub async fn join_source(client: &impl GenericClient, split: &Split) -> Result<(), Error> {
    if split.strategy != PARITY {
        return Ok(());
    }
    client
        .batch_execute(&format!("alter sequence {} increment by {}", split.sequence.sql(), split.source.increment))
        .await
        .map_err(Error::database(format!("join the sequence {}", split.sequence)))
}

impl Split {
    /// Every column that draws from the sequence.
    pub fn columns(&self) -> impl Iterator<Item = (&TableName, &str)> {
        let first = (&self.table, self.column.as_str());
        std::iter::once(first).chain(self.also.iter().map(|(table, column)| (table, column.as_str())))
    }
}

/// `None` where the table is gone, empty, or makes its keys of something else than numbers.
async fn largest_key(client: &impl GenericClient, table: &TableName, column: &str) -> Result<Option<i64>, Error> {
    let failed = || Error::database(format!("read the keys of {table}"));
    let is_number = client
        .query_one(
            "select exists (select from pg_catalog.pg_attribute a join pg_catalog.pg_type t on t.oid = a.atttypid \
             where a.attrelid = pg_catalog.to_regclass($1) and a.attname = $2 and t.typcategory = 'N')",
            &[&table.sql(), &column],
        )
        .await
        .map_err(failed())?;
    if !is_number.get::<_, bool>(0) {
        return Ok(None);
    }
    let column = quote_identifier(column);
    let sql =
        format!("select pg_catalog.max({column})::pg_catalog.int8 from {} where {column} < {}", table.sql(), i64::MAX);
    client.query_one(&sql, &[]).await.map(|row| row.get(0)).map_err(failed())
}

/// Reset: the target's sequence as it was, unless rows of its own drew further since.
pub async fn restore_target(client: &impl GenericClient, split: &Split) -> Result<(), Error> {
    let mut largest = None;
    for (table, column) in split.columns() {
        largest = largest.max(largest_key(client, table, column).await?);
    }
    let (value, called) = match largest {
        Some(largest) if largest >= split.target.next() => (largest, true),
        _ => (split.target.last, split.target.called),
    };
    let sql = format!(
        "alter sequence {} increment by {};{}",
        split.sequence.sql(),
        split.target.increment,
        set(&split.sequence, value, called)
    );
    client.batch_execute(&sql).await.map_err(Error::database(format!("restore the sequence {}", split.sequence)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(last: i64) -> State {
        State { last, called: true, increment: 1 }
    }

    #[test]
    fn the_targets_range_lies_above_a_reserve_that_grows_with_the_source() {
        assert_eq!(gap(state(100), state(1), 1, i64::MAX), Some(1_000_101));
        assert_eq!(gap(state(5_000_000), state(1), 1, i64::MAX), Some(54_999_991));
        // The target had drawn further already.
        assert_eq!(gap(state(100), state(7_000_000), 1, i64::MAX), Some(8_000_001));
    }

    #[test]
    fn a_nearly_spent_type_leaves_half_of_its_rest_to_each_side_or_is_refused() {
        let max = i64::from(i32::MAX);
        let boundary = gap(state(2_000_000_000), state(1), 1, max).unwrap();
        assert_eq!(boundary, 2_000_000_001 + (max - 2_000_000_001) / 2);
        assert_eq!(gap(state(max - 15_000), state(1), 1, max), None);
    }

    #[test]
    fn parity_gives_the_target_the_keys_that_the_source_leaves_out() {
        let sequence = Sequence {
            name: TableName::new("public", "s"),
            data_type: "bigint".into(),
            increment: 1,
            min: 1,
            max: i64::MAX,
            start: 1,
            cycle: false,
            last_value: None,
            columns: vec![(TableName::new("public", "t"), "id".into())],
            identity: false,
        };
        for (source, target) in [(10, 3), (11, 3), (10, 20), (10, 21), (3, 3)] {
            let states = (state(source), state(target));
            // After halving, the source draws `source + 2` and so on.
            let halved = State { increment: 2, ..states.0 };
            let split = plan(&sequence, KeyStrategy::Parity, (halved, states.1)).unwrap().unwrap();
            assert_eq!((split.boundary - halved.next()).rem_euclid(2), 1);
            assert!(split.boundary > target);
        }
    }
}
