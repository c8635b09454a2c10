//! The rows of one table on their way into many partition files, within a fixed amount of memory.
//! Used by Backup: rows are pushed as they come, spilled to files when memory is used up, and stored at the end.
//! Must not keep files open between spills: there may be more partitions than a process may have open files.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::task::JoinHandle;

use super::relay::{head, tail};
use super::row::{RowFormat, Sum, row_hash};
use crate::worker::error::Error;
use crate::worker::storage::{RunningDigest, Storage, StorageError, Stored};

/// Rows held in memory over all partitions; while they are written, as many again come in.
const MEMORY_BYTES: usize = 8 << 20;
const READ_BYTES: usize = 1 << 20;
/// What a table whose rows are all read may still hold.
const KEPT_BYTES: usize = 1 << 20;
/// A buffer grows by such a share of what it will hold: doubling would waste as much as it holds.
const GROWTH: usize = 4;

/// A partition that has rows, stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredPart {
    pub partition: u16,
    pub sum: Sum,
    pub file: Stored,
}

/// Rows of one table by partition.
#[derive(Debug)]
pub struct Spool {
    format: RowFormat,
    parts: Vec<Part>,
    buffered: usize,
    memory: usize,
    disk: Disk,
}

/// What is in memory of a partition.
#[derive(Debug, Default)]
struct Part {
    buffer: Vec<u8>,
    sum: Sum,
}

/// What was spilled, or the thread that is spilling.
#[derive(Debug)]
enum Disk {
    Still(Spilled),
    /// Gives the emptied buffers back.
    Writing(JoinHandle<std::io::Result<(Spilled, Vec<Vec<u8>>)>>),
    /// A spill failed, or everything is stored.
    Done,
}

/// A file for each partition, each a COPY file without its end.
#[derive(Debug)]
struct Spilled {
    folder: PathBuf,
    /// The folder lies in the storage: a file there is completed and named, not copied.
    in_storage: bool,
    files: Vec<SpilledFile>,
}

#[derive(Debug, Default)]
struct SpilledFile {
    bytes: u64,
    /// Kept of files in the storage; others are digested when they are copied there.
    digest: RunningDigest,
}

impl Spool {
    /// For `parts` partitions. Rows that do not fit in memory wait in a folder of the storage below `run`, whence they need not be
    /// copied, or in `scratch` where the storage is no folder. Both must be writable.
    pub fn new((storage, run): (&Storage, &str), scratch: &Path, parts: u16, format: RowFormat) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let local = storage.local(run);
        let spilled = Spilled {
            in_storage: local.is_some(),
            folder: local.unwrap_or_else(|| scratch.into()).join(format!("spool-{}-{number}", std::process::id())),
            files: (0..parts).map(|_| SpilledFile::default()).collect(),
        };
        Self {
            format,
            parts: (0..parts).map(|_| Part::default()).collect(),
            buffered: 0,
            memory: MEMORY_BYTES,
            disk: Disk::Still(spilled),
        }
    }

    /// Whether it is time to [`spill`](Self::spill).
    pub fn is_full(&self) -> bool {
        self.buffered >= self.memory
    }

    /// Adds a row.
    pub fn push(&mut self, partition: u16, row: &[u8]) {
        let step = (self.memory / self.parts.len() / GROWTH).max(head(self.format).len());
        let part = &mut self.parts[usize::from(partition)];
        let first = if part.sum.rows == 0 { head(self.format) } else { b"" };
        let needed = first.len() + row.len();
        if part.buffer.capacity() - part.buffer.len() < needed {
            part.buffer.reserve_exact(needed.max(step));
        }
        part.buffer.extend_from_slice(first);
        part.buffer.extend_from_slice(row);
        part.sum.add(row_hash(row));
        self.buffered += needed;
    }

    /// Begins to move every buffered row to its file, once the spill before has ended; more rows may be pushed meanwhile.
    pub async fn spill(&mut self) -> Result<(), Error> {
        let (mut spilled, empty) = self.settle().await?;
        let mut empty = empty.into_iter();
        let full =
            self.parts.iter_mut().map(|part| std::mem::replace(&mut part.buffer, empty.next().unwrap_or_default()));
        let mut full: Vec<Vec<u8>> = full.collect();
        self.buffered = 0;
        self.disk = Disk::Writing(tokio::task::spawn_blocking(move || {
            spilled.append(&mut full)?;
            Ok((spilled, full))
        }));
        Ok(())
    }

    /// Waits for the spill under way.
    async fn settle(&mut self) -> Result<(Spilled, Vec<Vec<u8>>), Error> {
        match std::mem::replace(&mut self.disk, Disk::Done) {
            Disk::Still(spilled) => Ok((spilled, Vec::new())),
            Disk::Writing(thread) => {
                let ended = thread.await.map_err(|error| scratch_error(std::io::Error::other(error)))?;
                ended.map_err(scratch_error)
            }
            Disk::Done => Err(scratch_error(std::io::ErrorKind::BrokenPipe.into())),
        }
    }

    /// Keeps no more than a little in memory: the rows wait in their files, while another table needs the memory.
    pub async fn let_go(&mut self) -> Result<(), Error> {
        if self.buffered > KEPT_BYTES {
            self.spill().await?;
        }
        let (spilled, _) = self.settle().await?;
        self.disk = Disk::Still(spilled);
        for part in &mut self.parts {
            part.buffer.shrink_to_fit();
        }
        Ok(())
    }

    /// Stores each partition that has rows as a COPY file that stands for itself, in `folder` under the name that `name` gives it.
    pub async fn store(
        mut self,
        (storage, folder): (&Storage, &str),
        name: impl Fn(u16) -> String,
    ) -> Result<Vec<StoredPart>, Error> {
        let (mut spilled, _) = self.settle().await?;
        let mut stored = Vec::new();
        let mut complete = Vec::new();
        for (partition, part) in (0_u16..).zip(std::mem::take(&mut self.parts)) {
            if part.sum.rows == 0 {
                continue;
            }
            let mut rest = part.buffer;
            rest.extend_from_slice(tail(self.format));
            let path = format!("{folder}/{}", name(partition));
            let file = if spilled.in_storage {
                complete.push((spilled.path(partition), name(partition)));
                spilled.complete(path, (partition, &rest))?
            } else {
                spilled.copy((storage, &path), (partition, rest)).await?
            };
            stored.push(StoredPart { partition, sum: part.sum, file });
        }
        if !complete.is_empty() {
            storage.adopt(folder, complete).await?;
        }
        Ok(stored)
    }
}

