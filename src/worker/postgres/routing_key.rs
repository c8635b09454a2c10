//! Keys by which rows find their customer, comparable across tables, column types and COPY formats.
//! Used by `partition` for every routed row. No SQL, no IO.
//! Must not call two keys equal that the server tells apart within one type, nor change: stored partitions follow from it.

use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use super::row::{Field, RowError, RowFormat};

/// How a column's values are compared, as far as this can be told from their bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyType {
    Integer,
    Numeric,
    Uuid,
    Text,
    /// `char(n)`: spaces at the end do not count.
    Padded,
    /// `citext`: case does not count.
    CaseFolded,
    /// Any other type: equal when the bytes are, in the same format.
    Exact,
}

impl KeyType {
    /// From the type's name with its modifier, as `format_type` gives it.
    pub fn of(type_name: &str) -> Self {
        let plain = type_name.split('(').next().unwrap_or_default().trim_end();
        match plain {
            "smallint" | "integer" | "bigint" => Self::Integer,
            "numeric" => Self::Numeric,
            "uuid" => Self::Uuid,
            "text" | "character varying" | "name" => Self::Text,
            "character" | "bpchar" => Self::Padded,
            plain if plain == "citext" || plain.ends_with(".citext") => Self::CaseFolded,
            _ => Self::Exact,
        }
    }
}

/// A key of one or several columns, independent of the format in which it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    Integer(i64),
    /// Of every other key a hash of 128 bits: no two keys share one, and it takes no memory of its own.
    Hash([u8; 16]),
}

impl Key {
    /// The key in these fields; `None` when one of them is NULL, for then it refers to nothing.
    pub fn of(fields: &[Field<'_>], types: &[KeyType], format: RowFormat) -> Result<Option<Self>, RowError> {
        if let ([Some(field)], [only]) = (fields, types)
            && let Some(number) = whole_number(field, *only, format)?
        {
            return Ok(Some(Self::Integer(number)));
        }
        let mut encoded = Vec::with_capacity(32);
        for (field, of_type) in fields.iter().zip(types) {
            let Some(field) = field else {
                return Ok(None);
            };
            let part = match whole_number(field, *of_type, format)? {
                Some(number) => number.to_string().into_bytes(),
                None => canonical(field, *of_type, format)?,
            };
            encoded.extend_from_slice(&(part.len() as u64).to_be_bytes());
            encoded.extend_from_slice(&part);
        }
        Ok(Some(Self::Hash(xxh3_128(&encoded).to_be_bytes())))
    }

    /// Where the customer with this key is kept. Stored backups depend on it: it must never change.
    pub fn partition(self, partitions: u16) -> u16 {
        let hash = match self {
            Self::Integer(number) => xxh3_64(&number.to_be_bytes()),
            Self::Hash(hash) => xxh3_64(&hash),
        };
        let partition = hash % u64::from(partitions.max(1));
        u16::try_from(partition).unwrap_or_default()
    }
}

/// Integers of any width, and numerics without a fraction, are one kind of key.
fn whole_number(field: &[u8], of_type: KeyType, format: RowFormat) -> Result<Option<i64>, RowError> {
    match (of_type, format) {
        (KeyType::Integer, RowFormat::Binary) => match field.len() {
            2 => Ok(field.try_into().map(i16::from_be_bytes).ok().map(i64::from)),
            4 => Ok(field.try_into().map(i32::from_be_bytes).ok().map(i64::from)),
            8 => Ok(field.try_into().map(i64::from_be_bytes).ok()),
            _ => Err(RowError::Key),
        },
        (KeyType::Integer, RowFormat::Text) => {
            std::str::from_utf8(field).ok().and_then(|text| text.parse().ok()).map(Some).ok_or(RowError::Key)
        }
        (KeyType::Numeric, _) => Ok(decimal(field, format)?.parse().ok()),
        _ => Ok(None),
    }
}

/// Bytes that are equal exactly for equal values.
fn canonical(field: &[u8], of_type: KeyType, format: RowFormat) -> Result<Vec<u8>, RowError> {
    Ok(match of_type {
        KeyType::Integer | KeyType::Numeric => decimal(field, format)?.into_bytes(),
        KeyType::Text | KeyType::Exact => field.to_vec(),
        KeyType::Padded => field.trim_ascii_end().to_vec(),
        KeyType::CaseFolded => String::from_utf8_lossy(field).to_lowercase().into_bytes(),
        KeyType::Uuid => match format {
            RowFormat::Binary => field.to_vec(),
            RowFormat::Text => uuid(field).ok_or(RowError::Key)?,
        },
    })
}

fn uuid(text: &[u8]) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text
        .iter()
        .filter(|byte| **byte != b'-')
        .map(|byte| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect::<Option<_>>()?;
    let bytes: Vec<u8> = digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect();
    (digits.len() == 32).then_some(bytes)
}

/// A numeric in plain digits, without zeros that do not count.
fn decimal(field: &[u8], format: RowFormat) -> Result<String, RowError> {
    let text = match format {
        RowFormat::Text => std::str::from_utf8(field).map_err(|_| RowError::Key)?.to_owned(),
        RowFormat::Binary => decimal_digits(field).ok_or(RowError::Key)?,
    };
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", text.as_str()),
    };
    let digits = if digits.contains('.') { digits.trim_end_matches('0').trim_end_matches('.') } else { digits };
    let whole = digits.trim_start_matches('0');
    let zero = if whole.is_empty() || whole.starts_with('.') { "0" } else { "" };
    if whole.is_empty() {
        return Ok("0".into());
    }
    Ok(format!("{sign}{zero}{whole}"))
}

fn append_group(text: &mut String, group: u16) {
    for divisor in [1000, 100, 10, 1] {
        text.push(char::from(b'0' + u8::try_from(group / divisor % 10).unwrap_or_default()));
    }
}

/// The binary form: groups of four decimal digits, the first one's weight in powers of 10,000, a sign, a display scale.
fn decimal_digits(field: &[u8]) -> Option<String> {
    const NEGATIVE: u16 = 0x4000;
    let mut words = field.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
    let (count, weight, sign, _scale) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let weight = i32::from(weight.cast_signed());
    let prefix = match sign {
        0 => "",
        NEGATIVE => "-",
        0xC000 => return Some("NaN".into()),
        0xD000 => return Some("Infinity".into()),
        0xF000 => return Some("-Infinity".into()),
        _ => return None,
    };
    let groups: Vec<u16> = words.collect();
    if groups.len() != usize::from(count) || groups.iter().any(|group| *group > 9999) {
        return None;
    }
    let mut text = String::from(prefix);
    let group = |position: i32| {
        let at = usize::try_from(weight - position).ok();
        at.and_then(|at| groups.get(at)).copied().unwrap_or(0)
    };
    if weight < 0 {
        text.push('0');
    }
    for position in (0..=weight).rev() {
        append_group(&mut text, group(position));
    }
    text.push('.');
    let last = weight - i32::from(count) + 1;
    for position in (last..0).rev() {
        append_group(&mut text, group(position));
    }
    Some(text)
}

#[cfg(test)]
#[path = "routing_key_tests.rs"]
mod tests;
