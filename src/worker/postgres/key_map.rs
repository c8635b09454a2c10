//! From a parent's key to the partition of its customer, for millions of keys.
//! Filled and asked by `partition` while tables are read. No SQL, no IO.
//! Must not cost more than about 2 bytes for a key where keys are dense integers.

use std::collections::HashMap;

use super::routing_key::Key;

/// Below this many slots an array is used whatever its density: 128 KiB are not worth a thought.
const ALWAYS_DENSE: usize = 1 << 16;
/// A slot takes 2 bytes, an entry of the map about 32, and several times as long to find: a cohort of a fiftieth still has an array.
const SLOTS_PER_KEY: usize = 64;
/// What an array holds where there is no key.
const NO_PARTITION: u16 = u16::MAX;

/// From a parent's key to its partition: an array where the keys are dense integers, a map otherwise.
#[derive(Clone, Debug)]
pub enum KeyMap {
    Dense {
        /// The key of the first slot.
        base: i64,
        slots: Vec<u16>,
        used: usize,
    },
    Sparse(Sparse),
}

/// Keys that are far apart, or were when they began to come: rows in no order look thin until many have come.
#[derive(Clone, Debug)]
pub struct Sparse {
    map: HashMap<Key, u16>,
    /// The smallest and the largest key, while all are integers.
    range: Option<(i64, i64)>,
    /// At this size it is asked again whether an array would do.
    look_again: usize,
}

impl Default for KeyMap {
    fn default() -> Self {
        Self::Dense { base: 0, slots: Vec::new(), used: 0 }
    }
}

/// All of them under 0.
impl Extend<Key> for KeyMap {
    fn extend<K: IntoIterator<Item = Key>>(&mut self, keys: K) {
        keys.into_iter().for_each(|key| self.insert(key, 0));
    }
}

impl FromIterator<Key> for KeyMap {
    fn from_iter<K: IntoIterator<Item = Key>>(keys: K) -> Self {
        let mut map = Self::default();
        map.extend(keys);
        map
    }
}

impl KeyMap {
    pub fn insert(&mut self, key: Key, partition: u16) {
        if let Self::Dense { base, slots, used } = self {
            if let Key::Integer(number) = key
                && let Some(at) = make_room(base, slots, *used, number)
            {
                *used += usize::from(slots[at] == NO_PARTITION);
                slots[at] = partition;
                return;
            }
            *self = Self::Sparse(Sparse::of_slots(*base, slots));
        }
        if let Self::Sparse(sparse) = self
            && let Some(dense) = sparse.insert(key, partition)
        {
            *self = dense;
        }
    }

    pub fn get(&self, key: Key) -> Option<u16> {
        match (self, key) {
            (Self::Dense { base, slots, .. }, Key::Integer(number)) => number
                .checked_sub(*base)
                .and_then(|at| usize::try_from(at).ok())
                .and_then(|at| slots.get(at))
                .copied()
                .filter(|partition| *partition != NO_PARTITION),
            (Self::Dense { .. }, Key::Hash(_)) => None,
            (Self::Sparse(sparse), key) => sparse.map.get(&key).copied(),
        }
    }
}

impl Sparse {
    fn of_slots(base: i64, slots: &[u16]) -> Self {
        let mut sparse = Self { map: HashMap::new(), range: None, look_again: usize::MAX };
        // A range would overflow behind the largest key there is.
        let mut number = base;
        for partition in slots {
            if *partition != NO_PARTITION {
                sparse.insert(Key::Integer(number), *partition);
            }
            number = number.wrapping_add(1);
        }
        sparse.look_again = 2 * sparse.map.len().max(ALWAYS_DENSE / SLOTS_PER_KEY);
        sparse
    }

    /// An array with all keys, once that pays.
    fn insert(&mut self, key: Key, partition: u16) -> Option<KeyMap> {
        let first = self.map.is_empty();
        self.map.insert(key, partition);
        self.range = match (key, self.range) {
            (Key::Integer(number), _) if first => Some((number, number)),
            (Key::Integer(number), Some((smallest, largest))) => Some((smallest.min(number), largest.max(number))),
            _ => None,
        };
        if self.map.len() < self.look_again {
            return None;
        }
        self.look_again = 2 * self.map.len();
        let (base, largest) = self.range?;
        let length = usize::try_from(largest.checked_sub(base)?).ok()?.checked_add(1)?;
        is_bearable(length, self.map.len()).then(|| self.as_slots(base, length))
    }

