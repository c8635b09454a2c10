//! A Copy that is killed once on its way and begun again, against the same Copy undisturbed: into bare tables, and into tables that live.
//! Product code measured: the worker's binary, step Copy. The kill comes at a third, half, two thirds … of the undisturbed time, in turn.

use std::time::{Duration, Instant};

use godwit::contract::{Selection, Task};

use crate::report::{Goal, Line, Results};
use crate::rig::Rig;
use crate::rounds::{self, Contestant, Times};
use crate::work::{Move, selection};

const PLACES: [f64; 5] = [0.5, 0.33, 0.67, 0.2, 0.8];
/// Half of all customers live on the target already, the other half is copied.
const RESIDENTS: &str = "c.tenant_id >= 500";
const NEWCOMERS: &str = "c.tenant_id < 500";

pub fn run(rig: &Rig, results: &mut Results) {
    let by = "the worker's binary, step Copy, killed with SIGKILL and run once more";
    let goal = Some(Goal::AtMost(1.15));
    let times = disturbed_in_turn(rig, || bare(rig));
    let metric = "Copy of the whole CRM into bare tables, killed once";
    results.add(&times, &Line { metric, ours: "killed", peer: "undisturbed", goal, by });
    let migration = live(rig);
    let times = disturbed_in_turn(rig, || {
        migration.step(Some("newcomers"), Task::Discard {});
        migration.step(Some("newcomers"), selection(NEWCOMERS));
        rig.target.psql("killed", "vacuum");
        (&migration, "newcomers")
    });
    let metric = "Copy of half of the customers into tables that live, killed once";
    results.add(&times, &Line { metric, ours: "killed", peer: "undisturbed", goal, by });
    migration.cleanup();
    rig.drop_database("killed");
}

/// Both contestants of a round begin with what `prepared` leaves.
fn disturbed_in_turn<M: std::borrow::Borrow<Move>>(rig: &Rig, prepared: impl Fn() -> (M, &'static str)) -> Times {
    let undisturbed = std::cell::Cell::new(Duration::ZERO);
    rounds::run(
        rig.rounds,
        &mut [
            Contestant::new("undisturbed", |_| {
                let (migration, cohort) = prepared();
                rig.settle();
                undisturbed.set(migration.borrow().step(Some(cohort), Task::Copy {}).took);
                undisturbed.get()
            }),
            Contestant::new("killed", |round| {
                let (migration, cohort) = prepared();
                rig.settle();
                let started = Instant::now();
                let place = PLACES[round % PLACES.len()];
                migration.borrow().killed_after(undisturbed.get().mul_f64(place), Some(cohort), Task::Copy {});
                migration.borrow().step(Some(cohort), Task::Copy {});
                started.elapsed()
            }),
        ],
    )
}

/// Everybody selected, nothing copied.
fn bare(rig: &Rig) -> (Move, &'static str) {
    rig.fresh("killed");
    let migration = Move::new(rig, "killed");
    // What an earlier contestant left at the source.
    migration.cleanup();
    migration.step(None, Task::Prepare {});
    migration.step(Some("everybody"), Task::Select { selection: Selection::Remainder {} });
    (migration, "everybody")
}

fn live(rig: &Rig) -> Move {
    rig.fresh("killed");
    let migration = Move::new(rig, "killed");
    migration.cleanup();
    migration.step(None, Task::Prepare {});
    migration.step(Some("residents"), selection(RESIDENTS));
    migration.step(Some("residents"), Task::Copy {});
    migration.step(Some("residents"), Task::Cutover { checks: Vec::new() });
    rig.target.psql("killed", "vacuum analyze");
    migration
}
