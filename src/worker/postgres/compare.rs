//! Compares the rows of two sides: no sorting, no collation, memory that does not grow with the rows.
//! Called by the steps that prove or bring a difference. Pure: it is fed rows and knows no database.
//!
//! Each side is read once into a [`Digest`]: rows fall into buckets by the hash of their key, a bucket holds a count
//! and a 64-bit sum of row hashes. Where the buckets agree the rows agree. A digest also keeps a trail of (key, hash)
//! while that is small, so that the keys behind differing buckets are usually known without reading again. Else the few rows
//! that differ are computed ([`Suspect`]s, to be confirmed), or both sides are read once more for each [`Band`] of differing
//! buckets, each small enough to be held.

use super::lone::{Bucket, number_of};
use super::row::{Sum, row_hash};

const BUCKETS: usize = 1 << 16;
/// How many bytes of (key, hash) one side may hold at a time.
pub const TRAIL_BYTES: usize = 6 << 20;
/// A trail grows by so much at a time: doubling would waste as much as it holds.
const TRAIL_STEP: usize = 1 << 20;
const ENTRY_OVERHEAD: usize = 12;
/// More suspects than this are not looked for one by one.
const MAX_SUSPECTS: usize = 1000;

/// What is wrong with a row of the copy, measured against the original.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub enum Class {
    Missing,
    Extra,
    Different,
}

/// A key whose rows are not the same on both sides. The key is as COPY sent it: the first columns of the row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    pub class: Class,
    pub key: Vec<u8>,
}

/// One side's rows of one table, summed by buckets of their keys.
#[derive(Debug)]
pub struct Digest {
    total: Sum,
    buckets: Vec<Bucket>,
    key_bytes: u64,
    /// Every key so far is a number.
    numbered: bool,
    trail: Option<Trail>,
    limit: usize,
}

impl Default for Digest {
    fn default() -> Self {
        Self::with_limit(TRAIL_BYTES)
    }
}

impl Digest {
    pub fn with_limit(limit: usize) -> Self {
        Self {
            total: Sum::default(),
            buckets: vec![Bucket::default(); BUCKETS],
            key_bytes: 0,
            numbered: true,
            trail: Some(Trail::default()),
            limit,
        }
    }

    pub fn add(&mut self, key: &[u8], row: &[u8]) {
        let hash = row_hash(row);
        self.total.add(hash);
        let number = number_of(key);
        self.numbered &= number.is_some();
        self.buckets[bucket_of(key)].add(hash, number);
        self.key_bytes += key.len() as u64;
        if let Some(trail) = &mut self.trail {
            trail.push(key, hash);
            if trail.0.len() > self.limit {
                self.trail = None;
            }
        }
    }

    pub fn total(&self) -> Sum {
        self.total
    }

    /// Whether both sides hold the same rows, each as often.
    pub fn agrees_with(&self, other: &Self) -> bool {
        self.total == other.total && self.buckets == other.buckets
    }

    /// The keys behind every difference to `copy`, or the bands to read both sides again for.
    pub fn locate(&self, copy: &Self) -> Located {
        let differing: Vec<usize> =
            (0..BUCKETS).filter(|&bucket| self.buckets[bucket] != copy.buckets[bucket]).collect();
        if let (Some(mine), Some(theirs)) = (&self.trail, &copy.trail) {
            let band = Band::of(&differing);
            return Located::Keys(differences(mine.entries(&band).collect(), theirs.entries(&band).collect()));
        }
        Located::Elsewhere { suspects: self.suspects(copy, &differing), bands: self.bands(copy, &differing) }
    }

    fn suspects(&self, copy: &Self, differing: &[usize]) -> Option<Vec<Suspect>> {
        if !(self.numbered && copy.numbered) || differing.len() > MAX_SUSPECTS {
            return None;
        }
        let suspect = |bucket: &usize| {
            let (mine, theirs) = (&self.buckets[*bucket], &copy.buckets[*bucket]);
            mine.lone_key(theirs).map(|number| Suspect { number, explains: mine.sum.less(theirs.sum) })
        };
        differing.iter().map(suspect).collect()
    }

    fn bands(&self, copy: &Self, differing: &[usize]) -> Vec<Band> {
        let rows = (self.total.rows + copy.total.rows).max(1);
        let entry = (self.key_bytes + copy.key_bytes) / rows + ENTRY_OVERHEAD as u64;
        let mut bands = Vec::new();
        let (mut members, mut bytes) = (Vec::new(), 0);
        for &bucket in differing {
            let size = (self.buckets[bucket].sum.rows + copy.buckets[bucket].sum.rows) * entry;
            if !members.is_empty() && bytes + size > self.limit as u64 {
                bands.push(Band::of(&members));
                members.clear();
                bytes = 0;
            }
            members.push(bucket);
            bytes += size;
        }
        if !members.is_empty() {
            bands.push(Band::of(&members));
        }
        bands
    }
}

