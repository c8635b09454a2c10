//! What stands in the way beside the shape of tables: encodings, names that are taken, sequences that are called otherwise,
//! content outside of the rows, views that stay.
//! Used by Assess alone. Must only look: every finding has its remedy, and nothing is tried.

use tokio_postgres::Transaction;

use super::identifier::{TableName, quote_identifier};
use super::model::{Catalog, Scope, Table};
use super::session::Session;
use crate::contract::{Finding, Severity};
use crate::worker::error::Error;

/// Characters of one side that the other one does not know, or whose meaning nobody knows.
pub async fn encodings(source: &Session, target: &Session) -> Result<Option<Finding>, Error> {
    const UNKNOWN: &str = "SQL_ASCII";
    let (here, there) = futures::try_join!(encoding(source), encoding(target))?;
    let finding = |severity, code: &str, side: &str, message: String| {
        Some(Finding { severity, code: code.to_owned(), object: side.to_owned(), message })
    };
    Ok(match (here.as_str(), there.as_str()) {
        (here, there) if here == there => None,
        (UNKNOWN, _) => finding(
            Severity::Blocker,
            "EncodingUnknown",
            "source",
            format!(
                "The source's encoding is SQL_ASCII: what its bytes mean is not known, and the target ({there}) refuses what it cannot read. \
                 Make the source a database with an encoding, by dump and restore, first."
            ),
        ),
        (_, "UTF8") => None,
        (here, there) => finding(
            Severity::Warning,
            "EncodingNarrower",
            "target",
            format!(
                "The target's encoding is {there}, the source's {here}: a row with a character that {there} lacks cannot land."
            ),
        ),
    })
}

async fn encoding(session: &Session) -> Result<String, Error> {
    session
        .query_one("select pg_catalog.current_setting('server_encoding')", &[])
        .await
        .map(|row| row.get(0))
        .map_err(Error::database("read the encodings"))
}

/// Relations of the target, of whatever kind, under names that Prepare would create: tables, partitions, indexes, sequences.
pub async fn names_taken(source: &Session, target: &Session, missing: &[&TableName]) -> Result<Vec<Finding>, Error> {
    let tables: Vec<String> = missing.iter().map(|name| name.sql()).collect();
    let created = source
        .query(
            "with t as (select pg_catalog.to_regclass(name)::oid as oid from pg_catalog.unnest($1::text[]) as u(name)) \
             select n.nspname::text, c.relname::text from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace \
             where c.oid in (select oid from t union select x.indexrelid from pg_catalog.pg_index x join t on t.oid = x.indrelid \
               union select d.objid from pg_catalog.pg_depend d join t on t.oid = d.refobjid join pg_catalog.pg_sequence s on s.seqrelid = d.objid \
                 where d.classid = 'pg_catalog.pg_class'::regclass and d.refclassid = 'pg_catalog.pg_class'::regclass)",
            &[&tables],
        )
        .await
        .map_err(Error::database("list what Prepare has to create"))?;
    let (schemas, names): (Vec<String>, Vec<String>) =
        created.iter().map(|row| (row.get::<_, String>(0), row.get::<_, String>(1))).unzip();
    let taken = target
        .query(
            "select n.nspname::text, c.relname::text, case c.relkind when 'v' then 'view' when 'm' then 'materialised view' \
               when 'S' then 'sequence' when 'f' then 'foreign table' when 'c' then 'type' when 'i' then 'index' when 'I' then 'index' else 'table' end \
             from unnest($1::text[], $2::text[]) as u(schema, name) join pg_catalog.pg_namespace n on n.nspname = u.schema \
             join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = u.name",
            &[&schemas, &names],
        )
        .await
        .map_err(Error::database("look for names that are taken on the target"))?;
    Ok(taken
        .iter()
        .map(|row| Finding {
            severity: Severity::Blocker,
            code: "NameTaken".into(),
            object: TableName::new(row.get::<_, String>(0), row.get::<_, String>(1)).to_string(),
            message: format!(
                "The target has a {} of this name, which Prepare has to create for the dataset; rename it or drop it.",
                row.get::<_, String>(2)
            ),
        })
        .collect())
}

