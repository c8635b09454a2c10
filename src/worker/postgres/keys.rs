//! Keys of differing rows in a temporary table, so that a server can join them whatever their types are.
//! Filled from comparisons; read to delete, to copy, to export and to write evidence.
//! Must not leave anything behind: the table ends with its transaction.

use bytes::Bytes;
use futures::TryStreamExt;
use serde::Serialize;
use tokio_postgres::{RowStream, Transaction};

use super::compare::{Class, Difference};
use super::identifier::{quote_identifier, quote_identifiers, quote_literal};
use super::model::Table;
use super::relay::{Batches, Shape, head, tail};
use super::row::RowFormat;
use crate::worker::error::Error;
use crate::worker::storage::Writer;

/// Beside the columns of a key; lengthened where one of them has the same name.
const CLASS: &str = "godwit class";

/// How many keys of each class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct Counts {
    pub missing: u64,
    pub extra: u64,
    pub different: u64,
}

impl Counts {
    pub fn add(&mut self, differences: &[Difference]) {
        for difference in differences {
            match difference.class {
                Class::Missing => self.missing += 1,
                Class::Extra => self.extra += 1,
                Class::Different => self.different += 1,
            }
        }
    }

    pub fn merge(&mut self, other: Self) {
        self.missing += other.missing;
        self.extra += other.extra;
        self.different += other.different;
    }

    pub fn total(self) -> u64 {
        self.missing + self.extra + self.different
    }
}

/// Keys of one table in one transaction.
#[derive(Clone, Debug)]
pub struct KeyTable {
    name: String,
    key: Vec<String>,
    shape: Shape,
    of: Table,
    /// The column of the class, quoted.
    class: String,
}

/// A name that no column of the key has.
fn class_column(key: &[String]) -> String {
    let mut name = CLASS.to_owned();
    while key.contains(&name) {
        name.push('+');
    }
    quote_identifier(&name)
}

impl KeyTable {
    /// `number` makes the name unique within the transaction.
    pub async fn create(
        transaction: &Transaction<'_>,
        table: &Table,
        shape: Shape,
        number: usize,
    ) -> Result<Self, Error> {
        let name = format!("godwit_keys_{number}");
        let keys = Self {
            name: format!("pg_temp.{name}"),
            key: table.primary_key.clone(),
            shape,
            of: table.clone(),
            class: class_column(&table.primary_key),
        };
        let create = format!(
            "create temporary table {name} on commit drop as select {}, ''::text as {} from {} with no data",
            keys.columns(""),
            keys.class,
            table.name.sql()
        );
        transaction.batch_execute(&create).await.map_err(Error::database(format!("note keys of {}", table.name)))?;
        Ok(keys)
    }

    /// Adds keys as COPY sent them, each with its class.
    pub async fn add(&self, transaction: &Transaction<'_>, differences: &[Difference]) -> Result<(), Error> {
        let noted = || Error::database(format!("note keys of {}", self.of.name));
        let format = self.shape.format;
        let copy =
            format!("copy {} ({}, {}) from stdin {}", self.name, self.columns(""), self.class, format.copy_options());
        let sink = transaction.copy_in::<_, Bytes>(&copy).await.map_err(noted())?;
        let mut batches = Batches::new(sink, &self.of);
        batches.push(head(format)).await?;
        for difference in differences {
            self.push(&mut batches, difference).await?;
        }
        batches.push(tail(format)).await?;
        batches.finish().await?;
        Ok(())
    }

    async fn push(&self, batches: &mut Batches, difference: &Difference) -> Result<(), Error> {
        let class = name_of(difference.class).as_bytes();
        match self.shape.format {
            RowFormat::Binary => {
                let fields = i16::try_from(self.key.len() + 1).unwrap_or(i16::MAX);
                batches.push(&fields.to_be_bytes()).await?;
                batches.push(&difference.key).await?;
                let length = i32::try_from(class.len()).unwrap_or(i32::MAX);
                batches.push(&length.to_be_bytes()).await?;
                batches.push(class).await
            }
            RowFormat::Text => {
                batches.push(&difference.key).await?;
                batches.push(b"\t").await?;
                batches.push(class).await?;
                batches.push(b"\n").await
            }
        }
    }

