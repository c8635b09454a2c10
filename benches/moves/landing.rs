//! One cohort (a twentieth) landing in tables that live, its repetition, and its restore from the backup.
//! Product code measured: the worker's binary for Copy; `landing::Landing` with the proofs of a chunk for the landing alone;
//! `restore::restore_customers` for the restore.

use std::time::{Duration, Instant};

use godwit::contract::{Selection, Side, Task};
use godwit::worker::postgres::landing::Landing;
use godwit::worker::postgres::manifest::Manifest;
use godwit::worker::postgres::relay::{Rows, Shape};
use godwit::worker::postgres::session::{Purpose, connect};
use godwit::worker::postgres::{closure, fence, ledger, restore};
use godwit::worker::steps::cohort::Cohort;
use godwit::worker::steps::{copy, snapshot};

use crate::data::{self, TABLES, cohort};
use crate::peers;
use crate::report::{Goal, Line, Results};
use crate::rig::{Rig, psql, shell, value};
use crate::rounds::{self, Contestant, Times};
use crate::work::{Move, selection};

/// Customers that live on the target already: tables that are neither empty nor idle.
const RESIDENTS: &str = "c.tenant_id >= 500";
/// Cohorts from here on are nobody's in this benchmark.
const OTHERS: usize = 5;

#[expect(clippy::too_many_lines, reason = "a table of contestants")]
pub fn run(rig: &Rig, results: &mut Results) {
    let (migration, backup) = live_with_us(rig);
    let without = live_without_us(rig);
    let mut versions = 0;
    let mut times = Times::new();
    let again = |name: &str, round: usize| {
        migration.step(Some(name), Task::Discard {});
        migration.step(Some(name), selection(&cohort(round)));
        rig.target.psql("live", "vacuum");
        rig.settle();
    };
    // A round is one cohort's: its copy, its repetition, its restore; then the peer's copy of the same cohort.
    for round in 0..rig.rounds.min(OTHERS) {
        let name = format!("cohort-{round}");
        migration.step(Some(&name), selection(&cohort(round)));
        let one = rounds::run(
            1,
            &mut [
                Contestant::new("copy", |_| {
                    rig.settle();
                    migration.step(Some(&name), Task::Copy {}).took
                }),
                Contestant::new("copy again", |_| {
                    let before = row_versions(rig);
                    let took = migration.step(Some(&name), Task::Copy {}).took;
                    versions += u64::from(row_versions(rig) != before);
                    took
                }),
                Contestant::new("landing", |_| {
                    let files = dumped(rig, &migration, round);
                    again(&name, round);
                    rig.runtime.block_on(landed((&migration, &files), &name))
                }),
                Contestant::new("COPY from files with FK triggers", |_| {
                    // A cohort of its own: the one of this round is still to come by the pipes.
                    let files = dumped(rig, &migration, OTHERS + round);
                    rig.settle();
                    let copies: Vec<String> = files
                        .iter()
                        .map(|(table, path)| {
                            let path = migration.folder().join(path);
                            let copy = format!("copy {table} from stdin (format binary)");
                            format!("{} < '{}'", psql(&without, &copy), path.display())
                        })
                        .collect();
                    shell(&copies.join("; "))
                }),
                Contestant::new("restore", |_| {
                    again(&name, round);
                    rig.runtime.block_on(restored(rig, (&migration, &backup), (&name, round)))
                }),
                Contestant::new("COPY with FK triggers", |_| {
                    rig.settle();
                    by_psql(rig, &without, round)
                }),
            ],
        );
        for (name, seconds) in one {
            times.entry(name).or_default().extend(seconds);
        }
    }
    let by = "the worker's binary: step Copy whole (sessions, references, reading by joins, landing, proofs, analyze)";
    for (metric, ours, peer, goal, by) in [
        (
            "land a cohort in live tables, with closure proof",
            "landing",
            "COPY from files with FK triggers",
            Goal::AtLeast(2.5),
            "library: `landing::Landing` and all proofs of a chunk's landing, from files on both sides",
        ),
        ("the same with the reading of the source, step Copy", "copy", "COPY with FK triggers", Goal::AtLeast(2.5), by),
        ("second run of a finished copy", "copy again", "copy", Goal::AtMost(0.5), by),
        (
            "restore one cohort from the backup",
            "restore",
            "copy",
            Goal::AtMost(1.2),
            "library: `restore::restore_customers`, every file digest checked, landed under the fence",
        ),
    ] {
        results.add(&times, &Line { metric, ours, peer, goal: Some(goal), by });
    }
    results.figure(
        "rounds in which the second run wrote a row version",
        versions.to_string(),
        Some(versions == 0),
        "0",
    );
    migration.cleanup();
    rig.drop_database("live");
    rig.drop_database("live_psql");
}

/// The residents moved by Godwit, fence and ledger in place; and the manifest of a backup taken before.
fn live_with_us(rig: &Rig) -> (Move, Manifest) {
    rig.fresh("live");
    let migration = Move::new(rig, "live");
    let backup = migration.backup(None).report;
    let storage = godwit::worker::Job::new(&migration.settings(None, Task::Prepare {})).storage().unwrap();
    let path = backup.evidence_uri.unwrap();
    let (manifest, _) = rig.runtime.block_on(Manifest::find(&storage, &path)).unwrap().unwrap();
    migration.step(None, Task::Prepare {});
    migration
        .step(Some("residents"), Task::Select { selection: Selection::Where(RESIDENTS.replace("c.", "customer.")) });
    migration.step(Some("residents"), Task::Copy {});
    migration.step(Some("residents"), Task::Cutover { checks: Vec::new() });
    rig.target.psql("live", "vacuum analyze");
    (migration, manifest)
}

