//! The tests' own judgement of two databases: every row as the server prints it, every constraint as the server describes it.
//! Used by all modules here. Must share no code with the product: no COPY, no hash, no scope, no key.

use std::collections::{BTreeMap, BTreeSet};

use godwit::contract::Side;

use crate::server::Pair;

/// By table (each partition for itself): the rows' texts, sorted.
pub type Rows = BTreeMap<String, Vec<String>>;

/// Not Godwit's, not the server's.
const USERS: &str = "n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'godwit')";

/// One spelling for both sides, whatever their databases prefer.
const SPELLING: &str = "set timezone = 'UTC'; set datestyle = 'ISO, YMD'; set intervalstyle = 'postgres'; set extra_float_digits = 3; \
    set bytea_output = 'hex'; set statement_timeout = 0; set client_encoding = 'UTF8'; set row_security = off; set quote_all_identifiers = off";

/// Every row of every ordinary table and partition.
pub async fn rows(pair: &Pair, side: Side) -> Rows {
    let client = pair.application(side, "postgres").await;
    client.batch_execute(SPELLING).await.unwrap();
    let tables = format!(
        "select format('%I.%I', n.nspname, c.relname) from pg_class c join pg_namespace n on n.oid = c.relnamespace \
         where c.relkind = 'r' and {USERS} order by 1"
    );
    let mut rows = Rows::new();
    for table in client.query(&tables, &[]).await.unwrap() {
        let name: String = table.get(0);
        let select = format!("select (r.*)::text from only {name} as r");
        let mut texts: Vec<String> = client.query(&select, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
        texts.sort_unstable();
        rows.insert(name, texts);
    }
    rows
}

/// Constraints, indexes, triggers, defaults, identities: what a table promises beside its rows. The server numbers the copies of a
/// foreign key that it makes for each partition, in the order in which they came to be: their names say nothing.
pub async fn promises(pair: &Pair, side: Side) -> BTreeSet<String> {
    let client = pair.application(side, "postgres").await;
    client.batch_execute(SPELLING).await.unwrap();
    let sql = format!(
        "select format('%I.%I ', n.nspname, c.relname) || p.text from pg_class c join pg_namespace n on n.oid = c.relnamespace \
         cross join lateral ( \
           select format('%s %s %s', case when k.contype = 'f' and k.conparentid <> 0 then 'numbered' else k.conname end, \
               k.convalidated, pg_get_constraintdef(k.oid)) from pg_constraint k where k.conrelid = c.oid \
           union all select pg_get_indexdef(x.indexrelid) || ' ' || x.indisvalid::text from pg_index x where x.indrelid = c.oid \
           union all select t.tgenabled::text || ' ' || pg_get_triggerdef(t.oid) from pg_trigger t \
             where t.tgrelid = c.oid and not t.tgisinternal and t.tgname !~ '^[~!]godwit_fence_' \
           union all select format('%I %s %s %s %s', a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity, \
               pg_get_expr(d.adbin, d.adrelid)) \
             from pg_attribute a left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum \
             where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped \
         ) as p(text) where c.relkind in ('r', 'p') and {USERS}"
    );
    client.query(&sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

/// The rows of some tables alone.
pub fn only(rows: &Rows, keep: impl Fn(&str) -> bool) -> Rows {
    rows.iter().filter(|(table, _)| keep(table)).map(|(table, rows)| (table.clone(), rows.clone())).collect()
}

/// Fails with the first table and row that differ.
#[track_caller]
pub fn assert_same(found: &Rows, expected: &Rows, when: &str) {
    let (mine, theirs): (Vec<_>, Vec<_>) = (found.keys().collect(), expected.keys().collect());
    assert_eq!(mine, theirs, "{when}: the tables");
    for (table, rows) in expected {
        let has = &found[table];
        let missing = rows.iter().find(|row| !has.contains(row));
        let extra = has.iter().find(|row| !rows.contains(row));
        assert!(
            has == rows,
            "{when}: {table} has {} rows of {}; missing {missing:.300?}; extra {extra:.300?}",
            has.len(),
            rows.len()
        );
    }
}

#[tokio::test]
async fn the_oracle_sees_what_differs_by_a_scale_or_a_sign_alone() {
    let pair = Pair::new(
        "create table t (id int primary key, n numeric, f float8, x text); insert into t values (1, 1.0, 0.0, '')",
    );
    pair.psql(
        Side::Target,
        "create table t (id int primary key, n numeric, f float8, x text); insert into t values (1, 1.0, 0.0, '')",
    );
    let expected = rows(&pair, Side::Source).await;
    assert_same(&rows(&pair, Side::Target).await, &expected, "before");
    assert_eq!(promises(&pair, Side::Source).await, promises(&pair, Side::Target).await);
    for change in ["n = 1.00", "f = '-0'", "x = null"] {
        pair.psql(Side::Target, &format!("update t set {change}"));
        assert_ne!(rows(&pair, Side::Target).await, expected, "{change}");
        pair.psql(Side::Target, "update t set n = 1.0, f = 0, x = ''");
    }
    pair.psql(Side::Target, "alter table t alter x set not null");
    assert_ne!(promises(&pair, Side::Source).await, promises(&pair, Side::Target).await);
}
