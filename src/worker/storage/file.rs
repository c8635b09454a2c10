//! One file of the storage while it is written or read: digested on the way, a part of it in memory at most.
//! Opened by `Storage`. Must not show a file before it is complete.

use std::fs::File;
use std::io::Read;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::{StreamExt, stream::BoxStream};
use object_store::{GetResult, GetResultPayload, MultipartUpload, ObjectStore, ObjectStoreExt, PutPayload, path::Path};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::error::{StorageError, of_folder, read_error};

/// What is read of a folder's file at a time.
const PIECE_BYTES: usize = 1 << 20;

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
    let mut digest = RunningDigest::default();
    digest.update(bytes);
    digest.text()
}

/// The digest of content that passes piece by piece.
#[derive(Clone, Debug, Default)]
pub struct RunningDigest(Sha256);

impl RunningDigest {
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// `sha256:…` of what has passed.
    pub fn text(&self) -> String {
        use std::fmt::Write;
        self.0.clone().finalize().as_slice().iter().fold(String::from("sha256:"), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }
}

/// A file being written: at most one part of it is in memory.
#[derive(Debug)]
pub struct Writer {
    store: Arc<dyn ObjectStore>,
    location: Path,
    path: String,
    pub(super) part_bytes: usize,
    /// Absent until the first part is full: a small file is one request.
    upload: Option<Box<dyn MultipartUpload>>,
    buffer: BytesMut,
    digest: RunningDigest,
    bytes: u64,
}

impl Writer {
    pub(super) fn new(store: Arc<dyn ObjectStore>, (path, location): (String, Path), part_bytes: usize) -> Self {
        Self {
            store,
            location,
            path,
            part_bytes,
            upload: None,
            buffer: BytesMut::new(),
            digest: RunningDigest::default(),
            bytes: 0,
        }
    }

    /// Bytes written so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds bytes to the file.
    pub async fn write(&mut self, mut bytes: &[u8]) -> Result<(), StorageError> {
        self.digest.update(bytes);
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
        Ok(Stored { path: self.path, bytes: self.bytes, digest: self.digest.text() })
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

/// The store's own stream of a file asks another thread for each 8 KiB.
fn in_large_pieces(file: File) -> BoxStream<'static, object_store::Result<Bytes>> {
    let read = |mut file: File| async move {
        let reading = tokio::task::spawn_blocking(move || {
            let mut piece = Vec::with_capacity(PIECE_BYTES);
            let length = (&mut file).take(PIECE_BYTES as u64).read_to_end(&mut piece)?;
            Ok((length > 0).then(|| (Bytes::from(piece), file)))
        });
        let outcome = reading.await.map_err(std::io::Error::other).and_then(|outcome| outcome);
        outcome.map_err(of_folder)
    };
    futures::stream::try_unfold(file, read).boxed()
}

/// A file being read.
pub struct Reader {
    path: String,
    size: u64,
    pieces: BoxStream<'static, object_store::Result<Bytes>>,
    digest: RunningDigest,
    bytes: u64,
}

impl Reader {
    pub(super) fn new(path: String, found: GetResult) -> Self {
        let size = found.meta.size;
        let pieces = match found.payload {
            GetResultPayload::File(file, _) => in_large_pieces(file),
            GetResultPayload::Stream(pieces) => pieces,
        };
        Self { path, size, pieces, digest: RunningDigest::default(), bytes: 0 }
    }

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
        self.digest.update(&piece);
        self.bytes += piece.len() as u64;
        Ok(Some(piece))
    }

    /// What was read: with [`next`](Self::next) at its end, the whole file.
    pub fn read_so_far(&self) -> Stored {
        Stored { path: self.path.clone(), bytes: self.bytes, digest: self.digest.text() }
    }

    /// The same, of a file that is read no further.
    pub fn finish(self) -> Stored {
        self.read_so_far()
    }
}
