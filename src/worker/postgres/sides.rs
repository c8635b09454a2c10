//! Two readable states of the same rows, a database or stored files each, and what they differ by.
//! Used by the steps that compare (Validate, Verify) and by `difference`, which brings what is missing.
//! Must not write but the keys that differ, and those into the tables that it is given.

use std::collections::BTreeMap;

use futures::try_join;
use tokio_postgres::Transaction;

use super::compare::{Band, Difference, Digest, Located, Sample, Suspect};
use super::identifier::quote_identifier;
use super::keys::{Counts, KeyTable};
use super::lone::number_of;
use super::model::{Scope, Table};
use super::relay::{Rows, Shape, read};
use super::row::{RowFormat, Sum, row_hash};
use super::sieve::Sieve;
use crate::worker::error::Error;
use crate::worker::storage::{Storage, Writer};

/// The rows of one table that belong together: a cohort's, or a reference table whole.
#[derive(Clone, Debug)]
pub struct Portion<'a> {
    pub table: &'a Table,
    pub shape: Shape,
    /// The rows as they travel; the same text on both sides.
    pub select: String,
}

impl<'a> Portion<'a> {
    /// The cohort's rows, a portion for each owned table, parents before children.
    pub fn of_entry(scope: &'a Scope, entry: i32) -> Vec<Self> {
        scope
            .owned
            .iter()
            .map(|owned| Self {
                table: &owned.table,
                shape: Shape::from(owned),
                select: owned.select_of_entry(entry, None),
            })
            .collect()
    }

    /// The reference tables, referenced ones first.
    pub fn of_references(scope: &'a Scope) -> Vec<Self> {
        scope
            .reference
            .iter()
            .map(|reference| Self {
                table: &reference.table,
                shape: Shape::from(reference),
                select: reference.table.select_all(),
            })
            .collect()
    }

    pub fn name(&self) -> String {
        self.table.name.to_string()
    }

    /// The key's only column, if it holds whole numbers and travels in binary.
    fn integer_key(&self) -> Option<&str> {
        let [key] = self.table.primary_key.as_slice() else {
            return None;
        };
        let of_type = self.table.column(key)?.type_name.as_str();
        let whole = ["smallint", "integer", "bigint"].contains(&of_type) && self.shape.format == RowFormat::Binary;
        whole.then_some(key)
    }
}

/// Where the rows of a portion are read, as often as it takes.
pub enum Origin<'a> {
    Database(&'a Transaction<'a>),
    /// A database with most of its rows in the portions, which come in the order of the scope: whole tables are read.
    Sifted {
        transaction: &'a Transaction<'a>,
        sieve: Sieve,
    },
    File {
        storage: &'a Storage,
        /// By table.
        paths: BTreeMap<String, String>,
    },
}

impl<'a> Origin<'a> {
    /// A database in which the portions of an entry will be read, all or some of them, each once.
    pub async fn of_entry(transaction: &'a Transaction<'a>, scope: &Scope, entry: i32) -> Result<Self, Error> {
        let sieve = Sieve::of_entry(transaction, scope, entry).await?;
        Ok(sieve.map_or(Self::Database(transaction), |sieve| Self::Sifted { transaction, sieve }))
    }

    pub async fn open(&self, portion: &Portion<'_>) -> Result<Rows, Error> {
        match self {
            Self::Database(transaction) | Self::Sifted { transaction, .. } => {
                let format = portion.shape.format;
                Rows::select(transaction, &portion.select, format, &portion.name()).await
            }
            Self::File { storage, paths } => {
                let path = paths
                    .get(&portion.name())
                    .ok_or_else(|| Error::NotInLedger { what: format!("a restore point of {}", portion.table.name) })?;
                Ok(Rows::File(storage.get_stream(path).await?))
            }
        }
    }

    /// Count and sum, by a fresh read.
    pub async fn sum(&self, portion: &Portion<'_>) -> Result<Sum, Error> {
        self.open(portion).await?.sum(portion.shape).await
    }

    async fn digest(&mut self, portion: &Portion<'_>, keep: Option<&mut Writer>) -> Result<Digest, Error> {
        let mut digest = Digest::default();
        let shape = portion.shape;
        let see = |row: &[u8]| {
            digest.add(shape.key_of(row)?, row);
            Ok(())
        };
        match self {
            Self::Sifted { transaction, sieve } if sieve.is_ready_for(portion.table) => {
                let rows =
                    Rows::select(transaction, &portion.table.select_all(), shape.format, &portion.name()).await?;
                sieve.read(rows, shape, keep, see).await?;
            }
            _ => read(&mut self.open(portion).await?, shape, keep, see).await?,
        }
        Ok(digest)
    }

