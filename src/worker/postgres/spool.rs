//! The rows of one table on their way into many partition files, within a fixed amount of memory.
//! Used by Backup: rows are pushed as they come, spilled to scratch files when memory is used up, and stored at the end.
//! Must not keep files open between spills: there may be more partitions than a process may have open files.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use super::relay::{head, tail};
use super::row::{RowFormat, Sum, row_hash};
use crate::worker::error::Error;
use crate::worker::storage::{Storage, StorageError, Stored};

/// Rows held in memory over all partitions; buffers may have twice this capacity.
const MEMORY_BYTES: usize = 16 << 20;
const READ_BYTES: usize = 1 << 20;
/// What a table whose rows are all read may still hold.
const KEPT_BYTES: usize = 1 << 20;

/// A partition that has rows, stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredPart {
    pub partition: u16,
    pub sum: Sum,
    pub file: Stored,
}

#[derive(Debug, Default)]
struct Part {
    buffer: Vec<u8>,
    /// Bytes in its scratch file.
    spilled: u64,
    sum: Sum,
}

/// Rows of one table by partition.
#[derive(Debug)]
pub struct Spool {
    folder: PathBuf,
    format: RowFormat,
    parts: Vec<Part>,
    buffered: usize,
    memory: usize,
}

impl Spool {
    /// `scratch` must be a writable folder.
    pub fn new(scratch: &Path, parts: u16, format: RowFormat) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Self {
            folder: scratch.join(format!("spool-{}-{number}", std::process::id())),
            format,
            parts: (0..parts).map(|_| Part::default()).collect(),
            buffered: 0,
            memory: MEMORY_BYTES,
        }
    }

    /// Adds a row; true when it is time to [`spill`](Self::spill).
    #[must_use]
    pub fn push(&mut self, partition: u16, row: &[u8]) -> bool {
        let part = &mut self.parts[usize::from(partition)];
        part.sum.add(row_hash(row));
        part.buffer.extend_from_slice(row);
        self.buffered += row.len();
        self.buffered >= self.memory
    }

    /// Moves every buffered row to the scratch files.
    pub async fn spill(&mut self) -> Result<(), Error> {
        let folder = self.folder.clone();
        let mut parts = std::mem::take(&mut self.parts);
        let (parts, written) = tokio::task::spawn_blocking(move || {
            let written = append_all(&folder, &mut parts);
            (parts, written)
        })
        .await
        .map_err(|error| scratch_error(std::io::Error::other(error)))?;
        self.parts = parts;
        self.buffered = 0;
        written.map_err(scratch_error)
    }

    /// Keeps no more than a little in memory: the rows wait in the scratch files, while another table needs the memory.
    pub async fn let_go(&mut self) -> Result<(), Error> {
        if self.buffered > KEPT_BYTES {
            self.spill().await?;
        }
        for part in &mut self.parts {
            part.buffer.shrink_to_fit();
        }
        Ok(())
    }

    /// Writes each partition that has rows as a COPY file that stands for itself, named by `path`.
    pub async fn store(mut self, storage: &Storage, path: impl Fn(u16) -> String) -> Result<Vec<StoredPart>, Error> {
        let mut stored = Vec::new();
        let parts = std::mem::take(&mut self.parts);
        for (partition, part) in (0_u16..).zip(parts) {
            if part.sum.rows == 0 {
                continue;
            }
            stored.push(StoredPart {
                partition,
                sum: part.sum,
                file: self.store_part(storage, &path(partition), (partition, &part)).await?,
            });
        }
        Ok(stored)
    }

    async fn store_part(
        &self,
        storage: &Storage,
        path: &str,
        (partition, part): (u16, &Part),
    ) -> Result<Stored, Error> {
        let expected = part.spilled + part.buffer.len() as u64;
        let mut writer = storage.writer(path, expected)?;
        writer.write(head(self.format)).await?;
        if part.spilled > 0 {
            let file = scratch_file(&self.folder, partition);
            let mut spilled = File::open(&file).map_err(scratch_error)?;
            let mut chunk = vec![0; READ_BYTES];
            loop {
                // Page cache or local disk: a hop to another thread for each megabyte would cost more than it spares.
                let length = spilled.read(&mut chunk).map_err(scratch_error)?;
                if length == 0 {
                    break;
                }
                writer.write(&chunk[..length]).await?;
            }
            std::fs::remove_file(&file).map_err(scratch_error)?;
        }
        writer.write(&part.buffer).await?;
        writer.write(tail(self.format)).await?;
        let stored = writer.finish().await?;
        let complete = expected + (head(self.format).len() + tail(self.format).len()) as u64;
        if stored.bytes == complete {
            return Ok(stored);
        }
        Err(Error::from(StorageError::Feed { path: path.to_owned(), source: std::io::ErrorKind::UnexpectedEof.into() }))
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        match std::fs::remove_dir_all(&self.folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(folder = %self.folder.display(), %error, "scratch files stay behind");
            }
            _ => {}
        }
    }
}

