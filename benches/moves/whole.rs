//! The whole CRM moved in one cohort, with keys, indexes, foreign keys and statistics, against a clone of the database.
//! Product code measured: every step from Assess to the cutover of the last cohort, as their Jobs run them.

use std::collections::BTreeMap;
use std::time::Duration;

use godwit::contract::{Selection, Task};

use crate::peers;
use crate::report::{Goal, Line, Results};
use crate::rig::Rig;
use crate::rounds::{self, Contestant, median};
use crate::work::{Done, Move};

const MEMORY: u64 = 64 << 20;
/// What a clone does too: schema, rows, keys, indexes, foreign keys, statistics. Ours hashes, proves and fences besides.
const COPY_PARTS: [&str; 3] = ["prepare", "select", "copy"];

#[derive(Default)]
struct Parts {
    seconds: BTreeMap<&'static str, Vec<f64>>,
    peak: BTreeMap<&'static str, u64>,
}

impl Parts {
    fn note(&mut self, step: &'static str, done: &Done) -> Duration {
        self.seconds.entry(step).or_default().push(done.took.as_secs_f64());
        let peak = self.peak.entry(step).or_default();
        *peak = done.peak_bytes.max(*peak);
        done.took
    }
}

pub fn run(rig: &Rig, results: &mut Results) {
    let mut parts = Parts::default();
    let source = rig.source_uri();
    let folder = rig.folder.path().join("peer");
    let rounds = rig.rounds.min(3);
    let mut contestants = vec![Contestant::new("whole move", |_| moved(rig, &mut parts))];
    if peers::pgcopydb_version().is_some() {
        contestants.push(Contestant::new("pgcopydb clone", |_| {
            let target = rig.fresh("clone");
            let took = peers::pgcopydb(&source, &target, &folder);
            rig.drop_database("clone");
            took
        }));
    }
    contestants.push(Contestant::new("pg_dump and pg_restore", |_| {
        let target = rig.fresh("restored");
        let took = peers::dump_and_restore(&source, &target, &folder);
        rig.drop_database("restored");
        took
    }));
    let mut times = rounds::run(rounds, &mut contestants);
    drop(contestants);
    let copied = (0..rounds).map(|round| COPY_PARTS.iter().map(|step| parts.seconds[step][round]).sum()).collect();
    times.insert("copied", copied);
    let by = "the worker's binary, steps Prepare, Select, Copy: what a clone does, hashed and proven";
    let whole = "the worker's binary, every step from Assess to the last cutover";
    for (peer, goal) in [("pgcopydb clone", 1.25), ("pg_dump and pg_restore", 1.5)] {
        if !times.contains_key(peer) {
            results.figure(peer, "could not be installed", None, "");
            continue;
        }
        let metric = "copy of the whole CRM (Prepare, Select, Copy)";
        results.add(&times, Line { metric, ours: "copied", peer, goal: Some(Goal::AtLeast(goal)), by });
        let metric = "whole move of the CRM (Assess to the last cutover)";
        results.add(&times, Line { metric, ours: "whole move", peer, goal: Some(Goal::AtLeast(goal)), by: whole });
    }
    for (step, seconds) in &parts.seconds {
        results.figure(&format!("whole move: {step}"), format!("{:.1} s", median(seconds)), None, "report");
    }
    memory(rig, results, &parts);
}

fn memory(rig: &Rig, results: &mut Results, parts: &Parts) {
    let keys: u64 = crate::data::TABLES.iter().map(|table| crate::data::rows(table.name, rig.scale)).sum();
    let limit = MEMORY + 2 * keys;
    for (step, peak) in &parts.peak {
        let mib = |bytes: u64| bytes as f64 / 1_048_576.0;
        results.figure(
            &format!("worker memory at its peak: {step}"),
            format!("{:.1} MiB", mib(*peak)),
            Some(*peak <= limit),
            &format!("≤ {:.1} MiB", mib(limit)),
        );
    }
}

fn moved(rig: &Rig, parts: &mut Parts) -> Duration {
    rig.fresh("moved");
    let migration = Move::new(rig, "moved");
    let cohort = Some("everybody");
    let mut took = parts.note("assess", &migration.step(None, Task::Assess {}));
    let backup = migration.backup(None);
    took += parts.note("backup", &backup);
    took += parts.note("verify-backup", &migration.verify_backup(&backup.report));
    took += parts.note("prepare", &migration.step(None, Task::Prepare {}));
    let select = Task::Select { selection: Selection::Remainder {} };
    took += parts.note("select", &migration.step(cohort, select));
    took += parts.note("copy", &migration.step(cohort, Task::Copy {}));
    took += parts.note("validate", &migration.step(cohort, Task::Validate { checks: Vec::new() }));
    took += parts.note("cutover", &migration.step(cohort, Task::Cutover { checks: Vec::new() }));
    migration.cleanup();
    rig.drop_database("moved");
    std::fs::remove_dir_all(migration.folder()).unwrap();
    took
}
