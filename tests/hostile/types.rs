//! Every type that a column can have, with the values at its edges, moves without a bit changed: in binary and as text.

use std::fmt::Write;

use crate::base::rooted;
use crate::journey::Journey;

/// Types that the server brings, each with values at its edges; they travel in binary.
const BUILT_IN: &[(&str, &[&str])] = &[
    ("bool", &["true", "null"]),
    ("smallint", &["-32768", "32767"]),
    ("int", &["-2147483648", "0"]),
    ("bigint", &["9223372036854775807", "-1"]),
    ("numeric", &["1.0", "1.00", "'NaN'", "-0.000001", "1e130", "'-Infinity'"]),
    ("numeric(20,6)", &["1", "-99999999999999.999999"]),
    ("real", &["'-0'", "'NaN'", "1e-45", "3.4028235e38"]),
    ("float8", &["'-0'", "0", "'-Infinity'", "5e-324", "0.1"]),
    ("money", &["'-92233720368547758.08'", "'0.01'"]),
    ("text", &["''", "null", "E'\\t\\n\\r\\\\N\\\\.'", "'\\.'", "repeat('ä', 1200000)", "U&'\\+01F44B\\0301'"]),
    ("varchar(5)", &["'ab   '", "''"]),
    ("char(5)", &["'ab'", "''"]),
    ("\"char\"", &["'x'", "''"]),
    ("name", &["'n'"]),
    ("bytea", &["''", "'\\x00ff5c0a'", "decode(repeat('ff00', 1000000), 'hex')"]),
    ("date", &["'infinity'", "'4713-01-01 BC'", "'5874897-12-31'", "'2024-02-29'"]),
    ("time", &["'24:00:00'", "'00:00:00.000001'"]),
    ("timetz", &["'12:00+15:59'", "'12:00-00:00:01'"]),
    ("timestamp", &["'-infinity'", "'294276-12-31 23:59:59.999999'", "'0001-01-01 BC'"]),
    ("timestamptz", &["'infinity'", "'1900-01-01 00:00:00+00'", "'2024-03-31 02:30:00 Europe/Berlin'"]),
    ("timestamptz(0)", &["'2024-01-01 00:00:00.6+00'"]),
    ("interval", &["'1 mon'", "'30 days'", "'720:00:00'", "'-1 mon 2 days -00:00:00.000001'"]),
    ("uuid", &["'00000000-0000-0000-0000-000000000000'"]),
    ("json", &["'{\"a\" : 1, \"a\":2 }'", "' null '", "'\"\\u0041\"'"]),
    ("jsonb", &["'{\"n\": 1.00, \"z\": [null, \"\"]}'", "'null'", "'\"\\u00e4\"'"]),
    ("xml", &["'<a b=\"1\"> t <!-- c --> </a>'", "'plain'", "'<?xml version=\"1.0\"?><r/>'"]),
    ("inet", &["'10.0.0.1/8'", "'::1'"]),
    ("cidr", &["'10.0.0.0/8'"]),
    ("macaddr", &["'08:00:2b:01:02:03'"]),
    ("macaddr8", &["'08:00:2b:01:02:03:04:05'"]),
    ("bit(3)", &["b'101'"]),
    ("varbit", &["b''", "b'1'"]),
    ("point", &["'(-0,1e-300)'", "'(NaN,Infinity)'"]),
    ("line", &["'{1,-1,0}'"]),
    ("lseg", &["'[(0,0),(1,1)]'"]),
    ("box", &["'(1,1),(0,0)'"]),
    ("path", &["'[(0,0),(1,1)]'", "'((0,0),(1,1))'"]),
    ("polygon", &["'((0,0),(1,1),(1,0))'"]),
    ("circle", &["'<(0,0),1>'"]),
    ("tsvector", &["'a:1A fat:2B,4C'", "''"]),
    ("tsquery", &["'fat & !rat:A <2> cat'"]),
    ("int4range", &["'(1,5]'", "'empty'", "'(,)'"]),
    ("numrange", &["'(1.0,1.00]'", "'[1,)'"]),
    ("tstzrange", &["'[2024-01-01,infinity)'", "'(,2024-01-01]'"]),
    ("daterange", &["'[2024-01-01,2024-01-31]'"]),
    ("int[]", &["'{}'", "'[0:1]={1,NULL}'", "'{{1,2},{3,4}}'"]),
    ("text[]", &["array['NULL', null, '', 'a,\"b\\']"]),
    ("float8[]", &["'{-0,NaN}'"]),
    ("jsonb[]", &["array['1.0', null]::jsonb[]"]),
    ("oid", &["4294967295"]),
    ("pg_lsn", &["'FFFFFFFF/FFFFFFFF'"]),
];

/// Types whose bytes name other objects, or come from an extension: they travel as text.
const OF_USERS: &[(&str, &[&str])] = &[
    ("mood", &["'it''s'", "'a, \"b\"'"]),
    ("mood[]", &["array['it''s', null, 'a, \"b\"']::mood[]"]),
    ("pair", &["row(1.00, 'x, \"y\"', 'it''s')", "row(null, '', null)", "row(null, null, null)"]),
    ("pair[]", &["array[row(-0.0, '\\', null)::pair, null]"]),
    ("positive", &["0.0001", "1"]),
    ("positive[]", &["array[1, 1.00]::positive[]"]),
    ("weekdays", &["'{mo,tu}'"]),
    ("floatrange", &["'[-0,1)'", "'[NaN,NaN]'"]),
    ("floatmultirange", &["'{[0,1),(2,3]}'"]),
    ("regclass", &["'pg_class'"]),
    ("regtype", &["'int4'"]),
    ("hstore", &["'a=>NULL, \"b \"=>\"\"'", "''"]),
    ("citext", &["'MiXeD'", "'mixed'"]),
    ("citext[]", &["array['A', null]::citext[]"]),
];

