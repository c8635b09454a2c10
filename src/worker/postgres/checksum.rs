//! Checksums that both servers compute themselves: nothing travels while the rows agree, and one wrong row is named by arithmetic.
//! Used by Validate before it reads rows; where checksums differ, or are not to be had, it compares the rows as they travel.
//! Must be blind to nothing that the rows' binary form shows: a type whose hash is coarser than its bytes is hashed by its bytes.
//!
//! A row's hash is `hash_record_extended` under a seed that is the hash of its key. Without the seed it would be a sum over
//! columns, and two rows that swapped a value would keep the total. The server's hash of an integer of 64 bits folds its halves
//! onto each other, so the upper half counts as a column of its own; what has another equality than that of its bytes
//! (`numeric`, `-0`, `interval`, `jsonb`, enums by their OIDs) is hashed as its type sends it.
//!
//! Three sums are kept: of the hashes' lower halves, of their upper halves, and of the lower halves times the row's place, which
//! is 30 bits of its key's hash. If one row differs, the difference of the third is that of the first times the row's place.

use std::collections::BTreeMap;

use tokio_postgres::Transaction;

use super::difference::Portion;
use super::identifier::quote_identifier;
use super::model::{Column, Table};
use super::row::RowFormat;
use crate::worker::error::Error;

/// From here on a server can hash records.
const FIRST_VERSION: i32 = 140_000;
/// Places of rows are below it; times 32 bits they stay below 63.
const PLACES: i128 = 1 << 30;

/// What both servers say about the same portion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The same rows, so many.
    Agree {
        rows: u64,
    },
    /// They differ in the rows of this place, by all that the sums can tell: usually one. The query selects them.
    DifferAt {
        select: String,
    },
    Differ,
    /// Not comparable this way.
    Unable,
}

/// One server's sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sums {
    rows: i64,
    low: i128,
    high: i128,
    placed: i128,
}

/// Both sides, able to compute comparable sums.
pub struct Checksums<'a> {
    original: &'a Transaction<'a>,
    copy: &'a Transaction<'a>,
    able: bool,
    /// The function that sends a value, by the type's OID on the original's side.
    sends: BTreeMap<u32, String>,
}

impl<'a> Checksums<'a> {
    /// The hash functions are no contract between releases: both servers must be of one.
    pub async fn open(
        (original, copy): (&'a Transaction<'a>, &'a Transaction<'a>),
        versions: (i32, i32),
        tables: impl Iterator<Item = &Table>,
    ) -> Result<Self, Error> {
        let able = versions.0 / 10_000 == versions.1 / 10_000 && versions.0 >= FIRST_VERSION;
        let mut sends = BTreeMap::new();
        if able {
            let types: Vec<u32> = tables.flat_map(|table| &table.columns).map(|column| column.type_oid).collect();
            let rows = original
                .query(
                    "select oid, typsend::pg_catalog.regproc::text from pg_catalog.pg_type where oid = any($1)",
                    &[&types],
                )
                .await
                .map_err(Error::database("read how types are sent"))?;
            sends.extend(rows.iter().map(|row| (row.get::<_, u32>(0), row.get::<_, String>(1))));
        }
        Ok(Self { original, copy, able, sends })
    }

    /// Asks both servers at the same time.
    pub async fn compare(&self, portion: &Portion<'_>) -> Result<Verdict, Error> {
        let Some(rows) = self.rows(portion) else {
            return Ok(Verdict::Unable);
        };
        let sums = format!(
            "select pg_catalog.count(*), coalesce(pg_catalog.sum(h & 4294967295), 0)::text, coalesce(pg_catalog.sum(h >> 32), 0)::text, \
             coalesce(pg_catalog.sum((h & 4294967295) * place), 0)::text \
             from (select {} as h, {} as place from ({}) as r offset 0) as hashed",
            rows.hash, rows.place, portion.select
        );
        let name = portion.name();
        let (original, copy) =
            futures::try_join!(sums_of(self.original, &sums, &name), sums_of(self.copy, &sums, &name))?;
        if original == copy {
            return Ok(Verdict::Agree { rows: u64::try_from(original.rows).unwrap_or(0) });
        }
        let select = |place: i128| format!("select r.* from ({}) as r where {} = {place}", portion.select, rows.place);
        Ok(place_of_one(original, copy).map_or(Verdict::Differ, |place| Verdict::DifferAt { select: select(place) }))
    }

