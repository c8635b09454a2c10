//! Reads a database's catalogue into `model` types.
//! Used by Assess, Backup, Prepare and every step that needs the scope.
//! Must not read rows of users' tables, and sees neither system schemas nor Godwit's own.

use std::collections::BTreeMap;

use tokio_postgres::Row;

use super::identifier::TableName;
use super::model::{Catalog, Check, Column, ForeignKey, Identity, Operator, Sequence, Table, TableKind, Unique};
use super::session::Session;
use crate::worker::error::Error;

/// Schemas that never belong to a dataset.
const FOREIGN_SCHEMAS: &str =
    "n.nspname not like 'pg\\_%' and n.nspname <> 'information_schema' and n.nspname <> 'godwit'";

/// The whole catalogue, in one snapshot when the session is in a repeatable-read transaction.
pub async fn read_catalog(session: &Session) -> Result<Catalog, Error> {
    let mut catalog =
        Catalog { server_version: session.server_version(), tables: read_tables(session).await?, ..Catalog::default() };
    read_columns(session, &mut catalog.tables).await?;
    read_keys(session, &mut catalog.tables).await?;
    read_partitions(session, &mut catalog.tables).await?;
    read_checks(session, &mut catalog.tables).await?;
    catalog.foreign_keys = read_foreign_keys(session).await?;
    catalog.sequences = read_sequences(session).await?;
    catalog.extensions = rows(session, "select extname::text, extversion from pg_catalog.pg_extension")
        .await?
        .iter()
        .map(|row| (row.get(0), row.get(1)))
        .collect();
    Ok(catalog)
}

async fn rows(session: &Session, sql: &str) -> Result<Vec<Row>, Error> {
    session.query(sql, &[]).await.map_err(Error::database(format!("read the catalogue of the {}", session.side())))
}

fn table_name(row: &Row, at: usize) -> TableName {
    TableName::new(row.get::<_, String>(at), row.get::<_, String>(at + 1))
}

async fn read_tables(session: &Session) -> Result<BTreeMap<TableName, Table>, Error> {
    let sql = format!(
        "select n.nspname::text, c.relname::text, c.relkind = 'p', c.relpersistence = 'u', c.relrowsecurity, \
           exists (select from pg_catalog.pg_rewrite r where r.ev_class = c.oid), \
           exists (select from pg_catalog.pg_inherits i where i.inhrelid = c.oid) \
             or (c.relkind = 'r' and exists (select from pg_catalog.pg_inherits i where i.inhparent = c.oid)), \
           pg_catalog.pg_has_role(c.relowner, 'USAGE'), \
           case when c.relkind = 'p' then (select coalesce(sum(greatest(l.reltuples, 0)), 0) \
               from pg_catalog.pg_partition_tree(c.oid) t join pg_catalog.pg_class l on l.oid = t.relid where t.isleaf) \
             else greatest(c.reltuples, 0) end::float8, \
           case when c.relkind = 'p' then (select coalesce(sum(pg_catalog.pg_table_size(t.relid)), 0) \
               from pg_catalog.pg_partition_tree(c.oid) t where t.isleaf) \
             else pg_catalog.pg_table_size(c.oid) end::float8 \
         from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace \
         where c.relkind in ('r', 'p') and not c.relispartition and c.relpersistence <> 't' and {FOREIGN_SCHEMAS}"
    );
    let tables = rows(session, &sql).await?.iter().map(table).collect();
    Ok(tables)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "estimates, never negative")]
fn table(row: &Row) -> (TableName, Table) {
    let name = table_name(row, 0);
    let partitioned: bool = row.get(2);
    let table = Table {
        name: name.clone(),
        kind: if partitioned { TableKind::Partitioned } else { TableKind::Ordinary },
        columns: Vec::new(),
        primary_key: Vec::new(),
        primary_key_deferrable: false,
        uniques: Vec::new(),
        estimated_rows: row.get::<_, f64>(8) as u64,
        bytes: row.get::<_, f64>(9) as u64,
        unlogged: row.get(3),
        row_security: row.get(4),
        has_rules: row.get(5),
        inherits: row.get(6),
        partitions: Vec::new(),
        owned_by_us: row.get(7),
        checks: Vec::new(),
        deferrable_exclusions: Vec::new(),
    };
    (name, table)
}

