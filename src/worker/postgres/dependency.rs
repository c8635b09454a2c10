//! What tables need beside themselves: schemas, extensions, types and functions, as statements that create them.
//! Used by Assess (can the target have them?), Prepare (create what is missing there) and VerifyBackup (the sandbox).
//! Must not replace what the other database has already.

use std::collections::BTreeMap;

use tokio_postgres::error::SqlState;
use tokio_postgres::{GenericClient, Transaction};

use super::identifier::TableName;
use super::session::Session;
use crate::contract::{Finding, Severity};
use crate::worker::error::{Error, Fault};

/// One object that tables need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dependency {
    pub kind: String,
    /// Qualified, as the server writes it.
    pub identity: String,
    /// The statement that creates it; `None`: not one that we can make.
    pub create: Option<String>,
}

/// Everything reachable from the tables through the catalogue's dependencies, without what a server brings itself and without
/// members of extensions (the extension stands for them).
const CLOSURE: &str = "
with recursive part(class, id) as (
  select 'pg_catalog.pg_class'::regclass::oid, t.id from pg_catalog.unnest($1::oid[]) t(id)
  union select 'pg_catalog.pg_attrdef'::regclass, d.oid from pg_catalog.pg_attrdef d where d.adrelid = any($1::oid[])
  union select 'pg_catalog.pg_constraint'::regclass, c.oid from pg_catalog.pg_constraint c where c.conrelid = any($1::oid[])
  union select 'pg_catalog.pg_trigger'::regclass, t.oid from pg_catalog.pg_trigger t where t.tgrelid = any($1::oid[]) and not t.tgisinternal
    and t.tgname not like '~godwit%'
  union select 'pg_catalog.pg_class'::regclass, i.indexrelid from pg_catalog.pg_index i where i.indrelid = any($1::oid[])
), needed(class, id) as (
  select class, id from part
  union
  select edge.class, edge.id from needed n cross join lateral (
    select d.refclassid, d.refobjid from pg_catalog.pg_depend d
      where d.classid = n.class and d.objid = n.id and d.deptype in ('n', 'a', 'i', 'e')
        and (d.refobjid >= 16384 or d.refclassid = 'pg_catalog.pg_namespace'::regclass)
        and not (d.refclassid = 'pg_catalog.pg_class'::regclass and d.deptype = 'a')
    union all
    select 'pg_catalog.pg_type'::regclass, t.typelem from pg_catalog.pg_type t
      where n.class = 'pg_catalog.pg_type'::regclass and t.oid = n.id and t.typelem >= 16384
    union all
    select 'pg_catalog.pg_type'::regclass, a.atttypid from pg_catalog.pg_type t join pg_catalog.pg_attribute a on a.attrelid = t.typrelid
      where n.class = 'pg_catalog.pg_type'::regclass and t.oid = n.id and t.typtype = 'c' and a.attnum > 0 and a.atttypid >= 16384
    union all
    select 'pg_catalog.pg_constraint'::regclass, c.oid from pg_catalog.pg_constraint c
      where n.class = 'pg_catalog.pg_type'::regclass and c.contypid = n.id
  ) edge(class, id)
), plain as (
  select distinct n.class, n.id, coalesce(x.refobjid, 0) as extension from needed n
  left join pg_catalog.pg_depend x on x.classid = n.class and x.objid = n.id and x.deptype = 'e'
)";

const OBJECTS: &str = "
select 0 as rank, 0::oid as id, 'schema' as kind, pg_catalog.quote_ident(s.nspname) as identity,
    pg_catalog.format('create schema if not exists %I', s.nspname) as create
  from (select distinct s.nspname from plain p join pg_catalog.pg_namespace s on s.oid = p.id
    where p.class = 'pg_catalog.pg_namespace'::regclass and s.nspname !~ '^pg_' and s.nspname <> 'information_schema') s
