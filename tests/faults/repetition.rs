//! What is not done twice: finished work, and the answer of an attempt that has given it.

use std::sync::Arc;

use godwit::contract::{Report, Side, Task};

use crate::case::{Landed, refuse_other_ends, until_done};
use crate::life::{Life, Scene, Tables};
use crate::random::Random;
use crate::server::Servers;
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

/// The bound that Copy promises: with one chunk of 23, or one piece of some 24, in hand when it dies, nothing else is sent again.
const BOUND: f64 = 1.15;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_killed_in_the_middle_repeats_one_chunk_at_most() {
    let servers = start_servers().await;
    kill_in_the_middle(&servers, Life::heavy(&servers, Tables::InUse).await).await;
}

/// Of the one table that was not read to its end the rest is read in another snapshot, and so is what has landed of it: that is printed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_into_bare_tables_killed_in_the_middle_sends_one_piece_again_at_most() {
    let servers = start_servers().await;
    kill_in_the_middle(&servers, Life::heavy(&servers, Tables::Empty).await).await;
}

async fn kill_in_the_middle(servers: &Arc<Servers>, scene: Arc<Scene>) {
    let mut random = Random::seeded();
    let all = scene.undisturbed.traffic[&Side::Target].rows_up;
    let lives = scene.undisturbed.report().counts["chunks"] == 23;
    for number in 0..6 {
        // One in each sixth of what is sent to the target.
        let up = scene.undisturbed.traffic[&Side::Target].up;
        let at = up * number / 6 + random.below(up / 6);
        let world = scene.stage.world(servers, false).await;
        let mut step = scene.step();
        let place = Place::Byte { side: Side::Target, way: Way::Up, at };
        let killed = world.run(&step, Some((place, Fault::Kill))).await;
        refuse_other_ends(&killed).unwrap();
        let landed = Landed::of(&world, &scene).await;
        let runs = until_done(&world, &mut step).await.unwrap();
        landed.refuse_repetition(&world, runs.last().unwrap()).await.unwrap();
        let work = Work::of(&scene, &killed, &runs, all);
        println!("copy into {} tables killed at {place}: {work}", if lives { "living" } else { "bare" });
        assert!(work.sent <= BOUND && work.rows <= BOUND, "killed at {place}: {work}");
        assert!(!lives || work.read <= BOUND, "killed at {place}: {work}");
        world.remove().await;
    }
}

/// What a killed copy and the attempts after it did, as shares of an undisturbed one.
struct Work {
    /// Bytes sent to the target.
    sent: f64,
    /// Rows sent to the target.
    rows: f64,
    /// Bytes read from the source.
    read: f64,
    time: f64,
}

impl Work {
    #[expect(clippy::cast_precision_loss, reason = "ratios for people")]
    fn of(scene: &Scene, killed: &Run, runs: &[Run], all: u64) -> Self {
        let runs: Vec<&Run> = runs.iter().chain([killed]).collect();
        let sum = |of: fn(&Run) -> u64| runs.iter().map(|run| of(run)).sum::<u64>() as f64;
        let share = |of: fn(&Run) -> u64| sum(of) / of(&scene.undisturbed) as f64;
        let time: f64 = runs.iter().map(|run| run.time.as_secs_f64()).sum();
        Self {
            sent: share(|run| run.traffic[&Side::Target].up),
            rows: sum(|run| run.traffic[&Side::Target].rows_up) / all as f64,
            read: share(|run| run.traffic[&Side::Source].down),
            time: time / scene.undisturbed.time.as_secs_f64(),
        }
    }
}

impl std::fmt::Display for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { sent, rows, read, time } = self;
        write!(
            f,
            "{sent:.3} of the bytes and {rows:.3} of the rows sent, {read:.3} of the bytes read, {time:.2} of the time"
        )
    }
}
