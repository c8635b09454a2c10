//! The router: says for each row, read once and in the order of the scope, to which partition its customer belongs.
//! Used by Backup while it reads, and by a restore to find the partitions that hold given customers. No SQL, no IO.
//! Must not guess: a row whose parent is not known belongs to no customer and is told apart, never dropped.

use std::collections::HashMap;

use super::identifier::TableName;
use super::model::{OwnedTable, Scope};
use super::routing_key::{Key, KeyType};
use super::row::{Field, RowError, RowFormat, fields};

/// More partitions would be more files than a restore gains by.
pub const MAX_PARTITIONS: u16 = 1024;
/// Aimed at for the largest table: small enough to read for one customer, large enough to be few.
const PARTITION_BYTES: u64 = 16 << 20;
/// Below this many slots an array is used whatever its density: 128 KiB are not worth a thought.
const ALWAYS_DENSE: usize = 1 << 16;
/// A slot takes 2 bytes, an entry of the map about 32: the array pays until fewer than one slot in 16 is used.
const SLOTS_PER_KEY: usize = 16;
/// What an array holds where there is no key.
const NO_PARTITION: u16 = u16::MAX;

/// How many partitions a backup has whose largest table has `bytes`.
pub fn partition_count(bytes: u64) -> u16 {
    let wanted = bytes.div_ceil(PARTITION_BYTES);
    u16::try_from(wanted).map_or(MAX_PARTITIONS, |wanted| wanted.clamp(1, MAX_PARTITIONS))
}

/// From a parent's key to its partition: an array where the keys are dense integers, a map otherwise.
#[derive(Debug)]
pub enum KeyMap {
    Dense {
        /// The key of the first slot.
        base: i64,
        slots: Vec<u16>,
        used: usize,
    },
    Sparse(HashMap<Key, u16>),
}

impl Default for KeyMap {
    fn default() -> Self {
        Self::Dense {
            base: 0,
            slots: Vec::new(),
            used: 0,
        }
    }
}

impl KeyMap {
    pub fn insert(&mut self, key: Key, partition: u16) {
        if let Self::Dense { base, slots, used } = self
            && let Key::Integer(number) = key
            && let Some(at) = make_room(base, slots, *used, number)
        {
            *used += usize::from(slots[at] == NO_PARTITION);
            slots[at] = partition;
            return;
        }
        self.become_sparse().insert(key, partition);
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
            (Self::Sparse(map), key) => map.get(&key).copied(),
        }
    }

    fn become_sparse(&mut self) -> &mut HashMap<Key, u16> {
        if let Self::Dense { base, slots, used } = self {
            let mut map = HashMap::with_capacity(*used);
            // A range would overflow behind the largest key there is.
            let mut number = *base;
            for partition in slots.iter() {
                if *partition != NO_PARTITION {
                    map.insert(Key::Integer(number), *partition);
                }
                number = number.wrapping_add(1);
            }
            *self = Self::Sparse(map);
        }
        match self {
            Self::Sparse(map) => map,
            Self::Dense { .. } => unreachable!("it has just become sparse"),
        }
    }
}

