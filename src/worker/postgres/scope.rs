//! Decides what of a catalogue belongs to the migration: owned tables with their path to the customer, shared tables, links.
//! Used by Assess first and by every later step again, from the same dataset. Pure.
//! Must not guess an owner: two equally short ways to a customer are a finding, never a choice.

use std::collections::{BTreeMap, BTreeSet};

use super::identifier::TableName;
use super::model::{Catalog, ForeignKey, OwnedTable, Scope, ScopedReference, Table};
use super::suitability;
use crate::contract::{Dataset, Finding, Severity};

/// The scope, or what stands against it, worst first.
pub fn resolve(dataset: &Dataset, catalog: &Catalog) -> Result<Scope, Vec<Finding>> {
    let mut resolver = Resolver { dataset, catalog, findings: Vec::new(), notes: Vec::new() };
    let scope = resolver.scope();
    resolver.findings.sort_by_key(|finding| finding.severity);
    match scope {
        Some(scope) if resolver.findings.is_empty() => Ok(Scope { notes: resolver.notes, ..scope }),
        _ => Err(resolver.findings),
    }
}

struct Resolver<'a> {
    dataset: &'a Dataset,
    catalog: &'a Catalog,
    findings: Vec<Finding>,
    notes: Vec<Finding>,
}

/// The chosen foreign key of each owned table but the root, in the order of their distance from it.
type Owners = Vec<(TableName, Option<ForeignKey>)>;

impl<'a> Resolver<'a> {
    fn scope(&mut self) -> Option<Scope> {
        let root = self.root()?;
        let root_key_type = root.column(&self.dataset.root_key).map(|column| column.type_name.clone())?;
        let declared = self.declared_references();
        let candidates = self.candidates(&root.name, &declared);
        let owners = self.owners(&root.name, &candidates, &declared);
        let owned: BTreeSet<TableName> = owners.iter().map(|(name, _)| name.clone()).collect();
        let reference = self.references(&owned, &candidates, declared);
        self.check_edges(&owned, &reference);
        let scope = Scope {
            root: root.name.clone(),
            root_key: self.dataset.root_key.clone(),
            root_key_type,
            owned: self.owned_tables(&owners),
            links: self.links(&owners, &owned),
            reference_keys: self
                .catalog
                .foreign_keys
                .iter()
                .filter(|key| reference.contains(&key.referenced))
                .filter(|key| owned.contains(&key.table) || reference.contains(&key.table))
                .cloned()
                .collect(),
            reference: self.reference_tables(&reference),
            notes: Vec::new(),
        };
        self.findings.extend(suitability::findings(&scope, self.catalog));
        Some(scope)
    }