    /// By their integer keys; none of a file, which is read as a whole or not at all.
    async fn rows_by_key(&self, portion: &Portion<'_>) -> Result<Option<RowsByKey>, Error> {
        if matches!(self, Self::File { .. }) {
            return Ok(None);
        }
        let mut found = RowsByKey::new();
        let shape = portion.shape;
        let mut rows = self.open(portion).await?;
        read(&mut rows, shape, None, |row| {
            let key = shape.key_of(row)?;
            if let Some(number) = number_of(key) {
                found.insert(number, (key.to_vec(), row_hash(row)));
            }
            Ok(())
        })
        .await?;
        Ok(Some(found))
    }

    async fn sample(&self, portion: &Portion<'_>, band: &Band) -> Result<Sample, Error> {
        let mut sample = Sample::of(band);
        let shape = portion.shape;
        let mut rows = self.open(portion).await?;
        read(&mut rows, shape, None, |row| {
            sample.add(shape.key_of(row)?, row);
            Ok(())
        })
        .await?;
        Ok(sample)
    }
}

/// Two readable states of the same rows.
pub struct Sides<'a> {
    pub original: Origin<'a>,
    pub copy: Origin<'a>,
}

impl<'a> Sides<'a> {
    /// Two databases in which the portions of an entry will be compared.
    pub async fn of_entry(
        (original, copy): (&'a Transaction<'a>, &'a Transaction<'a>),
        scope: &Scope,
        entry: i32,
    ) -> Result<Self, Error> {
        let (original, copy) =
            try_join!(Origin::of_entry(original, scope, entry), Origin::of_entry(copy, scope, entry))?;
        Ok(Self { original, copy })
    }

    /// Reads both sides at the same time; `keep` receives the original's rows as a file.
    pub async fn compare(
        &mut self,
        portion: &Portion<'_>,
        keep: Option<&mut Writer>,
    ) -> Result<(Digest, Digest), Error> {
        try_join!(self.original.digest(portion, keep), self.copy.digest(portion, None))
    }

    /// The differences, if the suspects' rows are all of them: a few rows found by their keys, in the place of all.
    async fn confirm(
        &self,
        portion: &Portion<'_>,
        suspects: Option<&[Suspect]>,
    ) -> Result<Option<Vec<Difference>>, Error> {
        let (Some(suspects), Some(key)) = (suspects, portion.integer_key()) else {
            return Ok(None);
        };
        let numbers: Vec<String> = suspects.iter().map(|suspect| suspect.number.to_string()).collect();
        let select = format!(
            "select found.* from ({}) as found where found.{} = any('{{{}}}'::pg_catalog.int8[])",
            portion.select,
            quote_identifier(key),
            numbers.join(",")
        );
        let rows = Portion { select, ..portion.clone() };
        let (Some(mine), Some(theirs)) = try_join!(self.original.rows_by_key(&rows), self.copy.rows_by_key(&rows))?
        else {
            return Ok(None);
        };
        let confirmed = |suspect: &Suspect| suspect.confirmed(mine.get(&suspect.number), theirs.get(&suspect.number));
        Ok(suspects.iter().map(confirmed).collect())
    }

    /// Notes every differing key in the given key tables; `digests` are what [`Sides::compare`] found.
    pub async fn note(
        &self,
        portion: &Portion<'_>,
        (original, copy): &(Digest, Digest),
        into: &[(&Transaction<'_>, &KeyTable)],
    ) -> Result<Counts, Error> {
        let mut counts = Counts::default();
        match original.locate(copy) {
            Located::Keys(keys) => file(&keys, into, &mut counts).await?,
            Located::Elsewhere { suspects, bands } => match self.confirm(portion, suspects.as_deref()).await? {
                Some(keys) => file(&keys, into, &mut counts).await?,
                None => {
                    for band in &bands {
                        let (mine, theirs) =
                            try_join!(self.original.sample(portion, band), self.copy.sample(portion, band))?;
                        file(&mine.differences(&theirs), into, &mut counts).await?;
                    }
                }
            },
        }
        for (transaction, keys) in into {
            keys.analyze(transaction).await?;
        }
        Ok(counts)
    }
}

type RowsByKey = BTreeMap<i64, (Vec<u8>, u64)>;

async fn file(keys: &[Difference], into: &[(&Transaction<'_>, &KeyTable)], counts: &mut Counts) -> Result<(), Error> {
    counts.add(keys);
    for (transaction, table) in into {
        table.add(transaction, keys).await?;
    }
    Ok(())
}