    fn rows(&self, portion: &Portion<'_>) -> Option<RowSql> {
        let columns = portion.table.copied_columns();
        if !self.able || portion.shape.format != RowFormat::Binary || portion.shape.keys == 0 {
            return None;
        }
        let exact: Vec<Vec<String>> = columns.iter().map(|column| self.exact(column)).collect::<Option<_>>()?;
        let (key, rest) = exact.split_at(portion.shape.keys);
        let seed = match columns[..portion.shape.keys] {
            [only] if only.type_oid == INT8 => {
                format!("pg_catalog.hashint8extended(r.{}, 0)", quote_identifier(&only.name))
            }
            _ => format!("pg_catalog.hash_record_extended(row({}), 0)", key.concat().join(", ")),
        };
        // The key itself is a part of the hash too: a seed alone folds it.
        let all = [key, rest].concat().concat().join(", ");
        Some(RowSql {
            hash: format!("pg_catalog.hash_record_extended(row({all}), {seed})"),
            place: format!("(({seed} >> 34) & {})", PLACES - 1),
        })
    }

    /// Expressions that are equal exactly where the column's bytes are.
    fn exact(&self, column: &Column) -> Option<Vec<String>> {
        let value = format!("r.{}", quote_identifier(&column.name));
        match column.type_oid {
            INT8 => Some(vec![value.clone(), format!("({value} >> 32)")]),
            BOOL | BYTEA | INT2 | INT4 | DATE | UUID => Some(vec![value]),
            // Another collation than the database's may find different texts equal.
            TEXT | VARCHAR if column.collation.is_none() => Some(vec![value]),
            other => self.sends.get(&other).filter(|send| *send != "-").map(|send| vec![format!("{send}({value})")]),
        }
    }
}

const BOOL: u32 = 16;
const BYTEA: u32 = 17;
const INT8: u32 = 20;
const INT2: u32 = 21;
const INT4: u32 = 23;
const TEXT: u32 = 25;
const VARCHAR: u32 = 1043;
const DATE: u32 = 1082;
const UUID: u32 = 2950;

/// SQL over the row `r`.
struct RowSql {
    hash: String,
    place: String,
}

async fn sums_of(transaction: &Transaction<'_>, sql: &str, name: &str) -> Result<Sums, Error> {
    let row = transaction.query_one(sql, &[]).await.map_err(Error::database(format!("sum up {name}")))?;
    // A sum of integers of 64 bits is a numeric, which always fits: there are not 2^63 rows.
    let number = |at: usize| row.get::<_, &str>(at).parse::<i128>().unwrap_or(i128::MAX);
    Ok(Sums { rows: row.get(0), low: number(1), high: number(2), placed: number(3) })
}

/// The place at which a single differing row explains the difference of the sums.
fn place_of_one(original: Sums, copy: Sums) -> Option<i128> {
    let low = original.low.checked_sub(copy.low)?;
    let placed = original.placed.checked_sub(copy.placed)?;
    let place = placed.checked_div(low)?;
    (low.checked_mul(place)? == placed && (0..PLACES).contains(&place)).then_some(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums(rows: &[(i128, i128)]) -> Sums {
        let low = rows.iter().map(|(hash, _)| hash).sum();
        let placed = rows.iter().map(|(hash, place)| hash * place).sum();
        Sums { rows: i64::try_from(rows.len()).unwrap(), low, high: 0, placed }
    }

    #[test]
    fn one_row_that_differs_is_missing_or_too_much_is_found_by_its_place() {
        let rows = [(0x1234_5678, 17), (0xffff_ffff, PLACES - 1), (7, 0), (0x0bad_cafe, 99)];
        for changed in 0..rows.len() {
            let mut other = rows;
            other[changed].0 ^= 0x5a5a;
            assert_eq!(place_of_one(sums(&rows), sums(&other)), Some(rows[changed].1));
            let missing: Vec<_> = (0..rows.len()).filter(|at| *at != changed).map(|at| rows[at]).collect();
            assert_eq!(place_of_one(sums(&rows), sums(&missing)), Some(rows[changed].1));
            assert_eq!(place_of_one(sums(&missing), sums(&rows)), Some(rows[changed].1));
        }
    }

    #[test]
    fn two_rows_that_differ_are_not_taken_for_one() {
        let rows = [(0x1234_5678, 17), (0xffff_ffff, 4711)];
        assert_eq!(place_of_one(sums(&rows), sums(&[(0x1234_5679, 17), (0xffff_ff00, 4711)])), None);
        // Sums of the lower halves that are equal say nothing about the place.
        assert_eq!(place_of_one(sums(&rows), sums(&[(0x1234_5679, 17), (0xffff_fffe, 4711)])), None);
    }
}
