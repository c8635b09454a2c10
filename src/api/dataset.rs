//! Which rows a Migration moves, to whom they belong, and how both sides draw keys.
//! Part of `MigrationSpec`. Must say nothing about databases: those are the engine's.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::pattern;

/// Which rows move and to whom they belong.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Dataset {
    /// The table whose rows are the customers. Fixed once started.
    pub root: RootTable,
    /// Patterns `schema.table` (with `*`) of tables that take part. Default: every table that reaches the root by foreign keys, and what those refer to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 128)))]
    pub include: Vec<String>,
    /// Patterns of tables that stay out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 128)))]
    pub exclude: Vec<String>,
    /// Patterns of shared tables: copied whole, owned by the source until the last cohort's cutover.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 128)))]
    pub reference: Vec<String>,
    /// Which foreign key decides to whom a row belongs, for tables where several lead to a customer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["table".into()]))]
    pub owners: Vec<OwnerPath>,
    /// How both sides draw new keys without meeting. Default: Gap.
    #[serde(default)]
    pub keys: Keys,
}

/// The table whose rows are the customers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct RootTable {
    /// The table as `schema.table`.
    #[schemars(length(min = 3, max = 128), regex(pattern = pattern::TABLE))]
    pub table: String,
    /// Its key column.
    #[schemars(length(min = 1, max = 63))]
    pub key: String,
}

/// The foreign key that decides to whom a table's rows belong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct OwnerPath {
    /// The table as `schema.table`.
    #[schemars(length(min = 3, max = 128), regex(pattern = pattern::TABLE))]
    pub table: String,
    /// Columns of the foreign key.
    #[schemars(length(min = 1, max = 4), inner(length(min = 1, max = 63)))]
    pub via: Vec<String>,
}

/// How both sides draw new keys without meeting.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct Keys {
    /// Gap (default): the target starts above a range reserved for the source. Parity: odd on one side, even on the other. None: keys do not come from sequences.
    #[serde(default)]
    pub strategy: KeyStrategy,
}

/// Gap, Parity or None.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum KeyStrategy {
    #[default]
    Gap,
    Parity,
    None,
}
