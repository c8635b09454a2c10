//! Reading a backup back: each file checked while it is read, and some customers' rows restored from their partitions alone.
//! Used by VerifyBackup (every file). Restoring a cohort alone is a library function that no step uses yet: tests and benchmarks do.
//! Must not let a row of a damaged file count: the caller commits only when a file was read to its checked end.

use std::collections::{BTreeSet, HashSet};

use tokio_postgres::Transaction;

use super::framing::Framing;
use super::identifier::{TableName, quote_identifiers};
use super::manifest::{Manifest, PartitionFile, TableBackup, blocker};
use super::partition::{Routed, Router};
use super::relay::{Batches, head, read_keys, tail};
use super::routing_key::{Key, KeyType};
use super::row::{RowError, Sum, row_hash};
use crate::contract::{Finding, exit};
use crate::worker::error::Error;
use crate::worker::storage::{Reader, Storage, StorageError};

/// `copy …` without its direction, for the columns that a backup has of a table.
pub fn copy_target(routed: &Routed) -> String {
    let columns = routed.columns.iter().map(|column| column.name.as_str());
    let name = TableName::from(&routed.name);
    format!("copy {} ({})", name.sql(), quote_identifiers(columns))
}

/// A file of a backup being read and checked.
pub struct PartReader<'f> {
    reader: Reader,
    framing: Framing,
    expected: &'f PartitionFile,
    sum: Sum,
    table: String,
}

impl<'f> PartReader<'f> {
    pub async fn open(storage: &Storage, table: &TableBackup, file: &'f PartitionFile) -> Result<Self, Error> {
        let name = table.name().to_string();
        let reader = match storage.get_stream(&file.file.path).await {
            Err(StorageError::Missing { path }) => {
                let message = format!("{path} is not in storage; take a new backup.");
                return Err(refused("BackupFileMissing", &name, message));
            }
            opened => opened?,
        };
        Ok(Self {
            reader,
            framing: Framing::new(table.routed.format, table.routed.columns.len()),
            expected: file,
            sum: Sum::default(),
            table: name,
        })
    }

    /// Sends the wanted rows on and returns what was sent. That the file is damaged is told before what the server says about its rows.
    pub async fn pour(
        &mut self,
        into: &mut Batches,
        mut wanted: impl FnMut(&[u8]) -> Result<bool, RowError>,
    ) -> Result<Sum, Error> {
        let mut poured = Sum::default();
        let mut refused = None;
        loop {
            let mut full = false;
            let more = self.next_rows(|row, hash| {
                if refused.is_none() && wanted(row)? {
                    poured.add(hash);
                    full |= into.put(row);
                }
                Ok(())
            });
            if !more.await? {
                return refused.map_or(Ok(poured), Err);
            }
            if full {
                refused = into.send().await.err();
            }
        }
    }

    /// Shows the rows of the next piece, each with its hash; `false` once the whole file was read and is what Backup wrote.
    async fn next_rows(&mut self, mut see: impl FnMut(&[u8], u64) -> Result<(), RowError>) -> Result<bool, Error> {
        let Some(piece) = self.reader.next().await? else {
            return self.check_end().map(|()| false);
        };
        let sum = &mut self.sum;
        let shown = self.framing.each_row(piece, |row| {
            let hash = row_hash(row);
            sum.add(hash);
            see(row, hash)
        });
        shown.map_err(|error: RowError| self.damaged(&error.to_string()))?;
        Ok(true)
    }

    /// Reads what is left, for the verdict on the file alone.
    pub async fn skip_rows(&mut self) -> Result<(), Error> {
        while self.next_rows(|_, _| Ok(())).await? {}
        Ok(())
    }

    fn check_end(&self) -> Result<(), Error> {
        let read = self.reader.read_so_far();
        if read.bytes != self.expected.file.bytes {
            let (found, expected) = (read.bytes, self.expected.file.bytes);
            return Err(self.damaged(&format!("it has {found} bytes instead of {expected}")));
        }
        if read.digest != self.expected.file.digest {
            return Err(self.damaged("its digest differs"));
        }
        self.framing.finish().map_err(|error| self.damaged(&error.to_string()))?;
        if self.sum == self.expected.sum {
            return Ok(());
        }
        Err(self.damaged("its rows are not those that were counted"))
    }

    fn damaged(&self, what: &str) -> Error {
        let path = &self.expected.file.path;
        let message = format!("{path} is damaged: {what}. Take a new backup.");
        refused("BackupFileDamaged", &self.table, message)
    }
}

fn refused(code: &str, table: &str, message: String) -> Error {
    Error::refused(exit::DATA_DIFFERS, blocker(code, table, message))
}

/// The findings of a refusal; any other error goes on.
pub fn findings_of(error: Error) -> Result<Vec<Finding>, Error> {
    match error {
        Error::Refused { findings, .. } => Ok(findings),
        other => Err(other),
    }
}

/// Customers by their keys.
pub type Customers = HashSet<Key>;

/// The keys that a query of one column returns, as a backup knows them.
pub async fn customers(transaction: &Transaction<'_>, manifest: &Manifest, query: &str) -> Result<Customers, Error> {
    let Some(root) = manifest.owned().next() else {
        return Ok(HashSet::new());
    };
    let (format, columns) = (root.routed.format, &root.routed.columns);
    let key_type = columns
        .iter()
        .find(|column| column.name == manifest.root_key)
        .map_or(KeyType::Exact, |column| KeyType::of(&column.type_name));
    read_keys(transaction, query, (&[key_type], format), "the keys of the customers to restore").await
}

/// Copies the rows of these customers into the tables of the same name, reading only the partitions that hold them.
///
/// The caller has removed what is there, has switched off triggers where they must not fire, and commits only if this succeeds.
pub async fn restore_customers(
    transaction: &Transaction<'_>,
    (storage, manifest): (&Storage, &Manifest),
    keys: Customers,
) -> Result<Vec<(TableName, Sum)>, Error> {
    let partitions: BTreeSet<u16> = keys.iter().map(|key| key.partition(manifest.partitions)).collect();
    let owned: Vec<Routed> = manifest.owned().map(|table| table.routed.clone()).collect();
    let mut router = Router::only(&owned, &manifest.root_key, keys.into_iter().collect());
    let mut restored = Vec::new();
    for (at, table) in manifest.owned().enumerate() {
        let format = table.routed.format;
        let copy = format!("{} from stdin {}", copy_target(&table.routed), format.copy_options());
        let sink = transaction.copy_in(&copy).await.map_err(Error::database(format!("restore {}", table.name())))?;
        let mut into = Batches::into_table(sink, &table.name());
        into.push(head(format)).await?;
        let mut sum = Sum::default();
        for file in &table.files {
            if !partitions.contains(&file.partition) {
                continue;
            }
            let mut part = PartReader::open(storage, table, file).await?;
            sum.merge(part.pour(&mut into, |row| Ok(router.route(at, row)? == 0)).await?);
        }
        into.push(tail(format)).await?;
        let landed = into.finish().await?;
        if landed != sum.rows {
            return Err(Error::RowsLost { table: table.name().to_string(), sent: sum.rows, landed });
        }
        router.finish_table(at);
        restored.push((table.name(), sum));
    }
    Ok(restored)
}
