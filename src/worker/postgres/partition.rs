//! The router: says for each row, read once and in the order of the scope, to which partition its customer belongs.
//! Used by Backup while it reads, by a restore to find the rows of given customers, and by `sieve`. No SQL, no IO.
//! Must not guess: a row whose parent is not known belongs to no customer and is told apart, never dropped.

use serde::{Deserialize, Serialize};

use super::identifier::TableName;
use super::key_map::KeyMap;
use super::model::{Scope, Table};
use super::routing_key::{Key, KeyType};
use super::row::{Field, RowError, RowFormat, fields};

/// More partitions would be more files than a restore gains by.
pub const MAX_PARTITIONS: u16 = 1024;
/// Aimed at for the largest table: small enough to read for one customer, large enough to be few.
const PARTITION_BYTES: u64 = 16 << 20;
/// Fields that the router looks at without an allocation.
const FEW: usize = 4;

/// How many partitions a backup has whose largest table has `bytes`.
pub fn partition_count(bytes: u64) -> u16 {
    let wanted = bytes.div_ceil(PARTITION_BYTES);
    u16::try_from(wanted).map_or(MAX_PARTITIONS, |wanted| wanted.clamp(1, MAX_PARTITIONS))
}

/// What the router must know of a table; kept in the backup's manifest, so that a restore needs no database to read it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Routed {
    #[serde(flatten)]
    pub name: StoredName,
    /// In the order in which rows are copied.
    pub columns: Vec<StoredColumn>,
    pub format: RowFormat,
    /// How a row refers to its parent; absent for the root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Parent>,
}

/// Schema and table apart: either may have a dot in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredName {
    pub schema: String,
    pub table: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StoredColumn {
    pub name: String,
    pub type_name: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Parent {
    pub columns: Vec<String>,
    #[serde(flatten)]
    pub referenced: StoredName,
    pub referenced_columns: Vec<String>,
}

impl From<&TableName> for StoredName {
    fn from(name: &TableName) -> Self {
        Self { schema: name.schema.clone(), table: name.name.clone() }
    }
}

impl From<&StoredName> for TableName {
    fn from(name: &StoredName) -> Self {
        Self::new(&name.schema, &name.table)
    }
}

impl Routed {
    /// The owned tables of a scope in its order: parents before children.
    pub fn of_scope(scope: &Scope) -> Vec<Self> {
        let mut routed: Vec<Self> = scope
            .owned
            .iter()
            .map(|owned| Self {
                parent: owned.path.first().map(|key| Parent {
                    columns: key.columns.clone(),
                    referenced: (&key.referenced).into(),
                    referenced_columns: key.referenced_columns.clone(),
                }),
                ..Self::of_table(&owned.table, owned.format)
            })
            .collect();
        settle_formats(&mut routed);
        routed
    }

    /// A table whose rows are not routed.
    pub fn of_table(table: &Table, format: RowFormat) -> Self {
        let columns = table.copied_columns().into_iter();
        Self {
            name: (&table.name).into(),
            columns: columns
                .map(|column| StoredColumn { name: column.name.clone(), type_name: column.type_name.clone() })
                .collect(),
            format,
            parent: None,
        }
    }

    /// The only column of a key, if it holds whole numbers.
    pub fn integer_key<'n>(&self, names: &'n [String]) -> Option<&'n str> {
        let [name] = names else {
            return None;
        };
        (self.key(names)?.types == [KeyType::Integer]).then_some(name)
    }

    fn key(&self, names: &[String]) -> Option<KeyColumns> {
        let mut found = KeyColumns::default();
        for name in names {
            let place = self.columns.iter().position(|column| column.name == *name)?;
            found.places.push(place);
            found.types.push(KeyType::of(&self.columns[place].type_name));
        }
        Some(found)
    }
}

/// Keys of types that we cannot compare across formats are followed only where parent and child come in the same one.
fn settle_formats(tables: &mut [Routed]) {
    loop {
        let differing = tables.iter().enumerate().find_map(|(at, child)| {
            let key = child.parent.as_ref()?;
            let parent = tables.iter().position(|it| it.name == key.referenced)?;
            let exact = child.key(&key.columns)?.types.contains(&KeyType::Exact);
            (exact && child.format != tables[parent].format).then_some((at, parent))
        });
        let Some((child, parent)) = differing else {
            return;
        };
        tables[child].format = RowFormat::Text;
        tables[parent].format = RowFormat::Text;
    }
}

/// Columns of a row by their place in it, with how they compare.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct KeyColumns {
    places: Vec<usize>,
    types: Vec<KeyType>,
}

/// A table and the columns by which rows of others refer to it.
pub type ParentKey<'a> = (&'a StoredName, &'a [String]);

