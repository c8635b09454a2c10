//! Files of backups and evidence, in a folder or an S3 bucket through the same code.
//! Called by every step that leaves or reads a file; what is written is digested on the way.
//! Must not hold a whole file in memory unless the caller named a bound, and must not show a file before it is complete.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt, TryStreamExt, stream::BoxStream};
use object_store::{
    MultipartUpload, ObjectStore, ObjectStoreExt, PutMode, PutPayload, aws::AmazonS3Builder, local::LocalFileSystem,
    path::Path, prefix::PrefixStore,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::contract;

/// Below this size a file is one request; above it, one request for each part (S3 asks for 5 MiB at least).
const PART_BYTES: usize = 8 << 20;
/// S3 takes 10,000 parts at most; some room is left for files that turn out larger than expected.
const MAX_PARTS: u64 = 8_000;

/// What went wrong with a file. Shown to users: holds paths below the storage root, no content.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    #[error("failed to open the storage folder {folder}")]
    OpenFolder {
        folder: String,
        #[source]
        source: object_store::Error,
    },
    #[error("failed to open the storage bucket {bucket}")]
    OpenBucket {
        bucket: String,
        #[source]
        source: object_store::Error,
    },
    #[error("failed to write {path} to storage")]
    Write {
        path: String,
        #[source]
        source: object_store::Error,
    },
    #[error("failed to read the data that was to be written to {path}")]
    Feed {
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("failed to read {path} from storage")]
    Read {
        path: String,
        #[source]
        source: object_store::Error,
    },
    #[error("failed to list {path} in storage")]
    List {
        path: String,
        #[source]
        source: object_store::Error,
    },
    #[error("failed to delete {path} from storage")]
    Delete {
        path: String,
        #[source]
        source: object_store::Error,
    },
    #[error("{path} is not in storage")]
    Missing { path: String },
    #[error("{path} is in storage already")]
    Exists { path: String },
    #[error("{path} has {bytes} bytes, more than the {limit} that it may have")]
    TooLarge { path: String, bytes: u64, limit: u64 },
    #[error("{path} is no usable path")]
    Path { path: String },
}

impl StorageError {
    /// The storage refused permission: a retry is pointless.
    pub fn is_not_permitted(&self) -> bool {
        let (Self::OpenFolder { source, .. }
        | Self::OpenBucket { source, .. }
        | Self::Write { source, .. }
        | Self::Read { source, .. }
        | Self::List { source, .. }
        | Self::Delete { source, .. }) = self
        else {
            return false;
        };
        match source {
            object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => true,
            other => io_kind(other) == Some(std::io::ErrorKind::PermissionDenied),
        }
    }

    /// The storage's settings are unusable: a retry is pointless.
    pub fn is_misconfigured(&self) -> bool {
        matches!(self, Self::OpenFolder { .. } | Self::OpenBucket { .. } | Self::Path { .. })
            && !self.is_not_permitted()
    }
}

/// The kind of the innermost IO error: the folder store wraps it in errors of its own.
fn io_kind(error: &object_store::Error) -> Option<std::io::ErrorKind> {
    let mut source: Option<&dyn std::error::Error> = Some(error);
    let mut kind = None;
    while let Some(error) = source {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            kind = Some(io.kind());
        }
        source = error.source();
    }
    kind
}

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

/// A stored file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stored {
    /// Below the storage root.
    pub path: String,
    pub bytes: u64,
    /// Of the content, `sha256:` and 64 hexadecimal digits.
    pub digest: String,
}

/// `sha256:…` of some bytes.
pub fn digest(bytes: &[u8]) -> String {
    digest_text(Sha256::digest(bytes).as_slice())
}

