//! Whether what belongs to the migration can be moved at all: keys by which rows and customers are told apart, and paths that the
//! fence can follow.
//! Used by `scope` alone, as the last thing before a scope is handed out. Pure.
//! Must name the remedy with each finding: Assess shows them as they are.

use super::model::{Catalog, Column, OwnedTable, Scope, Table};
use crate::contract::{Finding, Severity};

/// real, double precision, numeric, interval, jsonb, timetz.
const MANY_SPELLINGS: [u32; 6] = [700, 701, 1700, 1186, 3802, 1266];
/// Types with lower identifiers come with the server.
const FIRST_USER_OID: u32 = 16384;

/// What stands against moving the tables of this scope; every one of them a blocker.
pub fn findings(scope: &Scope, catalog: &Catalog) -> Vec<Finding> {
    let mut blockers = Blockers(Vec::new());
    if let Some(root) = scope.root_table()
        && let Some(column) = root.table.column(&scope.root_key)
    {
        blockers.of_root_key(&root.table, column);
    }
    for table in scope.tables() {
        blockers.of_table(table);
        blockers.of_partitions(table, catalog);
    }
    for owned in &scope.owned {
        blockers.of_owner_key(owned);
    }
    blockers.0
}

struct Blockers(Vec<Finding>);

impl Blockers {
    fn note(&mut self, code: &str, object: &str, message: impl Into<String>) {
        self.0.push(Finding {
            severity: Severity::Blocker,
            code: code.to_owned(),
            object: object.to_owned(),
            message: message.into(),
        });
    }

    /// A customer is known by its key's text in one place and by its value in another: the two must tell the same customers apart.
    fn of_root_key(&mut self, root: &Table, column: &Column) {
        let table = root.name.to_string();
        let whole = column.type_name.ends_with(",0)");
        if column.type_oid >= FIRST_USER_OID {
            let message = "The root key's type is not one of PostgreSQL's own; use a built-in type.";
            self.note("RootKeyType", &table, message);
        } else if MANY_SPELLINGS.contains(&column.type_oid) && !whole {
            let message = format!(
                "Values of the root key's type {} can be equal and look different (1.0 and 1.00); use an integer, a text, a uuid, or a \
                 numeric without decimals, such as numeric(12,0).",
                column.type_name
            );
            self.note("RootKeyType", &table, message);
        }
        if column.insensitive {
            let message = "The root key's collation takes different texts for equal; use a deterministic collation.";
            self.note("RootKeyCollation", &table, message);
        }
    }

    fn of_table(&mut self, table: &Table) {
        let object = table.name.to_string();
        if table.primary_key.is_empty() {
            let message = "The table has no primary key, so its rows cannot be told apart; declare one.";
            self.note("PrimaryKeyMissing", &object, message);
        }
        if table.inherits {
            let message =
                "The table takes part in inheritance, which is not supported; use partitioning, or exclude it.";
            self.note("InheritanceUnsupported", &object, message);
        }
        if table.name.schema.contains('.') {
            self.note("SchemaNameUnsupported", &object, "The schema's name contains a dot; rename the schema.");
        }
        if table.primary_key.iter().any(|name| table.column(name).is_some_and(|column| column.generated)) {
            let message = "The primary key contains a generated column, which cannot be copied; use a plain column.";
            self.note("PrimaryKeyGenerated", &object, message);
        }
        for name in &table.deferrable_exclusions {
            let message = format!(
                "The exclusion constraint {name} is deferrable, and nothing enforces that while rows land; declare it not deferrable."
            );
            self.note("ExclusionDeferrable", &object, message);
        }
    }

    /// What belongs to single partitions is not followed: references are those of whole tables.
    fn of_partitions(&mut self, table: &Table, catalog: &Catalog) {
        let object = table.name.to_string();
        for key in &catalog.foreign_keys {
            if table.partitions.contains(&key.table) {
                let message = format!(
                    "The foreign key {} belongs to the partition {} alone; declare it on the table itself, or drop it.",
                    key.name, key.table
                );
                self.note("PartitionForeignKey", &object, message);
            } else if table.partitions.contains(&key.referenced) {
                let message = format!(
                    "The foreign key {} refers to the partition {} alone; let it refer to {object}, or drop it.",
                    key.name, key.referenced
                );
                self.note("PartitionForeignKey", &key.table.to_string(), message);
            }
        }
    }

    /// The fence follows owner paths before a row is written, by operators that every server has.
    fn of_owner_key(&mut self, owned: &OwnedTable) {
        let Some(key) = owned.path.first() else {
            return;
        };
        let object = owned.table.name.to_string();
        for column in key.columns.iter().filter_map(|name| owned.table.column(name)) {
            if column.generated {
                let message = format!(
                    "The foreign key {} that decides the customer contains a generated column; choose another one in dataset.owners.",
                    key.name
                );
                self.note("OwnerKeyGenerated", &object, message);
            } else if column.insensitive {
                let message = format!(
                    "The foreign key {} that decides the customer has a collation that takes different texts for equal; use a \
                     deterministic one.",
                    key.name
                );
                self.note("OwnerKeyCollation", &object, message);
            } else if !column.binary_safe {
                let message = format!(
                    "The foreign key {} that decides the customer has a column of type {}, which an extension defines; use a built-in type.",
                    key.name, column.type_name
                );
                self.note("OwnerKeyType", &object, message);
            }
        }
    }
}