/// The slot of `number`, after growing the array to either side; `None` when it would be too thin.
fn make_room(base: &mut i64, slots: &mut Vec<u16>, used: usize, number: i64) -> Option<usize> {
    let bearable = |length: usize| length <= ALWAYS_DENSE || length / SLOTS_PER_KEY <= used + 1;
    if slots.is_empty() {
        *base = number;
    }
    if number < *base {
        let missing = usize::try_from(base.checked_sub(number)?).ok()?;
        let length = slots.len().checked_add(missing)?;
        if !bearable(length) {
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
        if !bearable(at.checked_add(1)?) {
            return None;
        }
        slots.resize(at + 1, NO_PARTITION);
    }
    Some(at)
}

/// Columns of a row by their place in it, with how they compare.
#[derive(Clone, Debug, PartialEq, Eq)]
struct KeyColumns {
    places: Vec<usize>,
    types: Vec<KeyType>,
}

impl KeyColumns {
    fn of(table: &OwnedTable, names: &[String]) -> Option<Self> {
        let columns = table.table.copied_columns();
        let mut found = Self {
            places: Vec::new(),
            types: Vec::new(),
        };
        for name in names {
            let place = columns.iter().position(|column| column.name == *name)?;
            found.places.push(place);
            found.types.push(KeyType::of(&columns[place].type_name));
        }
        Some(found)
    }
}

/// What the router does with the rows of one table.
#[derive(Debug)]
struct Route {
    format: RowFormat,
    /// Where the row's customer is told: its own key (root), or the key of its parent in a map.
    told_by: Option<(KeyColumns, Option<usize>)>,
    /// The keys by which children refer to this table.
    published: Vec<(KeyColumns, usize)>,
    /// Places of all these columns, and the last of them.
    needed: usize,
}

/// Routes the rows of the owned tables, which must be read in the order of the scope.
#[derive(Debug)]
pub struct Router {
    partitions: u16,
    routes: Vec<Route>,
    maps: Vec<KeyMap>,
    /// For each map the last table that asks it.
    last_use: Vec<usize>,
}

impl Router {
    /// `partitions` is also the number of the partition for rows that reach no customer.
    pub fn new(scope: &Scope, partitions: u16) -> Self {
        let formats = formats(scope);
        let mut ids: Vec<(TableName, Vec<String>)> = Vec::new();
        let mut last_use = Vec::new();
        for (at, owned) in scope.owned.iter().enumerate() {
            if let Some(key) = owned.path.first() {
                let wanted = (key.referenced.clone(), key.referenced_columns.clone());
                match ids.iter().position(|id| *id == wanted) {
                    Some(known) => last_use[known] = at,
                    None => {
                        ids.push(wanted);
                        last_use.push(at);
                    }
                }
            }
        }
        let routes = scope
            .owned
            .iter()
            .zip(formats)
            .map(|(owned, format)| Route::of(scope, owned, format, &ids))
            .collect();
        Self {
            partitions,
            routes,
            maps: ids.iter().map(|_| KeyMap::default()).collect(),
            last_use,
        }
    }

    /// The format in which the table must be read: its own, or text where keys could not be followed otherwise.
    pub fn format(&self, table: usize) -> RowFormat {
        self.routes[table].format
    }

    /// The partition of a row of the `table`-th owned table.
    pub fn route(&mut self, table: usize, row: &[u8]) -> Result<u16, RowError> {
        let route = &self.routes[table];
        let found: Vec<Field<'_>> = fields(row, route.format)
            .take(route.needed)
            .collect::<Result<_, _>>()?;
        if found.len() < route.needed {
            return Err(RowError::Field);
        }
        let key_in = |columns: &KeyColumns| {
            let values: Vec<Field<'_>> =
                columns.places.iter().map(|at| found[*at].clone()).collect();
            Key::of(&values, &columns.types, route.format)
        };
        let partition = match &route.told_by {
            Some((columns, map)) => key_in(columns)?.and_then(|key| match map {
                Some(map) => self.maps[*map].get(key),
                None => Some(key.partition(self.partitions)),
            }),
            None => None,
        };
        let partition = partition.unwrap_or(self.partitions);
        for (columns, map) in &route.published {
            if let Some(key) = key_in(columns)? {
                self.maps[*map].insert(key, partition);
            }
        }
        Ok(partition)
    }

    /// Frees what no later table asks for.
    pub fn finish_table(&mut self, table: usize) {
        for (map, last) in self.maps.iter_mut().zip(&self.last_use) {
            if *last == table {
                *map = KeyMap::default();
            }
        }
    }
}

impl Route {
    fn of(
        scope: &Scope,
        owned: &OwnedTable,
        format: RowFormat,
        maps: &[(TableName, Vec<String>)],
    ) -> Self {
        let told_by = match owned.path.first() {
            None => KeyColumns::of(owned, std::slice::from_ref(&scope.root_key))
                .map(|columns| (columns, None)),
            Some(key) => KeyColumns::of(owned, &key.columns).and_then(|columns| {
                let map = maps.iter().position(|(table, columns)| {
                    *table == key.referenced && *columns == key.referenced_columns
                })?;
                Some((columns, Some(map)))
            }),
        };
        let published: Vec<(KeyColumns, usize)> = maps
            .iter()
            .enumerate()
            .filter(|(_, (table, _))| *table == owned.table.name)
            .filter_map(|(map, (_, columns))| Some((KeyColumns::of(owned, columns)?, map)))
            .collect();
        let needed = told_by
            .iter()
            .map(|(columns, _)| columns)
            .chain(published.iter().map(|(columns, _)| columns))
            .flat_map(|columns| &columns.places)
            .max()
            .map_or(0, |last| last + 1);
        Self {
            format,
            told_by,
            published,
            needed,
        }
    }
}

/// Keys of types that we cannot compare across formats are followed only where parent and child come in the same one.
fn formats(scope: &Scope) -> Vec<RowFormat> {
    let mut formats: Vec<RowFormat> = scope.owned.iter().map(|owned| owned.format).collect();
    let exact = |owned: &OwnedTable, columns: &[String]| {
        KeyColumns::of(owned, columns).is_some_and(|key| key.types.contains(&KeyType::Exact))
    };
    loop {
        let mut changed = false;
        for (at, owned) in scope.owned.iter().enumerate() {
            let Some(key) = owned.path.first() else {
                continue;
            };
            let Some(parent) = scope
                .owned
                .iter()
                .position(|other| other.table.name == key.referenced)
            else {
                continue;
            };
            if formats[at] != formats[parent] && exact(owned, &key.columns) {
                formats[at] = RowFormat::Text;
                formats[parent] = RowFormat::Text;
                changed = true;
            }
        }
        if !changed {
            return formats;
        }
    }
}

#[cfg(test)]
#[path = "partition_tests.rs"]
mod tests;