/// A type is binary-safe when its binary form carries no OID and means the same in every database: built-in types, their arrays,
/// enums (sent as labels) and domains over those. `reg…` types send OIDs; types of extensions are not ours to vouch for.
async fn read_columns(session: &Session, tables: &mut BTreeMap<TableName, Table>) -> Result<(), Error> {
    let sql = format!(
        "with recursive base(oid, base) as ( \
           select t.oid, t.oid from pg_catalog.pg_type t where t.typtype <> 'd' \
           union all select d.oid, b.base from pg_catalog.pg_type d join base b on b.oid = d.typbasetype where d.typtype = 'd'), \
         equality(type, schema, name) as ( \
           select oc.opcintype, pn.nspname::text, p.oprname::text from pg_catalog.pg_opclass oc \
             join pg_catalog.pg_am am on am.oid = oc.opcmethod and am.amname = 'btree' \
             join pg_catalog.pg_amop o on o.amopfamily = oc.opcfamily and o.amopstrategy = 3 \
               and o.amoplefttype = oc.opcintype and o.amoprighttype = oc.opcintype \
             join pg_catalog.pg_operator p on p.oid = o.amopopr join pg_catalog.pg_namespace pn on pn.oid = p.oprnamespace \
             where oc.opcdefault and pn.nspname <> 'pg_catalog') \
         select n.nspname::text, c.relname::text, a.attname::text, pg_catalog.format_type(a.atttypid, a.atttypmod), \
           a.atttypid, a.attnotnull, a.attgenerated <> '', a.attidentity::text, \
           coalesce((t.typtype = 'e' or (t.typtype in ('b', 'r', 'm') and t.oid < 16384)) \
             and t.typsend <> 0 and t.typreceive <> 0 and t.typname !~ '^_?reg', false), \
           a.atthasdef or a.attidentity <> '', \
           case when a.attcollation <> 0 and a.attcollation <> t0.typcollation \
             then (select cn.nspname || '.' || co.collname from pg_catalog.pg_collation co \
                   join pg_catalog.pg_namespace cn on cn.oid = co.collnamespace where co.oid = a.attcollation) end, \
           t0.typname in ('lo'), t.oid = 26, t.oid in (20, 21, 23, 1700), \
           case when a.attgenerated <> '' then (select pg_catalog.pg_get_expr(d.adbin, d.adrelid) from pg_catalog.pg_attrdef d \
             where d.adrelid = a.attrelid and d.adnum = a.attnum) end, \
           equality.schema, equality.name, \
           exists (select from pg_catalog.pg_collation co where co.oid = a.attcollation and not co.collisdeterministic) \
         from pg_catalog.pg_attribute a \
         join pg_catalog.pg_class c on c.oid = a.attrelid join pg_catalog.pg_namespace n on n.oid = c.relnamespace \
         join pg_catalog.pg_type t0 on t0.oid = a.atttypid \
         join base b on b.oid = a.atttypid join pg_catalog.pg_type t on t.oid = b.base \
         left join equality on equality.type = t.oid \
         where c.relkind in ('r', 'p') and not c.relispartition and a.attnum > 0 and not a.attisdropped and {FOREIGN_SCHEMAS} \
         order by a.attrelid, a.attnum"
    );
    for row in rows(session, &sql).await? {
        if let Some(table) = tables.get_mut(&table_name(&row, 0)) {
            table.columns.push(column(&row));
        }
    }
    Ok(())
}

fn column(row: &Row) -> Column {
    Column {
        name: row.get(2),
        type_name: row.get(3),
        type_oid: row.get(4),
        not_null: row.get(5),
        generated: row.get(6),
        identity: match row.get::<_, &str>(7) {
            "a" => Some(Identity::Always),
            "d" => Some(Identity::ByDefault),
            _ => None,
        },
        binary_safe: row.get(8),
        has_default: row.get(9),
        collation: row.get(10),
        large_object: row.get(11),
        object_id: row.get(12),
        number: row.get(13),
        expression: row.get(14),
        equality: operator(row.get(15), row.get(16)),
        insensitive: row.get(17),
    }
}

fn operator(schema: Option<String>, name: Option<String>) -> Option<Operator> {
    Some(Operator { schema: schema?, name: name? })
}