const SETUP: &str = "
    create extension hstore; create extension citext;
    create type mood as enum ('it''s', 'a, \"b\"');
    create type pair as (n numeric, s text, m mood);
    create domain positive as numeric(12,4) default 1 not null check (value > 0);
    create domain weekdays as text[] check (cardinality(value) < 8);
    create type floatrange as range (subtype = float8, subtype_diff = float8mi, multirange_type_name = floatmultirange);
    create table customer (id int primary key);
    insert into customer select generate_series(1, 6);
";

/// A table with a column for each type; its rows hold the values, one edge a column a row, for every customer.
fn table(name: &str, types: &[(&str, &[&str])]) -> String {
    let mut sql = format!(
        "create table {name} (id bigint generated always as identity primary key, customer int not null references customer"
    );
    for (at, (kind, _)) in types.iter().enumerate() {
        let _ = write!(sql, ", c{at} {kind}");
    }
    sql.push_str(");\n");
    let rows = types.iter().map(|(_, values)| values.len()).max().unwrap();
    for row in 0..rows {
        let values: Vec<String> = types
            .iter()
            .map(|(kind, values)| {
                let value = values[row % values.len()];
                // The megabytes once, not with each wrap.
                let large = row >= values.len() && (value.starts_with("repeat") || value.starts_with("decode"));
                if large { format!("null::{kind}") } else { format!("({value})::{kind}") }
            })
            .collect();
        let columns: Vec<String> = (0..types.len()).map(|at| format!("c{at}")).collect();
        let _ = writeln!(
            sql,
            "insert into {name} (customer, {}) select id, {} from customer{};",
            columns.join(", "),
            values.join(", "),
            // The first rows hold the megabytes: one customer's are enough.
            if row > 3 { " where id = 1" } else { "" }
        );
    }
    sql
}
/// What is not there is said; nothing is skipped in silence.
fn present(types: &'static [(&'static str, &'static [&'static str])]) -> Vec<(&'static str, &'static [&'static str])> {
    let extensions = std::process::Command::new("sh")
        .args(["-c", "ls /usr/share/postgresql/*/extension /usr/share/pgsql/extension 2>/dev/null"])
        .output()
        .unwrap();
    let listed = String::from_utf8_lossy(&extensions.stdout).into_owned();
    types
        .iter()
        .filter(|(kind, _)| {
            let extension = ["hstore", "citext"].into_iter().find(|extension| kind.starts_with(extension));
            let missing = extension.is_some_and(|extension| !listed.contains(&format!("{extension}.control")));
            if missing {
                eprintln!("SKIPPED: the type {kind}, because its extension is not installed here");
            }
            !missing
        })
        .copied()
        .collect()
}

#[tokio::test]
async fn every_type_moves_without_a_bit_changed() {
    let of_users = present(OF_USERS);
    let mut setup = SETUP.to_owned();
    for extension in ["hstore", "citext"] {
        if !of_users.iter().any(|(kind, _)| kind.starts_with(extension)) {
            setup = setup.replace(&format!("create extension {extension};"), "");
        }
    }
    let schema = format!("{setup}{}{}", table("plain", BUILT_IN), table("special", &of_users));
    let journey = Journey::new(&schema, rooted("public.customer", "id", &[]));
    journey
        .there_and_back(
            &[],
            "update plain set c1 = -c1 where customer > 4 and c1 > 0; insert into special (customer) values (5)",
        )
        .await;
}

/// Keys of other types than integers: each table is referenced by the next one over its own key, and has a self-reference.
#[tokio::test]
async fn keys_of_every_sort_are_followed_compared_and_restored() {
    let kinds = [
        ("text", "'K-' || i", "collate \"C\""),
        ("uuid", "md5(i::text)::uuid", ""),
        ("numeric(12,0)", "i", ""),
        ("char(6)", "'k' || i", ""),
        ("timestamptz", "'2024-01-01'::timestamptz + i * interval '1 microsecond'", ""),
    ];
    for (kind, value, collate) in kinds {
        let schema = format!(
            "create table customer (id {kind} {collate} primary key, boss {kind} references customer, n int);
             create table item (customer {kind} references customer, n int, again {kind}, before int, primary key (customer, n),
               foreign key (again, before) references item (customer, n) deferrable);
             create table part (customer {kind}, n int, p smallint, v text, primary key (customer, n, p), foreign key (customer, n) references item on delete cascade);
             insert into customer select {value}, null, i from generate_series(1, 30) i;
             update customer set boss = (select c.id from customer c where c.n = 1) where n = 2;
             insert into item select c.id, i, case when i > 1 then c.id end, case when i > 1 then i - 1 end from customer c, generate_series(1, 3) i;
             insert into part select customer, n, p, 'v' from item, generate_series(1, 2) p;"
        );
        let journey = Journey::new(&schema, rooted("public.customer", "id", &[]));
        journey.prepared(&[]).await;
        journey.over("half", crate::journey::percent(50.0), "update part set v = 'w' where p = 2").await;
        journey.over("rest", crate::journey::remainder(), "").await;
        let moved = journey.rows(godwit::contract::Side::Source).await;
        let arrived = journey.rows(godwit::contract::Side::Target).await;
        crate::oracle::assert_same(&arrived, &moved, kind);
        journey.target("delete from part where p = 1; update item set again = null, before = null");
        for cohort in ["rest", "half"] {
            journey.back(cohort).await;
        }
        crate::oracle::assert_same(&journey.rows(godwit::contract::Side::Source).await, &moved, kind);
    }
}
