//! One row of COPY data: what its fields are, and the hash by which rows are compared. Where it ends is told by `framing`.
//! Called by everything that reads COPY data: from a server (backup, copy, compare) or from a stored file (restore).
//! Must not interpret values, and must not trust its input: a stored file may be damaged, so no byte sequence may panic.

use std::borrow::Cow;

use bytes::Buf;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

/// The two formats of COPY that Godwit uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RowFormat {
    Binary,
    Text,
}

/// Why bytes are not the COPY data that they should be. Names positions and counts, never bytes of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    #[error("the data does not begin with the header of a binary COPY")]
    Header,
    #[error("row {row} has {found} fields instead of {expected}")]
    FieldCount { row: u64, found: i64, expected: usize },
    #[error("row {row} has a field of impossible length {length}")]
    FieldLength { row: u64, length: i64 },
    #[error("row {row} is longer than 1 GiB")]
    RowLength { row: u64 },
    #[error("row {row} is an end-of-data mark")]
    EndMark { row: u64 },
    #[error("the data ends inside row {row}")]
    Truncated { row: u64 },
    #[error("the data ends after row {row} without the trailer of a binary COPY")]
    TrailerMissing { row: u64 },
    #[error("the data goes on after the trailer of a binary COPY")]
    AfterTrailer,
    #[error("a row ends inside a field")]
    Field,
    #[error("a text field has an escape that COPY does not write")]
    Escape,
    #[error("a key field does not have the form of its type")]
    Key,
}

/// The hash by which rows are compared: of the row's bytes as COPY sent them.
pub fn row_hash(row: &[u8]) -> u64 {
    xxh3_64(row)
}

/// Count and sum of row hashes of a set of rows, in any order.
///
/// A sum and not an exclusive or, under which two equal extra rows would vanish.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sum {
    pub rows: u64,
    #[serde(with = "hexadecimal")]
    pub sum: u64,
}

impl Sum {
    /// Takes in one row by its hash.
    pub fn add(&mut self, hash: u64) {
        self.rows += 1;
        self.sum = self.sum.wrapping_add(hash);
    }

    /// Takes in another set of rows.
    pub fn merge(&mut self, other: Sum) {
        self.rows += other.rows;
        self.sum = self.sum.wrapping_add(other.sum);
    }

    /// What is left without another set, modulo 2^64: the other may have more.
    #[must_use]
    pub fn less(mut self, other: Sum) -> Self {
        self.take_off(other);
        self
    }

    /// Takes out a set of rows that was in it.
    pub fn take_off(&mut self, gone: Sum) {
        self.rows = self.rows.wrapping_sub(gone.rows);
        self.sum = self.sum.wrapping_sub(gone.sum);
    }
}

/// Sums are written as text: JSON readers lose digits of numbers above 2^53.
mod hexadecimal {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature serde asks for")]
    pub fn serialize<S: Serializer>(sum: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format!("{sum:016x}"))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.len() != 16 {
            return Err(D::Error::custom("a sum has 16 hexadecimal digits"));
        }
        u64::from_str_radix(&text, 16).map_err(D::Error::custom)
    }
}

/// One field: `None` is NULL.
pub type Field<'a> = Option<Cow<'a, [u8]>>;

/// The fields of one row, as the type's binary form or as unescaped text.
pub fn fields(row: &[u8], format: RowFormat) -> Fields<'_> {
    match format {
        RowFormat::Binary => {
            let mut rest = row;
            let left = rest.try_get_u16().map_or(usize::MAX, usize::from);
            Fields::Binary { rest, left }
        }
        RowFormat::Text => Fields::Text { rest: Some(row.strip_suffix(b"\n").unwrap_or(row)) },
    }
}

/// Iterator over the fields of a row; ends after the first error.
#[derive(Debug)]
pub enum Fields<'a> {
    Binary { rest: &'a [u8], left: usize },
    Text { rest: Option<&'a [u8]> },
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, RowError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Fields::Binary { left: 0, .. } | Fields::Text { rest: None } => None,
            Fields::Binary { rest, left } => {
                let field = binary_field(rest);
                *left = if field.is_ok() { *left - 1 } else { 0 };
                Some(field.map(|field| field.map(Cow::Borrowed)))
            }
            Fields::Text { rest } => {
                let line = rest.take()?;
                let (field, behind) = match find(b'\t', line) {
                    Some(at) => (&line[..at], Some(&line[at + 1..])),
                    None => (line, None),
                };
                let field = text_field(field);
                *rest = if field.is_ok() { behind } else { None };
                Some(field)
            }
        }
    }
}

fn binary_field<'a>(rest: &mut &'a [u8]) -> Result<Option<&'a [u8]>, RowError> {
    let length = rest.try_get_i32().map_err(|_| RowError::Field)?;
    if length == -1 {
        return Ok(None);
    }
    let length = usize::try_from(length).map_err(|_| RowError::Field)?;
    let (field, behind) = rest.split_at_checked(length).ok_or(RowError::Field)?;
    *rest = behind;
    Ok(Some(field))
}

fn text_field(field: &[u8]) -> Result<Field<'_>, RowError> {
    if field == b"\\N" {
        return Ok(None);
    }
    if find(b'\\', field).is_none() {
        return Ok(Some(Cow::Borrowed(field)));
    }
    let mut plain = Vec::with_capacity(field.len());
    let mut bytes = field.iter().copied();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            plain.push(byte);
            continue;
        }
        plain.push(match bytes.next() {
            Some(b'\\') => b'\\',
            Some(b'b') => 8,
            Some(b't') => b'\t',
            Some(b'n') => b'\n',
            Some(b'v') => 11,
            Some(b'f') => 12,
            Some(b'r') => b'\r',
            _ => return Err(RowError::Escape),
        });
    }
    Ok(Some(Cow::Owned(plain)))
}

/// The bytes of the row's first `columns` fields: equal for equal keys of one table in one format, and for no others.
pub fn key_bytes(row: &[u8], format: RowFormat, columns: usize) -> Result<&[u8], RowError> {
    match format {
        RowFormat::Binary => {
            let (count, key) = row.split_at_checked(2).ok_or(RowError::Field)?;
            if usize::from(u16::from_be_bytes([count[0], count[1]])) < columns {
                return Err(RowError::Field);
            }
            let mut rest = key;
            for _ in 0..columns {
                binary_field(&mut rest)?;
            }
            Ok(&key[..key.len() - rest.len()])
        }
        RowFormat::Text => {
            let line = row.strip_suffix(b"\n").unwrap_or(row);
            let mut ends =
                line.iter().enumerate().filter_map(|(at, byte)| (*byte == b'\t').then_some(at)).chain([line.len()]);
            match columns.checked_sub(1) {
                None => Ok(&line[..0]),
                Some(before) => Ok(&line[..ends.nth(before).ok_or(RowError::Field)?]),
            }
        }
    }
}

pub(super) fn find(byte: u8, bytes: &[u8]) -> Option<usize> {
    bytes.iter().position(|candidate| *candidate == byte)
}

#[cfg(test)]
#[path = "row_tests.rs"]
mod tests;