/// The keys that children's rows are followed by, each with the last table that does.
pub fn parent_keys(tables: &[Routed]) -> Vec<(ParentKey<'_>, usize)> {
    let mut keys: Vec<(ParentKey<'_>, usize)> = Vec::new();
    for (at, table) in tables.iter().enumerate() {
        let Some(parent) = &table.parent else {
            continue;
        };
        let key = (&parent.referenced, parent.referenced_columns.as_slice());
        match keys.iter_mut().find(|(known, _)| *known == key) {
            Some((_, last)) => *last = at,
            None => keys.push((key, at)),
        }
    }
    keys
}

/// What the router does with the rows of one table.
#[derive(Debug)]
struct Route {
    format: RowFormat,
    /// Where the row's customer is told: its own key (root), or the key of its parent in a map.
    told_by: Option<(KeyColumns, Option<usize>)>,
    /// The keys by which children refer to this table, and their maps.
    published: Vec<(KeyColumns, usize)>,
    /// How many of a row's first fields hold all these columns.
    needed: usize,
}

/// Where customers go.
#[derive(Debug)]
enum Choice {
    ByHash,
    /// Partition 0 for these customers; all others are as good as none.
    Only(KeyMap),
}

/// Routes the rows of owned tables, which must be read in the given order: parents before children.
#[derive(Debug)]
pub struct Router {
    partitions: u16,
    choice: Choice,
    routes: Vec<Route>,
    maps: Vec<KeyMap>,
    /// For each map the last table that asks it.
    last_use: Vec<usize>,
}

impl Router {
    /// Spreads customers over partitions; `partitions` is also the number for rows that reach no customer.
    pub fn new(tables: &[Routed], root_key: &str, partitions: u16) -> Self {
        Self::with(tables, root_key, (partitions, Choice::ByHash))
    }

    /// Finds the rows of some customers, those that the map knows: they are routed to 0, every other row to 1. A row that names its
    /// customer by the customer's own key belongs to it, whether or not the customer has a row.
    pub fn only(tables: &[Routed], root_key: &str, customers: KeyMap) -> Self {
        let mut router = Self::with(tables, root_key, (1, Choice::Only(customers.clone())));
        let named = [root_key.to_owned()];
        let by_name = tables.first().map(|root| (&root.name, &named[..]));
        if let Some(map) = parent_keys(tables).iter().position(|(key, _)| Some(*key) == by_name) {
            router.maps[map] = customers;
        }
        router
    }

    fn with(tables: &[Routed], root_key: &str, (partitions, choice): (u16, Choice)) -> Self {
        let (wanted, last_use): (Vec<_>, _) = parent_keys(tables).into_iter().unzip();
        Self {
            partitions,
            choice,
            routes: tables.iter().map(|table| Route::of(table, root_key, &wanted)).collect(),
            maps: wanted.iter().map(|_| KeyMap::default()).collect(),
            last_use,
        }
    }

    /// The partition of a row of the `table`-th table.
    pub fn route(&mut self, table: usize, row: &[u8]) -> Result<u16, RowError> {
        let route = &self.routes[table];
        // Nearly every key is among the first columns: an allocation for each row would be felt.
        let mut few: [Field<'_>; FEW];
        let mut many: Vec<Field<'_>>;
        let found: &mut [Field<'_>] = if route.needed <= FEW {
            few = [const { None }; FEW];
            &mut few[..route.needed]
        } else {
            many = vec![None; route.needed];
            &mut many
        };
        let mut given = fields(row, route.format);
        for place in found.iter_mut() {
            *place = given.next().ok_or(RowError::Field)??;
        }
        let found = &*found;
        let key_in = |columns: &KeyColumns| {
            // Nearly every key has one column; a list of its own for each row would be felt.
            if let [only] = columns.places[..] {
                return Key::of(std::slice::from_ref(&found[only]), &columns.types, route.format);
            }
            let values: Vec<Field<'_>> = columns.places.iter().map(|at| found[*at].clone()).collect();
            Key::of(&values, &columns.types, route.format)
        };
        let partition = match &route.told_by {
            Some((columns, map)) => key_in(columns)?.and_then(|key| match (map, &self.choice) {
                (Some(map), _) => self.maps[*map].get(key),
                (None, Choice::ByHash) => Some(key.partition(self.partitions)),
                (None, Choice::Only(customers)) => customers.get(key).map(|_| 0),
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
    fn of(table: &Routed, root_key: &str, maps: &[ParentKey<'_>]) -> Self {
        let told_by = match &table.parent {
            None => table.key(&[root_key.to_owned()]).map(|key| (key, None)),
            Some(parent) => table.key(&parent.columns).and_then(|key| {
                let wanted = (&parent.referenced, parent.referenced_columns.as_slice());
                let map = maps.iter().position(|it| *it == wanted)?;
                Some((key, Some(map)))
            }),
        };
        let published: Vec<(KeyColumns, usize)> = maps
            .iter()
            .enumerate()
            .filter(|(_, (name, _))| **name == table.name)
            .filter_map(|(map, (_, columns))| Some((table.key(columns)?, map)))
            .collect();
        let needed = told_by
            .iter()
            .map(|(columns, _)| columns)
            .chain(published.iter().map(|(columns, _)| columns))
            .flat_map(|columns| &columns.places)
            .max()
            .map_or(0, |last| last + 1);
        Self { format: table.format, told_by, published, needed }
    }
}

#[cfg(test)]
#[path = "partition_tests.rs"]
mod tests;