impl Spilled {
    /// Adds the buffers to their files and empties them.
    fn append(&mut self, buffers: &mut [Vec<u8>]) -> std::io::Result<()> {
        std::fs::create_dir_all(&self.folder)?;
        for (partition, buffer) in (0_u16..).zip(buffers) {
            self.append_to(partition, buffer)?;
            buffer.clear();
        }
        Ok(())
    }

    fn append_to(&mut self, partition: u16, bytes: &[u8]) -> std::io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        // Opened each time: there may be more partitions than a process may have open files.
        File::options().create(true).append(true).open(self.path(partition))?.write_all(bytes)?;
        let file = &mut self.files[usize::from(partition)];
        file.bytes += bytes.len() as u64;
        if self.in_storage {
            file.digest.update(bytes);
        }
        Ok(())
    }

    fn path(&self, partition: u16) -> PathBuf {
        self.folder.join(partition.to_string())
    }

    /// Completes a file in the storage with what is left of its rows.
    fn complete(&mut self, path: String, (partition, rest): (u16, &[u8])) -> Result<Stored, Error> {
        std::fs::create_dir_all(&self.folder).and_then(|()| self.append_to(partition, rest)).map_err(scratch_error)?;
        let file = &self.files[usize::from(partition)];
        Ok(Stored { path, bytes: file.bytes, digest: file.digest.text() })
    }

    /// Copies a file and what is left of its rows into the storage.
    async fn copy(
        &self,
        (storage, path): (&Storage, &str),
        (partition, rest): (u16, Vec<u8>),
    ) -> Result<Stored, Error> {
        let spilled = self.files[usize::from(partition)].bytes;
        let expected = spilled + rest.len() as u64;
        let mut writer = storage.writer(path, expected)?;
        if spilled > 0 {
            let mut file = File::open(self.path(partition)).map_err(scratch_error)?;
            let mut chunk = vec![0; READ_BYTES];
            loop {
                // Page cache or local disk: a hop to another thread for each megabyte would cost more than it spares.
                let length = file.read(&mut chunk).map_err(scratch_error)?;
                if length == 0 {
                    break;
                }
                writer.write(&chunk[..length]).await?;
            }
            std::fs::remove_file(self.path(partition)).map_err(scratch_error)?;
        }
        writer.write(&rest).await?;
        let stored = writer.finish().await?;
        if stored.bytes == expected {
            return Ok(stored);
        }
        Err(Error::from(StorageError::Feed { path: path.to_owned(), source: std::io::ErrorKind::UnexpectedEof.into() }))
    }
}