/// Sequences of tables that are on the target already, where they are called otherwise or absent.
pub fn sequences_missing(scope: &Scope, (source, target): (&Catalog, &Catalog)) -> Vec<Finding> {
    let mut findings = Vec::new();
    for sequence in scope.sequences(source) {
        let known = target.sequences.iter().any(|other| other.name == sequence.name);
        let there = sequence.columns.iter().find(|(table, _)| target.tables.contains_key(table));
        let Some((table, column)) = there.filter(|_| !known) else {
            continue;
        };
        let at = (table.clone(), column.clone());
        let instead = target.sequences.iter().find(|other| other.columns.contains(&at));
        let draws = instead.map_or_else(|| "no sequence".to_owned(), |other| other.name.to_string());
        findings.push(Finding {
            severity: Severity::Blocker,
            code: "SequenceMissing".into(),
            object: sequence.name.to_string(),
            message: format!(
                "The target lacks this sequence, of which both sides have to draw in turn: there {table}.{column} draws from {draws}. \
                 Rename that one, or create this one and let the column draw from it."
            ),
        });
    }
    findings
}

/// Columns of type `oid` whose values are large objects.
pub async fn large_objects(snapshot: &Transaction<'_>, scope: &Scope) -> Result<Vec<Finding>, Error> {
    let mut findings = Vec::new();
    for table in scope.tables() {
        for column in table.columns.iter().filter(|column| column.object_id) {
            let sql = format!(
                "select exists (select from {} as t join pg_catalog.pg_largeobject_metadata as m on m.oid = t.{})",
                table.name.sql(),
                quote_identifier(&column.name)
            );
            let refers: bool = snapshot
                .query_one(&sql, &[])
                .await
                .and_then(|row| row.try_get(0))
                .map_err(Error::database(format!("look for large objects of {}", table.name)))?;
            if refers {
                findings.push(Finding {
                    severity: Severity::Blocker,
                    code: "LargeObjectColumn".into(),
                    object: table.name.to_string(),
                    message: format!(
                        "The column {} refers to large objects, which do not move; exclude the table, or store the content in it as bytea.",
                        column.name
                    ),
                });
            }
        }
    }
    Ok(findings)
}

/// Views over the dataset's tables: they are not moved, and nobody else would say so.
pub async fn views(source: &Session, tables: &[&Table]) -> Result<Vec<Finding>, Error> {
    let names: Vec<String> = tables.iter().map(|table| table.name.sql()).collect();
    let rows = source
        .query(
            "select distinct n.nspname::text, c.relname::text, c.relkind = 'm' from pg_catalog.unnest($1::text[]) as u(name) \
             join pg_catalog.pg_depend d on d.refclassid = 'pg_catalog.pg_class'::regclass and d.refobjid = pg_catalog.to_regclass(u.name) \
               and d.classid = 'pg_catalog.pg_rewrite'::regclass \
             join pg_catalog.pg_rewrite r on r.oid = d.objid join pg_catalog.pg_class c on c.oid = r.ev_class and c.relkind in ('v', 'm') \
             join pg_catalog.pg_namespace n on n.oid = c.relnamespace order by 1, 2",
            &[&names],
        )
        .await
        .map_err(Error::database("look for views over the dataset's tables"))?;
    Ok(rows
        .iter()
        .map(|row| Finding {
            severity: Severity::Info,
            code: "ViewStaysBehind".into(),
            object: TableName::new(row.get::<_, String>(0), row.get::<_, String>(1)).to_string(),
            message: if row.get(2) {
                "The materialised view reads tables of the dataset and does not move; create it on the target, and refresh it there after the last cutover."
            } else {
                "The view reads tables of the dataset and does not move; create it on the target once Prepare has made the tables."
            }
            .into(),
        })
        .collect())
}
