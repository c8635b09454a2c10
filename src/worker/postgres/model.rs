//! Plain types of a database's catalogue and of the migration's scope in it.
//! Filled by `catalog` and `scope`, read by every step.
//! Must not talk to a database: SQL text that follows from the types alone is built here, nothing more.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::{Deserialize, Serialize};

use super::identifier::{TableName, quote_identifier};
pub use super::row::RowFormat;
use crate::contract::Finding;

/// Entries of `godwit.ownership` that exist in every migration.
pub mod entry {
    /// Customers in no cohort, new ones too.
    pub const UNASSIGNED: i32 = 0;
    /// Shared tables.
    pub const REFERENCE: i32 = 1;
    /// Customers that the target had before.
    pub const NATIVE: i32 = 2;
    /// The first cohort's.
    pub const FIRST_COHORT: i32 = 16;
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Catalog {
    /// `server_version_num`, such as `150020`.
    pub server_version: i32,
    pub tables: BTreeMap<TableName, Table>,
    pub foreign_keys: Vec<ForeignKey>,
    pub sequences: Vec<Sequence>,
    pub extensions: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TableKind {
    Ordinary,
    Partitioned,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts of the catalogue")]
pub struct Table {
    pub name: TableName,
    pub kind: TableKind,
    /// In the order of the table.
    pub columns: Vec<Column>,
    /// Empty: none.
    pub primary_key: Vec<String>,
    pub primary_key_deferrable: bool,
    pub uniques: Vec<Unique>,
    /// The planner's estimate, partitions included; 0 when the table was never analysed.
    pub estimated_rows: u64,
    /// Heap and TOAST, partitions included, without indexes.
    pub bytes: u64,
    pub unlogged: bool,
    pub row_security: bool,
    pub has_rules: bool,
    /// The table takes part in inheritance that is not partitioning.
    pub inherits: bool,
    /// Every partition below this table, inner ones too.
    pub partitions: Vec<TableName>,
    /// The session's role may act as the table's owner.
    pub owned_by_us: bool,
    /// Checks of the table itself, not those of its columns' domains.
    pub checks: Vec<Check>,
    /// Exclusion constraints that wait for the commit: nothing enforces them while rows land.
    pub deferrable_exclusions: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts of the catalogue")]
pub struct Column {
    pub name: String,
    /// With its modifier, as `format_type` gives it.
    pub type_name: String,
    pub type_oid: u32,
    /// `schema.name` of a collation that is not the type's default.
    pub collation: Option<String>,
    pub not_null: bool,
    /// Computed by the server: never copied.
    pub generated: bool,
    pub identity: Option<Identity>,
    /// The binary form means the same in every database.
    pub binary_safe: bool,
    pub has_default: bool,
    /// Values live outside the row: the type `lo`.
    pub large_object: bool,
    /// An integer or a decimal: what a sequence's values are compared with.
    pub number: bool,
    /// `oid`, which may be a large object's.
    pub object_id: bool,
    /// Of a generated column: how the server computes it.
    pub expression: Option<String>,
    /// The operator that tells whether two values are equal, where it is not one that every search path finds.
    pub equality: Option<Operator>,
    /// Values can be equal without being the same characters: a collation that ignores case, for example.
    pub insensitive: bool,
}

/// An operator with its schema: an extension's is not found under an empty search path, and PostgreSQL would quietly take another one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Operator {
    pub schema: String,
    pub name: String,
}

impl Operator {
    pub fn sql(&self) -> String {
        format!("operator({}.{})", quote_identifier(&self.schema), self.name)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    pub name: String,
    /// Over the table's columns, unqualified.
    pub expression: String,
    pub validated: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Identity {
    Always,
    ByDefault,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unique {
    pub name: String,
    pub columns: Vec<String>,
    pub deferrable: bool,
    /// `NULLS NOT DISTINCT`.
    pub nulls_equal: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ForeignKey {
    pub name: String,
    pub table: TableName,
    pub columns: Vec<String>,
    pub referenced: TableName,
    /// In the order of `columns`.
    pub referenced_columns: Vec<String>,
    /// What compares the referenced column with the column, where it is not an operator that every search path finds.
    pub operators: Vec<Option<Operator>>,
    pub match_full: bool,
    pub validated: bool,
    pub deferrable: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sequence {
    pub name: TableName,
    pub data_type: String,
    pub increment: i64,
    pub min: i64,
    pub max: i64,
    pub start: i64,
    pub cycle: bool,
    /// `None`: never drawn from, or not readable by this role.
    pub last_value: Option<i64>,
    /// The columns that draw from it: its owner first, then those whose default names it.
    pub columns: Vec<(TableName, String)>,
    /// An identity column's own sequence.
    pub identity: bool,
}

impl RowFormat {
    /// The option list of COPY.
    pub fn copy_options(self) -> &'static str {
        match self {
            Self::Binary => "(format binary)",
            Self::Text => "(format text)",
        }
    }
}

/// What of a catalogue belongs to the migration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scope {
    pub root: TableName,
    pub root_key: String,
    /// The key's type as `format_type` gives it: the type of `godwit.member.customer`.
    pub root_key_type: String,
    /// Root first, parents before children along the owner paths.
    pub owned: Vec<OwnedTable>,
    /// Shared tables, referenced ones before those that reference them (as far as cycles allow).
    pub reference: Vec<ScopedReference>,
    /// Foreign keys between owned tables that are not an owner path: they join customers.
    pub links: Vec<ForeignKey>,
    /// Foreign keys from the dataset into reference tables.
    pub reference_keys: Vec<ForeignKey>,
    /// What the user should know, though it does not stop the migration.
    pub notes: Vec<Finding>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OwnedTable {
    pub table: Table,
    /// From this table to the root, one foreign key a hop; empty for the root itself.
    pub path: Vec<ForeignKey>,
    pub format: RowFormat,
    /// The root table's key column.
    pub root_key: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScopedReference {
    pub table: Table,
    pub format: RowFormat,
}

/// How to reach a row's customer in SQL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CustomerJoin {
    /// `join … on …` clauses, each with a leading space; empty when the row itself has the key.
    pub joins: String,
    /// The expression of the customer's key.
    pub customer: String,
}

/// A range of chunks, both ends included.
pub type Chunks = Option<(i32, i32)>;

impl Table {
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// Whether a column has the same value in two rows.
    pub fn equal(&self, column: &str, (one, other): (&str, &str)) -> String {
        let quoted = quote_identifier(column);
        let equality = self.column(column).and_then(|column| column.equality.as_ref());
        let equals = equality.map_or_else(|| "=".to_owned(), Operator::sql);
        format!("{one}.{quoted} {equals} {other}.{quoted}")
    }

    /// Whether two rows have the same primary key.
    pub fn same_key(&self, one: &str, other: &str) -> String {
        let parts: Vec<_> = self.primary_key.iter().map(|column| self.equal(column, (one, other))).collect();
        parts.join(" and ")
    }

    /// Key columns first, then the rest in the table's order, generated ones left out.
    pub fn copied_columns(&self) -> Vec<&Column> {
        let key = self.primary_key.iter().filter_map(|name| self.column(name)).filter(|column| !column.generated);
        let rest = self.columns.iter().filter(|column| !column.generated && !self.primary_key.contains(&column.name));
        key.chain(rest).collect()
    }

    /// Binary only where every copied column allows it.
    pub fn format(&self) -> RowFormat {
        if self.copied_columns().iter().all(|column| column.binary_safe) { RowFormat::Binary } else { RowFormat::Text }
    }

    /// The copied columns as a list for `COPY t (…)` and `INSERT`.
    pub fn column_list(&self) -> String {
        self.copied_columns().iter().map(|column| quote_identifier(&column.name)).collect::<Vec<_>>().join(", ")
    }

    /// The copied columns of the row `alias`, in the order of [`Table::column_list`].
    pub fn select_list(&self, alias: &str) -> String {
        self.copied_columns()
            .iter()
            .map(|column| format!("{alias}.{}", quote_identifier(&column.name)))
            .collect::<Vec<_>>()
            .join(", ")
    }

    /// Every row, in the order of columns in which rows travel.
    pub fn select_all(&self) -> String {
        format!("select {} from {} as t", self.select_list("t"), self.name.sql())
    }
}

impl ForeignKey {
    /// `child.a = parent.x and …`
    pub fn condition(&self, child: &str, parent: &str) -> String {
        let mut operators = self.operators.iter();
        self.columns
            .iter()
            .zip(&self.referenced_columns)
            .map(|(column, referenced)| {
                let (column, referenced) = (quote_identifier(column), quote_identifier(referenced));
                match operators.next() {
                    Some(Some(operator)) => format!("{parent}.{referenced} {} {child}.{column}", operator.sql()),
                    _ => format!("{child}.{column} = {parent}.{referenced}"),
                }
            })
            .collect::<Vec<_>>()
            .join(" and ")
    }

    pub fn is_self_reference(&self) -> bool {
        self.table == self.referenced
    }
}

impl OwnedTable {
    /// Reaches the customer of the row `alias`; joined aliases are `prefix1`, `prefix2`, …
    pub fn customer_join(&self, alias: &str, prefix: &str) -> CustomerJoin {
        let mut joins = String::new();
        let mut from = alias.to_owned();
        for (hop, key) in self.path.iter().enumerate() {
            let last = hop + 1 == self.path.len();
            let direct = key.referenced_columns.iter().position(|column| *column == self.root_key);
            if let (true, Some(position)) = (last, direct) {
                return CustomerJoin {
                    joins,
                    customer: format!("{from}.{}", quote_identifier(&key.columns[position])),
                };
            }
            let to = format!("{prefix}{}", hop + 1);
            let _ = write!(joins, " join {} as {to} on {}", key.referenced.sql(), key.condition(&from, &to));
            from = to;
        }
        CustomerJoin { joins, customer: format!("{from}.{}", quote_identifier(&self.root_key)) }
    }

    /// Rows of the customers that the ledger has under `entry`, of all or some of its chunks.
    pub fn select_of_entry(&self, entry: i32, chunks: Chunks) -> String {
        format!("select {} {}", self.table.select_list("t"), self.from_entry(entry, chunks))
    }

    /// The same rows, counted.
    pub fn count_of_entry(&self, entry: i32, chunks: Chunks) -> String {
        format!("select count(*) {}", self.from_entry(entry, chunks))
    }

    /// `from … where …` of the rows (alias `t`) of an entry.
    pub fn from_entry(&self, entry: i32, chunks: Chunks) -> String {
        let CustomerJoin { joins, customer } = self.customer_join("t", "p");
        let chunks =
            chunks.map_or_else(String::new, |(first, last)| format!(" and member.chunk between {first} and {last}"));
        format!(
            "from {} as t{joins} join godwit.member as member on member.customer = {customer} \
             where member.entry = {entry}{chunks}",
            self.table.name.sql()
        )
    }
}

impl Scope {
    pub fn root_table(&self) -> Option<&OwnedTable> {
        self.owned.first()
    }

    pub fn owned_table(&self, name: &TableName) -> Option<&OwnedTable> {
        self.owned.iter().find(|owned| owned.table.name == *name)
    }

    /// Every table of the dataset: reference tables first, then owned ones, parents before children.
    pub fn tables(&self) -> impl Iterator<Item = &Table> {
        self.reference.iter().map(|reference| &reference.table).chain(self.owned.iter().map(|owned| &owned.table))
    }

    pub fn contains(&self, name: &TableName) -> bool {
        self.tables().any(|table| table.name == *name)
    }

    /// Sequences that columns of the dataset draw from.
    pub fn sequences<'a>(&'a self, catalog: &'a Catalog) -> impl Iterator<Item = &'a Sequence> {
        catalog.sequences.iter().filter(|sequence| sequence.columns.iter().any(|(table, _)| self.contains(table)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(table: &str, columns: &[&str], referenced: &str, to: &[&str]) -> ForeignKey {
        ForeignKey {
            name: format!("{table}_fkey"),
            table: TableName::new("public", table),
            columns: columns.iter().map(ToString::to_string).collect(),
            referenced: TableName::new("public", referenced),
            referenced_columns: to.iter().map(ToString::to_string).collect(),
            operators: Vec::new(),
            match_full: false,
            validated: true,
            deferrable: false,
        }
    }

    fn owned(path: Vec<ForeignKey>) -> OwnedTable {
        OwnedTable {
            table: Table {
                name: TableName::new("public", "line"),
                kind: TableKind::Ordinary,
                columns: Vec::new(),
                primary_key: Vec::new(),
                primary_key_deferrable: false,
                uniques: Vec::new(),
                estimated_rows: 0,
                bytes: 0,
                unlogged: false,
                row_security: false,
                has_rules: false,
                inherits: false,
                partitions: Vec::new(),
                owned_by_us: true,
                checks: Vec::new(),
                deferrable_exclusions: Vec::new(),
            },
            path,
            format: RowFormat::Binary,
            root_key: "id".into(),
        }
    }

    #[test]
    fn the_last_hop_needs_no_join_when_the_child_has_the_customers_key() {
        let one = owned(vec![key("line", &["account_id"], "account", &["id"])]);
        assert_eq!(
            one.customer_join("t", "p"),
            CustomerJoin { joins: String::new(), customer: "t.\"account_id\"".into() }
        );
        let two = owned(vec![
            key("line", &["deal_id"], "deal", &["number"]),
            key("deal", &["tenant", "account"], "account", &["tenant", "id"]),
        ]);
        assert_eq!(
            two.customer_join("t", "p"),
            CustomerJoin {
                joins: " join \"public\".\"deal\" as p1 on t.\"deal_id\" = p1.\"number\"".into(),
                customer: "p1.\"account\"".into()
            }
        );
    }

    #[test]
    fn a_path_by_another_key_of_the_root_joins_the_root() {
        let by_code = owned(vec![key("line", &["code"], "account", &["code"])]);
        assert_eq!(
            by_code.customer_join("t", "p"),
            CustomerJoin {
                joins: " join \"public\".\"account\" as p1 on t.\"code\" = p1.\"code\"".into(),
                customer: "p1.\"id\"".into()
            }
        );
    }
}
