//! Two workers of one step at once, attempts n and n+1: the older is held at a place, the newer starts, then the older goes on.
//! A Job may run twice; of the two only the newer may change anything from the moment when it has the token.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use godwit::contract::{Side, exit};

use crate::case::{LANES, is_left_out, one_story, refuse_other_ends, until_done};
use crate::kills::{checkpoints, on_the_wire};
use crate::life::{Life, Scene};
use crate::prints::Print;
use crate::random::Random;
use crate::server::Servers;
use crate::wire::{Place, Verdict};
use crate::world::{Run, SIDES, World};

struct Duel {
    scene: Arc<Scene>,
    place: Place,
    /// Held right after it took its token: it has done nothing yet, and must not do anything any more.
    with_token: bool,
}

/// Where the older worker has its token on the target and nothing else; none in steps that take no token.
fn token(scene: &Scene) -> Option<Place> {
    let number =
        scene.undisturbed.traffic[&Side::Target].checkpoints().position(|it| it.asked.contains("fencing_token"))?;
    Some(Place::Checkpoint { side: Side::Target, number })
}

impl Duel {
    async fn play(&self, servers: &Arc<Servers>) -> Result<Option<i32>, String> {
        let world = self.scene.stage.world(servers, false).await;
        let played = self.play_in(&world).await;
        world.remove().await;
        played.map_err(|problem| format!("{} held at {}\n    {problem}", self.scene.name, self.place))
    }

    /// The older worker's exit code; none when it was done before it came to the place.
    async fn play_in(&self, world: &World) -> Result<Option<i32>, String> {
        let mut step = self.scene.step();
        let mut wire = world.wire(Some(self.place)).await;
        let mut older = world.pod(&step, &wire);
        let held = tokio::select! {
            held = wire.stopped() => held,
            ended = older.ended() => return if ended.code == Some(exit::DONE) { Ok(None) } else { Err(ended.log) },
        };
        step.attempt += 1;
        let second = step.clone();
        let mut newer = Box::pin(world.run(&second, None));
        let first = tokio::select! {
            run = &mut newer => Some(run),
            () = someone_waits(world) => None,
        };
        held.go_on(Verdict::Pass);
        let older = older.ended().await;
        let newer_was_first = first.is_some();
        let newer = match first {
            Some(run) => run,
            None => newer.await,
        };
        refuse_other_ends(&newer)?;
        if self.with_token && newer_was_first && older.code != Some(exit::TRY_AGAIN) {
            return Err(format!("the older worker ended with {:?}: {:?}", older.code, older.report));
        }
        let code = older.code;
        refuse_other_ends(&Run { ended: older, ..newer.clone() })?;
        if !newer.is_done() {
            until_done(world, &mut step).await?;
        }
        let clients = world.clients().await;
        let print = Print::take(&clients).await;
        if print != self.scene.after {
            return Err(format!("{:?}\nexpected {:?}", print, self.scene.after));
        }
        one_story(&clients).await?;
        Ok(code)
    }
}

/// Returns when a session of the world waits for a lock.
async fn someone_waits(world: &World) {
    let clients = world.clients().await;
    let waiting =
        "select exists (select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock')";
    loop {
        for side in SIDES {
            if clients[&side].query_one(waiting, &[]).await.unwrap().get(0) {
                return;
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_workers_of_one_step_the_older_fails_and_the_result_is_right() {
    let life = Life::shared().await;
    let mut random = Random::seeded();
    let mut duels = Vec::new();
    for scene in on_the_wire(&life) {
        if let Some(place) = token(scene) {
            duels.push(Duel { scene: Arc::clone(scene), place, with_token: true });
        }
        let places = checkpoints(scene);
        if !places.is_empty() {
            let place = places[usize::try_from(random.below(places.len() as u64)).unwrap()];
            duels.push(Duel { scene: Arc::clone(scene), place, with_token: false });
        }
    }
    duels.retain(|duel| !is_left_out(&duel.scene.name));
    let played: Vec<_> =
        futures::stream::iter(&duels).map(|duel| duel.play(&life.servers)).buffer_unordered(LANES).collect().await;
    let older_done = played.iter().filter(|code| **code == Ok(Some(exit::DONE))).count();
    println!("two workers: {} pairs, {older_done} times the older had nothing left to write", duels.len());
    let problems: Vec<_> = played.into_iter().filter_map(Result::err).collect();
    assert!(problems.is_empty(), "{} of {} are wrong: {}", problems.len(), duels.len(), problems.join("\n\n"));
}
