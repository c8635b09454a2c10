//! What is not done twice: finished work, and the answer of an attempt that has given it.

use std::sync::Arc;

use godwit::contract::{Report, Side, Task};

use crate::case::{Landed, refuse_other_ends, until_done};
use crate::life::{Life, Scene};
use crate::random::Random;
use crate::wire::{Place, Way};
use crate::world::{Fault, Run, start_servers};

/// A repeated attempt may take another time.
fn without_timings(report: &Report) -> Report {
    Report { timings: std::collections::BTreeMap::new(), ..report.clone() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_finished_attempt_that_is_run_again_reports_the_same() {
    let life = Life::shared().await;
    // What ends a migration for good drops the ledger. Finalize keeps its report in storage; Reset and Cleanup, which may have none
    // to keep, tell only what is left to tell.
    let lasting = |scene: &&Arc<Scene>| !matches!(scene.task, Task::Reset {} | Task::Cleanup {});
    for scene in life.scenes.iter().filter(lasting) {
        let (first, again) = (scene.undisturbed.report(), scene.repeated.report());
        assert_eq!(without_timings(again), without_timings(first), "{}", scene.name);
    }
}

/// The bound that Copy promises: with one chunk of 23 in hand when it dies, the rest of the work is not done again.
const BOUND: f64 = 1.15;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_killed_in_the_middle_repeats_one_chunk_at_most() {
    let servers = start_servers().await;
    let scene = Life::heavy(&servers).await;
    let mut random = Random::seeded();
    let all = scene.undisturbed.traffic[&Side::Target].rows_up;
    for number in 0..6 {
        // One in each sixth of what is sent to the target.
        let up = scene.undisturbed.traffic[&Side::Target].up;
        let at = up * number / 6 + random.below(up / 6);
        let world = scene.stage.world(&servers, false).await;
        let mut step = scene.step();
        let place = Place::Byte { side: Side::Target, way: Way::Up, at };
        let killed = world.run(&step, Some((place, Fault::Kill))).await;
        refuse_other_ends(&killed).unwrap();
        let landed = Landed::of(&world, &scene).await;
        let runs = until_done(&world, &mut step).await.unwrap();
        landed.refuse_repetition(&world, runs.last().unwrap()).await.unwrap();
        let (bytes, rows, time) = work(&scene, &killed, &runs, all);
        println!(
            "copy of 23 chunks killed at {place}: {bytes:.3} of the bytes, {rows:.3} of the rows, {time:.2} of the time"
        );
        assert!(bytes <= BOUND && rows <= BOUND, "{bytes} of the bytes and {rows} of the rows, killed at {place}");
        world.remove().await;
    }
}

#[expect(clippy::cast_precision_loss, reason = "ratios for people")]
fn work(scene: &Scene, killed: &Run, runs: &[Run], all: u64) -> (f64, f64, f64) {
    let runs: Vec<&Run> = runs.iter().chain([killed]).collect();
    let bytes: u64 = runs.iter().map(|run| run.bytes()).sum();
    let rows: u64 = runs.iter().map(|run| run.traffic[&Side::Target].rows_up).sum();
    let time: f64 = runs.iter().map(|run| run.time.as_secs_f64()).sum();
    let undisturbed = &scene.undisturbed;
    (bytes as f64 / undisturbed.bytes() as f64, rows as f64 / all as f64, time / undisturbed.time.as_secs_f64())
}