union all
select distinct 1, 0::oid, 'extension', pg_catalog.quote_ident(e.extname),
    pg_catalog.format('create extension if not exists %I with schema %I', e.extname, s.nspname)
  from plain p join pg_catalog.pg_extension e on e.oid = p.extension or (p.class = 'pg_catalog.pg_extension'::regclass and e.oid = p.id)
  join pg_catalog.pg_namespace s on s.oid = e.extnamespace
union all
select 2, t.oid, 'type', pg_catalog.format_type(t.oid, null), case t.typtype
    when 'e' then pg_catalog.format('create type %s as enum (%s)', pg_catalog.format_type(t.oid, null),
      (select pg_catalog.string_agg(pg_catalog.quote_literal(l.enumlabel), ', ' order by l.enumsortorder) from pg_catalog.pg_enum l where l.enumtypid = t.oid))
    when 'd' then pg_catalog.format('create domain %s as %s%s%s%s', pg_catalog.format_type(t.oid, null), pg_catalog.format_type(t.typbasetype, t.typtypmod),
      case when t.typdefault is not null then ' default ' || pg_catalog.pg_get_expr(t.typdefaultbin, 0) else '' end,
      case when t.typnotnull then ' not null' else '' end,
      (select coalesce(pg_catalog.string_agg(pg_catalog.format(' constraint %I %s', c.conname, pg_catalog.pg_get_constraintdef(c.oid)), '' order by c.conname), '')
        from pg_catalog.pg_constraint c where c.contypid = t.oid and c.contype = 'c'))
    when 'c' then pg_catalog.format('create type %s as (%s)', pg_catalog.format_type(t.oid, null),
      (select pg_catalog.string_agg(pg_catalog.format('%I %s', a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod)), ', ' order by a.attnum)
        from pg_catalog.pg_attribute a where a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped))
    when 'r' then pg_catalog.format('create type %s as range (subtype = %s)', pg_catalog.format_type(t.oid, null),
      (select pg_catalog.format_type(r.rngsubtype, null) from pg_catalog.pg_range r where r.rngtypid = t.oid)) end
  from plain p join pg_catalog.pg_type t on t.oid = p.id and p.class = 'pg_catalog.pg_type'::regclass
  left join pg_catalog.pg_class c on c.oid = t.typrelid
  where p.extension = 0 and t.oid >= 16384 and (t.typtype <> 'c' or c.relkind = 'c')
    and not (t.typtype = 'b' and t.typelem <> 0) and t.typtype <> 'm'
union all
select 3, f.oid, 'function', f.oid::pg_catalog.regprocedure::text,
    case when f.prokind in ('f', 'p') and f.probin is null then pg_catalog.pg_get_functiondef(f.oid) end
  from plain p join pg_catalog.pg_proc f on f.oid = p.id and p.class = 'pg_catalog.pg_proc'::regclass where p.extension = 0 and f.oid >= 16384
union all
select 4, c.oid, 'collation', pg_catalog.format('%I.%I', s.nspname, c.collname), null
  from plain p join pg_catalog.pg_collation c on c.oid = p.id and p.class = 'pg_catalog.pg_collation'::regclass
  join pg_catalog.pg_namespace s on s.oid = c.collnamespace where p.extension = 0 and c.oid >= 16384
order by 1, 2, 4";

/// What the tables (and their partitions) need, in an order that nearly always works.
pub async fn of_tables(session: &Session, tables: &[&TableName]) -> Result<Vec<Dependency>, Error> {
    let failed = || Error::database("read what the tables depend on");
    let mut oids: Vec<u32> = Vec::new();
    for table in tables {
        let row = session
            .query_opt(
                "select c.oid from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace where n.nspname = $1 and c.relname = $2",
                &[&table.schema, &table.name],
            )
            .await
            .map_err(failed())?;
        oids.extend(row.map(|row| row.get::<_, u32>(0)));
    }
    let rows = session.query(&format!("{CLOSURE}{OBJECTS}"), &[&oids]).await.map_err(failed())?;
    let found = rows
        .iter()
        .map(|row| Dependency { kind: row.get("kind"), identity: row.get("identity"), create: row.get("create") })
        .collect();
    Ok(found)
}