fn live_without_us(rig: &Rig) -> String {
    let target = rig.fresh("live_psql");
    rig.target.psql("live_psql", data::TABLES_SQL);
    for table in &TABLES {
        shell(&peers::pipe((&rig.source_uri(), &table.rows_of(RESIDENTS)), (&target, table.name), "binary"));
    }
    rig.target.psql("live_psql", data::KEYS_SQL);
    rig.target.psql("live_psql", "vacuum analyze");
    target
}

fn by_psql(rig: &Rig, target: &str, round: usize) -> Duration {
    let source = rig.source_uri();
    let pipes: Vec<String> = TABLES
        .iter()
        .map(|table| peers::pipe((&source, &table.rows_of(&cohort(round))), (target, table.name), "binary"))
        .collect();
    shell(&pipes.join("; "))
}

/// Changes whenever a row of the live tables is written: no row may have another place or writer.
fn row_versions(rig: &Rig) -> String {
    let of = |table: &str| format!("(select sum(hashtext(ctid::text || xmin::text)::bigint) from public.{table})");
    let sums: Vec<String> = TABLES.iter().map(|table| of(table.name)).collect();
    value(&rig.target.uri("live"), &format!("select {}", sums.join(" || ' ' || ")))
}

/// A cohort's rows as COPY files, by table.
fn dumped(rig: &Rig, migration: &Move, number: usize) -> Vec<(&'static str, String)> {
    let folder = migration.folder().join("rows");
    std::fs::create_dir_all(&folder).unwrap();
    let source = rig.source_uri();
    let files = TABLES.iter().map(|table| {
        let copy = format!("copy ({}) to stdout (format binary)", table.rows_of(&cohort(number)));
        shell(&format!("{} > '{}'", psql(&source, &copy), folder.join(table.name).display()));
        (table.name, format!("rows/{}", table.name))
    });
    files.collect()
}

/// One chunk's landing as Copy does it, with its proofs, from files in the place of the source.
async fn landed((migration, files): (&Move, &[(&'static str, String)]), name: &str) -> Duration {
    let settings = migration.settings(Some(name), Task::Copy {});
    let job = godwit::worker::Job::new(&settings);
    let storage = job.storage().unwrap();
    let (cohort, mut sides) = Cohort::open(&job).await.unwrap();
    let started = Instant::now();
    let ownership = ledger::ownership(&*sides.target, cohort.entry).await.unwrap();
    let landing = Landing::begin(&mut sides.target, &sides.target_token).await.unwrap();
    landing.pass(&ownership).await.unwrap();
    let mut counts = Vec::new();
    for owned in &cohort.scope.owned {
        let (_, path) = files.iter().find(|(table, _)| *table == owned.table.name.name).unwrap();
        let mut rows = Rows::File(storage.get_stream(path).await.unwrap());
        counts.push(landing.receive(&mut rows, (&owned.table, Shape::from(owned))).await.unwrap().rows);
    }
    for (owned, landed) in cohort.scope.owned.iter().zip(counts) {
        let count = owned.count_of_entry(cohort.entry, None);
        copy::prove_reached(&landing, &owned.table.name, &count, landed).await.unwrap();
    }
    let catalogue = (&cohort.scope, &cohort.target_catalog);
    closure::hold_parents(&landing, catalogue, cohort.entry, None).await.unwrap();
    closure::refuse(&closure::of_entry(&landing, catalogue, cohort.entry, None).await.unwrap()).unwrap();
    landing.commit().await.unwrap();
    started.elapsed()
}

/// Selected but not copied: the cohort's rows come out of the backup into the live tables, as a way back would bring them.
async fn restored(rig: &Rig, (migration, manifest): (&Move, &Manifest), (name, round): (&str, usize)) -> Duration {
    let storage = godwit::worker::Job::new(&migration.settings(None, Task::Prepare {})).storage().unwrap();
    let started = Instant::now();
    let mut source = connect(&rig.source_uri(), Purpose::new(Side::Source, "bench")).await.unwrap();
    let mut target = connect(&rig.target.uri("live"), Purpose::new(Side::Target, "bench")).await.unwrap();
    let keys = {
        let snapshot = snapshot::of(&mut source).await.unwrap();
        let query = format!("select c.id from public.customer c where {}", cohort(round));
        restore::customers(&snapshot, manifest, &query).await.unwrap()
    };
    let ownership = ledger::require_cohort(&*target, &crate::work::cohort(name)).await.unwrap();
    let landing = target.transaction().await.unwrap();
    landing.batch_execute("set local session_replication_role = replica").await.unwrap();
    fence::pass(&landing, ownership.entry, ownership.epoch).await.unwrap();
    let restored = restore::restore_customers(&landing, (&storage, manifest), keys).await.unwrap();
    landing.commit().await.unwrap();
    let took = started.elapsed();
    assert!(restored.iter().all(|(_, sum)| sum.rows > 0));
    // The copy has to find the tables as the restore did.
    drop(target);
    migration.step(Some(name), Task::Discard {});
    rig.target.psql("live", "vacuum");
    took
}
