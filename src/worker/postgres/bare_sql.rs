//! The SQL text that tells which keys, indexes and foreign keys some tables have, and whether all of them are plain.
//! Used by `bare` alone, which runs it. Pure.
//! Must leave out nothing that a definition does not carry over: what is missing here would be lost with the drop.

use super::identifier::{TableName, quote_literal};
use super::model::entry;

/// `ours`: the tables.
fn ours(tables: &[&TableName]) -> String {
    let names = tables.iter().map(|table| quote_literal(&table.sql())).collect::<Vec<_>>().join(", ");
    format!("ours as (select t::pg_catalog.regclass::pg_catalog.oid as oid from unnest(array[{names}]::text[]) t)")
}

/// Whether anything about the tables is special: then they keep what they have.
///
/// To build an index needs files; where those are limited, rows still land one by one.
/// Much of it a definition does carry over. It stays out all the same: what is rare is seldom tried.
pub fn is_special(tables: &[&TableName]) -> String {
    format!(
        "with {}, keys as (select k.* from pg_catalog.pg_constraint k join ours on ours.oid = k.conrelid \
             where k.contype in ('p', 'u', 'f', 'x')), \
           indexes as (select x.* from pg_catalog.pg_index x join ours on ours.oid = x.indrelid) \
         select pg_catalog.current_setting('temp_file_limit') <> '-1' \
           or exists (select from pg_catalog.pg_class c join ours using (oid) where c.relkind <> 'r' or c.relpersistence <> 'p' \
             or c.reltablespace <> 0 or c.relreplident <> 'd' or c.relispartition or c.relrowsecurity or c.relforcerowsecurity) \
           or exists (select from pg_catalog.pg_inherits i join ours on ours.oid in (i.inhrelid, i.inhparent)) \
           or exists (select from keys k where k.contype = 'x' or k.condeferrable or not k.convalidated or k.conparentid <> 0 \
             or k.coninhcount > 0 or not k.conislocal) \
           or exists (select from pg_catalog.pg_constraint k join ours on ours.oid = k.confrelid \
             where k.contype = 'f' and k.conrelid not in (select oid from ours)) \
           or exists (select from indexes x join pg_catalog.pg_class i on i.oid = x.indexrelid \
             where i.reloptions is not null or i.reltablespace <> 0 or x.indisreplident or x.indisclustered \
               or x.indisexclusion or not (x.indisvalid and x.indisready and x.indislive)) \
           or exists (select from indexes x join pg_catalog.pg_attribute a on a.attrelid = x.indexrelid \
             where a.attstattarget >= 0 or a.attoptions is not null) \
           or exists (select from pg_catalog.pg_description d \
             where (d.classoid = 'pg_catalog.pg_class'::regclass and d.objoid in (select indexrelid from indexes)) \
                or (d.classoid = 'pg_catalog.pg_constraint'::regclass and d.objoid in (select oid from keys))) \
           or exists (select from pg_catalog.pg_depend d where d.classid = 'pg_catalog.pg_class'::regclass \
             and d.objid in (select indexrelid from indexes) and d.deptype in ('e', 'x')) \
           or exists (select from pg_catalog.pg_trigger g join keys k on k.oid = g.tgconstraint where g.tgenabled <> 'O') \
           or exists (select from pg_catalog.pg_publication_tables p join pg_catalog.pg_namespace n on n.nspname = p.schemaname \
             join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = p.tablename join ours on ours.oid = c.oid)",
        ours(tables)
    )
}

/// Everything that waits while the tables are bare, in the order in which it comes back: keys, indexes, foreign keys.
/// Columns: schema, table, name, definition, turn (0, 1, 2), facts.
///
/// The facts are a digest of what the catalogues have about each, but for what changes with every creation: what comes back with
/// other facts is not what was there.
pub fn waiting(tables: &[&TableName]) -> String {
    format!(
        "with {ours}, index_facts as (select x.indexrelid, pg_catalog.concat_ws(e'\\n', pg_catalog.pg_get_indexdef(x.indexrelid), \
               (to_jsonb(x) - array['indexrelid', 'indcheckxmin', 'indexprs', 'indpred'])::text, \
               i.relowner, i.relam, i.reltablespace, i.relpersistence, i.reloptions::text, \
               (select string_agg(pg_catalog.concat_ws(' ', a.attnum, a.attcollation, a.attstattarget, a.attoptions::text), ',' order by a.attnum) \
                  from pg_catalog.pg_attribute a where a.attrelid = x.indexrelid)) as facts \
             from pg_catalog.pg_index x join ours on ours.oid = x.indrelid join pg_catalog.pg_class i on i.oid = x.indexrelid) \
         select n.nspname::text, c.relname::text, k.conname::text, pg_catalog.pg_get_constraintdef(k.oid), \
             case k.contype when 'f' then 2 else 0 end as turn, \
             pg_catalog.md5(pg_catalog.concat_ws(e'\\n', pg_catalog.pg_get_constraintdef(k.oid), \
               (to_jsonb(k) - array['oid', 'conindid', 'conbin'])::text, case when k.contype <> 'f' then i.facts end, \
               (select string_agg(g.tgenabled::text, '' order by g.tgenabled) from pg_catalog.pg_trigger g where g.tgconstraint = k.oid))) \
           from pg_catalog.pg_constraint k join ours on ours.oid = k.conrelid \
           join pg_catalog.pg_class c on c.oid = k.conrelid join pg_catalog.pg_namespace n on n.oid = c.relnamespace \
           left join index_facts i on i.indexrelid = k.conindid where k.contype in ('p', 'u', 'f') \
         union all \
         select n.nspname::text, c.relname::text, i.relname::text, pg_catalog.pg_get_indexdef(x.indexrelid), 1, pg_catalog.md5(f.facts) \
           from pg_catalog.pg_index x join index_facts f using (indexrelid) join pg_catalog.pg_class c on c.oid = x.indrelid \
           join pg_catalog.pg_class i on i.oid = x.indexrelid join pg_catalog.pg_namespace n on n.oid = c.relnamespace \
           where not exists (select from pg_catalog.pg_constraint k where k.conindid = x.indexrelid and k.contype in ('p', 'u', 'x')) \
         order by 5, 1, 2, 3",
        ours = ours(tables)
    )
}

/// Whether somebody may use the tables: rows, customers that are not the source's, or another cohort, whose copy would have to wait.
pub fn is_in_use(tables: &[&TableName], cohort: &str) -> String {
    let rows: Vec<String> = tables.iter().map(|table| format!("exists (select from {})", table.sql())).collect();
    format!(
        "select {} or exists (select from godwit.member m join godwit.ownership o on o.entry = m.entry where o.owner <> 'Source' \
             or (o.entry >= {first} and o.uid <> {cohort})) \
           or exists (select from godwit.ownership where entry = {unassigned} and owner <> 'Source')",
        rows.join(" or "),
        first = entry::FIRST_COHORT,
        cohort = quote_literal(cohort),
        unassigned = entry::UNASSIGNED
    )
}