    fn root(&mut self) -> Option<&'a Table> {
        let dataset = self.dataset;
        let found = TableName::parse(&dataset.root_table).and_then(|name| self.catalog.tables.get(&name));
        let Some(root) = found else {
            self.block(
                "RootTableMissing",
                &dataset.root_table,
                "The root table does not exist, or the role may not see it; correct dataset.root.",
            );
            return None;
        };
        let key = &dataset.root_key;
        if root.column(key).is_none() {
            self.block(
                "RootKeyMissing",
                &dataset.root_table,
                "The root table has no such key column; correct dataset.root.key.",
            );
            return None;
        }
        let alone = |columns: &[String]| columns.len() == 1 && columns[0] == *key;
        let unique = alone(&root.primary_key)
            || (root.column(key).is_some_and(|column| column.not_null)
                && root.uniques.iter().any(|unique| alone(&unique.columns)));
        if !unique {
            self.block(
                "RootKeyNotUnique",
                &dataset.root_table,
                "The root key alone must identify a customer: declare it as primary key, or unique and not null.",
            );
        }
        Some(root)
    }

    /// Tables that the user names as shared.
    fn declared_references(&mut self) -> BTreeSet<TableName> {
        let mut declared = BTreeSet::new();
        for pattern in &self.dataset.reference {
            let matching: Vec<_> = self.matching(pattern).collect();
            if matching.is_empty() {
                self.block(
                    "ReferenceTableMissing",
                    pattern,
                    "dataset.reference names a table that does not exist; correct or remove it.",
                );
            }
            declared.extend(matching);
        }
        declared
    }

    /// Tables that may be owned: included, or all of them, without excluded and shared ones.
    fn candidates(&mut self, root: &TableName, declared: &BTreeSet<TableName>) -> BTreeSet<TableName> {
        let mut candidates: BTreeSet<TableName> = if self.dataset.include.is_empty() {
            self.catalog.tables.keys().cloned().collect()
        } else {
            let mut included = BTreeSet::from([root.clone()]);
            for pattern in &self.dataset.include {
                let matching: Vec<_> = self.matching(pattern).collect();
                if matching.is_empty() {
                    self.block(
                        "IncludeMatchesNothing",
                        pattern,
                        "dataset.include has a pattern that no table matches; correct or remove it.",
                    );
                }
                included.extend(matching);
            }
            included
        };
        candidates.retain(|name| !declared.contains(name) && !self.excluded(name));
        if !candidates.contains(root) {
            self.block(
                "RootTableExcluded",
                &root.to_string(),
                "The root table is excluded or declared as reference; take it out of dataset.exclude and dataset.reference.",
            );
            candidates.insert(root.clone());
        }
        candidates
    }

    /// Breadth first over foreign keys, away from the root.
    fn owners(&mut self, root: &TableName, candidates: &BTreeSet<TableName>, declared: &BTreeSet<TableName>) -> Owners {
        let chosen = self.declared_owners(candidates);
        let mut owners: Owners = vec![(root.clone(), None)];
        let mut owned = BTreeSet::from([root.clone()]);
        loop {
            let mut level = Vec::new();
            for name in candidates.difference(&owned) {
                if let Some(key) = self.owner_key(name, &owned, &chosen) {
                    level.push((name.clone(), Some(key)));
                }
            }
            if level.is_empty() {
                break;
            }
            owned.extend(level.iter().map(|(name, _)| name.clone()));
            owners.extend(level);
        }
        for name in chosen.keys().filter(|name| !owned.contains(*name)) {
            if !declared.contains(name) {
                self.block(
                    "OwnerPathEndless",
                    &name.to_string(),
                    "The foreign key chosen in dataset.owners never leads to the root table; choose another one.",
                );
            }
        }
        owners
    }

    /// The foreign key that leads from `name` to a customer, if one does already.
    fn owner_key(
        &mut self,
        name: &TableName,
        owned: &BTreeSet<TableName>,
        chosen: &BTreeMap<TableName, ForeignKey>,
    ) -> Option<ForeignKey> {
        if let Some(key) = chosen.get(name) {
            return owned.contains(&key.referenced).then(|| key.clone());
        }
        let mut keys: Vec<&ForeignKey> = Vec::new();
        for key in &self.catalog.foreign_keys {
            let known = keys.iter().any(|other| other.columns == key.columns && other.referenced == key.referenced);
            if key.table == *name && owned.contains(&key.referenced) && !known {
                keys.push(key);
            }
        }
        let key = keys.first().map(|key| (*key).clone())?;
        if keys.len() > 1 {
            let ways: Vec<_> = keys.iter().map(|key| key.columns.join("+")).collect();
            let message = format!(
                "Several foreign keys lead to a customer equally directly ({}); name the one that decides in dataset.owners.",
                ways.join(", ")
            );
            self.block("OwnerAmbiguous", &name.to_string(), &message);
        }
        Some(key)
    }

    /// `dataset.owners` as foreign keys.
    fn declared_owners(&mut self, candidates: &BTreeSet<TableName>) -> BTreeMap<TableName, ForeignKey> {
        let mut chosen = BTreeMap::new();
        for owner in &self.dataset.owners {
            let via: BTreeSet<&String> = owner.via.iter().collect();
            let key = TableName::parse(&owner.table).and_then(|name| {
                self.catalog
                    .foreign_keys
                    .iter()
                    .filter(|key| key.table == name && !key.is_self_reference())
                    .find(|key| key.columns.iter().collect::<BTreeSet<_>>() == via)
            });
            match key {
                Some(key) if candidates.contains(&key.table) => {
                    chosen.insert(key.table.clone(), key.clone());
                }
                Some(_) => {}
                None => self.block(
                    "OwnerKeyMissing",
                    &owner.table,
                    "dataset.owners names columns that are not a foreign key of the table; correct it.",
                ),
            }
        }
        chosen
    }

    /// Declared shared tables, included ones that lead to no customer, and all that the dataset references.
    fn references(
        &mut self,
        owned: &BTreeSet<TableName>,
        candidates: &BTreeSet<TableName>,
        declared: BTreeSet<TableName>,
    ) -> BTreeSet<TableName> {
        let mut reference = declared;
        if self.dataset.include.is_empty() {
            loop {
                let found: Vec<TableName> = self
                    .catalog
                    .foreign_keys
                    .iter()
                    .filter(|key| owned.contains(&key.table) || reference.contains(&key.table))
                    .filter(|key| !owned.contains(&key.referenced))
                    .filter(|key| !reference.contains(&key.referenced))
                    .filter(|key| !self.excluded(&key.referenced))
                    .map(|key| key.referenced.clone())
                    .collect();
                if found.is_empty() {
                    break;
                }
                reference.extend(found);
            }
        } else {
            reference.extend(candidates.difference(owned).cloned());
        }
        reference
    }

    fn check_edges(&mut self, owned: &BTreeSet<TableName>, reference: &BTreeSet<TableName>) {
        let within = |name: &TableName| owned.contains(name) || reference.contains(name);
        let catalog = self.catalog;
        for key in &catalog.foreign_keys {
            if reference.contains(&key.table) && owned.contains(&key.referenced) {
                let message = format!(
                    "The table is declared as reference, but {} leads to a customer; remove it from dataset.reference.",
                    key.name
                );
                self.block("ReferenceReachesCustomer", &key.table.to_string(), &message);
            } else if within(&key.table) && !within(&key.referenced) {
                let message = format!(
                    "{} needs rows of {}, which is not part of the dataset; add that table to dataset.include or dataset.reference.",
                    key.name, key.referenced
                );
                self.block("ReferencedTableOutside", &key.table.to_string(), &message);
            } else if owned.contains(&key.referenced) && !within(&key.table) {
                self.note(
                    Severity::Warning,
                    "TableStaysBehind",
                    &key.table,
                    "The table references customers' rows but is excluded; its rows stay on the source.",
                );
            }
        }
        for name in catalog.tables.keys().filter(|name| !within(name)) {
            if !self.notes.iter().any(|note| note.object == name.to_string()) {
                self.note(
                    Severity::Info,
                    "TableOutside",
                    name,
                    "The table is not part of the dataset; its rows stay on the source.",
                );
            }
        }
    }

    fn owned_tables(&self, owners: &Owners) -> Vec<OwnedTable> {
        let keys: BTreeMap<&TableName, &ForeignKey> =
            owners.iter().filter_map(|(name, key)| key.as_ref().map(|key| (name, key))).collect();
        owners
            .iter()
            .filter_map(|(name, _)| self.catalog.tables.get(name))
            .map(|table| {
                let mut path = Vec::new();
                let mut at = &table.name;
                while let Some(key) = keys.get(at) {
                    path.push((*key).clone());
                    at = &key.referenced;
                }
                OwnedTable {
                    format: table.format(),
                    table: table.clone(),
                    path,
                    root_key: self.dataset.root_key.clone(),
                }
            })
            .collect()
    }

    fn links(&self, owners: &Owners, owned: &BTreeSet<TableName>) -> Vec<ForeignKey> {
        let is_owner =
            |key: &ForeignKey| owners.iter().any(|(_, owner)| owner.as_ref().is_some_and(|owner| owner == key));
        self.catalog
            .foreign_keys
            .iter()
            .filter(|key| owned.contains(&key.table) && owned.contains(&key.referenced))
            .filter(|key| !is_owner(key))
            .cloned()
            .collect()
    }

    /// Referenced tables first; what a cycle leaves over follows in the order of names.
    fn reference_tables(&self, reference: &BTreeSet<TableName>) -> Vec<ScopedReference> {
        let mut ordered: Vec<&TableName> = Vec::new();
        let mut left: Vec<&TableName> = reference.iter().collect();
        while !left.is_empty() {
            let waits = |name: &TableName| {
                self.catalog
                    .foreign_keys
                    .iter()
                    .any(|key| key.table == *name && !key.is_self_reference() && left.contains(&&key.referenced))
            };
            let next = left.iter().position(|name| !waits(name)).unwrap_or(0);
            ordered.push(left.remove(next));
        }
        ordered
            .into_iter()
            .filter_map(|name| self.catalog.tables.get(name))
            .map(|table| ScopedReference { format: table.format(), table: table.clone() })
            .collect()
    }

    fn matching(&self, pattern: &str) -> impl Iterator<Item = TableName> {
        self.catalog.tables.keys().filter(move |name| matches(pattern, &name.to_string())).cloned()
    }

    fn excluded(&self, name: &TableName) -> bool {
        let text = name.to_string();
        self.dataset.exclude.iter().any(|pattern| matches(pattern, &text))
    }

    fn block(&mut self, code: &str, object: &str, message: &str) {
        self.findings.push(Finding {
            severity: Severity::Blocker,
            code: code.to_owned(),
            object: object.to_owned(),
            message: message.to_owned(),
        });
    }

    fn note(&mut self, severity: Severity, code: &str, table: &TableName, message: &str) {
        self.notes.push(Finding {
            severity,
            code: code.to_owned(),
            object: table.to_string(),
            message: message.to_owned(),
        });
    }
}

/// `*` stands for any characters, also for none; everything else for itself.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    text.strip_prefix(head)
        .is_some_and(|tail| tail.char_indices().map(|(at, _)| &tail[at..]).chain([""]).any(|end| matches(rest, end)))
}

#[cfg(test)]
#[path = "scope_tests.rs"]
mod tests;
