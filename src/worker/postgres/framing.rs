//! Where a row of COPY data ends: finds the rows in data that arrives in pieces of any size.
//! Called by everything that reads COPY data: from a server (backup, copy, compare) or from a stored file (restore).
//! Must not interpret values, and must not trust its input: a stored file may be damaged, so no byte sequence may panic.

use bytes::{Buf, Bytes, BytesMut};

use super::row::{RowError, RowFormat, find};

/// What every binary COPY of PostgreSQL begins with: the signature, no flags, no extension.
pub const BINARY_HEADER: &[u8; 19] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// What every binary COPY ends with: a field count of -1.
pub const BINARY_TRAILER: &[u8; 2] = b"\xff\xff";
/// No row that PostgreSQL can send is longer: its messages end at 1 GiB.
const MAX_ROW_BYTES: usize = 1 << 30;

/// Finds the rows in COPY data that arrives in pieces of any size.
///
/// A row is what COPY sends for it: in binary the field count and the fields, in text the line with its newline.
/// Header and trailer of a binary COPY are no rows. Rows that lie whole in one piece are not copied.
#[derive(Debug)]
pub struct Framing {
    format: RowFormat,
    columns: usize,
    place: Place,
    /// The piece being read; empty while `carry` holds what is left of earlier ones.
    piece: Bytes,
    /// The beginning of a row whose end has not arrived, and what came with it.
    carry: BytesMut,
    /// How far the row in `carry` was already searched for its end (text).
    searched: usize,
    rows: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Header,
    Rows,
    Ended,
}

/// What stands at the beginning of some bytes.
enum Next {
    Row(usize),
    Trailer,
    /// The row's end is not among the bytes; the first `searched` need not be looked at again.
    Incomplete {
        searched: usize,
    },
}

impl Framing {
    /// Expects COPY data of `columns` columns.
    pub fn new(format: RowFormat, columns: usize) -> Self {
        Self {
            format,
            columns,
            place: match format {
                RowFormat::Binary => Place::Header,
                RowFormat::Text => Place::Rows,
            },
            piece: Bytes::new(),
            carry: BytesMut::new(),
            searched: 0,
            rows: 0,
        }
    }

    /// Rows found so far.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Takes the next piece and shows each row that is whole by now, where it lies: servers send a row in a piece of its own.
    pub fn each_row<E: From<RowError>>(
        &mut self,
        piece: Bytes,
        mut see: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        self.feed(piece);
        while let Some(length) = self.find_row()? {
            see(&self.remaining()[..length])?;
            self.pass(length);
        }
        Ok(())
    }

    fn feed(&mut self, piece: Bytes) {
        if self.carry.is_empty() && self.piece.is_empty() {
            self.piece = piece;
            return;
        }
        if self.carry.is_empty() {
            self.carry.extend_from_slice(&self.piece);
            self.piece = Bytes::new();
        }
        self.carry.extend_from_slice(&piece);
    }

    /// The length of the row with which the remaining bytes begin.
    fn find_row(&mut self) -> Result<Option<usize>, RowError> {
        if self.place == Place::Header && !self.pass_header()? {
            return Ok(None);
        }
        if self.place == Place::Rows {
            let next = match self.format {
                RowFormat::Binary => next_binary(self.remaining(), self.columns, self.rows + 1)?,
                RowFormat::Text => next_text(self.remaining(), self.searched, self.rows + 1)?,
            };
            match next {
                Next::Row(length) => {
                    self.rows += 1;
                    self.searched = 0;
                    return Ok(Some(length));
                }
                Next::Trailer => {
                    self.pass(BINARY_TRAILER.len());
                    self.place = Place::Ended;
                }
                Next::Incomplete { searched } => {
                    self.keep_for_later(searched);
                    return Ok(None);
                }
            }
        }
        if self.remaining().is_empty() { Ok(None) } else { Err(RowError::AfterTrailer) }
    }

    /// To be called after the last piece: an error when the data ends too early.
    pub fn finish(&self) -> Result<(), RowError> {
        let row = self.rows;
        match (self.place, self.remaining().is_empty()) {
            (Place::Header, _) => Err(RowError::Header),
            (Place::Ended, false) => Err(RowError::AfterTrailer),
            (Place::Rows, false) => Err(RowError::Truncated { row: row + 1 }),
            (Place::Rows, true) if self.format == RowFormat::Binary => Err(RowError::TrailerMissing { row }),
            (Place::Rows | Place::Ended, true) => Ok(()),
        }
    }

    fn remaining(&self) -> &[u8] {
        if self.carry.is_empty() { &self.piece } else { &self.carry }
    }

    fn pass(&mut self, length: usize) {
        if self.carry.is_empty() {
            self.piece.advance(length);
        } else {
            self.carry.advance(length);
        }
    }

    fn pass_header(&mut self) -> Result<bool, RowError> {
        let remaining = self.remaining();
        let known = remaining.len().min(BINARY_HEADER.len());
        if remaining[..known] != BINARY_HEADER[..known] {
            return Err(RowError::Header);
        }
        if known < BINARY_HEADER.len() {
            self.keep_for_later(0);
            return Ok(false);
        }
        self.pass(BINARY_HEADER.len());
        self.place = Place::Rows;
        Ok(true)
    }

    fn keep_for_later(&mut self, searched: usize) {
        self.searched = searched;
        if self.carry.is_empty() && !self.piece.is_empty() {
            // A small remainder of a large piece must not keep the whole piece in memory.
            self.carry.extend_from_slice(&self.piece);
            self.piece = Bytes::new();
        }
    }
}

fn next_binary(bytes: &[u8], columns: usize, row: u64) -> Result<Next, RowError> {
    const MORE: Next = Next::Incomplete { searched: 0 };
    let mut rest = bytes;
    if rest.len() < 2 {
        return Ok(MORE);
    }
    let count = rest.get_i16();
    if count == -1 {
        return Ok(Next::Trailer);
    }
    if usize::try_from(count) != Ok(columns) {
        return Err(RowError::FieldCount { row, found: i64::from(count), expected: columns });
    }
    let mut length = 2_usize;
    for _ in 0..columns {
        if rest.len() < 4 {
            return Ok(MORE);
        }
        let field = rest.get_i32();
        length += 4;
        if field == -1 {
            continue;
        }
        let field = usize::try_from(field).map_err(|_| RowError::FieldLength { row, length: i64::from(field) })?;
        length += field;
        if length > MAX_ROW_BYTES {
            return Err(RowError::RowLength { row });
        }
        if rest.len() < field {
            return Ok(MORE);
        }
        rest.advance(field);
    }
    Ok(Next::Row(length))
}

fn next_text(bytes: &[u8], searched: usize, row: u64) -> Result<Next, RowError> {
    let Some(end) = find(b'\n', &bytes[searched..]).map(|at| searched + at) else {
        if bytes.len() > MAX_ROW_BYTES {
            return Err(RowError::RowLength { row });
        }
        return Ok(Next::Incomplete { searched: bytes.len() });
    };
    // COPY FROM would take this for the end and drop every row behind it; as a value it is written `\\.`.
    if &bytes[..end] == b"\\." {
        return Err(RowError::EndMark { row });
    }
    Ok(Next::Row(end + 1))
}