impl Drop for Spilled {
    fn drop(&mut self) {
        match std::fs::remove_dir_all(&self.folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(folder = %self.folder.display(), %error, "scratch files stay behind");
            }
            _ => {}
        }
    }
}

fn scratch_error(source: std::io::Error) -> Error {
    Error::File { attempted: "keep rows on their way into the backup".into(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract;
    use crate::worker::postgres::framing::Framing;
    use crate::worker::postgres::row::RowError;
    use crate::worker::storage::{Credentials, digest};

    fn folder_storage(folder: &tempfile::TempDir) -> Storage {
        let place = contract::Storage::Path(folder.path().to_str().unwrap().into());
        Storage::open(&place, &Credentials::default()).unwrap()
    }

    /// As where the storage is a bucket.
    fn wait_elsewhere(spool: &mut Spool, scratch: &Path) {
        let Disk::Still(spilled) = &mut spool.disk else {
            panic!("nothing was spilled yet");
        };
        spilled.folder = scratch.join("spool");
        spilled.in_storage = false;
    }

    async fn stored_rows(storage: &Storage, path: &str, format: RowFormat) -> Vec<Vec<u8>> {
        let content = storage.get_bytes(path, 1 << 20).await.unwrap();
        let mut framing = Framing::new(format, 1);
        let mut rows = Vec::new();
        framing
            .each_row(content, |row| {
                rows.push(row.to_vec());
                Ok::<_, RowError>(())
            })
            .unwrap();
        assert_eq!(framing.finish(), Ok(()));
        rows
    }

    #[tokio::test]
    async fn rows_arrive_in_their_partition_and_order_however_often_they_were_spilled() {
        let folder = tempfile::tempdir().unwrap();
        let storage = folder_storage(&folder);
        let scratch = tempfile::tempdir().unwrap();
        for (memory, in_storage) in
            [(1, true), (100, true), (1 << 20, true), (1, false), (100, false), (1 << 20, false)]
        {
            let mut spool = Spool::new((&storage, "run"), scratch.path(), 40, RowFormat::Text);
            spool.memory = memory;
            if !in_storage {
                wait_elsewhere(&mut spool, scratch.path());
            }
            let mut expected = vec![Vec::new(); 40];
            for row in 0..500_u32 {
                let partition = u16::try_from(row * 7 % 39).unwrap();
                let bytes = format!("row {row}\n").into_bytes();
                spool.push(partition, &bytes);
                if spool.is_full() {
                    spool.spill().await.unwrap();
                }
                expected[usize::from(partition)].push(bytes);
            }
            let parts = spool.store((&storage, "t"), |partition| format!("{partition}.copy")).await.unwrap();
            assert_eq!(parts.len(), 39, "the empty partition has no file");
            for part in &parts {
                let rows = stored_rows(&storage, &part.file.path, RowFormat::Text).await;
                assert_eq!(rows, expected[usize::from(part.partition)]);
                let content = storage.get_bytes(&part.file.path, 1 << 20).await.unwrap();
                assert_eq!((content.len() as u64, digest(&content)), (part.file.bytes, part.file.digest.clone()));
                let mut sum = Sum::default();
                for row in &rows {
                    sum.add(row_hash(row));
                }
                assert_eq!(sum, part.sum);
            }
            assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0);
            let left = std::fs::read_dir(folder.path().join("run")).map_or(0, Iterator::count);
            assert_eq!(left, 0, "nothing of the spool stays behind");
        }
    }

    #[tokio::test]
    async fn a_binary_part_is_a_whole_copy_file() {
        let folder = tempfile::tempdir().unwrap();
        let storage = folder_storage(&folder);
        let mut spool = Spool::new((&storage, "run"), folder.path(), 1, RowFormat::Binary);
        let row = [0, 1, 0, 0, 0, 1, b'x'];
        spool.push(0, &row);
        assert!(!spool.is_full());
        let parts = spool.store((&storage, "t"), |_| "whole.copy".into()).await.unwrap();
        assert_eq!(stored_rows(&storage, "t/whole.copy", RowFormat::Binary).await, [row]);
        assert_eq!(parts[0].sum.rows, 1);
    }
}