/// Where the differences are.
#[derive(Debug)]
pub enum Located {
    Keys(Vec<Difference>),
    /// Too many rows to have remembered them all. If the rows of all suspects are what the sides differ by, that is it; else read
    /// both sides once for each band, into a [`Sample`] each.
    Elsewhere {
        suspects: Option<Vec<Suspect>>,
        bands: Vec<Band>,
    },
}

/// The key of a row that may be all by which a bucket differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suspect {
    /// The key, one column of an integer type; of another type it means nothing.
    pub number: i64,
    /// The original's bucket less the copy's, modulo 2^64.
    explains: Sum,
}

impl Suspect {
    /// The difference, if the rows that the two sides have under the key (key and hash) are all that there is to explain.
    pub fn confirmed(&self, mine: Option<&(Vec<u8>, u64)>, theirs: Option<&(Vec<u8>, u64)>) -> Option<Difference> {
        let sum = |row: Option<&(Vec<u8>, u64)>| {
            let mut sum = Sum::default();
            if let Some((_, hash)) = row {
                sum.add(*hash);
            }
            sum
        };
        let class = match (mine, theirs) {
            (Some(_), None) => Class::Missing,
            (None, Some(_)) => Class::Extra,
            (Some(_), Some(_)) => Class::Different,
            (None, None) => return None,
        };
        let (key, _) = mine.or(theirs)?;
        (sum(mine).less(sum(theirs)) == self.explains).then(|| Difference { class, key: key.clone() })
    }
}

/// A set of buckets whose rows fit in memory together.
#[derive(Clone, Debug)]
pub struct Band(Vec<u64>);

impl Band {
    fn of(buckets: &[usize]) -> Self {
        let mut words = vec![0; BUCKETS / 64];
        for bucket in buckets {
            words[bucket / 64] |= 1 << (bucket % 64);
        }
        Self(words)
    }

    fn holds(&self, key: &[u8]) -> bool {
        let bucket = bucket_of(key);
        self.0[bucket / 64] >> (bucket % 64) & 1 == 1
    }
}

/// One side's rows of one band.
#[derive(Debug)]
pub struct Sample {
    band: Band,
    trail: Trail,
}

impl Sample {
    pub fn of(band: &Band) -> Self {
        Self { band: band.clone(), trail: Trail::default() }
    }

    pub fn add(&mut self, key: &[u8], row: &[u8]) {
        if self.band.holds(key) {
            self.trail.push(key, row_hash(row));
        }
    }

    pub fn differences(&self, copy: &Self) -> Vec<Difference> {
        differences(self.trail.entries(&self.band).collect(), copy.trail.entries(&copy.band).collect())
    }
}

/// Keys and row hashes, end to end in one buffer: an allocation for each key would cost more than the keys.
#[derive(Debug, Default)]
struct Trail(Vec<u8>);

impl Trail {
    fn push(&mut self, key: &[u8], hash: u64) {
        let length = u32::try_from(key.len()).expect("PostgreSQL sends no row of 4 GiB");
        if self.0.capacity() - self.0.len() < key.len() + ENTRY_OVERHEAD {
            self.0.reserve_exact(TRAIL_STEP.max(key.len() + ENTRY_OVERHEAD));
        }
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&hash.to_ne_bytes());
        self.0.extend_from_slice(key);
    }

    fn entries<'a>(&'a self, band: &'a Band) -> impl Iterator<Item = (&'a [u8], u64)> {
        let mut rest = self.0.as_slice();
        std::iter::from_fn(move || {
            let (length, after) = rest.split_first_chunk::<4>()?;
            let (hash, after) = after.split_first_chunk::<8>()?;
            let (key, after) = after.split_at(u32::from_ne_bytes(*length) as usize);
            rest = after;
            Some((key, u64::from_ne_bytes(*hash)))
        })
        .filter(|(key, _)| band.holds(key))
    }
}

fn bucket_of(key: &[u8]) -> usize {
    usize::try_from(row_hash(key) % BUCKETS as u64).expect("a bucket number fits")
}

