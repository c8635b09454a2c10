//! What the session's role may do, and what of a server stands in the way.
//! Used by Assess, which names each missing right with its remedy.
//! Must only ask: privileges are read from the catalogue, nothing is tried.

use super::fence_sql::TRIGGERS;
use super::identifier::TableName;
use super::model::{Scope, Table};
use super::session::Session;
use crate::contract::{Finding, Severity};
use crate::worker::error::Error;

/// Everything about rights on one side. `existing`: the dataset's tables that are there.
pub async fn findings(session: &Session, existing: &[&Table]) -> Result<Vec<Finding>, Error> {
    let mut findings = Vec::new();
    let side = session.side();
    for table in existing {
        if !table.owned_by_us {
            findings.push(block(
                "NotTableOwner",
                table.name.to_string(),
                format!("The {side}'s role must own the table, or be a member of the owner, to fence it; grant that membership."),
            ));
        }
    }
    let may_create = "select pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE')";
    if !ask(session, may_create).await? {
        findings.push(block(
            "CreateDenied",
            side.to_owned(),
            "The role may not create the schema godwit; grant CREATE on the database.".into(),
        ));
    }
    findings.extend(temporary_denied(session).await?);
    if !may_switch_triggers_off(session).await? {
        findings.push(block(
            "ReplicationRoleDenied",
            side.to_owned(),
            "The role may not set session_replication_role, so rows cannot land without firing triggers; use a superuser, or on \
             PostgreSQL 15 and later GRANT SET ON PARAMETER session_replication_role."
                .into(),
        ));
    }
    for table in existing {
        let may: bool = session
            .query_one(
                "select pg_catalog.has_table_privilege(pg_catalog.to_regclass($1), 'SELECT')",
                &[&table.name.sql()],
            )
            .await
            .map(|row| row.get(0))
            .map_err(Error::database("ask for rights on tables"))?;
        if !may {
            findings.push(block(
                SELECT_DENIED,
                table.name.to_string(),
                format!("The {side}'s role may not read the table; grant SELECT on it."),
            ));
        }
    }
    findings.extend(hidden_rows(session, existing).await?);
    findings.extend(firing(session, existing).await?);
    Ok(findings)
}

/// Whether rows can be read at all: with these findings, reading them would fail.
pub fn may_read(findings: &[Finding]) -> bool {
    !findings.iter().any(|finding| [SELECT_DENIED, ROW_SECURITY].contains(&finding.code.as_str()))
}

const SELECT_DENIED: &str = "SelectDenied";
const ROW_SECURITY: &str = "RowSecurity";

/// Rows land in temporary tables, and differing keys are noted in one.
async fn temporary_denied(session: &Session) -> Result<Option<Finding>, Error> {
    let may = "select pg_catalog.has_database_privilege(pg_catalog.current_database(), 'TEMPORARY')";
    if ask(session, may).await? {
        return Ok(None);
    }
    let named = "select pg_catalog.format('%I TO %I', pg_catalog.current_database(), current_user)";
    let row = session.query_one(named, &[]).await.map_err(Error::database("ask who we are"))?;
    let message =
        format!("The role may not make temporary tables; GRANT TEMPORARY ON DATABASE {}.", row.get::<_, &str>(0));
    Ok(Some(block("TemporaryDenied", session.side().to_owned(), message)))
}

async fn may_switch_triggers_off(session: &Session) -> Result<bool, Error> {
    if ask(session, "select rolsuper from pg_catalog.pg_roles where rolname = current_user").await? {
        return Ok(true);
    }
    if session.server_version() < 150_000 {
        return Ok(false);
    }
    ask(session, "select pg_catalog.has_parameter_privilege('session_replication_role', 'SET')").await
}

/// Row security would hide rows from a copy, or refuse it.
async fn hidden_rows(session: &Session, existing: &[&Table]) -> Result<Vec<Finding>, Error> {
    let mut findings = Vec::new();
    for table in existing.iter().filter(|table| table.row_security) {
        let active: bool = session
            .query_one("select pg_catalog.row_security_active(pg_catalog.to_regclass($1))", &[&table.name.sql()])
            .await
            .map(|row| row.get(0))
            .map_err(Error::database("ask for row security"))?;
        let bypasses =
            ask(session, "select rolsuper or rolbypassrls from pg_catalog.pg_roles where rolname = current_user")
                .await?;
        if active && !bypasses {
            findings.push(block(
                ROW_SECURITY,
                table.name.to_string(),
                format!("Row security hides rows from the {}'s role; give it BYPASSRLS.", session.side()),
            ));
        }
    }
    Ok(findings)
}

