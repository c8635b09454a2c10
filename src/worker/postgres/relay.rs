//! Moves COPY data from where it is read to where it lands, hashing each row on the way; the bytes stay as they are.
//! Called by every step that copies, compares or stores rows.
//! Must not build a row out of values, and must not hold more than one batch.

use std::pin::Pin;

use bytes::{BufMut, Bytes, BytesMut};
use futures::{SinkExt, TryStreamExt};
use tokio_postgres::{CopyInSink, CopyOutStream, Transaction};

use super::framing::{BINARY_HEADER, BINARY_TRAILER, Framing};
use super::identifier::TableName;
use super::model::{OwnedTable, ScopedReference, Table};
use super::routing_key::{Key, KeyType};
use super::row::{self, RowFormat, Sum, row_hash};
use crate::worker::error::Error;
use crate::worker::storage::{Reader, Writer};

/// Batches below 64 KiB cost wake-ups, batches far above it cost cache: measured, not guessed.
const BATCH_BYTES: usize = 64 << 10;
/// A batch and the row with which it is full; from 128 KiB on the allocator would ask the kernel for each.
const BATCH_CAPACITY: usize = BATCH_BYTES + (16 << 10);

/// How the rows of one table travel: format, number of columns, how many of the first are its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    pub format: RowFormat,
    pub columns: usize,
    pub keys: usize,
}

impl Shape {
    pub fn new(table: &Table, format: RowFormat) -> Self {
        Self { format, columns: table.copied_columns().len(), keys: table.primary_key.len() }
    }

    pub fn key_of<'a>(&self, row: &'a [u8]) -> Result<&'a [u8], Error> {
        Ok(row::key_bytes(row, self.format, self.keys)?)
    }
}

impl From<&OwnedTable> for Shape {
    fn from(owned: &OwnedTable) -> Self {
        Self::new(&owned.table, owned.format)
    }
}

impl From<&ScopedReference> for Shape {
    fn from(reference: &ScopedReference) -> Self {
        Self::new(&reference.table, reference.format)
    }
}

/// COPY data being read, from a server or from a stored file.
pub enum Rows {
    Server { what: String, pieces: Pin<Box<CopyOutStream>> },
    File(Reader),
}

impl Rows {
    /// Starts reading the rows of a query.
    pub async fn select(
        transaction: &Transaction<'_>,
        select: &str,
        format: RowFormat,
        what: &str,
    ) -> Result<Self, Error> {
        let pieces = transaction
            .copy_out(&format!("copy ({select}) to stdout {}", format.copy_options()))
            .await
            .map_err(Error::database(format!("read {what}")))?;
        Ok(Self::of_server(what, pieces))
    }

    /// What a server has begun to send.
    pub fn of_server(what: &str, pieces: CopyOutStream) -> Self {
        Self::Server { what: what.to_owned(), pieces: Box::pin(pieces) }
    }

    /// Passes everything on unseen.
    pub async fn forward(&mut self, into: &mut Batches) -> Result<(), Error> {
        while let Some(piece) = self.next().await? {
            into.push(&piece).await?;
        }
        Ok(())
    }

    /// Count and sum of all rows.
    pub async fn sum(mut self, shape: Shape) -> Result<Sum, Error> {
        let mut sum = Sum::default();
        read(&mut self, shape, None, |row| {
            sum.add(row_hash(row));
            Ok(())
        })
        .await?;
        Ok(sum)
    }

    /// The next piece of the data; `None` at its end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        match self {
            // An error's text is made for an error only: this runs once for each row.
            Self::Server { what, pieces } => {
                pieces.try_next().await.map_err(|error| Error::database(format!("read {what}"))(error))
            }
            Self::File(reader) => reader.next().await.map_err(Error::from),
        }
    }
}