    /// The planner guesses wildly about a table it has no statistics of.
    pub async fn analyze(&self, transaction: &Transaction<'_>) -> Result<(), Error> {
        transaction
            .batch_execute(&format!("analyze {}", self.name))
            .await
            .map_err(Error::database(format!("note keys of {}", self.of.name)))
    }

    pub fn table(&self) -> &Table {
        &self.of
    }

    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// `T as t join keys as k on …` with the classes wanted, as the `from` and `where` of a statement.
    pub fn from(&self, classes: &[Class]) -> String {
        format!(
            "from {} as t join {} as k on {} where {}",
            self.of.name.sql(),
            self.name,
            self.same_key("t", "k"),
            self.in_classes(classes)
        )
    }

    /// The rows behind the keys, as they travel.
    pub fn select_rows(&self, classes: &[Class]) -> String {
        format!("select {} {}", self.of.select_list("t"), self.from(classes))
    }

    /// The keys alone, as they travel.
    pub fn select_keys(&self, classes: &[Class]) -> String {
        format!("select {} from {} as k where {}", self.columns("k."), self.name, self.in_classes(classes))
    }

    pub fn delete_rows(&self, classes: &[Class]) -> String {
        format!(
            "delete from {} as t using {} as k where {} and {}",
            self.of.name.sql(),
            self.name,
            self.same_key("t", "k"),
            self.in_classes(classes)
        )
    }

    /// Appends the keys to an evidence file, one JSON object a line.
    pub async fn write_evidence(&self, transaction: &Transaction<'_>, writer: &mut Writer) -> Result<(), Error> {
        let values: Vec<_> = self.key.iter().map(|column| format!("k.{}::text", quote_identifier(column))).collect();
        let select = format!(
            "select pg_catalog.json_build_object('table', {}, 'class', k.{}, 'key', pg_catalog.json_build_array({}))::text \
             from {} as k",
            quote_literal(&self.of.name.to_string()),
            self.class,
            values.join(", "),
            self.name
        );
        write_lines(transaction, &select, writer).await
    }

    fn columns(&self, prefix: &str) -> String {
        if prefix.is_empty() {
            return quote_identifiers(self.key.iter().map(String::as_str));
        }
        self.key.iter().map(|column| format!("{prefix}{}", quote_identifier(column))).collect::<Vec<_>>().join(", ")
    }

    fn same_key(&self, one: &str, other: &str) -> String {
        self.of.same_key(one, other)
    }

    fn in_classes(&self, classes: &[Class]) -> String {
        let names: Vec<_> = classes.iter().map(|class| quote_literal(name_of(*class))).collect();
        format!("k.{} in ({})", self.class, names.join(", "))
    }

    /// Joins `alias` (a row that refers to this table) with the keys, where `key` refers by columns of the key.
    pub fn join_referencing(&self, key: &super::model::ForeignKey, alias: &str) -> Option<String> {
        key.referenced_columns.iter().all(|column| self.key.contains(column)).then(|| {
            format!(
                " join {} as k on {} and {}",
                self.name,
                key.condition(alias, "k"),
                self.in_classes(&[Class::Extra, Class::Different])
            )
        })
    }
}

/// Writes the single text column of a query to a file, a line for each row.
pub async fn write_lines(transaction: &Transaction<'_>, select: &str, writer: &mut Writer) -> Result<(), Error> {
    let failed = || Error::database("read keys for the evidence file");
    let none: [i32; 0] = [];
    let rows: RowStream = transaction.query_raw(select, none).await.map_err(failed())?;
    let mut rows = std::pin::pin!(rows);
    while let Some(row) = rows.try_next().await.map_err(failed())? {
        let line: String = row.try_get(0).map_err(failed())?;
        writer.write(line.as_bytes()).await?;
        writer.write(b"\n").await?;
    }
    Ok(())
}

fn name_of(class: Class) -> &'static str {
    match class {
        Class::Missing => "Missing",
        Class::Extra => "Extra",
        Class::Different => "Different",
    }
}