    fn as_slots(&self, base: i64, length: usize) -> KeyMap {
        let mut slots = vec![NO_PARTITION; length];
        for (key, partition) in &self.map {
            let at = if let Key::Integer(number) = key { number.checked_sub(base) } else { None };
            if let Some(slot) = at.and_then(|at| slots.get_mut(usize::try_from(at).ok()?)) {
                *slot = *partition;
            }
        }
        KeyMap::Dense { base, slots, used: self.map.len() }
    }
}

fn is_bearable(length: usize, used: usize) -> bool {
    length <= ALWAYS_DENSE || length / SLOTS_PER_KEY <= used
}

/// The slot of `number`, after growing the array to either side; `None` when it would be too thin.
fn make_room(base: &mut i64, slots: &mut Vec<u16>, used: usize, number: i64) -> Option<usize> {
    if slots.is_empty() {
        *base = number;
    }
    if number < *base {
        let missing = usize::try_from(base.checked_sub(number)?).ok()?;
        let length = slots.len().checked_add(missing)?;
        if !is_bearable(length, used + 1) {
            return None;
        }
        // Half as much again, so that keys that come in falling order do not move the array each time.
        let spare = i64::try_from(length / 2).ok()?;
        let front = number.checked_sub(spare).unwrap_or(number);
        let added = usize::try_from(base.checked_sub(front)?).ok()?;
        slots.splice(0..0, std::iter::repeat_n(NO_PARTITION, added));
        *base = front;
    }
    let at = usize::try_from(number.checked_sub(*base)?).ok()?;
    if at >= slots.len() {
        if !is_bearable(at.checked_add(1)?, used + 1) {
            return None;
        }
        slots.resize(at + 1, NO_PARTITION);
    }
    Some(at)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_map_knows_what_was_put_into_it_whatever_the_order_and_density(
            keys in prop::collection::vec(prop_oneof![
                4 => -2000_i64..2000,
                1 => any::<i64>(),
                1 => prop::sample::select(vec![i64::MIN, i64::MAX, i64::MIN + 1, i64::MAX - 1, 0]),
                2 => (0_i64..200_000).prop_map(|n| 5_000_000 - n),
            ], 0..80),
        ) {
            let mut map = KeyMap::default();
            let mut model = BTreeMap::new();
            for (n, key) in keys.iter().enumerate() {
                let partition = u16::try_from(n % 1000).unwrap();
                map.insert(Key::Integer(*key), partition);
                model.insert(*key, partition);
            }
            for key in keys.iter().flat_map(|key| [key.saturating_sub(1), *key, key.saturating_add(1)]) {
                prop_assert_eq!(map.get(Key::Integer(key)), model.get(&key).copied());
            }
            prop_assert_eq!(map.get(Key::Hash([1; 16])), None);
        }
    }

    #[test]
    fn dense_keys_take_two_bytes_each_and_sparse_ones_leave_the_array() {
        let mut map = KeyMap::default();
        for key in 1..=500_000 {
            map.insert(Key::Integer(key), 3);
        }
        let KeyMap::Dense { slots, .. } = &map else {
            panic!("dense keys belong into the array");
        };
        assert_eq!(slots.len(), 500_000);
        map.insert(Key::Integer(1 << 60), 4);
        assert!(matches!(&map, KeyMap::Sparse(sparse) if sparse.map.len() == 500_001));
        assert_eq!(map.get(Key::Integer(77)), Some(3));
        assert_eq!(map.get(Key::Integer(1 << 60)), Some(4));
    }
    #[test]
    fn keys_in_no_order_that_look_thin_at_first_get_an_array_once_enough_have_come() {
        let mut map = KeyMap::default();
        // Every fiftieth of a million, in an order that spans the whole range from the start.
        let keys: Vec<i64> = (0..20_000).map(|n| (n * 7919) % 20_000 * 50).collect();
        for key in &keys {
            map.insert(Key::Integer(*key), 5);
        }
        assert!(matches!(&map, KeyMap::Dense { used: 20_000, .. }));
        assert!(keys.iter().all(|key| map.get(Key::Integer(*key)) == Some(5)));
        assert_eq!(map.get(Key::Integer(1)), None);
    }

    #[test]
    fn keys_that_are_no_integers_never_get_an_array() {
        let mut map = KeyMap::default();
        map.insert(Key::Hash([7; 16]), 1);
        for key in 0..200_000 {
            map.insert(Key::Integer(key), 2);
        }
        assert_eq!((map.get(Key::Hash([7; 16])), map.get(Key::Integer(199_999))), (Some(1), Some(2)));
    }
}
