//! Files of backups and evidence, in a folder or an S3 bucket through the same code.
//! Called by every step that leaves or reads a file; what is written is digested on the way.
//! Must not hold a whole file in memory unless the caller named a bound, and must not show a file before it is complete.

mod error;
mod file;

use std::fs::File;
use std::path::{Path as Local, PathBuf};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt, TryStreamExt};
use object_store::{
    ObjectStore, ObjectStoreExt, PutMode, PutPayload, aws::AmazonS3Builder, local::LocalFileSystem, path::Path,
    prefix::PrefixStore,
};

pub use self::error::StorageError;
use self::error::{of_folder, read_error};
pub use self::file::{Reader, RunningDigest, Stored, Writer, digest};
use crate::contract;

/// Below this size a file is one request; above it, one request for each part (S3 asks for 5 MiB at least).
const PART_BYTES: usize = 8 << 20;
/// A folder asks for nothing, and what is held is memory of the worker's.
const FOLDER_PART_BYTES: usize = 1 << 20;
/// S3 takes 10,000 parts at most; some room is left for files that turn out larger than expected.
const MAX_PARTS: u64 = 8_000;
const SYNCS_AT_A_TIME: usize = 8;

/// What the storage needs beside its place; read from the environment by `cli.rs`.
#[derive(Clone, Default)]
pub struct Credentials {
    pub access_key_id: Option<String>,
    pub secret_access_key: Option<String>,
    pub session_token: Option<String>,
}

/// Shows that there are credentials, never what they are.
impl std::fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Credentials").finish_non_exhaustive()
    }
}

/// The storage of a migration.
#[derive(Clone, Debug)]
pub struct Storage {
    store: Arc<dyn ObjectStore>,
    /// Of a storage that is a folder.
    root: Option<PathBuf>,
    part_bytes: usize,
}

impl Storage {
    /// Opens the storage; a folder must exist (it is a mounted volume).
    pub fn open(place: &contract::Storage, credentials: &Credentials) -> Result<Self, StorageError> {
        let store: Arc<dyn ObjectStore> = match place {
            contract::Storage::Path(folder) => Arc::new(
                LocalFileSystem::new_with_prefix(folder)
                    .map_err(|source| StorageError::OpenFolder { folder: folder.clone(), source })?
                    // A report says that the file is durable; without this it may only be in the page cache.
                    .with_fsync(true),
            ),
            contract::Storage::S3(s3) => open_bucket(s3, credentials)?,
        };
        let (root, part_bytes) = match place {
            contract::Storage::Path(folder) => (Some(folder.into()), FOLDER_PART_BYTES),
            contract::Storage::S3(_) => (None, PART_BYTES),
        };
        Ok(Self { store, root, part_bytes })
    }

    /// Writes a small file at once.
    pub async fn put_bytes(&self, path: &str, bytes: impl Into<Bytes>) -> Result<Stored, StorageError> {
        self.put(path, bytes.into(), PutMode::Overwrite).await
    }

    /// Writes a small file unless there is one: of two writers exactly one succeeds, the other gets [`StorageError::Exists`].
    pub async fn put_new_bytes(&self, path: &str, bytes: impl Into<Bytes>) -> Result<Stored, StorageError> {
        self.put(path, bytes.into(), PutMode::Create).await
    }

