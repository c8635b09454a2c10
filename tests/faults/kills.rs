//! `kill -9` of every step: right after each checkpoint, and at random places of its wire.
//! `GODWIT_FAULT_POINTS` is the number of random places (200), `GODWIT_FAULT_SEED` where they begin.

use std::sync::Arc;
use std::time::Duration;

use crate::case::{Case, LANES, play_all, road, setting, until_done};
use crate::life::{Life, Scene};
use crate::random::Random;
use crate::wire::{Place, Way};
use crate::world::{Fault, SIDES};

/// The moments after which a database may be another one.
pub fn checkpoints(scene: &Scene) -> Vec<Place> {
    let of_side = |side| {
        let numbers = 0..scene.undisturbed.traffic[&side].checkpoints().count();
        numbers.map(move |number| Place::Checkpoint { side, number })
    };
    SIDES.into_iter().flat_map(of_side).collect()
}

/// A byte that the undisturbed run sent, on a side that it spoke to, in either direction.
pub fn random_place(scene: &Scene, random: &mut Random) -> Place {
    let mut sides = SIDES.to_vec();
    sides.retain(|side| scene.undisturbed.traffic[side].up > 0);
    let side = sides[usize::try_from(random.below(sides.len() as u64)).unwrap()];
    let way = if random.below(2) == 0 { Way::Up } else { Way::Down };
    let traffic = &scene.undisturbed.traffic[&side];
    let bytes = if way == Way::Up { traffic.up } else { traffic.down };
    Place::Byte { side, way, at: random.below(bytes) }
}

/// Steps that speak to source or target; VerifyBackup does not, and has a test of its own.
pub fn on_the_wire(life: &Life) -> impl Iterator<Item = &Arc<Scene>> {
    life.scenes.iter().filter(|scene| scene.undisturbed.bytes() > 0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_killed_after_any_checkpoint_ends_as_an_undisturbed_one_or_goes_back() {
    let life = Life::shared().await;
    let mut cases = Vec::new();
    for scene in on_the_wire(&life) {
        for (number, place) in checkpoints(scene).into_iter().enumerate() {
            let scene = Arc::clone(scene);
            cases.push(Case { road: road(&scene, number), scene, place, fault: Fault::Kill });
        }
    }
    play_all(&life.servers, ("killed after a checkpoint", LANES), cases).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_killed_anywhere_ends_as_an_undisturbed_one_or_goes_back() {
    let life = Life::shared().await;
    let points: usize = setting("GODWIT_FAULT_POINTS").map_or(200, |text| text.parse().unwrap());
    let mut random = Random::seeded();
    let scenes: Vec<&Arc<Scene>> = on_the_wire(&life).collect();
    let cases = (0..points).map(|number| {
        let scene = Arc::clone(scenes[number % scenes.len()]);
        let place = random_place(&scene, &mut random);
        Case { road: road(&scene, number / scenes.len()), scene, place, fault: Fault::Kill }
    });
    play_all(&life.servers, ("killed anywhere", LANES), cases.collect()).await;
}

/// VerifyBackup speaks to neither database; its checkpoints are what its sandbox has come to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_test_restore_killed_at_any_stage_of_its_sandbox_is_made_again() {
    let life = Life::shared().await;
    let scene = life.scene("verify-backup migration");
    for stage in ["", "data/PG_VERSION", ".s.PGSQL.5432", "data/base/1/PG_VERSION"] {
        let world = scene.stage.world(&life.servers, false).await;
        let mut step = scene.step();
        let wire = world.wire(None).await;
        let scratch = world.next_scratch();
        let mut pod = world.pod(&step, &wire);
        let there = || {
            std::fs::read_dir(&scratch).is_ok_and(|entries| entries.flatten().any(|it| it.path().join(stage).exists()))
        };
        let ended = loop {
            tokio::select! {
                ended = pod.ended() => break Some(ended),
                () = tokio::time::sleep(Duration::from_millis(2)) => if there() {
                    pod.kill().await;
                    break None;
                },
            }
        };
        assert!(ended.is_none(), "the sandbox never had {stage}: {ended:?}");
        let runs = until_done(&world, &mut step).await.unwrap();
        let (again, first) = (runs.last().unwrap().report(), scene.undisturbed.report());
        assert_eq!((&again.counts, &again.digest, &again.findings), (&first.counts, &first.digest, &first.findings));
        world.remove().await;
    }
}
