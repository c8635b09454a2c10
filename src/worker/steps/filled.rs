//! What of each table has landed while the tables are bare, and from which readings of the source: one checkpoint a table.
//! Used by `fill` and `strays`. Written in the transaction that lands or removes the rows.
//! Must say exactly what is in the target: Validate compares with it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use tokio_postgres::GenericClient;

use crate::worker::Error;
use crate::worker::postgres::identifier::TableName;
use crate::worker::postgres::ledger;
use crate::worker::postgres::row::Sum;

/// How the parts begin; a chunk's is its number.
const PART: &str = "filled ";

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Filled {
    pub sum: Sum,
    /// It was read to its end.
    pub finished: bool,
    /// A reading is one snapshot of the source. Rows of two of them may contradict each other.
    pub readings: BTreeSet<u32>,
}

/// All tables of a cohort.
pub struct FilledTables {
    subject: String,
    tables: BTreeMap<String, Filled>,
}

impl FilledTables {
    pub async fn load(client: &impl GenericClient, subject: &str) -> Result<Self, Error> {
        let mut tables = BTreeMap::new();
        for (part, state) in ledger::checkpoints(client, (subject, "copy")).await? {
            if let Some(table) = part.strip_prefix(PART) {
                let state = serde_json::from_value(state).map_err(unreadable)?;
                tables.insert(table.to_owned(), state);
            }
        }
        Ok(Self { subject: subject.to_owned(), tables })
    }

    pub fn of(&mut self, table: &TableName) -> &mut Filled {
        self.tables.entry(table.to_string()).or_default()
    }

    pub fn rows(&self) -> u64 {
        self.tables.values().map(|filled| filled.sum.rows).sum()
    }

    pub fn next_reading(&self) -> u32 {
        self.readings().last().map_or(1, |last| last + 1)
    }

    /// Whether some of the rows are of another snapshot than others.
    pub fn are_mixed(&self) -> bool {
        self.readings().len() > 1
    }

    fn readings(&self) -> BTreeSet<u32> {
        self.tables.values().flat_map(|filled| &filled.readings).copied().collect()
    }

    /// By table.
    pub fn into_sums(self) -> BTreeMap<String, Sum> {
        self.tables.into_iter().map(|(table, filled)| (table, filled.sum)).collect()
    }

    /// Belongs into the transaction that changed the table.
    pub async fn store(&self, client: &impl GenericClient, table: &TableName) -> Result<(), Error> {
        let name = table.to_string();
        let state = serde_json::to_value(self.tables.get(&name)).map_err(unreadable)?;
        ledger::set_checkpoint(client, (&self.subject, "copy", &format!("{PART}{name}")), &state).await
    }
}

/// Forgets what has landed, with the rows or because the chunks know it now.
pub async fn forget(client: &impl GenericClient, subject: &str) -> Result<(), Error> {
    client
        .execute(
            "delete from godwit.checkpoint where subject = $1 and step = 'copy' and pg_catalog.starts_with(part, $2)",
            &[&subject, &PART],
        )
        .await
        .map(drop)
        .map_err(Error::database("clear checkpoints"))
}

fn unreadable(source: serde_json::Error) -> Error {
    Error::Json { what: "a table's checkpoint", source }
}