/// Primary keys, unique constraints and plain unique indexes (no expression, no condition).
async fn read_keys(session: &Session, tables: &mut BTreeMap<TableName, Table>) -> Result<(), Error> {
    let sql = format!(
        "select n.nspname::text, c.relname::text, i.relname::text, x.indisprimary, not x.indimmediate, \
           array(select a.attname::text from pg_catalog.unnest(x.indkey::int2[]) with ordinality k(num, pos) \
             join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum = k.num \
             where k.pos <= x.indnkeyatts order by k.pos), \
           coalesce((pg_catalog.to_jsonb(x) ->> 'indnullsnotdistinct')::bool, false) \
         from pg_catalog.pg_index x join pg_catalog.pg_class c on c.oid = x.indrelid \
         join pg_catalog.pg_class i on i.oid = x.indexrelid join pg_catalog.pg_namespace n on n.oid = c.relnamespace \
         where x.indisunique and x.indisvalid and x.indpred is null and x.indexprs is null and not c.relispartition \
           and {FOREIGN_SCHEMAS} order by i.relname"
    );
    for row in rows(session, &sql).await? {
        let Some(table) = tables.get_mut(&table_name(&row, 0)) else {
            continue;
        };
        let columns: Vec<String> = row.get(5);
        if row.get(3) {
            table.primary_key = columns;
            table.primary_key_deferrable = row.get(4);
        } else {
            table.uniques.push(Unique { name: row.get(2), columns, deferrable: row.get(4), nulls_equal: row.get(6) });
        }
    }
    Ok(())
}

async fn read_partitions(session: &Session, tables: &mut BTreeMap<TableName, Table>) -> Result<(), Error> {
    let sql = format!(
        "select n.nspname::text, c.relname::text, pn.nspname::text, p.relname::text \
         from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace \
         cross join lateral pg_catalog.pg_partition_tree(c.oid) t \
         join pg_catalog.pg_class p on p.oid = t.relid join pg_catalog.pg_namespace pn on pn.oid = p.relnamespace \
         where c.relkind = 'p' and not c.relispartition and t.relid <> c.oid and {FOREIGN_SCHEMAS} order by 3, 4"
    );
    for row in rows(session, &sql).await? {
        if let Some(table) = tables.get_mut(&table_name(&row, 0)) {
            table.partitions.push(table_name(&row, 2));
        }
    }
    Ok(())
}

async fn read_checks(session: &Session, tables: &mut BTreeMap<TableName, Table>) -> Result<(), Error> {
    let sql = format!(
        "select n.nspname::text, c.relname::text, k.conname::text, k.contype = 'x', \
           coalesce(pg_catalog.pg_get_expr(k.conbin, k.conrelid), ''), k.convalidated \
         from pg_catalog.pg_constraint k join pg_catalog.pg_class c on c.oid = k.conrelid \
         join pg_catalog.pg_namespace n on n.oid = c.relnamespace \
         where (k.contype = 'c' or (k.contype = 'x' and k.condeferrable)) and not c.relispartition and {FOREIGN_SCHEMAS} order by 1, 2, 3"
    );
    for row in rows(session, &sql).await? {
        let Some(table) = tables.get_mut(&table_name(&row, 0)) else {
            continue;
        };
        if row.get(3) {
            table.deferrable_exclusions.push(row.get(2));
        } else {
            table.checks.push(Check { name: row.get(2), expression: row.get(4), validated: row.get(5) });
        }
    }
    Ok(())
}