fn digest_text(hash: &[u8]) -> String {
    use std::fmt::Write;
    hash.iter().fold(String::from("sha256:"), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
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
        let root = match place {
            contract::Storage::Path(folder) => Some(folder.into()),
            contract::Storage::S3(_) => None,
        };
        Ok(Self { store, root, part_bytes: PART_BYTES })
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
        Ok(Writer {
            store: Arc::clone(&self.store),
            location: parse(path)?,
            path: path.to_owned(),
            part_bytes: self.part_bytes.max(least),
            upload: None,
            buffer: BytesMut::new(),
            hash: Sha256::new(),
            bytes: 0,
        })
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
        if reader.size > limit {
            return Err(too_large(reader.size));
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
        Ok(Reader {
            path: path.to_owned(),
            size: result.meta.size,
            pieces: result.into_stream(),
            hash: Sha256::new(),
            bytes: 0,
        })
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
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(StorageError::Delete {
                path: folder.into(),
                source: object_store::Error::Generic { store: "folder", source: Box::new(source) },
            }),
            _ => Ok(()),
        }
    }
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

fn read_error(path: &str, source: object_store::Error) -> StorageError {
    match source {
        object_store::Error::NotFound { .. } => StorageError::Missing { path: path.into() },
        source => StorageError::Read { path: path.into(), source },
    }
}

/// A file being written: at most one part of it is in memory.
#[derive(Debug)]
pub struct Writer {
    store: Arc<dyn ObjectStore>,
    location: Path,
    path: String,
    part_bytes: usize,
    /// Absent until the first part is full: a small file is one request.
    upload: Option<Box<dyn MultipartUpload>>,
    buffer: BytesMut,
    hash: Sha256,
    bytes: u64,
}

impl Writer {
    /// Bytes written so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds bytes to the file.
    pub async fn write(&mut self, mut bytes: &[u8]) -> Result<(), StorageError> {
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
        while self.buffer.len() + bytes.len() >= self.part_bytes {
            let (part, rest) = bytes.split_at(self.part_bytes - self.buffer.len());
            self.buffer.extend_from_slice(part);
            bytes = rest;
            self.put_part().await?;
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    async fn put_part(&mut self) -> Result<(), StorageError> {
        let part = PutPayload::from(self.buffer.split().freeze());
        let sent = match &mut self.upload {
            Some(upload) => upload.put_part(part).await,
            None => match self.store.put_multipart(&self.location).await {
                Ok(upload) => self.upload.insert(upload).put_part(part).await,
                Err(error) => Err(error),
            },
        };
        match sent {
            Ok(()) => Ok(()),
            Err(source) => {
                self.discard_parts().await;
                Err(StorageError::Write { path: self.path.clone(), source })
            }
        }
    }

    /// Completes the file: from here on it is visible, and durable.
    pub async fn finish(mut self) -> Result<Stored, StorageError> {
        if self.upload.is_none() {
            let payload = PutPayload::from(self.buffer.split().freeze());
            self.store
                .put(&self.location, payload)
                .await
                .map_err(|source| StorageError::Write { path: self.path.clone(), source })?;
        } else {
            if !self.buffer.is_empty() {
                self.put_part().await?;
            }
            if let Some(mut upload) = self.upload.take()
                && let Err(source) = upload.complete().await
            {
                self.upload = Some(upload);
                self.discard_parts().await;
                return Err(StorageError::Write { path: self.path.clone(), source });
            }
        }
        Ok(Stored { path: self.path, bytes: self.bytes, digest: digest_text(self.hash.finalize().as_slice()) })
    }

    /// Gives the file up; nothing of it appears.
    pub async fn abort(mut self) {
        self.discard_parts().await;
    }

    /// Failing to remove parts is no failure of the step: they are invisible, and a bucket's lifecycle rule removes them.
    async fn discard_parts(&mut self) {
        if let Some(mut upload) = self.upload.take()
            && let Err(error) = upload.abort().await
        {
            tracing::warn!(path = self.path, %error, "parts of an unfinished file stay in storage");
        }
    }
}

/// A file being read.
pub struct Reader {
    path: String,
    size: u64,
    pieces: BoxStream<'static, object_store::Result<Bytes>>,
    hash: Sha256,
    bytes: u64,
}

impl Reader {
    /// The size that the storage states.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The next piece, `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, StorageError> {
        let Some(piece) = self.pieces.next().await else {
            return Ok(None);
        };
        let piece = piece.map_err(|source| read_error(&self.path, source))?;
        self.hash.update(&piece);
        self.bytes += piece.len() as u64;
        Ok(Some(piece))
    }

    /// What was read: with [`next`](Self::next) at its end, the whole file.
    pub fn read_so_far(&self) -> Stored {
        Stored {
            path: self.path.clone(),
            bytes: self.bytes,
            digest: digest_text(self.hash.clone().finalize().as_slice()),
        }
    }

    /// The same, of a file that is read no further.
    pub fn finish(self) -> Stored {
        self.read_so_far()
    }
}

#[cfg(test)]
#[path = "storage_tests.rs"]
mod tests;
