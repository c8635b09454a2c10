//! Brings the difference between an original and its copy, and proves that none is left.
//! Called by Copy and Cutover (cohort rows, reference rows), Return and Reopen.
//! Must not trust what it wrote: the copy is read back before the commit, by the code that compares, not by the code that copies.

use std::collections::{BTreeMap, BTreeSet};

use futures::try_join;
use serde::{Deserialize, Serialize};
use tokio_postgres::Transaction;

use super::closure::{self, Violation};
use super::compare::{Band, Class, Difference, Digest, Located, Sample, Suspect};
use super::identifier::quote_identifier;
use super::keys::{Counts, KeyTable};
use super::landing::Landing;
use super::lone::number_of;
use super::model::{Catalog, Scope, Table};
use super::relay::{Rows, Shape, read};
use super::restore_point::RestoreWriter;
use super::row::{RowFormat, Sum, row_hash};
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
    File {
        storage: &'a Storage,
        /// By table.
        paths: BTreeMap<String, String>,
    },
}

impl Origin<'_> {
    pub async fn open(&self, portion: &Portion<'_>) -> Result<Rows, Error> {
        match self {
            Self::Database(transaction) => {
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

    async fn digest(&self, portion: &Portion<'_>, keep: Option<&mut Writer>) -> Result<Digest, Error> {
        let mut digest = Digest::default();
        let shape = portion.shape;
        let mut rows = self.open(portion).await?;
        read(&mut rows, shape, keep, |row| {
            digest.add(shape.key_of(row)?, row);
            Ok(())
        })
        .await?;
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

impl Sides<'_> {
    /// Reads both sides at the same time; `keep` receives the original's rows as a file.
    pub async fn compare(&self, portion: &Portion<'_>, keep: Option<&mut Writer>) -> Result<(Digest, Digest), Error> {
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

/// What a difference came to.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Brought {
    /// By table: the rows that both sides hold now.
    pub tables: BTreeMap<String, Sum>,
    pub counts: Counts,
}

impl Brought {
    pub fn rows(&self) -> u64 {
        self.tables.values().map(|sum| sum.rows).sum()
    }
}

/// A table whose sides differ.
struct Change<'p> {
    portion: &'p Portion<'p>,
    /// On the side that is read; absent where the original is a file.
    wanted: KeyTable,
    keys: KeyTable,
    expected: Sum,
    /// The copy's rows as they were read, less those that were taken away since.
    account: Sum,
}

/// Whether rows of the copy that the original does not have are taken away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Extra {
    Remove,
    /// Rows that others still refer to stay: a shared row that one side dropped may be in use on the other. In tables where the copy
    /// had rows of its own before the migration, all of them stay.
    KeepUsed {
        own: BTreeSet<String>,
    },
}

/// Makes the landing's rows equal to the source's: compares, removes, copies, reads back.
pub struct Bringing<'a> {
    pub source: &'a Transaction<'a>,
    pub landing: &'a Landing<'a>,
    pub scope: &'a Scope,
    /// Of the landing's side.
    pub catalog: &'a Catalog,
    pub extra: Extra,
    /// What the landing's side must hold before anything is brought, by table: a difference to it is a stranger's write.
    pub expected: Option<&'a BTreeMap<String, Sum>>,
}

impl<'a> Bringing<'a> {
    /// `restore`, when given, receives the source's rows in the same read.
    pub async fn bring(
        &self,
        portions: &[Portion<'_>],
        mut restore: Option<&mut RestoreWriter<'_>>,
    ) -> Result<Brought, Error> {
        let mut brought = Brought::default();
        let mut changes = Vec::new();
        for (number, portion) in portions.iter().enumerate() {
            let digests = self.survey(portion, restore.as_deref_mut()).await?;
            self.refuse_strangers(portion, digests.1.total())?;
            brought.tables.insert(portion.name(), digests.0.total());
            if !digests.0.agrees_with(&digests.1) {
                let (change, counts) = self.change(portion, number, &digests).await?;
                brought.counts.merge(counts);
                changes.push(change);
            }
        }
        for change in changes.iter_mut().rev() {
            self.remove(change).await?;
        }
        for change in &changes {
            self.copy(change).await?;
        }
        for change in &changes {
            self.read_back(change).await?;
        }
        self.prove(&changes).await?;
        Ok(brought)
    }

    fn sides(&self) -> Sides<'a> {
        Sides { original: Origin::Database(self.source), copy: Origin::Database(self.landing) }
    }

    async fn survey(
        &self,
        portion: &Portion<'_>,
        restore: Option<&mut RestoreWriter<'_>>,
    ) -> Result<(Digest, Digest), Error> {
        let Some(restore) = restore else {
            return self.sides().compare(portion, None).await;
        };
        let mut writer = restore.begin(portion)?;
        let digests = self.sides().compare(portion, Some(&mut writer)).await?;
        restore.add(portion, writer.finish().await?, digests.0.total());
        Ok(digests)
    }

    /// Repairing a stranger's write in silence would hide that somebody writes past the fence.
    fn refuse_strangers(&self, portion: &Portion<'_>, found: Sum) -> Result<(), Error> {
        match self.expected {
            Some(expected) if expected.get(&portion.name()) != Some(&found) => {
                Err(Error::CopyDiffers { table: portion.name() })
            }
            _ => Ok(()),
        }
    }

    async fn change<'p>(
        &self,
        portion: &'p Portion<'p>,
        number: usize,
        digests: &(Digest, Digest),
    ) -> Result<(Change<'p>, Counts), Error> {
        let (table, shape) = (portion.table, portion.shape);
        let wanted = KeyTable::create(self.source, table, shape, number).await?;
        let keys = KeyTable::create(self.landing, table, shape, number).await?;
        let into: [(&Transaction<'_>, &KeyTable); 2] = [(self.source, &wanted), (self.landing, &keys)];
        let counts = self.sides().note(portion, digests, &into).await?;
        let change = Change { portion, wanted, keys, expected: digests.0.total(), account: digests.1.total() };
        Ok((change, counts))
    }

    /// Takes away what is replaced or too much, and takes it off the account, row by row as the server removed it.
    async fn remove(&self, change: &mut Change<'_>) -> Result<(), Error> {
        let name = &change.portion.table.name;
        self.removed(change, change.keys.delete_rows(&[Class::Different])).await?;
        let extra = change.keys.delete_rows(&[Class::Extra]);
        match &self.extra {
            Extra::KeepUsed { own } if own.contains(&name.to_string()) => {}
            Extra::Remove => self.removed(change, extra).await?,
            Extra::KeepUsed { .. } => {
                let unused = closure::unreferenced(self.catalog, name);
                self.removed(change, format!("{extra} and {unused}")).await?;
            }
        }
        // What stayed on purpose is no part of what the original has.
        let kept = self.sum_of(change, change.keys.select_rows(&[Class::Extra])).await?;
        change.account.take_off(kept);
        Ok(())
    }

    async fn removed(&self, change: &mut Change<'_>, delete: String) -> Result<(), Error> {
        let returning = format!("{delete} returning {}", change.portion.table.select_list("t"));
        let gone = self.sum_of(change, returning).await?;
        change.account.take_off(gone);
        Ok(())
    }

    async fn copy(&self, change: &Change<'_>) -> Result<(), Error> {
        let (table, shape) = (change.portion.table, change.portion.shape);
        let select = change.wanted.select_rows(&[Class::Missing, Class::Different]);
        let name = change.portion.name();
        let mut rows = Rows::select(self.source, &select, shape.format, &name).await?;
        self.landing.receive(&mut rows, (table, shape)).await?;
        Ok(())
    }

    /// The account must come out: what was read before, less what went, with what is there now under the brought keys, is the original.
    ///
    /// Rows that did not change were read by the comparison, in this transaction and behind the fence; reading them again would
    /// double the pause.
    async fn read_back(&self, change: &Change<'_>) -> Result<(), Error> {
        let brought = change.keys.select_rows(&[Class::Missing, Class::Different]);
        let mut account = change.account;
        account.merge(self.sum_of(change, brought).await?);
        if account == change.expected {
            return Ok(());
        }
        Err(Error::CopyDiffers { table: change.portion.name() })
    }

    /// Count and sum of the rows of a query on the landing's side.
    async fn sum_of(&self, change: &Change<'_>, select: String) -> Result<Sum, Error> {
        let rows = Portion { select, ..change.portion.clone() };
        Origin::Database(self.landing).sum(&rows).await
    }

    async fn prove(&self, changes: &[Change<'_>]) -> Result<(), Error> {
        let mut violations: Vec<Violation> = Vec::new();
        for change in changes {
            let catalogue = (self.scope, self.catalog);
            violations.extend(closure::of_difference(self.landing, catalogue, &change.keys).await?);
        }
        closure::refuse(&violations)
    }
}
