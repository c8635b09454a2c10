//! One whole life of a migration, undisturbed: what every case starts from and is compared with.
//! Built once for the tests that run at the same time. Each step is a scene; the databases before it are kept as templates.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use godwit::contract::{EvidenceRef, Report, Selection, Side, Task};
use tokio::sync::Mutex;

use crate::crm;
use crate::prints::Print;
use crate::server::Servers;
use crate::world::{Run, SIDES, Step, World, copy_folder, start_servers};

static SHARED: Mutex<Weak<Life>> = Mutex::const_new(Weak::new());

/// Both databases at a moment between two steps, as templates, and the storage.
pub struct Stage {
    database: String,
    storage: tempfile::TempDir,
    /// Of the next run.
    pub attempt: i64,
    /// What the operator saw last, by cohort.
    epochs: BTreeMap<&'static str, i64>,
    pub print: Print,
}

/// A step where it stands in the life.
pub struct Scene {
    pub name: String,
    pub stage: Arc<Stage>,
    /// Where the subject stood before it moved at all: what its way back leads to.
    pub home: Arc<Stage>,
    pub cohort: Option<&'static str>,
    pub task: Task,
    pub undisturbed: Run,
    pub after: Print,
    /// What the same attempt reported when it was run once more.
    pub repeated: Run,
}

pub struct Life {
    pub servers: Arc<Servers>,
    pub scenes: Vec<Arc<Scene>>,
}

/// Select decides by the size of tables, which are small here: every group becomes a chunk of its own.
const SMALL_CHUNKS: &str = "update godwit.member set chunk = customer_group::int where entry >= 16";

const NOTHING: [&str; 2] = ["", ""];

impl Scene {
    pub fn step(&self) -> Step {
        self.stage.step(self.cohort, self.task.clone())
    }
}

impl Stage {
    pub fn step(&self, cohort: Option<&'static str>, task: Task) -> Step {
        let epoch = cohort.and_then(|name| self.epochs.get(name).copied()).unwrap_or(0);
        Step { cohort, task, attempt: self.attempt, epoch }
    }

    pub async fn world(&self, servers: &Arc<Servers>, small: bool) -> World {
        let world = World::create(Arc::clone(servers), Some(&self.database), small).await;
        copy_folder(self.storage.path(), &world.storage());
        world
    }

    async fn of(world: World, attempt: i64, epochs: BTreeMap<&'static str, i64>) -> Arc<Self> {
        let print = world.print().await;
        let storage = tempfile::tempdir().unwrap();
        copy_folder(&world.storage(), storage.path());
        Arc::new(Self { database: world.database, storage, attempt, epochs, print })
    }

    /// The source with these rows, the target empty.
    async fn first(servers: &Arc<Servers>, rows: &str) -> Arc<Self> {
        let world = World::create(Arc::clone(servers), None, false).await;
        world.sql(Side::Source, crm::TABLES).await;
        world.sql(Side::Source, rows).await;
        Self::of(world, 1, BTreeMap::new()).await
    }
}

/// The story while it is written.
struct Story {
    servers: Arc<Servers>,
    scenes: Vec<Arc<Scene>>,
    home: Arc<Stage>,
    cohort: Option<&'static str>,
}

impl Story {
    /// Plays a step to its end, then SQL on source and target; the stage that this leaves.
    async fn play(&mut self, stage: &Arc<Stage>, task: Task, then: [&str; 2]) -> (Arc<Stage>, Report) {
        let world = stage.world(&self.servers, false).await;
        let step = stage.step(self.cohort, task);
        let undisturbed = world.run(&step, None).await;
        let name = format!("{} {}", step.task.name(), self.cohort.unwrap_or("migration"));
        assert!(undisturbed.is_done(), "{name}: {:?}\n{}", undisturbed.ended.report, undisturbed.ended.log);
        let after = world.print().await;
        let repeated = world.run(&step, None).await;
        assert_eq!(world.print().await, after, "{name}, repeated");
        let mut epochs = stage.epochs.clone();
        let report = undisturbed.report().clone();
        if let (Some(cohort), Some(epoch)) = (self.cohort, report.epoch) {
            epochs.insert(cohort, epoch);
        }
        self.scenes.push(Arc::new(Scene {
            name,
            stage: Arc::clone(stage),
            home: Arc::clone(&self.home),
            cohort: self.cohort,
            task: step.task,
            undisturbed,
            after,
            repeated,
        }));
        for (side, sql) in SIDES.into_iter().zip(then) {
            world.sql(side, sql).await;
        }
        (Stage::of(world, stage.attempt + 1, epochs).await, report)
    }

    async fn then(&mut self, stage: &Arc<Stage>, task: Task) -> Arc<Stage> {
        self.play(stage, task, NOTHING).await.0
    }