fn append_all(folder: &Path, parts: &mut [Part]) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    for (partition, part) in (0_u16..).zip(parts) {
        if part.buffer.is_empty() {
            continue;
        }
        File::options().create(true).append(true).open(scratch_file(folder, partition))?.write_all(&part.buffer)?;
        part.spilled += part.buffer.len() as u64;
        part.buffer.clear();
    }
    Ok(())
}

fn scratch_file(folder: &Path, partition: u16) -> PathBuf {
    folder.join(partition.to_string())
}

fn scratch_error(source: std::io::Error) -> Error {
    Error::File { attempted: "keep rows in the scratch folder".into(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract;
    use crate::worker::postgres::framing::Framing;
    use crate::worker::storage::Credentials;

    async fn stored_rows(storage: &Storage, part: &StoredPart) -> Vec<Vec<u8>> {
        let content = storage.get_bytes(&part.file.path, 1 << 20).await.unwrap();
        let mut framing = Framing::new(RowFormat::Text, 1);
        framing.feed(content);
        let mut rows = Vec::new();
        while let Some(row) = framing.next_row().unwrap() {
            rows.push(row.to_vec());
        }
        rows
    }

    #[tokio::test]
    async fn rows_arrive_in_their_partition_and_order_however_often_they_were_spilled() {
        let folder = tempfile::tempdir().unwrap();
        let place = contract::Storage::Path(folder.path().to_str().unwrap().into());
        let storage = Storage::open(&place, &Credentials::default()).unwrap();
        let scratch = tempfile::tempdir().unwrap();
        for memory in [1, 100, 1 << 20] {
            let mut spool = Spool::new(scratch.path(), 40, RowFormat::Text);
            spool.memory = memory;
            let mut expected = vec![Vec::new(); 40];
            for row in 0..500_u32 {
                let partition = u16::try_from(row * 7 % 39).unwrap();
                let bytes = format!("row {row}\n").into_bytes();
                if spool.push(partition, &bytes) {
                    spool.spill().await.unwrap();
                }
                expected[usize::from(partition)].push(bytes);
            }
            let parts = spool.store(&storage, |partition| format!("t/{partition}.copy")).await.unwrap();
            assert_eq!(parts.len(), 39, "the empty partition has no file");
            for part in &parts {
                let rows = stored_rows(&storage, part).await;
                assert_eq!(rows, expected[usize::from(part.partition)]);
                let mut sum = Sum::default();
                for row in &rows {
                    sum.add(row_hash(row));
                }
                assert_eq!(sum, part.sum);
            }
            assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0);
        }
    }

    #[tokio::test]
    async fn a_binary_part_is_a_whole_copy_file() {
        let folder = tempfile::tempdir().unwrap();
        let place = contract::Storage::Path(folder.path().to_str().unwrap().into());
        let storage = Storage::open(&place, &Credentials::default()).unwrap();
        let mut spool = Spool::new(folder.path(), 1, RowFormat::Binary);
        let row = [0, 1, 0, 0, 0, 1, b'x'];
        assert!(!spool.push(0, &row));
        let parts = spool.store(&storage, |_| "whole.copy".into()).await.unwrap();
        let content = storage.get_bytes("whole.copy", 100).await.unwrap();
        let mut framing = Framing::new(RowFormat::Binary, 1);
        framing.feed(content);
        assert_eq!(framing.next_row().unwrap().unwrap()[..], row);
        assert_eq!(framing.next_row(), Ok(None));
        assert_eq!(framing.finish(), Ok(()));
        assert_eq!(parts[0].sum.rows, 1);
    }
}
