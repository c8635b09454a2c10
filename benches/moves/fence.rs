//! What the fence costs the application: the same statements on fenced tables and on tables without it, all rolled back.
//! Product code measured: the triggers that Prepare installs.

use crate::data::{self, rows};
use crate::report::{Line, Results};
use crate::rig::{Rig, shell};
use crate::rounds::{self, Contestant, median};
use crate::work::Move;

use godwit::contract::Task;

/// Rows of each statement; on the source, which owns everybody.
const ROWS: u64 = 20_000;

pub fn run(rig: &Rig, results: &mut Results) {
    // The plain twin of the source's tables lives on the source's server too: same machine, same settings.
    rig.source.psql("postgres", "drop database if exists plain with (force)");
    // A template must be nobody's; a group before may have left a session behind.
    rig.source.psql("postgres", "select pg_terminate_backend(pid) from pg_stat_activity where datname = 'crm'");
    rig.source.psql("postgres", "create database plain template crm");
    rig.fresh("fence");
    let migration = Move::new(rig, "fence");
    migration.step(None, Task::Prepare {});
    let (fenced, plain) = (rig.source_uri(), rig.source.uri("plain"));
    let last = rows("note", rig.scale);
    let activities = rows("activity", rig.scale);
    let customers = rows("customer", rig.scale);
    let count = ROWS.min(customers / 2);
    for (what, sql) in [
        (
            "the application's insert into customer, many rows at once (0 hops)",
            format!(
                "insert into customer select {customers} + i, 1, 'n', '{{}}', now() from generate_series(1, {count}) i"
            ),
        ),
        (
            "the application's update of customer, many rows at once (0 hops)",
            format!("update customer set name = name || '!' where id <= {count}"),
        ),
        (
            "the application's insert into note, many rows at once (3 hops)",
            format!("insert into note select {last} + i, 1 + i % {activities}, 'n' from generate_series(1, {count}) i"),
        ),
        (
            "the application's update of note, many rows at once (3 hops)",
            format!("update note set body = body || '!' where id <= {count}"),
        ),
    ] {
        let run = |uri: &str| {
            rig.settle();
            shell(&crate::rig::psql(uri, &format!("begin; {sql}; rollback")))
        };
        let times = rounds::run(
            rig.rounds,
            &mut [Contestant::new("fenced", |_| run(&fenced)), Contestant::new("without the fence", |_| run(&plain))],
        );
        let per_row = (median(&times["fenced"]) - median(&times["without the fence"])) * 1e6 / count as f64;
        results.add(
            &times,
            &Line {
                metric: what,
                ours: "fenced",
                peer: "without the fence",
                goal: None,
                by: "the triggers that Prepare installs",
            },
        );
        results.figure(&format!("what the fence adds to {what}"), format!("{per_row:.1} µs a row"), None, "report");
    }
    single_rows(rig, results, (&fenced, &plain));
    migration.cleanup();
    rig.drop_database("fence");
    rig.source.psql("postgres", "drop database plain with (force)");
    let _ = data::TABLES;
}

/// One row a transaction, as applications mostly write.
fn single_rows(rig: &Rig, results: &mut Results, (fenced, plain): (&str, &str)) {
    let script = rig.folder.path().join("update.sql");
    let activities = rows("activity", rig.scale);
    std::fs::write(
        &script,
        format!("\\set id random(1, {activities})\nupdate activity set kind = (kind + 1) % 9 where id = :id;\n"),
    )
    .unwrap();
    let run = |uri: &str| {
        rig.settle();
        shell(&format!("pgbench -n -c 1 -j 1 -t 4000 -M prepared -f '{}' '{uri}' > /dev/null", script.display()))
    };
    let times = rounds::run(
        rig.rounds,
        &mut [Contestant::new("fenced", |_| run(fenced)), Contestant::new("without the fence", |_| run(plain))],
    );
    let each = (median(&times["fenced"]) - median(&times["without the fence"])) * 1e6 / 4000.0;
    results.figure(
        "what the fence adds to the application's update of one activity, a transaction each (2 hops)",
        format!("{each:.0} µs of {:.0} µs", median(&times["fenced"]) * 1e6 / 4000.0),
        None,
        "report",
    );
}