    async fn prepare(&mut self, fresh: &Arc<Stage>) -> Arc<Stage> {
        self.then(fresh, Task::Assess {}).await;
        let (backed_up, report) = self.play(fresh, Task::Backup { includes: Vec::new() }, NOTHING).await;
        let backup = EvidenceRef { uri: report.evidence_uri.unwrap(), digest: report.digest.unwrap() };
        let verified = self.then(&backed_up, Task::VerifyBackup { backup }).await;
        self.then(&verified, Task::Prepare {}).await
    }

    /// Select, Copy, Validate, Cutover, and what else may come after each of them. The stages before and after Cutover.
    async fn go_over(&mut self, home: &Arc<Stage>, selection: Selection, lives: &str) -> [Arc<Stage>; 2] {
        self.home = Arc::clone(home);
        let (selected, _) = self.play(home, Task::Select { selection }, [SMALL_CHUNKS; 2]).await;
        let (copied, _) = self.play(&selected, Task::Copy {}, [lives, ""]).await;
        let validated = self.then(&copied, Task::Validate { checks: Vec::new() }).await;
        self.then(&validated, Task::Discard {}).await;
        let over = self.then(&validated, Task::Cutover { checks: Vec::new() }).await;
        [validated, over]
    }

    async fn come_back(&mut self, over: &Arc<Stage>, lives: [&str; 2]) -> Arc<Stage> {
        let world = over.world(&self.servers, false).await;
        for (side, sql) in SIDES.into_iter().zip(lives) {
            world.sql(side, sql).await;
        }
        let mut stage = Stage::of(world, over.attempt, over.epochs.clone()).await;
        for task in [Task::Freeze {}, Task::Return {}, Task::Verify {}, Task::Reopen {}] {
            stage = self.then(&stage, task).await;
        }
        stage
    }

    /// As a step of the migration itself.
    async fn end(&mut self, stage: &Arc<Stage>, task: Task) {
        let cohort = self.cohort.take();
        self.then(stage, task).await;
        self.cohort = cohort;
    }
}

impl Life {
    /// The one of the tests that run now.
    pub async fn shared() -> Arc<Self> {
        let mut shared = SHARED.lock().await;
        if let Some(life) = shared.upgrade() {
            return life;
        }
        let life = Arc::new(Self::live().await);
        *shared = Arc::downgrade(&life);
        life
    }

    async fn live() -> Self {
        let servers = start_servers().await;
        let fresh = Stage::first(&servers, crm::ROWS).await;
        let mut story = Story { servers, scenes: Vec::new(), home: Arc::clone(&fresh), cohort: None };
        let prepared = story.prepare(&fresh).await;
        story.cohort = Some("first");
        let [_, first_over] = story.go_over(&prepared, crm::first(), crm::FIRST_LIVES).await;
        let query = "select count(*) from public.account".to_owned();
        story.then(&first_over, Task::SqlCheck { side: Side::Target, query, timeout_seconds: 10 }).await;
        story.then(&first_over, Task::IntegrityCheck {}).await;
        story.end(&first_over, Task::Cleanup {}).await;
        let back = story.come_back(&first_over, [crm::TAMPERED, crm::FIRST_LIVES_ABROAD]).await;
        story.end(&back, Task::Reset {}).await;
        story.cohort = Some("last");
        let [_, all_over] = story.go_over(&first_over, Selection::Remainder {}, crm::LAST_LIVES).await;
        story.end(&all_over, Task::Finalize {}).await;
        story.come_back(&all_over, ["", crm::LAST_LIVES_ABROAD]).await;
        Self { servers: story.servers, scenes: story.scenes }
    }

    pub fn scene(&self, name: &str) -> &Arc<Scene> {
        self.scenes.iter().find(|scene| scene.name == name).unwrap_or_else(|| panic!("there is no {name}"))
    }

    /// A cohort of heavy customers, about to be copied in chunks of one customer each.
    pub async fn heavy(servers: &Arc<Servers>, tables: Tables) -> Arc<Scene> {
        let fresh = Stage::first(servers, crm::HEAVY_ROWS).await;
        let home = Arc::clone(&fresh);
        let mut story = Story { servers: Arc::clone(servers), scenes: Vec::new(), home, cohort: None };
        let mut stage = story.then(&fresh, Task::Prepare {}).await;
        let cohorts: &[_] = match tables {
            Tables::Empty => &[("first", "true")],
            Tables::InUse => &[("pilot", "customer.id = 24"), ("first", "customer.id < 24")],
        };
        for (cohort, condition) in cohorts {
            story.cohort = Some(cohort);
            let selection = Selection::Where((*condition).into());
            let (selected, _) = story.play(&stage, Task::Select { selection }, [SMALL_CHUNKS; 2]).await;
            stage = story.then(&selected, Task::Copy {}).await;
        }
        story.scenes.pop().unwrap()
    }
}

/// Where a heavy cohort lands: the target's tables decide the way that Copy takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tables {
    Empty,
    InUse,
}