/// Triggers and rules of the users that fire even while rows land, on the dataset's tables and their partitions.
pub async fn firing(session: &Session, tables: &[&Table]) -> Result<Vec<Finding>, Error> {
    let ours: Vec<&str> = TRIGGERS.to_vec();
    let rows = session
        .query(
            "select n.nspname::text, c.relname::text, 'TRIGGER', t.tgname::text from pg_catalog.pg_trigger t \
               join pg_catalog.pg_class c on c.oid = t.tgrelid join pg_catalog.pg_namespace n on n.oid = c.relnamespace \
               where not t.tgisinternal and t.tgenabled in ('A', 'R') and t.tgname <> all ($1) \
             union all \
             select n.nspname::text, c.relname::text, 'RULE', r.rulename::text from pg_catalog.pg_rewrite r \
               join pg_catalog.pg_class c on c.oid = r.ev_class join pg_catalog.pg_namespace n on n.oid = c.relnamespace \
               where c.relkind in ('r', 'p') and r.ev_enabled in ('A', 'R')",
            &[&ours],
        )
        .await
        .map_err(Error::database("look for triggers that fire while rows land"))?;
    let concerned =
        |name: &TableName| tables.iter().any(|table| table.name == *name || table.partitions.contains(name));
    let mut findings = Vec::new();
    for row in rows {
        let table = TableName::new(row.get::<_, String>(0), row.get::<_, String>(1));
        let (kind, name): (&str, &str) = (row.get(2), row.get(3));
        if concerned(&table) {
            findings.push(block(
                "FiresOnLanding",
                table.to_string(),
                format!(
                    "The {}'s {} {name} is enabled ALWAYS or as REPLICA and would fire for each row that lands; make it an ordinary one \
                     with ALTER TABLE … ENABLE {kind}.",
                    session.side(),
                    kind.to_lowercase()
                ),
            ));
        }
    }
    Ok(findings)
}

/// The sequences that Prepare has to set or change.
pub async fn sequence_findings(session: &Session, sequences: &[&TableName]) -> Result<Vec<Finding>, Error> {
    let mut findings = Vec::new();
    for name in sequences {
        let may: Option<bool> = session
            .query_one(
                "select pg_catalog.pg_has_role(relowner, 'USAGE') from pg_catalog.pg_class where oid = pg_catalog.to_regclass($1) \
                 union all select null limit 1",
                &[&name.sql()],
            )
            .await
            .map(|row| row.get(0))
            .map_err(Error::database("ask for rights on sequences"))?;
        if may == Some(false) {
            findings.push(block(
                "NotSequenceOwner",
                name.to_string(),
                format!(
                    "The {}'s role must own the sequence, or be a member of the owner, to split its keys.",
                    session.side()
                ),
            ));
        }
    }
    Ok(findings)
}

/// Schemas in which tables must be created, where the role may not.
pub async fn schema_findings(session: &Session, scope: &Scope) -> Result<Vec<Finding>, Error> {
    let schemas: std::collections::BTreeSet<&str> = scope.tables().map(|table| table.name.schema.as_str()).collect();
    let mut findings = Vec::new();
    for schema in schemas {
        let may: bool = session
            .query_one(
                "select coalesce((select pg_catalog.has_schema_privilege(oid, 'CREATE') from pg_catalog.pg_namespace where nspname = $1), true)",
                &[&schema],
            )
            .await
            .map(|row| row.get(0))
            .map_err(Error::database("ask for rights on schemas"))?;
        if !may {
            findings.push(block(
                "CreateDenied",
                schema.to_owned(),
                format!("The {}'s role may not create tables in this schema; grant CREATE on it.", session.side()),
            ));
        }
    }
    Ok(findings)
}

async fn ask(session: &Session, sql: &str) -> Result<bool, Error> {
    session
        .query_one(sql, &[])
        .await
        .map(|row| row.get(0))
        .map_err(Error::database(format!("ask for rights on the {}", session.side())))
}

fn block(code: &str, object: String, message: String) -> Finding {
    Finding { severity: Severity::Blocker, code: code.to_owned(), object, message }
}
