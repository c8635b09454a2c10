//! Comparing one large table on both sides, and finding one wrong cell in it, against the SQL of pgcopydb and data-diff.
//! Product code measured: `sides::Sides`, the library that Validate compares with.

use std::time::{Duration, Instant};

use godwit::contract::Side;
use godwit::worker::postgres::catalog::read_catalog;
use godwit::worker::postgres::identifier::TableName;
use godwit::worker::postgres::keys::KeyTable;
use godwit::worker::postgres::relay::Shape;
use godwit::worker::postgres::session::{Purpose, connect};
use godwit::worker::postgres::sides::{Origin, Portion, Sides};
use godwit::worker::steps::snapshot;

use crate::data;
use crate::peers;
use crate::report::{Goal, Line, Results};
use crate::rig::{Rig, shell};
use crate::rounds::{self, Contestant};

const COLUMNS: [&str; 5] = ["id", "contact_id", "body", "kind", "at"];

pub fn run(rig: &Rig, results: &mut Results) {
    let target = twin(rig);
    let source = rig.source_uri();
    let wrong = data::rows("activity", rig.scale) / 3;
    let change = |what: &str| {
        rig.target.psql("twin", &format!("update activity set body = {what} where id = {wrong}"));
        rig.target.psql("twin", "vacuum activity");
    };
    let times = rounds::run(
        rig.rounds,
        &mut [
            Contestant::new("validate", |_| rig.runtime.block_on(compared(rig, &target, 0))),
            Contestant::new("pgcopydb's SQL", |_| {
                peers::on_both_sides(&source, &target, &peers::pgcopydb_compare(&COLUMNS, "activity"))
            }),
            Contestant::new("data-diff's SQL", |_| {
                peers::on_both_sides(&source, &target, &peers::data_diff(&COLUMNS, "activity"))
            }),
            Contestant::new("the servers' own sums", |_| {
                peers::on_both_sides(&source, &target, &peers::own_sums("activity"))
            }),
            Contestant::new("locate", |_| {
                change("body || '!'");
                rig.settle();
                let took = rig.runtime.block_on(compared(rig, &target, 1));
                change("left(body, -1)");
                took
            }),
            Contestant::new("one checksum pass", |_| rig.runtime.block_on(compared(rig, &target, 0))),
            Contestant::new("ordered pull", |_| {
                change("body || '!'");
                rig.settle();
                let took = peers::ordered_pull(&source, &target, "activity");
                change("left(body, -1)");
                took
            }),
        ],
    );
    let by = "library: `sides::Sides`, which Validate compares with";
    for (metric, ours, peer, goal) in [
        ("validate one table on both sides", "validate", "pgcopydb's SQL", Goal::AtLeast(3.5)),
        ("validate one table on both sides", "validate", "data-diff's SQL", Goal::AtLeast(4.0)),
        ("locate one wrong cell among its rows", "locate", "one checksum pass", Goal::AtMost(1.3)),
        ("locate one wrong cell among its rows", "locate", "ordered pull", Goal::AtLeast(3.0)),
    ] {
        results.add(&times, &Line { metric, ours, peer, goal: Some(goal), by });
    }
    // What could be reached at most, if equal sums were taken for an answer: see the decision that Validate reads the rows.
    for peer in ["pgcopydb's SQL", "data-diff's SQL"] {
        let (metric, by) = ("the same by hash_record_extended in SQL", "SQL alone; Godwit does not use it");
        results.add(&times, &Line { metric, ours: "the servers' own sums", peer, goal: None, by });
    }
    rig.drop_database("twin");
}

/// The large table once more, on the target, as a restore leaves it.
fn twin(rig: &Rig) -> String {
    let target = rig.fresh("twin");
    rig.target.psql("twin", data::TABLES_SQL);
    let query = "select id, contact_id, body, kind, at from activity";
    shell(&peers::pipe((&rig.source_uri(), query), (&target, "activity"), "binary"));
    rig.target.psql("twin", "alter table activity add primary key (id)");
    rig.target.psql("twin", "vacuum analyze activity");
    target
}

/// Both sides compared; the keys of what differs are known at the end.
async fn compared(rig: &Rig, target_uri: &str, expected: u64) -> Duration {
    let started = Instant::now();
    let mut source = connect(&rig.source_uri(), Purpose::new(Side::Source, "bench")).await.unwrap();
    let mut target = connect(target_uri, Purpose::new(Side::Target, "bench")).await.unwrap();
    let catalog = read_catalog(&source).await.unwrap();
    let table = &catalog.tables[&TableName::new("public", "activity")];
    let shape = Shape::new(table, table.format());
    let portion = Portion { table, shape, select: table.select_all() };
    let source = snapshot::of(&mut source).await.unwrap();
    let target = snapshot::of(&mut target).await.unwrap();
    let mut sides = Sides { original: Origin::Database(&source), copy: Origin::Database(&target) };
    let digests = sides.compare(&portion, None).await.unwrap();
    let mut found = 0;
    if !digests.0.agrees_with(&digests.1) {
        let keys = KeyTable::create(&target, table, shape, 0).await.unwrap();
        found = sides.note(&portion, &digests, &[(&target, &keys)]).await.unwrap().total();
    }
    assert_eq!(found, expected);
    started.elapsed()
}
