//! A cohort's restore point: the source's rows at the moment of cutover, as COPY files with a manifest.
//! Written by Cutover in the same read as the strict validation; read by Return and Verify.
//! Must not be believed without its digest: what the ledger names and what the file holds have to agree.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::row::{RowFormat, Sum};
use super::sides::{Origin, Portion};
use super::token::Token;
use crate::contract::exit;
use crate::worker::error::Error;
use crate::worker::storage::{self, Storage, Stored, Writer};

/// Bounds what is read back: a manifest is a line for each table.
const MAX_MANIFEST_BYTES: u64 = 64 << 20;

/// One table's file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TableFile {
    pub table: String,
    pub columns: Vec<String>,
    /// How many of the columns are the key.
    pub keys: usize,
    pub format: RowFormat,
    #[serde(flatten)]
    pub sum: Sum,
    #[serde(flatten)]
    pub file: Stored,
}

/// What the restore point holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    pub v: u32,
    pub cohort: String,
    pub tables: Vec<TableFile>,
}

/// Where a manifest is, and what it must be; kept in the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
    pub uri: String,
    pub digest: String,
}

/// A restore point being written.
pub struct RestoreWriter<'a> {
    storage: &'a Storage,
    folder: String,
    manifest: Manifest,
}

impl<'a> RestoreWriter<'a> {
    /// Each worker has a folder of its own: an older one that still writes, of the same attempt too, cannot spoil it.
    pub fn new(storage: &'a Storage, token: &Token) -> Self {
        Self {
            storage,
            folder: format!("restore-point/{}/{}", token.subject, token.worker()),
            manifest: Manifest { v: 1, cohort: token.subject.clone(), tables: Vec::new() },
        }
    }

    pub(super) fn begin(&self, portion: &Portion<'_>) -> Result<Writer, Error> {
        let path = file_path(&self.folder, self.manifest.tables.len(), "copy");
        Ok(self.storage.writer(&path, portion.table.bytes)?)
    }

    pub(super) fn add(&mut self, portion: &Portion<'_>, file: Stored, sum: Sum) {
        self.manifest.tables.push(TableFile {
            table: portion.name(),
            columns: portion.table.copied_columns().iter().map(|column| column.name.clone()).collect(),
            keys: portion.shape.keys,
            format: portion.shape.format,
            sum,
            file,
        });
    }

    /// Completes it; from here on the restore point exists.
    pub async fn finish(self) -> Result<Reference, Error> {
        let bytes = serde_json::to_vec_pretty(&self.manifest)
            .map_err(|source| Error::Json { what: "the manifest of a restore point", source })?;
        let path = format!("{}/manifest.json", self.folder);
        let stored = self.storage.put_bytes(&path, bytes).await?;
        Ok(Reference { uri: stored.path, digest: stored.digest })
    }
}

/// The path of a table's file. Numbered: names of tables may hold characters that paths may not.
pub fn file_path(folder: &str, number: usize, extension: &str) -> String {
    format!("{folder}/{number:04}.{extension}")
}

impl Manifest {
    /// Reads the manifest that the ledger names.
    pub async fn load(storage: &Storage, reference: &Reference) -> Result<Self, Error> {
        let bytes = storage.get_bytes(&reference.uri, MAX_MANIFEST_BYTES).await?;
        if storage::digest(&bytes) != reference.digest {
            return Err(damaged(&reference.uri));
        }
        serde_json::from_slice(&bytes).map_err(|source| Error::Json { what: "the manifest of a restore point", source })
    }

    /// Reads every file once and compares it with the manifest: what is restored from must be what was written.
    pub async fn verify(&self, storage: &Storage) -> Result<(), Error> {
        for table in &self.tables {
            let mut reader = storage.get_stream(&table.file.path).await?;
            while reader.next().await?.is_some() {}
            if reader.finish() != table.file {
                return Err(damaged(&table.file.path));
            }
        }
        Ok(())
    }

    pub fn table(&self, name: &str) -> Option<&TableFile> {
        self.tables.iter().find(|table| table.table == name)
    }

    /// The files as something to compare with.
    pub fn origin<'a>(&self, storage: &'a Storage) -> Origin<'a> {
        let paths: BTreeMap<_, _> =
            self.tables.iter().map(|table| (table.table.clone(), table.file.path.clone())).collect();
        Origin::File { storage, paths }
    }

    /// The portions that this restore point covers, in their order.
    pub fn covered<'a>(&self, portions: Vec<Portion<'a>>) -> Vec<Portion<'a>> {
        portions.into_iter().filter(|portion| self.table(&portion.name()).is_some()).collect()
    }
}

fn damaged(path: &str) -> Error {
    Error::refused(
        exit::DATA_DIFFERS,
        crate::contract::Finding {
            severity: crate::contract::Severity::Blocker,
            code: "RestorePointDamaged".into(),
            object: path.to_owned(),
            message: "The file is not what was written at cutover; restore it from a copy of the storage, then retry."
                .into(),
        },
    )
}