fn differences(mut mine: Vec<(&[u8], u64)>, mut theirs: Vec<(&[u8], u64)>) -> Vec<Difference> {
    mine.sort_unstable();
    theirs.sort_unstable();
    let (mut a, mut b) = (mine.as_slice(), theirs.as_slice());
    let mut found = Vec::new();
    while let Some(key) = smaller_head(a, b) {
        let (mine, rest) = split_key(a, key);
        a = rest;
        let (theirs, rest) = split_key(b, key);
        b = rest;
        if mine == theirs {
            continue;
        }
        // A key that occurs twice (a deferrable key under landing) is one difference: its rows are replaced together.
        let class = match (mine.is_empty(), theirs.is_empty()) {
            (false, true) => Class::Missing,
            (true, _) => Class::Extra,
            (false, false) => Class::Different,
        };
        found.push(Difference { class, key: key.to_vec() });
    }
    found
}

fn smaller_head<'a>(a: &[(&'a [u8], u64)], b: &[(&'a [u8], u64)]) -> Option<&'a [u8]> {
    match (a.first(), b.first()) {
        (Some(mine), Some(theirs)) => Some(mine.0.min(theirs.0)),
        (Some(head), None) | (None, Some(head)) => Some(head.0),
        (None, None) => None,
    }
}

type Entries<'e, 'a> = &'e [(&'a [u8], u64)];

