//! Connections that break under a worker that lives: an answer that never comes, sessions that are ended, servers that crash.
//! The worker may heal it by itself or ask to be tried again; what it must not do is to take "no answer" for "it did not happen".

use std::sync::Arc;

use godwit::contract::Side;

use crate::case::{Case, LANES, Road, play_all, road};
use crate::kills::{checkpoints, on_the_wire, random_place};
use crate::life::{Life, Scene};
use crate::random::Random;
use crate::server::Servers;
use crate::wire::Place;
use crate::world::Fault;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_without_an_answer_is_resolved_by_what_the_ledger_says() {
    let life = Life::shared().await;
    let mut random = Random::seeded();
    let mut cases = Vec::new();
    for scene in on_the_wire(&life) {
        let mut places = checkpoints(scene);
        // Two of each step: one anywhere, and its last but one, which is often its decision; the last stores the report.
        let last = places.len().saturating_sub(2);
        while places.len() > 2 {
            let gone = usize::try_from(random.below(places.len() as u64)).unwrap();
            if places[gone] != checkpoints(scene)[last] {
                places.remove(gone);
            }
        }
        for (number, place) in places.into_iter().enumerate() {
            let scene = Arc::clone(scene);
            cases.push(Case { road: road(&scene, number), scene, place, fault: Fault::Cut });
        }
    }
    play_all(&life.servers, ("answer lost", LANES), cases).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_that_an_administrator_ends_cost_an_attempt_at_most() {
    let life = Life::shared().await;
    let mut random = Random::seeded();
    let mut cases = Vec::new();
    for (number, scene) in on_the_wire(&life).enumerate() {
        let side = if number % 2 == 0 { Side::Source } else { Side::Target };
        let place = random_place(scene, &mut random);
        let scene = Arc::clone(scene);
        cases.push(Case { road: road(&scene, number / 2), scene, place, fault: Fault::Terminate(side) });
    }
    play_all(&life.servers, ("sessions terminated", LANES), cases).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_crashes_and_comes_back_costs_an_attempt_at_most() {
    let life = Life::shared().await;
    // Of its own: a crash would be everybody's.
    let servers = Arc::new(Servers { source: life.servers.source.twin(), target: life.servers.target.twin() });
    let mut random = Random::seeded();
    let mut cases = Vec::new();
    for (number, scene) in on_the_wire(&life).enumerate() {
        let side = if number % 2 == 0 { Side::Target } else { Side::Source };
        let answers = scene.undisturbed.traffic[&side].answers.len() as u64;
        if answers > 0 {
            let place = Place::Answer { side, number: usize::try_from(random.below(answers)).unwrap() };
            cases.push(Case { road: Road::On, scene: Arc::clone(scene), place, fault: Fault::Crash(side) });
        }
    }
    play_all(&servers, ("server crashed", 1), cases).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_on_the_target_stops_a_step_and_loses_nothing() {
    let life = Life::shared().await;
    let mut random = Random::seeded();
    let mut cases = Vec::new();
    let writes = |scene: &&Arc<Scene>| scene.undisturbed.traffic[&Side::Target].checkpoints().count() > 0;
    for (number, scene) in on_the_wire(&life).filter(writes).enumerate() {
        let answers = scene.undisturbed.traffic[&Side::Target].answers.len();
        // Early enough for something to be left to write.
        let early = usize::try_from(random.below(answers as u64 * 2 / 3)).unwrap();
        let place = Place::Answer { side: Side::Target, number: early };
        cases.push(Case { road: road(scene, number), scene: Arc::clone(scene), place, fault: Fault::Fill });
    }
    // One after the other: they share the disk.
    play_all(&life.servers, ("disk full", 1), cases).await;
}