    async fn put(&self, path: &str, bytes: Bytes, mode: PutMode) -> Result<Stored, StorageError> {
        let stored = Stored { path: path.to_owned(), bytes: bytes.len() as u64, digest: digest(&bytes) };
        let put = self.store.put_opts(&parse(path)?, PutPayload::from(bytes), mode.into()).await;
        match put {
            Ok(_) => Ok(stored),
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
                Err(StorageError::Exists { path: path.into() })
            }
            Err(source) => Err(StorageError::Write { path: path.into(), source }),
        }
    }

    /// Begins a file of about `expected` bytes (0: not known). It appears only with [`Writer::finish`].
    pub fn writer(&self, path: &str, expected: u64) -> Result<Writer, StorageError> {
        let least = usize::try_from(expected / MAX_PARTS).unwrap_or(usize::MAX);
        let place = (path.to_owned(), parse(path)?);
        Ok(Writer::new(Arc::clone(&self.store), place, self.part_bytes.max(least)))
    }

    /// Writes a file from a stream.
    pub async fn put_stream<S>(&self, path: &str, stream: S) -> Result<Stored, StorageError>
    where
        S: Stream<Item = std::io::Result<Bytes>>,
    {
        let mut writer = self.writer(path, 0)?;
        let mut stream = std::pin::pin!(stream);
        while let Some(piece) = stream.next().await {
            match piece {
                Ok(piece) => writer.write(&piece).await?,
                Err(source) => {
                    writer.abort().await;
                    return Err(StorageError::Feed { path: path.into(), source });
                }
            }
        }
        writer.finish().await
    }

    /// Reads a file that has at most `limit` bytes.
    pub async fn get_bytes(&self, path: &str, limit: u64) -> Result<Bytes, StorageError> {
        let mut reader = self.get_stream(path).await?;
        let too_large = |bytes| StorageError::TooLarge { path: path.into(), bytes, limit };
        if reader.size() > limit {
            return Err(too_large(reader.size()));
        }
        let mut content = BytesMut::new();
        while let Some(piece) = reader.next().await? {
            content.extend_from_slice(&piece);
            if content.len() as u64 > limit {
                return Err(too_large(content.len() as u64));
            }
        }
        Ok(content.freeze())
    }

    /// Reads a file piece by piece, digesting it on the way.
    pub async fn get_stream(&self, path: &str) -> Result<Reader, StorageError> {
        let result = self.store.get(&parse(path)?).await.map_err(|source| read_error(path, source))?;
        Ok(Reader::new(path.to_owned(), result))
    }

    /// The size of a file, `None` when there is no such file.
    pub async fn size(&self, path: &str) -> Result<Option<u64>, StorageError> {
        match self.store.head(&parse(path)?).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(source) => Err(read_error(path, source)),
        }
    }

    /// The paths and sizes of all complete files below a folder, in no particular order.
    pub async fn list(&self, folder: &str) -> Result<Vec<(String, u64)>, StorageError> {
        self.store
            .list(Some(&parse(folder)?))
            .map_ok(|meta| (meta.location.to_string(), meta.size))
            .try_collect()
            .await
            .map_err(|source| StorageError::List { path: folder.into(), source })
    }

    /// Where a path of this storage is on this machine, if the storage is a folder: what is written there need not be copied.
    pub fn local(&self, path: &str) -> Option<PathBuf> {
        Some(self.root.as_ref()?.join(parse(path).ok()?.as_ref()))
    }

    /// Gives complete files of the folder their names below `into`; durable when this returns, as any other file of the storage.
    pub async fn adopt(&self, into: &str, files: Vec<(PathBuf, String)>) -> Result<(), StorageError> {
        let (root, folder) =
            self.root.clone().zip(self.local(into)).ok_or_else(|| StorageError::Path { path: into.into() })?;
        let adopted = tokio::task::spawn_blocking(move || name_durably((&root, &folder), &files)).await;
        adopted
            .map_err(std::io::Error::other)
            .and_then(|adopted| adopted)
            .map_err(|source| StorageError::Write { path: into.into(), source: of_folder(source) })
    }

    /// Deletes a file; there need not be one.
    pub async fn delete(&self, path: &str) -> Result<(), StorageError> {
        match self.store.delete(&parse(path)?).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(source) => Err(StorageError::Delete { path: path.into(), source }),
        }
    }

    /// Deletes a folder with everything below it, also the parts of files that a killed process left unfinished.
    pub async fn delete_folder(&self, folder: &str) -> Result<(), StorageError> {
        for (path, _) in self.list(folder).await? {
            self.delete(&path).await?;
        }
        let Some(root) = &self.root else {
            return Ok(());
        };
        let location = root.join(parse(folder)?.as_ref());
        let removed = tokio::task::spawn_blocking(move || std::fs::remove_dir_all(location)).await;
        match removed.map_err(std::io::Error::other).and_then(|removed| removed) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(StorageError::Delete { path: folder.into(), source: of_folder(source) })
            }
            _ => Ok(()),
        }
    }
}

/// Contents before names, and names before the folders that lead to them: a crash shows whole files or none.
fn name_durably((root, folder): (&Local, &Local), files: &[(PathBuf, String)]) -> std::io::Result<()> {
    // Several at a time: a file system writes many small files in one go if it is asked for them together.
    let share = files.len().div_ceil(SYNCS_AT_A_TIME).max(1);
    std::thread::scope(|scope| {
        let syncing: Vec<_> = files
            .chunks(share)
            .map(|some| scope.spawn(move || some.iter().try_for_each(|(file, _)| File::open(file)?.sync_all())))
            .collect();
        syncing.into_iter().try_for_each(|it| it.join().unwrap_or_else(|_| Err(std::io::ErrorKind::Other.into())))
    })?;
    std::fs::create_dir_all(folder)?;
    for (file, name) in files {
        std::fs::rename(file, folder.join(name))?;
    }
    folder.ancestors().take_while(|it| it.starts_with(root)).try_for_each(|it| File::open(it)?.sync_all())
}

fn open_bucket(s3: &contract::S3Storage, credentials: &Credentials) -> Result<Arc<dyn ObjectStore>, StorageError> {
    let mut builder = AmazonS3Builder::new().with_bucket_name(&s3.bucket);
    if let Some(region) = &s3.region {
        builder = builder.with_region(region);
    }
    if let Some(endpoint) = &s3.endpoint {
        builder = builder.with_endpoint(endpoint).with_allow_http(endpoint.starts_with("http://"));
    }
    if let Some(id) = &credentials.access_key_id {
        builder = builder.with_access_key_id(id);
    }
    if let Some(secret) = &credentials.secret_access_key {
        builder = builder.with_secret_access_key(secret);
    }
    if let Some(token) = &credentials.session_token {
        builder = builder.with_token(token);
    }
    let bucket = builder.build().map_err(|source| StorageError::OpenBucket { bucket: s3.bucket.clone(), source })?;
    Ok(match s3.prefix.trim_matches('/') {
        "" => Arc::new(bucket),
        prefix => Arc::new(PrefixStore::new(bucket, parse(prefix)?)),
    })
}

fn parse(path: &str) -> Result<Path, StorageError> {
    Path::parse(path).map_err(|_| StorageError::Path { path: path.into() })
}

#[cfg(test)]
mod tests;
