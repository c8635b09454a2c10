//! Brings the difference between an original and its copy, and proves that none is left.
//! Called by Copy and Cutover: cohort rows and reference rows.
//! Must not trust what it wrote: the copy is read back before the commit, by the code that compares, not by the code that copies.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use tokio_postgres::Transaction;

use super::closure::{self, Violation};
use super::compare::{Class, Digest};
use super::keys::{Counts, KeyTable};
use super::landing::Landing;
use super::model::{Catalog, Scope};
use super::relay::Rows;
use super::restore_point::RestoreWriter;
use super::row::Sum;
use super::sides::{Origin, Portion, Sides};
use crate::worker::error::Error;

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
    /// What is still to be copied.
    to_copy: &'static [Class],
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
    /// Whose rows they are; none for shared rows.
    pub entry: Option<i32>,
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
        let mut sides = self.sides().await?;
        for (number, portion) in portions.iter().enumerate() {
            let digests = survey(&mut sides, portion, restore.as_deref_mut()).await?;
            self.refuse_strangers(portion, digests.1.total())?;
            brought.tables.insert(portion.name(), digests.0.total());
            if !digests.0.agrees_with(&digests.1) {
                let (change, counts) = self.change(&sides, (portion, number), &digests).await?;
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

    async fn sides(&self) -> Result<Sides<'a>, Error> {
        let Some(entry) = self.entry else {
            return Ok(Sides { original: Origin::Database(self.source), copy: Origin::Database(self.landing) });
        };
        Sides::of_entry((self.source, self.landing), self.scope, entry).await
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
        sides: &Sides<'_>,
        (portion, number): (&'p Portion<'p>, usize),
        digests: &(Digest, Digest),
    ) -> Result<(Change<'p>, Counts), Error> {
        let (table, shape) = (portion.table, portion.shape);
        let wanted = KeyTable::create(self.source, table, shape, number).await?;
        let keys = KeyTable::create(self.landing, table, shape, number).await?;
        let into: [(&Transaction<'_>, &KeyTable); 2] = [(self.source, &wanted), (self.landing, &keys)];
        let counts = sides.note(portion, digests, &into).await?;
        let (expected, account) = (digests.0.total(), digests.1.total());
        let to_copy: &[Class] = &[Class::Missing, Class::Different];
        Ok((Change { portion, wanted, keys, expected, account, to_copy }, counts))
    }

    /// Takes away what is replaced or too much, and takes it off the account, row by row as the server removed it.
    async fn remove(&self, change: &mut Change<'_>) -> Result<(), Error> {
        let name = &change.portion.table.name;
        if self.entry.is_some() || !self.change_in_place(change).await? {
            self.removed(change, change.keys.delete_rows(&[Class::Different])).await?;
        }
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

    /// For shared rows: whoever is about to refer to one must not find it gone for a moment. `false` where the server does not let us.
    async fn change_in_place(&self, change: &mut Change<'_>) -> Result<bool, Error> {
        let (table, shape) = (change.portion.table, change.portion.shape);
        let different = [Class::Different];
        let held = format!("{} for no key update of t", change.keys.select_rows(&different));
        let before = self.sum_of(change, held).await?;
        if before.rows == 0 {
            return Ok(true);
        }
        let select = change.wanted.select_rows(&different);
        let mut rows = Rows::select(self.source, &select, shape.format, &change.portion.name()).await?;
        if !self.landing.change(&mut rows, (table, shape)).await? {
            return Ok(false);
        }
        change.account.take_off(before);
        change.to_copy = &[Class::Missing];
        Ok(true)
    }

    async fn removed(&self, change: &mut Change<'_>, delete: String) -> Result<(), Error> {
        let returning = format!("{delete} returning {}", change.portion.table.select_list("t"));
        let gone = self.sum_of(change, returning).await?;
        change.account.take_off(gone);
        Ok(())
    }

    async fn copy(&self, change: &Change<'_>) -> Result<(), Error> {
        let (table, shape) = (change.portion.table, change.portion.shape);
        let select = change.wanted.select_rows(change.to_copy);
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

async fn survey(
    sides: &mut Sides<'_>,
    portion: &Portion<'_>,
    restore: Option<&mut RestoreWriter<'_>>,
) -> Result<(Digest, Digest), Error> {
    let Some(restore) = restore else {
        return sides.compare(portion, None).await;
    };
    let mut writer = restore.begin(portion)?;
    let digests = sides.compare(portion, Some(&mut writer)).await?;
    restore.add(portion, writer.finish().await?, digests.0.total());
    Ok(digests)
}
