//! Tests of `row.rs` and `framing.rs`: rows are encoded by an independent writer, cut into pieces anywhere, and read again.

use super::*;
use crate::worker::postgres::framing::{BINARY_HEADER, BINARY_TRAILER, Framing};
use bytes::{BufMut, Bytes};
use proptest::prelude::*;

type Value = Option<Vec<u8>>;

fn binary_row(values: &[Value]) -> Vec<u8> {
    let mut row = Vec::new();
    row.put_i16(i16::try_from(values.len()).unwrap());
    for value in values {
        match value {
            None => row.put_i32(-1),
            Some(bytes) => {
                row.put_i32(i32::try_from(bytes.len()).unwrap());
                row.extend_from_slice(bytes);
            }
        }
    }
    row
}

fn text_row(values: &[Value]) -> Vec<u8> {
    let fields: Vec<Vec<u8>> = values
        .iter()
        .map(|value| match value {
            None => b"\\N".to_vec(),
            Some(bytes) => bytes
                .iter()
                .flat_map(|byte| match byte {
                    8 => b"\\b".to_vec(),
                    9 => b"\\t".to_vec(),
                    10 => b"\\n".to_vec(),
                    11 => b"\\v".to_vec(),
                    12 => b"\\f".to_vec(),
                    13 => b"\\r".to_vec(),
                    b'\\' => b"\\\\".to_vec(),
                    other => vec![*other],
                })
                .collect(),
        })
        .collect();
    let mut row = fields.join(&b'\t');
    row.push(b'\n');
    row
}

fn encode(format: RowFormat, rows: &[Vec<Value>]) -> (Vec<u8>, Vec<Vec<u8>>) {
    let encoded: Vec<Vec<u8>> = rows
        .iter()
        .map(|row| match format {
            RowFormat::Binary => binary_row(row),
            RowFormat::Text => text_row(row),
        })
        .collect();
    let body = encoded.concat();
    let data = match format {
        RowFormat::Binary => [&BINARY_HEADER[..], &body, &BINARY_TRAILER[..]].concat(),
        RowFormat::Text => body,
    };
    (data, encoded)
}

fn cut(data: &[u8], cuts: &[prop::sample::Index]) -> Vec<Bytes> {
    let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(data.len() + 1)).collect();
    at.extend([0, data.len()]);
    at.sort_unstable();
    at.windows(2).map(|pair| Bytes::copy_from_slice(&data[pair[0]..pair[1]])).collect()
}

fn read(framing: &mut Framing, pieces: Vec<Bytes>) -> Result<Vec<Bytes>, RowError> {
    let mut rows = Vec::new();
    for piece in pieces {
        framing.each_row(piece, |row| {
            rows.push(Bytes::copy_from_slice(row));
            Ok::<_, RowError>(())
        })?;
    }
    framing.finish()?;
    Ok(rows)
}

fn format() -> impl Strategy<Value = RowFormat> {
    prop_oneof![Just(RowFormat::Binary), Just(RowFormat::Text)]
}

/// Bytes that matter to the text format come often.
fn value() -> impl Strategy<Value = Value> {
    let byte = prop_oneof![
        3 => any::<u8>(),
        2 => prop::sample::select(vec![b'\\', b'\t', b'\n', b'\r', b'N', b'.', 0, 0xff, 8, 11, 12]),
    ];
    prop::option::weighted(0.8, prop::collection::vec(byte, 0..12))
}

fn table() -> impl Strategy<Value = (usize, Vec<Vec<Value>>)> {
    (1_usize..6)
        .prop_flat_map(|columns| (Just(columns), prop::collection::vec(prop::collection::vec(value(), columns), 0..12)))
}

