//! What the shared module `job` asks for: who the migration is. Every test here brings a dataset of its own.

use godwit::contract::{Dataset, Identity, OwnerPath};

pub fn migration() -> Identity {
    Identity { namespace: "hostile".into(), name: "move".into(), uid: "33333333-cccc".into() }
}

pub fn dataset() -> Dataset {
    Dataset::default()
}

/// A dataset by its root, and the foreign keys that decide where several lead to a customer.
pub fn rooted(table: &str, key: &str, owners: &[(&str, &[&str])]) -> Dataset {
    Dataset {
        root_table: table.into(),
        root_key: key.into(),
        owners: owners
            .iter()
            .map(|(table, via)| OwnerPath {
                table: (*table).into(),
                via: via.iter().map(ToString::to_string).collect(),
            })
            .collect(),
        ..Dataset::default()
    }
}
