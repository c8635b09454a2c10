//! The one row by which a bucket differs, by arithmetic instead of another reading of both sides.
//! Used by `compare`. Pure.
//! Must claim nothing for certain: two rows that differ in one bucket give a number too, so whoever asks reads the rows and looks.
//!
//! Beside the sum of its rows' hashes a bucket keeps the sum of each hash times its key, which is a number. If one row differs, the
//! difference of the second is that of the first times the key. All is known modulo 2^64, and where the first is even, as many of
//! the key's upper bits are lost as it has zeros at its end: keys are rarely so large.

use super::row::Sum;

/// Rows whose keys fall together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    pub sum: Sum,
    /// Hashes times keys.
    weighed: u64,
}

impl Bucket {
    /// Takes in one row; a key that is no number counts as zero.
    pub fn add(&mut self, hash: u64, key: Option<i64>) {
        self.sum.add(hash);
        self.weighed = self.weighed.wrapping_add(hash.wrapping_mul(key.unwrap_or(0).cast_unsigned()));
    }

    /// The key of the row by which `self` differs from `other`, if it is one row.
    pub fn lone_key(&self, other: &Self) -> Option<i64> {
        let hashes = self.sum.sum.wrapping_sub(other.sum.sum);
        let weighed = self.weighed.wrapping_sub(other.weighed);
        if hashes == 0 || self.sum.rows.abs_diff(other.sum.rows) > 1 {
            return None;
        }
        let zeros = hashes.trailing_zeros();
        let key = (weighed >> zeros).wrapping_mul(inverse(hashes >> zeros)) & (u64::MAX >> zeros);
        (hashes.wrapping_mul(key) == weighed).then_some(key.cast_signed())
    }
}

/// Of an odd number, modulo 2^64: each round doubles the bits that are right, beginning with three.
fn inverse(odd: u64) -> u64 {
    let mut inverse = odd;
    for _ in 0..5 {
        inverse = inverse.wrapping_mul(2_u64.wrapping_sub(odd.wrapping_mul(inverse)));
    }
    inverse
}

/// The number in a key of one binary field of an integer type; other keys of such a length give a number that means nothing.
pub fn number_of(key: &[u8]) -> Option<i64> {
    let (length, bytes) = key.split_first_chunk::<4>()?;
    match (i32::from_be_bytes(*length), bytes.len()) {
        (2, 2) => bytes.try_into().ok().map(i16::from_be_bytes).map(i64::from),
        (4, 4) => bytes.try_into().ok().map(i32::from_be_bytes).map(i64::from),
        (8, 8) => bytes.try_into().ok().map(i64::from_be_bytes),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::worker::postgres::row::row_hash;

    fn bucket(rows: &[(i64, u8)]) -> Bucket {
        let mut bucket = Bucket::default();
        for (key, value) in rows {
            bucket.add(row_hash(&[&key.to_be_bytes()[..], &[*value]].concat()), Some(*key));
        }
        bucket
    }

    proptest! {
        #[test]
        fn one_row_that_differs_lacks_or_is_too_much_is_known_by_its_key(
            others in prop::collection::vec((any::<i64>(), any::<u8>()), 0..40),
            key in 0_i64..(1 << 40),
            (mine, theirs) in (prop::option::of(0_u8..100), prop::option::of(100_u8..200)),
        ) {
            let with = |value: Option<u8>| {
                bucket(&others.iter().copied().chain(value.map(|value| (key, value))).collect::<Vec<_>>())
            };
            let expected = (mine.is_some() || theirs.is_some()).then_some(key);
            // One hash in 2^24 is so even that the key cannot be told; it is not told wrongly then.
            prop_assert_eq!(with(mine).lone_key(&with(theirs)), expected);
        }

        #[test]
        fn a_number_is_that_of_the_field(number in any::<i64>()) {
            let key = [&8_i32.to_be_bytes()[..], &number.to_be_bytes()].concat();
            prop_assert_eq!(number_of(&key), Some(number));
        }
    }

    #[test]
    fn the_inverse_of_an_odd_number_is_one() {
        for odd in [1, 3, 5, 0x1234_5677, u64::MAX, 0x9e37_79b9_7f4a_7c15] {
            assert_eq!(inverse(odd).wrapping_mul(odd), 1, "{odd}");
        }
    }

    #[test]
    fn keys_of_other_forms_are_no_numbers() {
        assert_eq!(number_of(b"12\t"), None);
        assert_eq!(number_of(&[0, 0, 0, 2, 0, 1, 0, 0, 0, 2, 0, 1]), None, "two columns");
        assert_eq!(number_of(&[0, 0, 0, 4, 255, 255, 255, 254]), Some(-2));
    }
}