/// Those that the other database does not have.
pub async fn missing(other: &impl GenericClient, dependencies: Vec<Dependency>) -> Result<Vec<Dependency>, Error> {
    let mut missing = Vec::new();
    for dependency in dependencies {
        let probe = match dependency.kind.as_str() {
            "schema" => "select pg_catalog.to_regnamespace($1) is not null",
            "extension" => {
                "select exists (select from pg_catalog.pg_extension where pg_catalog.quote_ident(extname) = $1)"
            }
            "type" => "select pg_catalog.to_regtype($1) is not null",
            "function" => "select pg_catalog.to_regprocedure($1) is not null",
            _ => {
                "select exists (select from pg_catalog.pg_collation c join pg_catalog.pg_namespace n on n.oid = c.collnamespace \
                 where pg_catalog.format('%I.%I', n.nspname, c.collname) = $1)"
            }
        };
        let there = other.query_one(probe, &[&dependency.identity]).await;
        // A signature that names a type which is missing too is an error on some servers, and missing all the same.
        let there = there.is_ok_and(|row| row.get(0));
        if !there {
            missing.push(dependency);
        }
    }
    Ok(missing)
}

/// What stands against creating them.
pub fn findings(missing: &[Dependency]) -> Vec<Finding> {
    missing
        .iter()
        .filter(|dependency| dependency.create.is_none())
        .map(|dependency| Finding {
            severity: Severity::Blocker,
            code: "DependencyUnsupported".into(),
            object: dependency.identity.clone(),
            message: format!(
                "The dataset needs this {}, which Godwit cannot create; create it on the target first.",
                dependency.kind
            ),
        })
        .collect()
}

/// Creates them, whatever their order: what fails for want of another one is tried again after it.
pub async fn create(transaction: &mut Transaction<'_>, missing: &[Dependency]) -> Result<(), Error> {
    transaction
        .batch_execute("set local check_function_bodies = off")
        .await
        .map_err(Error::database("create what the tables need"))?;
    let mut left: BTreeMap<usize, &Dependency> = missing.iter().enumerate().collect();
    while !left.is_empty() {
        let before = left.len();
        let mut failure = None;
        for (at, dependency) in left.clone() {
            match create_one(transaction, dependency).await? {
                Ok(()) => drop(left.remove(&at)),
                Err(fault) => failure = Some((dependency, fault)),
            }
        }
        if let Some((dependency, source)) = failure.filter(|_| left.len() == before) {
            return Err(Error::Database {
                attempted: format!("create {} {}", dependency.kind, dependency.identity),
                source,
            });
        }
    }
    Ok(())
}

async fn create_one(transaction: &mut Transaction<'_>, dependency: &Dependency) -> Result<Result<(), Fault>, Error> {
    let attempted = format!("create {} {}", dependency.kind, dependency.identity);
    let savepoint = transaction.transaction().await.map_err(Error::database(attempted.clone()))?;
    let sql = dependency.create.as_deref().unwrap_or_default();
    match savepoint.batch_execute(sql).await {
        Ok(()) => {
            savepoint.commit().await.map_err(Error::database(attempted))?;
            Ok(Ok(()))
        }
        Err(error) => {
            let fault = Fault::from(&error);
            let waits = [
                SqlState::UNDEFINED_OBJECT,
                SqlState::UNDEFINED_FUNCTION,
                SqlState::INVALID_SCHEMA_NAME,
                SqlState::UNDEFINED_TABLE,
            ];
            if !waits.iter().any(|state| fault.is(state)) {
                return Err(Error::Database { attempted, source: fault });
            }
            savepoint.rollback().await.map_err(Error::database(attempted))?;
            Ok(Err(fault))
        }
    }
}