fn split_key<'e, 'a>(entries: Entries<'e, 'a>, key: &[u8]) -> (Entries<'e, 'a>, Entries<'e, 'a>) {
    let count = entries.iter().take_while(|entry| entry.0 == key).count();
    entries.split_at(count)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn digest(rows: &BTreeMap<u16, u8>, limit: usize) -> Digest {
        let mut digest = Digest::with_limit(limit);
        for (key, value) in rows {
            digest.add(&key.to_be_bytes(), &[key.to_be_bytes()[1], *value]);
        }
        digest
    }

    fn located(original: &BTreeMap<u16, u8>, copy: &BTreeMap<u16, u8>, limit: usize) -> Vec<Difference> {
        match digest(original, limit).locate(&digest(copy, limit)) {
            Located::Keys(keys) => keys,
            Located::Elsewhere { bands, .. } => bands
                .iter()
                .flat_map(|band| {
                    let (mut mine, mut theirs) = (Sample::of(band), Sample::of(band));
                    for (key, value) in original {
                        mine.add(&key.to_be_bytes(), &[key.to_be_bytes()[1], *value]);
                    }
                    for (key, value) in copy {
                        theirs.add(&key.to_be_bytes(), &[key.to_be_bytes()[1], *value]);
                    }
                    mine.differences(&theirs)
                })
                .collect(),
        }
    }

    fn expected(original: &BTreeMap<u16, u8>, copy: &BTreeMap<u16, u8>) -> BTreeMap<Vec<u8>, Class> {
        let keys = original.keys().chain(copy.keys());
        keys.filter_map(|key| {
            let class = match (original.get(key), copy.get(key)) {
                (Some(_), None) => Class::Missing,
                (None, Some(_)) => Class::Extra,
                (Some(mine), Some(theirs)) if mine != theirs => Class::Different,
                _ => return None,
            };
            Some((key.to_be_bytes().to_vec(), class))
        })
        .collect()
    }

    proptest! {
        #[test]
        fn every_difference_is_found_and_no_other_however_small_the_memory(
            original in prop::collection::btree_map(any::<u16>(), any::<u8>(), 0..200),
            changes in prop::collection::btree_map(any::<u16>(), prop::option::of(any::<u8>()), 0..20),
            removed in prop::collection::vec(any::<prop::sample::Index>(), 0..10),
            limit in prop::sample::select(vec![0_usize, 40, 400, TRAIL_BYTES]),
        ) {
            let mut copy = original.clone();
            for (key, change) in changes {
                match change {
                    Some(value) => { copy.insert(key, value); }
                    None => { copy.remove(&key); }
                }
            }
            for index in removed {
                if let Some(key) = original.keys().nth(index.index(original.len().max(1))) {
                    copy.remove(key);
                }
            }
            let found: BTreeMap<_, _> = located(&original, &copy, limit)
                .into_iter()
                .map(|difference| (difference.key, difference.class))
                .collect();
            prop_assert_eq!(found, expected(&original, &copy));
            let agrees = digest(&original, limit).agrees_with(&digest(&copy, limit));
            prop_assert_eq!(agrees, original == copy);
        }
    }

    /// A key as a bigint travels.
    fn field(key: u16) -> Vec<u8> {
        [&8_i32.to_be_bytes()[..], &i64::from(key).to_be_bytes()].concat()
    }

    fn numbered(rows: &BTreeMap<u16, u8>) -> Digest {
        let mut digest = Digest::with_limit(0);
        for (key, value) in rows {
            digest.add(&field(*key), &[&field(*key)[..], &[*value]].concat());
        }
        digest
    }

    #[test]
    fn few_differing_rows_are_suspected_by_their_keys_and_confirmed_by_their_rows() {
        let original: BTreeMap<u16, u8> = (0..5000).map(|key| (key, 0)).collect();
        let mut copy = original.clone();
        copy.insert(17, 1);
        copy.remove(&4000);
        copy.insert(6000, 0);
        let Located::Elsewhere { suspects: Some(suspects), .. } = numbered(&original).locate(&numbered(&copy)) else {
            panic!("three keys are few");
        };
        let row = |rows: &BTreeMap<u16, u8>, number: i64| {
            let key = u16::try_from(number).unwrap();
            let value = rows.get(&key)?;
            Some((field(key), row_hash(&[&field(key)[..], &[*value]].concat())))
        };
        let confirmed = suspects.iter().map(|suspect| {
            let (mine, theirs) = (row(&original, suspect.number), row(&copy, suspect.number));
            let difference = suspect.confirmed(mine.as_ref(), theirs.as_ref()).expect("it is all there is");
            (difference.key, difference.class)
        });
        let expected = [(field(17), Class::Different), (field(4000), Class::Missing), (field(6000), Class::Extra)];
        assert_eq!(confirmed.collect::<BTreeMap<_, _>>(), expected.into_iter().collect());
    }

    #[test]
    fn two_rows_that_differ_in_one_bucket_are_never_confirmed_as_one() {
        let bucket = |key: &u16| bucket_of(&field(*key));
        let mut seen = BTreeMap::new();
        let (one, other) = (0..u16::MAX)
            .find_map(|key| seen.insert(bucket(&key), key).map(|before| (before, key)))
            .expect("there are not many more buckets than keys");
        let digests = |value: u8| numbered(&BTreeMap::from([(one, value), (other, value)]));
        let Located::Elsewhere { suspects, bands } = digests(0).locate(&digests(1)) else {
            panic!("nothing was remembered");
        };
        assert_eq!(bands.len(), 1);
        let row = |number: i64, value: u8| {
            let key = [one, other].into_iter().find(|key| i64::from(*key) == number)?;
            Some((field(key), row_hash(&[&field(key)[..], &[value]].concat())))
        };
        for suspect in suspects.into_iter().flatten() {
            let (mine, theirs) = (row(suspect.number, 0), row(suspect.number, 1));
            assert_eq!(suspect.confirmed(mine.as_ref(), theirs.as_ref()), None);
        }
        // Even were one of the two found: it is not all that there is to explain.
        let both = |value: u8| {
            let mut sum = Sum::default();
            [one, other].into_iter().filter_map(|key| row(key.into(), value)).for_each(|(_, hash)| sum.add(hash));
            sum
        };
        for key in [one, other] {
            let suspect = Suspect { number: key.into(), explains: both(0).less(both(1)) };
            let (mine, theirs) = (row(suspect.number, 0), row(suspect.number, 1));
            assert_eq!(suspect.confirmed(mine.as_ref(), theirs.as_ref()), None);
        }
    }

    #[test]
    fn keys_that_are_no_numbers_are_suspected_of_nothing() {
        let (mut original, mut copy) = (Digest::with_limit(0), Digest::with_limit(0));
        original.add(b"key\t", b"key\ta\n");
        copy.add(b"key\t", b"key\tb\n");
        assert!(matches!(original.locate(&copy), Located::Elsewhere { suspects: None, .. }));
    }

    #[test]
    fn two_equal_extra_rows_do_not_cancel_out() {
        let (mut original, mut copy) = (Digest::default(), Digest::default());
        original.add(b"1", b"1 a");
        copy.add(b"1", b"1 a");
        copy.add(b"2", b"2 b");
        copy.add(b"2", b"2 b");
        assert!(!original.agrees_with(&copy));
        let Located::Keys(keys) = original.locate(&copy) else {
            panic!("two rows fit in memory");
        };
        assert_eq!(keys.len(), 1);
        assert_eq!(keys[0].class, Class::Extra);
    }

    #[test]
    fn bands_together_hold_every_differing_bucket_once() {
        let original: BTreeMap<u16, u8> = (0..5000).map(|key| (key, 0)).collect();
        let copy: BTreeMap<u16, u8> = (0..5000).map(|key| (key, 1)).collect();
        let Located::Elsewhere { bands, .. } = digest(&original, 4096).locate(&digest(&copy, 4096)) else {
            panic!("five thousand keys do not fit in four kilobytes");
        };
        assert!(bands.len() > 10);
        for key in original.keys() {
            let holders = bands.iter().filter(|band| band.holds(&key.to_be_bytes()));
            assert_eq!(holders.count(), 1);
        }
    }
}
