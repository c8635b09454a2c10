//! One large table: the relay with its hash against psql's pipes, into a bare table on both sides of the ratio.
//! Product code measured: `relay::Rows::select` and `relay::relay`, the library functions that Copy is made of.

use std::time::{Duration, Instant};

use godwit::contract::Side;
use godwit::worker::postgres::catalog::read_catalog;
use godwit::worker::postgres::identifier::TableName;
use godwit::worker::postgres::relay::{Rows, Shape, relay};
use godwit::worker::postgres::session::{Purpose, connect};

use crate::data;
use crate::peers;
use crate::report::{Goal, Line, Results};
use crate::rig::{Rig, shell};
use crate::rounds::{self, Contestant};

pub fn run(rig: &Rig, results: &mut Results) {
    let query = "select id, contact_id, body, kind, at from activity";
    let by_psql = |format: &'static str| {
        move |_| {
            let target = bare(rig, "table_psql");
            shell(&peers::pipe((&rig.source_uri(), query), (&target, "activity"), format))
        }
    };
    let times = rounds::run(
        rig.rounds,
        &mut [
            Contestant::new("relay", |_| rig.runtime.block_on(relayed(rig, &bare(rig, "table_relay")))),
            Contestant::new("psql binary", by_psql("binary")),
            Contestant::new("psql text", by_psql("text")),
        ],
    );
    for (peer, goal) in [("psql binary", Goal::AtLeast(1.0)), ("psql text", Goal::AtLeast(1.5))] {
        results.add(
            &times,
            Line {
                metric: "copy with hash, one large table",
                ours: "relay",
                peer,
                goal: Some(goal),
                by: "library: `relay::Rows::select`, `relay::relay`, a bare logged table on both sides",
            },
        );
    }
    for name in ["table_psql", "table_relay"] {
        rig.drop_database(name);
    }
}

fn bare(rig: &Rig, name: &str) -> String {
    let uri = rig.fresh(name);
    rig.target.psql(name, data::TABLES_SQL);
    uri
}

async fn relayed(rig: &Rig, target_uri: &str) -> Duration {
    let started = Instant::now();
    let mut source = connect(&rig.source_uri(), Purpose::new(Side::Source, "bench")).await.unwrap();
    let mut target = connect(target_uri, Purpose::new(Side::Target, "bench")).await.unwrap();
    let catalog = read_catalog(&source).await.unwrap();
    let table = &catalog.tables[&TableName::new("public", "activity")];
    let shape = Shape::new(table, table.format());
    let reading = source.transaction().await.unwrap();
    let writing = target.transaction().await.unwrap();
    let mut rows = Rows::select(&reading, &table.select_all(), shape.format, "activity").await.unwrap();
    let copy = format!("copy {} ({}) from stdin (format binary)", table.name.sql(), table.column_list());
    let sum = relay(&mut rows, shape, writing.copy_in(&copy).await.unwrap(), table).await.unwrap();
    writing.commit().await.unwrap();
    let took = started.elapsed();
    assert_eq!(sum.rows, data::rows("activity", rig.scale));
    took
}