/// Reads everything and shows each row. `keep`, when given, receives the data as it came: a COPY file.
pub async fn read(
    rows: &mut Rows,
    shape: Shape,
    mut keep: Option<&mut Writer>,
    mut see: impl FnMut(&[u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut framing = Framing::new(shape.format, shape.columns);
    while let Some(piece) = rows.next().await? {
        if let Some(writer) = keep.as_deref_mut() {
            writer.write(&piece).await?;
        }
        framing.each_row(piece, &mut see)?;
    }
    Ok(framing.finish()?)
}

/// The keys that a query returns, columns of these types; a row with a NULL has none.
pub async fn read_keys<C: Default + Extend<Key>>(
    transaction: &Transaction<'_>,
    select: &str,
    (types, format): (&[KeyType], RowFormat),
    what: &str,
) -> Result<C, Error> {
    let mut keys = C::default();
    let shape = Shape { format, columns: types.len(), keys: types.len() };
    let mut rows = Rows::select(transaction, select, format, what).await?;
    read(&mut rows, shape, None, |row| {
        let key: Vec<_> = row::fields(row, format).collect::<Result<_, _>>()?;
        keys.extend(Key::of(&key, types, format)?);
        Ok(())
    })
    .await?;
    Ok(keys)
}

/// Copies everything into `sink` and returns what passed. The sink is finished: the rows are in the table.
pub async fn relay(rows: &mut Rows, shape: Shape, sink: CopyInSink<Bytes>, table: &Table) -> Result<Sum, Error> {
    let mut framing = Framing::new(shape.format, shape.columns);
    let mut into = Batches::new(sink, table);
    let mut sum = Sum::default();
    while let Some(piece) = rows.next().await? {
        if into.put(&piece) {
            into.send().await?;
        }
        framing.each_row(piece, |row| {
            sum.add(row_hash(row));
            Ok::<_, Error>(())
        })?;
    }
    // Checked before the sink is finished: half a row must not become a short COPY that the server accepts.
    framing.finish()?;
    let landed = into.finish().await?;
    if landed == sum.rows {
        return Ok(sum);
    }
    Err(Error::RowsLost { table: table.name.to_string(), sent: sum.rows, landed })
}

/// What COPY data begins with.
pub fn head(format: RowFormat) -> &'static [u8] {
    match format {
        RowFormat::Binary => BINARY_HEADER,
        RowFormat::Text => b"",
    }
}

/// What COPY data ends with.
pub fn tail(format: RowFormat) -> &'static [u8] {
    match format {
        RowFormat::Binary => BINARY_TRAILER,
        RowFormat::Text => b"",
    }
}

/// Bytes on their way into a table, in batches.
pub struct Batches {
    sink: Pin<Box<CopyInSink<Bytes>>>,
    batch: BytesMut,
    table: String,
}

impl Batches {
    pub fn new(sink: CopyInSink<Bytes>, table: &Table) -> Self {
        Self::into_table(sink, &table.name)
    }

    pub fn into_table(sink: CopyInSink<Bytes>, table: &TableName) -> Self {
        Self { sink: Box::pin(sink), batch: BytesMut::with_capacity(BATCH_CAPACITY), table: table.to_string() }
    }

    pub async fn push(&mut self, bytes: &[u8]) -> Result<(), Error> {
        if self.put(bytes) { self.send().await } else { Ok(()) }
    }

    /// Adds bytes; true when it is time to [`send`](Self::send).
    pub fn put(&mut self, bytes: &[u8]) -> bool {
        self.batch.put_slice(bytes);
        self.batch.len() >= BATCH_BYTES
    }

    pub async fn send(&mut self) -> Result<(), Error> {
        let batch = std::mem::replace(&mut self.batch, BytesMut::with_capacity(BATCH_CAPACITY)).freeze();
        // Not `send`: flushing each batch made the relay many times slower.
        self.sink.feed(batch).await.map_err(Error::database(format!("write {}", self.table)))
    }

    /// The number of rows that the server took.
    pub async fn finish(mut self) -> Result<u64, Error> {
        let wrote = || Error::database(format!("write {}", self.table));
        if !self.batch.is_empty() {
            let batch = self.batch.split().freeze();
            self.sink.feed(batch).await.map_err(wrote())?;
        }
        self.sink.as_mut().finish().await.map_err(wrote())
    }
}
