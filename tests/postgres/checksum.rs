//! The servers' own checksums see whatever the rows' binary form shows, and name the one row that differs.

use godwit::contract::Side;
use godwit::worker::postgres::catalog::read_catalog;
use godwit::worker::postgres::checksum::{Checksums, Verdict};
use godwit::worker::postgres::difference::Portion;
use godwit::worker::postgres::identifier::TableName;
use godwit::worker::postgres::relay::Shape;
use godwit::worker::steps::snapshot;

use crate::server::Pair;

const TABLE: &str = "
    create type mood as enum ('sad', 'ok', 'fine');
    create domain positive as numeric check (value > 0);
    create collation blind (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
    create table t (id bigint primary key, whole bigint, n numeric, p positive, f float8, r real, span interval, j jsonb, m mood,
      s text, v varchar(20), odd text collate blind, padded char(5), at timestamptz, plain timestamp, d date, u uuid, yes bool, raw bytea, list int[],
      range int4range);
    insert into t select i, i * 7, i / 4.0, i, i / 8.0, i, i * interval '1 day', jsonb_build_object('a', i, 'b', 1.0), 'ok', 's' || i, 'v' || i, 'o' || i, 'p',
      '2024-01-01'::timestamptz + i * interval '1 second', '2024-01-01'::timestamp, '2024-01-01', md5(i::text)::uuid, i % 2 = 0, decode(md5(i::text), 'hex'),
      array[i, 2], int4range(i::int, i::int + 5) from generate_series(1, 500) i;
    update t set n = 1, f = 0, span = '30 days', s = '' where id = 77;";

/// Each changes one row, most of them into what the server's `=` calls equal.
const CHANGES: &[&str] = &[
    "n = 1.00",
    "f = '-0'",
    "f = 'nan'",
    "span = '1 month'",
    "span = '29 days 24 hours'",
    "j = '{\"a\": 77, \"b\": 1.00}'",
    "m = 'fine'",
    "s = null",
    "s = ' '",
    "v = v || ' '",
    "odd = upper(odd)",
    "padded = null",
    "whole = whole + 4294967297",
    "whole = -whole",
    "whole = null",
    "at = at + interval '1 microsecond'",
    "at = 'infinity'",
    "plain = plain + interval '4294967297 microseconds'",
    "d = d + 1",
    "u = md5('other')::uuid",
    "yes = not yes",
    "raw = raw || '\\x00'",
    "list = array[77, 3]",
    "list = '[0:1]={77,2}'",
    "range = int4range(77, 83)",
    "r = r + 1",
    "p = 77.0",
];

async fn verdict(pair: &Pair) -> Verdict {
    let (mut source, mut target) = (pair.session(Side::Source).await, pair.session(Side::Target).await);
    let catalog = read_catalog(&source).await.unwrap();
    let table = &catalog.tables[&TableName::new("public", "t")];
    let versions = (source.server_version(), target.server_version());
    let (source, target) = (snapshot::of(&mut source).await.unwrap(), snapshot::of(&mut target).await.unwrap());
    let checksums = Checksums::open((&source, &target), versions, std::iter::once(table)).await.unwrap();
    let portion = Portion { table, shape: Shape::new(table, table.format()), select: table.select_all() };
    let verdict = checksums.compare(&portion).await.unwrap();
    if let Verdict::DifferAt { select } = &verdict {
        let keys = |side: &str| format!("select count(*) from ({select}) as found where id = 77 -- {side}");
        let found = source.query_one(&keys("source"), &[]).await.unwrap().get::<_, i64>(0)
            + target.query_one(&keys("target"), &[]).await.unwrap().get::<_, i64>(0);
        assert!(found > 0, "the row that differs is among those selected");
    }
    verdict
}

#[tokio::test]
async fn a_change_of_one_row_that_only_its_bytes_show_is_seen_and_named() {
    let pair = Pair::new(TABLE);
    // Other OIDs for the same labels: enums must not be compared by them.
    pair.psql(Side::Target, "create type filler as enum ('x')");
    pair.psql(Side::Target, TABLE);
    assert_eq!(verdict(&pair).await, Verdict::Agree { rows: 500 });
    pair.psql(Side::Target, "create table kept as select * from t where id = 77");
    for change in CHANGES
        .iter()
        .map(|change| format!("update t set {change} where id = 77"))
        .chain(["delete from t where id = 77".into()])
    {
        pair.psql(Side::Target, &change);
        let found = verdict(&pair).await;
        assert!(matches!(found, Verdict::DifferAt { .. }), "{change}: {found:?}");
        pair.psql(Side::Target, "delete from t where id = 77; insert into t select * from kept");
        assert_eq!(verdict(&pair).await, Verdict::Agree { rows: 500 }, "after {change}");
    }
}

#[tokio::test]
async fn values_that_change_places_do_not_cancel_out() {
    let pair = Pair::new(TABLE);
    pair.psql(Side::Target, TABLE);
    pair.psql(Side::Target, "create table kept as select * from t");
    for swap in [
        "update t set s = case id when 5 then 's6' else 's5' end where id in (5, 6)",
        "update t set whole = case id when 5 then 42 else 35 end where id in (5, 6)",
        "update t set id = -5 where id = 5; update t set id = 5 where id = 6; update t set id = 6 where id = -5",
        "update t set v = s, s = v where id = 9",
        "insert into t (id) values (-1), (-2)",
    ] {
        pair.psql(Side::Target, swap);
        let found = verdict(&pair).await;
        assert!(!matches!(found, Verdict::Agree { .. }), "{swap}: {found:?}");
        pair.psql(Side::Target, "truncate t; insert into t select * from kept");
    }
}
