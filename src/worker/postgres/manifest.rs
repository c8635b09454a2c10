//! What a backup consists of: the file that makes it complete, and by whose digest it is known.
//! Written last by Backup, read by VerifyBackup and by every restore.
//! Must not hold a key or a value: names of schema objects, counts, sums and digests only.

use serde::{Deserialize, Serialize};

use super::identifier::TableName;
use super::partition::Routed;
use super::row::Sum;
use crate::contract::{EvidenceRef, Finding, Identity, Severity, exit};
use crate::worker::error::Error;
use crate::worker::storage::{Storage, StorageError, Stored, digest};

/// Version of the manifest.
pub const VERSION: u32 = 1;
/// A thousand partitions of hundreds of tables fit.
const MAX_BYTES: u64 = 256 << 20;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    pub v: u32,
    pub migration: Identity,
    pub attempt: i64,
    /// When the snapshot was taken, by the server's clock.
    pub taken_at: String,
    /// `server_version_num` of the source.
    pub server_version: i32,
    /// Customers are spread over this many partitions.
    pub partitions: u16,
    pub root_key: String,
    pub tables: Vec<TableBackup>,
    pub schema: SchemaBackup,
    pub sequences: Vec<SequenceBackup>,
    pub includes: Vec<IncludeBackup>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TableBackup {
    #[serde(flatten)]
    pub routed: Routed,
    /// Rows belong to customers; a shared table is one file.
    pub owned: bool,
    #[serde(flatten)]
    pub sum: Sum,
    /// Of these rows how many reach no customer; they are in the partition after the last.
    pub without_customer: u64,
    pub files: Vec<PartitionFile>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PartitionFile {
    pub partition: u16,
    #[serde(flatten)]
    pub sum: Sum,
    #[serde(flatten)]
    pub file: Stored,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SchemaBackup {
    pub pre_data: Stored,
    pub post_data: Stored,
    /// Roles that owners and grants may name.
    pub roles: Vec<String>,
    /// What must be in force after a restore.
    pub facts: Vec<SchemaFact>,
}

/// A constraint, index or trigger of a table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SchemaFact {
    pub schema: String,
    pub table: String,
    pub kind: String,
    pub name: String,
    /// Validated, valid or enabled.
    pub in_force: bool,
    pub definition: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SequenceBackup {
    pub schema: String,
    pub name: String,
    pub last_value: i64,
    pub is_called: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IncludeBackup {
    pub name: String,
    pub files: Vec<Stored>,
}

impl TableBackup {
    pub fn name(&self) -> TableName {
        (&self.routed.name).into()
    }
}

impl SequenceBackup {
    pub fn name(&self) -> TableName {
        TableName::new(&self.schema, &self.name)
    }
}

impl Manifest {
    /// Every file that belongs to the backup, beside the manifest.
    pub fn files(&self) -> impl Iterator<Item = &Stored> {
        self.tables
            .iter()
            .flat_map(|table| table.files.iter().map(|part| &part.file))
            .chain([&self.schema.pre_data, &self.schema.post_data])
            .chain(self.includes.iter().flat_map(|include| &include.files))
    }

    /// Tables whose rows belong to customers, parents before children.
    pub fn owned(&self) -> impl Iterator<Item = &TableBackup> {
        self.tables.iter().filter(|table| table.owned)
    }

    /// Reads the manifest that this evidence names, and no other.
    pub async fn load(storage: &Storage, evidence: &EvidenceRef) -> Result<Self, Error> {
        let bytes = match storage.get_bytes(&evidence.uri, MAX_BYTES).await {
            Err(StorageError::Missing { path }) => {
                return Err(Error::refused(
                    exit::INPUT_MISSING,
                    blocker("BackupMissing", &path, "The backup's manifest is not in storage; take a new backup."),
                ));
            }
            read => read?,
        };
        let altered =
            |message: &str| Error::refused(exit::DATA_DIFFERS, blocker("ManifestAltered", &evidence.uri, message));
        if digest(&bytes) != evidence.digest {
            return Err(altered(
                "The manifest is not the one that Backup wrote: its digest differs. Take a new backup.",
            ));
        }
        let manifest: Self =
            serde_json::from_slice(&bytes).map_err(|_| altered("The manifest cannot be read. Take a new backup."))?;
        if manifest.v != VERSION {
            return Err(altered("The manifest is of a version that this release does not know."));
        }
        Ok(manifest)
    }

    /// The manifest of this path, whatever its digest: for whoever wrote it.
    pub async fn find(storage: &Storage, path: &str) -> Result<Option<(Self, String)>, Error> {
        match storage.get_bytes(path, MAX_BYTES).await {
            Err(StorageError::Missing { .. }) => Ok(None),
            Err(error) => Err(error.into()),
            Ok(bytes) => {
                let manifest = serde_json::from_slice(&bytes)
                    .map_err(|source| Error::Json { what: "the manifest of a backup", source })?;
                Ok(Some((manifest, digest(&bytes))))
            }
        }
    }

    pub fn to_json(&self) -> Result<Vec<u8>, Error> {
        serde_json::to_vec_pretty(self).map_err(|source| Error::Json { what: "the manifest of a backup", source })
    }
}

/// A finding that ends the step.
pub fn blocker(code: &str, object: &str, message: impl Into<String>) -> Finding {
    Finding { severity: Severity::Blocker, code: code.to_owned(), object: object.to_owned(), message: message.into() }
}
