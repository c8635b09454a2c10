//! Tests of `routing_key.rs`.

use super::*;
use proptest::prelude::*;
use std::borrow::Cow;

fn key(value: &[u8], of_type: KeyType, format: RowFormat) -> Key {
    Key::of(&[Some(Cow::Borrowed(value))], &[of_type], format).unwrap().unwrap()
}

fn text(value: &str, of_type: KeyType) -> Key {
    key(value.as_bytes(), of_type, RowFormat::Text)
}

/// The binary form of a numeric, by schoolbook: digits around the point in groups of four.
fn numeric(negative: bool, whole: &str, fraction: &str) -> Vec<u8> {
    let width = whole.len().div_ceil(4) * 4;
    let padded = format!("{whole:0>width$}");
    let behind = fraction.len().div_ceil(4) * 4;
    let fraction_padded = format!("{fraction:0<behind$}");
    let mut groups: Vec<u16> = format!("{padded}{fraction_padded}")
        .as_bytes()
        .chunks(4)
        .map(|four| std::str::from_utf8(four).unwrap().parse().unwrap())
        .collect();
    let mut weight = i16::try_from(width / 4).unwrap() - 1;
    while groups.first() == Some(&0) {
        groups.remove(0);
        weight -= 1;
    }
    while groups.last() == Some(&0) {
        groups.pop();
    }
    let mut bytes = u16::try_from(groups.len()).unwrap().to_be_bytes().to_vec();
    bytes.extend(weight.to_be_bytes());
    bytes.extend(if negative { [0x40, 0] } else { [0, 0] });
    bytes.extend(u16::try_from(fraction.len()).unwrap().to_be_bytes());
    bytes.extend(groups.iter().flat_map(|group| group.to_be_bytes()));
    bytes
}

proptest! {
    #[test]
    fn a_numeric_is_the_same_key_in_both_formats_and_with_any_scale(
        negative in any::<bool>(), whole in "[0-9]{1,14}", fraction in "[0-9]{0,9}", zeros in "0{0,5}",
    ) {
        let sign = if negative { "-" } else { "" };
        let plain = if fraction.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") };
        let longer = format!("{sign}{whole}.{fraction}{zeros}0");
        let binary = key(&numeric(negative, &whole, &fraction), KeyType::Numeric, RowFormat::Binary);
        prop_assert_eq!(binary, text(&plain, KeyType::Numeric));
        prop_assert_eq!(binary, text(&longer, KeyType::Numeric));
        prop_assert_ne!(binary, text(&format!("{sign}{whole}.{fraction}{zeros}1"), KeyType::Numeric));
    }

    #[test]
    fn an_integer_is_the_same_key_in_every_width_and_format(number in any::<i16>()) {
        let one = Key::Integer(i64::from(number));
        prop_assert_eq!(key(&number.to_be_bytes(), KeyType::Integer, RowFormat::Binary), one);
        prop_assert_eq!(key(&i32::from(number).to_be_bytes(), KeyType::Integer, RowFormat::Binary), one);
        prop_assert_eq!(key(&i64::from(number).to_be_bytes(), KeyType::Integer, RowFormat::Binary), one);
        prop_assert_eq!(text(&number.to_string(), KeyType::Integer), one);
        prop_assert_eq!(text(&format!("{number}.00"), KeyType::Numeric), one);
    }

    #[test]
    fn hostile_fields_never_panic(value in prop::collection::vec(any::<u8>(), 0..24), binary in any::<bool>()) {
        let format = if binary { RowFormat::Binary } else { RowFormat::Text };
        for of_type in [KeyType::Integer, KeyType::Numeric, KeyType::Uuid, KeyType::Text, KeyType::Padded, KeyType::CaseFolded, KeyType::Exact] {
            let _ = Key::of(&[Some(Cow::Borrowed(&value))], &[of_type], format);
        }
    }

    #[test]
    fn composite_keys_do_not_run_into_each_other(a in "[a-c]{0,3}", b in "[a-c]{0,3}", c in "[a-c]{0,3}", d in "[a-c]{0,3}") {
        let of = |one: &str, two: &str| Key::of(
            &[Some(Cow::Borrowed(one.as_bytes())), Some(Cow::Borrowed(two.as_bytes()))],
            &[KeyType::Text; 2], RowFormat::Text).unwrap().unwrap();
        prop_assert_eq!(of(&a, &b) == of(&c, &d), (a, b) == (c, d));
    }
}

#[test]
fn a_uuid_is_the_same_key_in_both_formats() {
    let bytes: Vec<u8> = (0x10..0x20).collect();
    assert_eq!(
        key(&bytes, KeyType::Uuid, RowFormat::Binary),
        text("10111213-1415-1617-1819-1A1b1c1d1e1f", KeyType::Uuid)
    );
    let wrong = [Some(Cow::Borrowed(&b"1011"[..]))];
    assert!(Key::of(&wrong, &[KeyType::Uuid], RowFormat::Text).is_err());
}

#[test]
fn what_a_type_ignores_its_key_ignores() {
    assert_eq!(text("ab ", KeyType::Padded), text("ab", KeyType::Padded));
    assert_ne!(text("ab ", KeyType::Text), text("ab", KeyType::Text));
    assert_eq!(text("Straße@X", KeyType::CaseFolded), text("straße@x", KeyType::CaseFolded));
}

#[test]
fn types_are_known_by_their_names() {
    for (name, of_type) in [
        ("bigint", KeyType::Integer),
        ("numeric(38,0)", KeyType::Numeric),
        ("character varying(20)", KeyType::Text),
        ("character(3)", KeyType::Padded),
        ("public.citext", KeyType::CaseFolded),
        ("uuid", KeyType::Uuid),
        ("timestamp with time zone", KeyType::Exact),
        ("bigint[]", KeyType::Exact),
    ] {
        assert_eq!(KeyType::of(name), of_type, "{name}");
    }
}

#[test]
fn null_refers_to_nothing() {
    assert_eq!(Key::of(&[None], &[KeyType::Integer], RowFormat::Binary), Ok(None));
    let half = [Some(Cow::Borrowed(&b"1"[..])), None];
    assert_eq!(Key::of(&half, &[KeyType::Integer; 2], RowFormat::Text), Ok(None));
}

#[test]
fn a_customers_partition_is_fixed_because_backups_outlive_releases() {
    assert_eq!(Key::Integer(1).partition(1024), 1011);
    assert_eq!(Key::Integer(-7).partition(1000), 503);
    assert_eq!(text("acme", KeyType::Text).partition(64), 48);
    assert_eq!(Key::Integer(5).partition(0), 0);
}
