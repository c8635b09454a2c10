//! The target as Prepare found it, and what Prepare made: so that Reset can bring it back and prove it.
//! Written once by Prepare into the target's ledger, in the transaction that creates tables; read by Reset and Discard.
//! Must hold no rows: counts and sums only.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use tokio_postgres::{GenericClient, Transaction};

use super::dependency::Dependency;
use super::identifier::TableName;
use super::model::{Catalog, Scope, Table};
use super::relay::Shape;
use super::row::Sum;
use super::sides::{Origin, Portion};
use crate::worker::error::Error;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    /// The tables that were there, with their rows.
    pub tables: BTreeMap<TableName, Sum>,
    /// The tables that Prepare created.
    pub created: BTreeSet<TableName>,
    /// Types, functions and schemas that Prepare created, in the order of their creation.
    pub dependencies: Vec<(String, String)>,
}

impl Baseline {
    /// Reads every table of the dataset that exists on the target, whole.
    pub async fn read(transaction: &Transaction<'_>, scope: &Scope, target: &Catalog) -> Result<Self, Error> {
        let mut baseline = Self::default();
        for table in scope.tables() {
            if target.tables.contains_key(&table.name) {
                let sum = sum_of_table(transaction, table).await?;
                baseline.tables.insert(table.name.clone(), sum);
            } else {
                baseline.created.insert(table.name.clone());
            }
        }
        Ok(baseline)
    }

    pub fn depends_on(&mut self, created: &[Dependency]) {
        self.dependencies =
            created.iter().map(|dependency| (dependency.kind.clone(), dependency.identity.clone())).collect();
    }

    /// The recorded one.
    pub async fn load(client: &impl GenericClient) -> Result<Option<Self>, Error> {
        let row = client
            .query_opt("select baseline from godwit.migration where baseline is not null", &[])
            .await
            .map_err(Error::database("read the target's baseline"))?;
        row.map(|row| {
            serde_json::from_value(row.get(0)).map_err(|source| Error::Json { what: "the target's baseline", source })
        })
        .transpose()
    }

    pub async fn store(&self, client: &impl GenericClient) -> Result<(), Error> {
        let value =
            serde_json::to_value(self).map_err(|source| Error::Json { what: "the target's baseline", source })?;
        client
            .execute("update godwit.migration set baseline = $1", &[&value])
            .await
            .map(drop)
            .map_err(Error::database("record the target's baseline"))
    }
}

/// Count and sum of all rows of a table.
pub async fn sum_of_table(transaction: &Transaction<'_>, table: &Table) -> Result<Sum, Error> {
    let portion = Portion { table, shape: Shape::new(table, table.format()), select: table.select_all() };
    Origin::Database(transaction).sum(&portion).await
}
