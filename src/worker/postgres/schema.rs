//! The schema of the dataset's tables as SQL text, made by `pg_dump`, and how it is applied to another database.
//! Used by Prepare (target), Backup (for the record) and VerifyBackup (sandbox).
//! Must not carry over the fence's own triggers, owners or grants, and must not show a password in a process list.

use std::collections::BTreeSet;
use std::process::Stdio;

use tokio::process::Command;
use tokio_postgres::Config;

use super::fence_sql::TRIGGERS;
use super::identifier::{TableName, quote_identifier};
use super::model::{Catalog, Table};
use super::sandbox;
use super::tls;
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

/// Where a dump is taken: a database, and a snapshot exported in it, if it must agree with one.
#[derive(Clone, Copy, Debug)]
pub struct DumpOf<'a> {
    pub uri: &'a str,
    pub snapshot: Option<&'a str>,
}

/// The tables (with their partitions) and the sequences that their columns draw from, as SQL.
///
/// Types, functions and schemas that they need are not in it: see `dependency`.
pub async fn dump(of: DumpOf<'_>, (catalog, tables): (&Catalog, &[&Table]), section: Section) -> Result<String, Error> {
    let relations = relations(catalog, tables);
    if relations.is_empty() {
        return Ok(String::new());
    }
    let programs =
        sandbox::programs().map_err(|error| Error::Program { program: "pg_dump".into(), reason: error.to_string() })?;
    let mut command = Command::new(programs.join("pg_dump"));
    let (uri, password) = without_password(of.uri);
    if let Some(password) = password {
        command.env("PGPASSWORD", password);
    }
    command
        .args([
            "--no-owner",
            "--no-privileges",
            "--no-tablespaces",
            "--no-security-labels",
            "--no-publications",
            "--no-subscriptions",
            "--schema-only",
            "--lock-wait-timeout=10000",
            "--encoding=UTF8",
            section.option(),
        ])
        .arg(format!("--dbname={uri}"));
    if let Some(snapshot) = of.snapshot {
        command.arg(format!("--snapshot={snapshot}"));
    }
    for relation in relations {
        command.arg(format!("--table={}", pattern(relation)));
    }
    let text = output(command, "pg_dump").await?;
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

/// A URI without its password, and the password for the environment: arguments are visible to other processes.
pub fn without_password(uri: &str) -> (String, Option<String>) {
    let password = tls::split_uri(uri).uri.parse::<Config>().ok().and_then(|config| {
        let bytes = config.get_password()?;
        String::from_utf8(bytes.to_vec()).ok()
    });
    let Some((scheme, rest)) = uri.split_once("://") else {
        return (uri.to_owned(), password);
    };
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(end);
    let authority = match authority.rsplit_once('@') {
        Some((user, host)) => {
            let user = user.split_once(':').map_or(user, |(user, _)| user);
            format!("{user}@{host}")
        }
        None => authority.to_owned(),
    };
    let tail = match tail.split_once('?') {
        Some((path, query)) => {
            let kept: Vec<&str> = query.split('&').filter(|parameter| !parameter.starts_with("password=")).collect();
            format!("{path}?{}", kept.join("&"))
        }
        None => tail.to_owned(),
    };
    (format!("{scheme}://{authority}{tail}"), password)
}

/// Standard output of a program that ended well.
async fn output(mut command: Command, program: &str) -> Result<String, Error> {
    let failed = |reason: String| Error::Program { program: program.to_owned(), reason };
    let output =
        command.stdin(Stdio::null()).kill_on_drop(true).output().await.map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        return Err(failed(text.trim().chars().take(400).collect()));
    }
    String::from_utf8(output.stdout).map_err(|_| failed("its output is not UTF-8".into()))
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
    fn a_password_never_becomes_an_argument() {
        for (uri, expected, password) in [
            (
                "postgresql://u:p%40ss@h:5432/db?sslmode=require",
                "postgresql://u@h:5432/db?sslmode=require",
                Some("p@ss"),
            ),
            (
                "postgresql://u@h/db?password=secret&connect_timeout=3",
                "postgresql://u@h/db?connect_timeout=3",
                Some("secret"),
            ),
            ("postgresql://h/db", "postgresql://h/db", None),
            ("postgresql://u:a@h?sslmode=verify-full", "postgresql://u@h?sslmode=verify-full", Some("a")),
        ] {
            assert_eq!(without_password(uri), (expected.to_owned(), password.map(ToOwned::to_owned)));
        }
    }

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
