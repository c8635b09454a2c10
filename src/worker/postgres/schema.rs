//! The schema of the dataset's tables as SQL text, made by `pg_dump`, and how it is applied to another database.
//! Used by Prepare, for the tables that the target lacks. Must not carry over the fence's own triggers, owners or grants.

use std::collections::BTreeSet;

use super::fence_sql::TRIGGERS;
use super::identifier::{TableName, quote_identifier};
use super::model::{Catalog, Table};
use super::programs;
use crate::worker::error::Error;

/// Parts of a schema, in the order in which they are applied around the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// Tables, columns, defaults, sequences.
    PreData,
    /// Keys, indexes, foreign keys, triggers.
    PostData,
}

impl Section {
    fn option(self) -> &'static str {
        match self {
            Self::PreData => "--section=pre-data",
            Self::PostData => "--section=post-data",
        }
    }
}

/// The tables (with their partitions) and the sequences that their columns draw from, as SQL.
///
/// Types, functions and schemas that they need are not in it: see `dependency`.
pub async fn dump(uri: &str, (catalog, tables): (&Catalog, &[&Table]), section: Section) -> Result<String, Error> {
    let relations = relations(catalog, tables);
    if relations.is_empty() {
        return Ok(String::new());
    }
    let mut command = programs::pg_dump(uri)?;
    command.args(["--no-owner", "--no-privileges", section.option()]);
    for relation in relations {
        command.arg(format!("--table={}", pattern(relation)));
    }
    let text = programs::output(command, "pg_dump").await?;
    let text = String::from_utf8(text).map_err(|_| programs::failed("pg_dump")("its output is not UTF-8"))?;
    Ok(executable(&text))
}

fn relations<'a>(catalog: &'a Catalog, tables: &[&'a Table]) -> BTreeSet<&'a TableName> {
    let mut relations = BTreeSet::new();
    for table in tables {
        relations.insert(&table.name);
        relations.extend(&table.partitions);
    }
    let sequences: Vec<&TableName> = catalog
        .sequences
        .iter()
        .filter(|sequence| !sequence.identity)
        .filter(|sequence| sequence.columns.iter().any(|(table, _)| relations.contains(table)))
        .map(|sequence| &sequence.name)
        .collect();
    relations.extend(sequences);
    relations
}

/// In a pattern, what stands in double quotes stands for itself.
fn pattern(name: &TableName) -> String {
    format!("{}.{}", quote_identifier(&name.schema), quote_identifier(&name.name))
}

/// What a server takes in one go: without psql's own commands, without settings that only newer servers know, without our triggers.
fn executable(dump: &str) -> String {
    let ours = |line: &str| {
        TRIGGERS.iter().any(|trigger| {
            let quoted = quote_identifier(trigger);
            line.starts_with(&format!("CREATE TRIGGER {quoted} "))
                || line.ends_with(&format!(" ENABLE ALWAYS TRIGGER {quoted};"))
        })
    };
    dump.lines()
        .filter(|line| !line.starts_with("\\restrict ") && !line.starts_with("\\unrestrict "))
        .filter(|line| !line.starts_with("SET transaction_timeout "))
        .filter(|line| !ours(line))
        .flat_map(|line| [line, "\n"])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dump_loses_what_is_not_sql_and_what_is_ours() {
        let dump = "\\restrict abc\nSET statement_timeout = 0;\nSET transaction_timeout = 0;\nCREATE TABLE public.t ();\n\
            CREATE TRIGGER \"~godwit_fence_row\" BEFORE INSERT ON public.t;\n\
            ALTER TABLE public.t ENABLE ALWAYS TRIGGER \"~godwit_fence_row\";\nCREATE TRIGGER mine AFTER INSERT ON public.t;\n\\unrestrict abc\n";
        assert_eq!(
            executable(dump),
            "SET statement_timeout = 0;\nCREATE TABLE public.t ();\nCREATE TRIGGER mine AFTER INSERT ON public.t;\n"
        );
    }
}
