//! What tables need beside themselves: schemas, extensions, types and functions, as statements that create them.
//! Used by Assess (can the target have them?) and Prepare (create what is missing there).
//! Must not replace what the other database has already.

use std::collections::BTreeMap;

use tokio_postgres::error::SqlState;
use tokio_postgres::{GenericClient, Row, Transaction};

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
    and t.tgname !~ '^[~!]godwit_fence_'
  union select 'pg_catalog.pg_policy'::regclass, p.oid from pg_catalog.pg_policy p where p.polrelid = any($1::oid[])
  union select 'pg_catalog.pg_rewrite'::regclass, r.oid from pg_catalog.pg_rewrite r where r.ev_class = any($1::oid[])
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
    when 'd' then pg_catalog.format('create domain %s as %s%s%s%s%s', pg_catalog.format_type(t.oid, null), pg_catalog.format_type(t.typbasetype, t.typtypmod),
      (select coalesce(pg_catalog.string_agg(pg_catalog.format(' collate %I.%I', n.nspname, o.collname), ''), '') from pg_catalog.pg_collation o
        join pg_catalog.pg_namespace n on n.oid = o.collnamespace where o.oid = t.typcollation
          and t.typcollation <> (select b.typcollation from pg_catalog.pg_type b where b.oid = t.typbasetype)),
      case when t.typdefault is not null then ' default ' || pg_catalog.pg_get_expr(t.typdefaultbin, 0) else '' end,
      case when t.typnotnull then ' not null' else '' end,
      (select coalesce(pg_catalog.string_agg(pg_catalog.format(' constraint %I %s', c.conname, pg_catalog.pg_get_constraintdef(c.oid)), '' order by c.conname), '')
        from pg_catalog.pg_constraint c where c.contypid = t.oid and c.contype = 'c'))
    when 'c' then pg_catalog.format('create type %s as (%s)', pg_catalog.format_type(t.oid, null),
      (select pg_catalog.string_agg(pg_catalog.format('%I %s%s', a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod),
          (select pg_catalog.format(' collate %I.%I', n.nspname, o.collname) from pg_catalog.pg_collation o join pg_catalog.pg_namespace n on n.oid = o.collnamespace
            where o.oid = a.attcollation and o.oid <> (select b.typcollation from pg_catalog.pg_type b where b.oid = a.atttypid))), ', ' order by a.attnum)
        from pg_catalog.pg_attribute a where a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped))
    when 'r' then (select pg_catalog.format('create type %s as range (subtype = %s%s%s%s%s)', pg_catalog.format_type(t.oid, null),
        pg_catalog.format_type(r.rngsubtype, null),
        (select pg_catalog.format(', subtype_opclass = %I.%I', n.nspname, o.opcname) from pg_catalog.pg_opclass o
          join pg_catalog.pg_namespace n on n.oid = o.opcnamespace where o.oid = r.rngsubopc and not o.opcdefault),
        (select pg_catalog.format(', collation = %I.%I', n.nspname, o.collname) from pg_catalog.pg_collation o
          join pg_catalog.pg_namespace n on n.oid = o.collnamespace where o.oid = r.rngcollation
            and o.oid <> (select b.typcollation from pg_catalog.pg_type b where b.oid = r.rngsubtype)),
        case when r.rngsubdiff <> 0 then ', subtype_diff = ' || r.rngsubdiff::pg_catalog.regproc::text end,
        (select pg_catalog.format(', multirange_type_name = %I.%I', n.nspname, m.typname) from pg_catalog.pg_type m
          join pg_catalog.pg_namespace n on n.oid = m.typnamespace where m.oid = (pg_catalog.to_jsonb(r) ->> 'rngmultitypid')::oid))
      from pg_catalog.pg_range r where r.rngtypid = t.oid and r.rngcanonical = 0) end
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
union all
select distinct 5, 0::oid, 'role', pg_catalog.quote_ident(r.rolname), null
  from plain p join pg_catalog.pg_policy y on p.class = 'pg_catalog.pg_policy'::regclass and y.oid = p.id
  join pg_catalog.pg_roles r on r.oid = any(y.polroles)";

/// What rules and functions of the tables name beside the tables themselves.
const RELATIONS: &str = "
union all
select 6, c.oid, 'relation', pg_catalog.format('%I.%I', s.nspname, c.relname), null
  from plain p join pg_catalog.pg_class c on p.class = 'pg_catalog.pg_class'::regclass and c.oid = p.id
  join pg_catalog.pg_namespace s on s.oid = c.relnamespace
  where p.extension = 0 and c.relkind in ('r', 'p', 'v', 'm', 'f') and not c.oid = any($1::oid[])
    and not exists (select from pg_catalog.pg_inherits i where i.inhparent = any($1::oid[]) and i.inhrelid = c.oid)";

const ORDER: &str = " order by 1, 2, 4";

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
    let sql = format!("{CLOSURE}{OBJECTS}{RELATIONS}{ORDER}");
    let rows = session.query(&sql, &[&oids]).await.map_err(failed())?;
    Ok(rows.iter().map(dependency).collect())
}

fn dependency(row: &Row) -> Dependency {
    Dependency { kind: row.get("kind"), identity: row.get("identity"), create: row.get("create") }
}

/// Composite types, domains and ranges of the tables that the other database has under the same name with another meaning: rows
/// would arrive changed, or not at all. Labels of enums are compared apart.
pub async fn differing_types(
    source: &Session,
    target: &impl GenericClient,
    tables: &[&TableName],
) -> Result<Vec<Finding>, Error> {
    let needed = of_tables(source, tables).await?;
    let types: Vec<&Dependency> = needed
        .iter()
        .filter(|needed| needed.kind == "type")
        .filter(|needed| needed.create.as_deref().is_some_and(|create| !create.contains(" as enum (")))
        .collect();
    let names: Vec<&str> = types.iter().map(|needed| needed.identity.as_str()).collect();
    let sql = format!(
        "with plain(class, id, extension) as (select 'pg_catalog.pg_type'::regclass::oid, pg_catalog.to_regtype(name)::oid, 0::oid \
         from pg_catalog.unnest($1::text[]) as t(name)){OBJECTS}{ORDER}"
    );
    let rows = target.query(&sql, &[&names]).await.map_err(Error::database("compare types with the target's"))?;
    let there: Vec<Dependency> = rows.iter().map(dependency).collect();
    let differing = types
        .iter()
        .filter(|needed| there.iter().any(|other| other.identity == needed.identity && other.create != needed.create));
    Ok(differing
        .map(|needed| Finding {
            severity: Severity::Blocker,
            code: "TypeDiffers".into(),
            object: needed.identity.clone(),
            message: "The target has a type of this name that is defined in another way; make them equal.".into(),
        })
        .collect())
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
            "role" => "select pg_catalog.to_regrole($1) is not null",
            "relation" => "select pg_catalog.to_regclass($1) is not null",
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