proptest! {
    #[test]
    fn rows_are_found_wherever_the_data_is_cut(
        format in format(),
        (columns, rows) in table(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let (data, encoded) = encode(format, &rows);
        let mut framing = Framing::new(format, columns);
        let found = read(&mut framing, cut(&data, &cuts)).unwrap();
        prop_assert_eq!(&found, &encoded);
        prop_assert_eq!(framing.rows(), rows.len() as u64);
    }

    #[test]
    fn fields_are_the_values_that_were_written(format in format(), (_, rows) in table()) {
        let (_, encoded) = encode(format, &rows);
        for (row, bytes) in rows.iter().zip(&encoded) {
            let read: Vec<Value> = fields(bytes, format)
                .map(|field| field.unwrap().map(Cow::into_owned))
                .collect();
            prop_assert_eq!(&read, row);
        }
    }

    #[test]
    fn key_bytes_are_equal_exactly_for_equal_keys(
        format in format(),
        a in prop::collection::vec(value(), 3),
        b in prop::collection::vec(value(), 3),
        same in 0_usize..4,
        columns in 0_usize..4,
    ) {
        let b: Vec<Value> = a.iter().take(same).chain(b.iter().skip(same)).cloned().collect();
        let encoded = encode(format, &[a.clone(), b.clone()]).1;
        let key = |row: usize| key_bytes(&encoded[row], format, columns).unwrap();
        prop_assert_eq!(key(0) == key(1), a[..columns] == b[..columns]);
    }

    #[test]
    fn data_cut_short_is_never_taken_for_whole(
        format in format(),
        (columns, rows) in table(),
        at in any::<prop::sample::Index>(),
    ) {
        let (data, encoded) = encode(format, &rows);
        prop_assume!(!data.is_empty());
        let at = at.index(data.len());
        let mut framing = Framing::new(format, columns);
        match read(&mut framing, vec![Bytes::copy_from_slice(&data[..at])]) {
            Err(_) => {}
            // A text file may end behind any line: only its recorded count can tell, and the count differs.
            Ok(found) => {
                prop_assert_eq!(format, RowFormat::Text);
                prop_assert!(found.len() < encoded.len());
            }
        }
    }

    #[test]
    fn hostile_bytes_never_panic_and_never_invent_bytes(
        format in format(),
        columns in 0_usize..5,
        with_header in any::<bool>(),
        pieces in prop::collection::vec(prop::collection::vec(
            prop_oneof![any::<u8>(), prop::sample::select(vec![0, 1, 2, 0xff, b'\\', b'\n', b'\t', b'.'])], 0..40), 0..8),
    ) {
        let mut pieces: Vec<Bytes> = pieces.into_iter().map(Bytes::from).collect();
        if with_header {
            pieces.insert(0, Bytes::from_static(BINARY_HEADER));
        }
        let given: usize = pieces.iter().map(Bytes::len).sum();
        let mut framing = Framing::new(format, columns);
        if let Ok(rows) = read(&mut framing, pieces) {
            prop_assert!(rows.iter().map(Bytes::len).sum::<usize>() <= given);
        }
    }

    #[test]
    fn hostile_rows_never_panic(format in format(), row in prop::collection::vec(any::<u8>(), 0..60), columns in 0_usize..9) {
        let _ = fields(&row, format).count();
        let _ = key_bytes(&row, format, columns);
    }

    #[test]
    fn one_changed_bit_never_yields_the_same_rows(
        format in format(),
        (columns, rows) in table(),
        at in any::<prop::sample::Index>(),
        bit in 0_u8..8,
    ) {
        let (mut data, encoded) = encode(format, &rows);
        prop_assume!(!data.is_empty());
        let at = at.index(data.len());
        data[at] ^= 1 << bit;
        let mut framing = Framing::new(format, columns);
        if let Ok(found) = read(&mut framing, vec![Bytes::from(data)]) {
            prop_assert_ne!(found, encoded);
        }
    }

    #[test]
    fn a_sum_does_not_depend_on_order_or_grouping(hashes in prop::collection::vec(any::<u64>(), 0..30), at in any::<prop::sample::Index>()) {
        let mut whole = Sum::default();
        for hash in &hashes { whole.add(*hash); }
        let at = at.index(hashes.len() + 1);
        let mut parts = Sum::default();
        for part in [&hashes[at..], &hashes[..at]] {
            let mut sum = Sum::default();
            for hash in part.iter().rev() { sum.add(*hash); }
            parts.merge(sum);
        }
        prop_assert_eq!(whole, parts);
        let json = serde_json::to_string(&whole).unwrap();
        prop_assert_eq!(serde_json::from_str::<Sum>(&json).unwrap(), whole);
    }
}

#[test]
fn the_header_and_trailer_of_an_empty_binary_copy_hold_no_row() {
    let mut framing = Framing::new(RowFormat::Binary, 3);
    let data = [&BINARY_HEADER[..], &BINARY_TRAILER[..]].concat();
    assert_eq!(read(&mut framing, vec![data.into()]), Ok(vec![]));
}

#[test]
fn a_row_in_one_piece_is_not_copied() {
    let (data, _) = encode(RowFormat::Binary, &[vec![Some(vec![7; 40])], vec![Some(vec![8; 40])]]);
    let data = Bytes::from(data);
    let inside = data.as_ptr_range();
    let mut framing = Framing::new(RowFormat::Binary, 1);
    let seen = framing.each_row(data, |row| {
        assert!(inside.contains(&row.as_ptr()));
        Ok::<_, RowError>(())
    });
    assert_eq!(seen, Ok(()));
}

#[test]
fn data_behind_the_trailer_is_an_error() {
    let mut framing = Framing::new(RowFormat::Binary, 1);
    let data = [&BINARY_HEADER[..], &BINARY_TRAILER[..], b"x"].concat();
    assert_eq!(read(&mut framing, vec![data.into()]), Err(RowError::AfterTrailer));
    let mut framing = Framing::new(RowFormat::Binary, 1);
    let data = [&BINARY_HEADER[..], &BINARY_TRAILER[..]].concat();
    assert_eq!(read(&mut framing, vec![data.into(), Bytes::from_static(b"x")]), Err(RowError::AfterTrailer));
}

#[test]
fn a_row_of_another_width_is_an_error_that_names_the_row() {
    let (data, _) = encode(RowFormat::Binary, &[vec![None, None], vec![Some(b"a".to_vec())]]);
    assert_eq!(
        read(&mut Framing::new(RowFormat::Binary, 2), vec![data.into()]),
        Err(RowError::FieldCount { row: 2, found: 1, expected: 2 })
    );
}

#[test]
fn an_impossible_length_is_an_error_before_anything_is_buffered() {
    for (length, error) in
        [(-2, RowError::FieldLength { row: 1, length: -2 }), (i32::MAX, RowError::RowLength { row: 1 })]
    {
        let mut data = BINARY_HEADER.to_vec();
        data.put_i16(1);
        data.put_i32(length);
        assert_eq!(read(&mut Framing::new(RowFormat::Binary, 1), vec![data.into()]), Err(error));
    }
}

#[test]
fn an_end_mark_in_a_text_file_is_an_error_and_as_a_value_it_is_not() {
    let read_text = |data: &'static [u8]| read(&mut Framing::new(RowFormat::Text, 1), vec![Bytes::from_static(data)]);
    assert_eq!(read_text(b"a\n\\.\nb\n"), Err(RowError::EndMark { row: 2 }));
    assert_eq!(read_text(b"\\\\.\n").unwrap().len(), 1);
    assert_eq!(fields(b"\\\\.\n", RowFormat::Text).next(), Some(Ok(Some(Cow::Owned(b"\\.".to_vec())))));
}

#[test]
fn the_row_hash_is_a_fixed_function_because_sums_are_stored() {
    assert_eq!(row_hash(b""), 0x2d06_8005_38d3_94c2);
    assert_eq!(row_hash(b"godwit"), row_hash(b"godwit"));
    assert_ne!(row_hash(b"godwit"), row_hash(b"godwiu"));
}
