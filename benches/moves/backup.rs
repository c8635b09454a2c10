//! Backup of everything, partitioned, against one plain COPY read of the same tables.
//! Product code measured: the step Backup whole (`steps::backup`), with its snapshot, schema, digests and manifest.

use crate::data::TABLES;
use crate::report::{Goal, Line, Results};
use crate::rig::{Rig, psql, shell};
use crate::rounds::{self, Contestant};
use crate::work::Move;

pub fn run(rig: &Rig, results: &mut Results) {
    rig.fresh("backup");
    let migration = Move::new(rig, "backup");
    let backup = |partitions| {
        let migration = &migration;
        move |_| {
            rig.settle();
            let took = migration.backup(partitions).took;
            std::fs::remove_dir_all(migration.folder().join("backup")).unwrap();
            took
        }
    };
    let plain = |_| {
        let reads: Vec<String> =
            TABLES.iter().map(|table| format!("copy {} to stdout (format binary)", table.name)).collect();
        shell(&format!("{} > /dev/null", psql(&rig.source_uri(), &reads.join("; "))))
    };
    let times = rounds::run(
        rig.rounds,
        &mut [
            Contestant::new("backup, 20 partitions", backup(Some(20))),
            Contestant::new("plain COPY read", plain),
            Contestant::new("backup, 1,000 partitions", backup(Some(1000))),
            Contestant::new("backup, as shipped", backup(None)),
        ],
    );
    for (metric, ours, goal) in [
        ("backup, partitioned for 20 cohorts", "backup, 20 partitions", Some(Goal::AtMost(1.5))),
        ("backup, partitioned for 1,000 cohorts", "backup, 1,000 partitions", Some(Goal::AtMost(1.6))),
        ("backup, partitioned by size as shipped", "backup, as shipped", Some(Goal::AtMost(1.5))),
    ] {
        let by = "the step Backup whole, as its Job runs it";
        results.add(&times, Line { metric, ours, peer: "plain COPY read", goal, by });
    }
    rig.drop_database("backup");
}