/// Foreign keys as declared: the copies that partitions have of them are left out.
async fn read_foreign_keys(session: &Session) -> Result<Vec<ForeignKey>, Error> {
    let names = |columns: &str, table: &str| {
        format!(
            "array(select a.attname::text from pg_catalog.unnest({columns}) with ordinality k(num, pos) \
             join pg_catalog.pg_attribute a on a.attrelid = {table} and a.attnum = k.num order by k.pos)"
        )
    };
    let operators = "from pg_catalog.unnest(o.conpfeqop) with ordinality k(operator, pos) \
        join pg_catalog.pg_operator p on p.oid = k.operator join pg_catalog.pg_namespace pn on pn.oid = p.oprnamespace order by k.pos";
    let sql = format!(
        "select n.nspname::text, c.relname::text, rn.nspname::text, r.relname::text, o.conname::text, \
           {}, {}, o.confmatchtype = 'f', o.convalidated, o.condeferrable, \
           array(select case when pn.nspname <> 'pg_catalog' then pn.nspname::text end {operators}), \
           array(select p.oprname::text {operators}) \
         from pg_catalog.pg_constraint o \
         join pg_catalog.pg_class c on c.oid = o.conrelid join pg_catalog.pg_namespace n on n.oid = c.relnamespace \
         join pg_catalog.pg_class r on r.oid = o.confrelid join pg_catalog.pg_namespace rn on rn.oid = r.relnamespace \
         where o.contype = 'f' and o.conparentid = 0 and {FOREIGN_SCHEMAS} order by 1, 2, 5",
        names("o.conkey", "o.conrelid"),
        names("o.confkey", "o.confrelid"),
    );
    let keys = rows(session, &sql)
        .await?
        .iter()
        .map(|row| ForeignKey {
            table: table_name(row, 0),
            referenced: table_name(row, 2),
            name: row.get(4),
            columns: row.get(5),
            referenced_columns: row.get(6),
            match_full: row.get(7),
            validated: row.get(8),
            deferrable: row.get(9),
            operators: row
                .get::<_, Vec<Option<String>>>(10)
                .into_iter()
                .zip(row.get::<_, Vec<String>>(11))
                .map(|(schema, name)| operator(schema, Some(name)))
                .collect(),
        })
        .collect();
    Ok(keys)
}

/// Sequences with the columns that draw from them: owned by one, or named in their defaults.
async fn read_sequences(session: &Session) -> Result<Vec<Sequence>, Error> {
    let sql = format!(
        "select n.nspname::text, c.relname::text, pg_catalog.format_type(s.seqtypid, null), \
           s.seqincrement, s.seqmin, s.seqmax, s.seqstart, s.seqcycle, \
           case when pg_catalog.has_sequence_privilege(c.oid, 'SELECT, USAGE') then pg_catalog.pg_sequence_last_value(c.oid) end, \
           tn.nspname::text, t.relname::text, a.attname::text, coalesce(u.identity, false) \
         from pg_catalog.pg_sequence s join pg_catalog.pg_class c on c.oid = s.seqrelid \
         join pg_catalog.pg_namespace n on n.oid = c.relnamespace \
         left join ( \
           select d.objid as sequence, d.refobjid as relation, d.refobjsubid as attribute, d.deptype = 'i' as identity, 0 as rank \
             from pg_catalog.pg_depend d where d.classid = 'pg_catalog.pg_class'::regclass \
               and d.refclassid = 'pg_catalog.pg_class'::regclass and d.deptype in ('a', 'i') and d.refobjsubid > 0 \
           union all \
           select d.refobjid, f.adrelid, f.adnum, false, 1 from pg_catalog.pg_depend d \
             join pg_catalog.pg_attrdef f on f.oid = d.objid where d.classid = 'pg_catalog.pg_attrdef'::regclass \
               and d.refclassid = 'pg_catalog.pg_class'::regclass \
         ) u on u.sequence = c.oid \
         left join pg_catalog.pg_class t on t.oid = u.relation and not t.relispartition left join pg_catalog.pg_namespace tn on tn.oid = t.relnamespace \
         left join pg_catalog.pg_attribute a on a.attrelid = u.relation and a.attnum = u.attribute \
         where c.relpersistence <> 't' and {FOREIGN_SCHEMAS} order by c.oid, u.rank, tn.nspname, t.relname, a.attnum"
    );
    let mut sequences: Vec<Sequence> = Vec::new();
    for row in rows(session, &sql).await? {
        let found = sequence(&row);
        match sequences.last_mut().filter(|last| last.name == found.name) {
            // One sequence may feed many tables: each of them can collide.
            Some(last) => {
                last.identity |= found.identity;
                for column in found.columns {
                    if !last.columns.contains(&column) {
                        last.columns.push(column);
                    }
                }
            }
            None => sequences.push(found),
        }
    }
    Ok(sequences)
}

fn sequence(row: &Row) -> Sequence {
    let table: Option<String> = row.get(9);
    Sequence {
        name: table_name(row, 0),
        data_type: row.get(2),
        increment: row.get(3),
        min: row.get(4),
        max: row.get(5),
        start: row.get(6),
        cycle: row.get(7),
        last_value: row.get(8),
        columns: table
            .map(|schema| (TableName::new(schema, row.get::<_, String>(10)), row.get(11)))
            .into_iter()
            .collect(),
        identity: row.get(12),
    }
}
