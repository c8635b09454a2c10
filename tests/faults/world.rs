//! Two databases, a storage folder and the pods that work on them: one try of one case.
//! Used by `life` (undisturbed) and `case` (disturbed). Cloned from a stage of the life, gone after the case.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use godwit::contract::{Identity, Report, Side, StepInput, Storage, Task, VERSION, exit};
use tokio_postgres::{Client, NoTls};

use crate::crm;
use crate::pod::{Ended, Pod, inside};
use crate::prints::Print;
use crate::server::{Server, Servers};
use crate::wire::{Place, Stopped, Traffic, Verdict, Wire};

static COUNTER: AtomicU32 = AtomicU32::new(0);
/// Longer than any wait of the worker for a lock or a server; whoever needs it hangs.
const PATIENCE: Duration = Duration::from_secs(120);
/// The tablespace on the target's small disk.
pub const SMALL: &str = "small";
pub const SIDES: [Side; 2] = [Side::Source, Side::Target];

/// What happens when the wire stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// `kill -9` of the pod.
    Kill,
    /// The connection is cut, and what was on its way to the worker is lost.
    Cut,
    /// `pg_terminate_backend` of every session of the worker on this side.
    Terminate(Side),
    /// `stop -m immediate` of this side's server, and a new start.
    Crash(Side),
    /// Not one more page fits on the target's disk, until the worker has ended.
    Fill,
}

/// Who runs what.
#[derive(Clone, Debug)]
pub struct Step {
    pub cohort: Option<&'static str>,
    pub task: Task,
    pub attempt: i64,
    pub epoch: i64,
}

/// One run of a worker.
#[derive(Clone, Debug)]
pub struct Run {
    pub ended: Ended,
    pub reached: bool,
    pub traffic: BTreeMap<Side, Traffic>,
    pub time: Duration,
}

impl Run {
    pub fn is_done(&self) -> bool {
        self.ended.code == Some(exit::DONE)
    }

    pub fn report(&self) -> &Report {
        self.ended.report.as_ref().expect("a worker that ended by itself leaves a report")
    }

    /// Everything that went over the wire.
    pub fn bytes(&self) -> u64 {
        self.traffic.values().map(|traffic| traffic.up + traffic.down).sum()
    }
}

pub struct World {
    pub servers: Arc<Servers>,
    pub database: String,
    folder: tempfile::TempDir,
    pods: AtomicU32,
}

impl World {
    /// `template`: a database to clone on both servers. `small`: the target's clone is on the small disk.
    pub async fn create(servers: Arc<Servers>, template: Option<&str>, small: bool) -> Self {
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let database = format!("f{}_{number}", std::process::id());
        let folder = tempfile::Builder::new().prefix("godwit-fault").tempdir().unwrap();
        std::fs::create_dir(folder.path().join("storage")).unwrap();
        let world = Self { servers, database, folder, pods: AtomicU32::new(0) };
        for side in SIDES {
            let template = template.unwrap_or("template1");
            let tablespace = if small && side == Side::Target { format!("tablespace {SMALL}") } else { String::new() };
            let create = format!("create database {} template {template} {tablespace}", world.database);
            admin(world.server(side)).await.batch_execute(&create).await.unwrap();
        }
        if small {
            // A cloned file has holes until it is written back, and they could not be filled on a full disk.
            admin(&world.servers.target).await.batch_execute("checkpoint").await.unwrap();
        }
        world
    }

    pub fn server(&self, side: Side) -> &Server {
        match side {
            Side::Source => &self.servers.source,
            Side::Target => &self.servers.target,
        }
    }

    pub fn storage(&self) -> PathBuf {
        self.folder.path().join("storage")
    }

    pub async fn client(&self, side: Side) -> Client {
        open(self.server(side), &self.database).await
    }

    pub async fn clients(&self) -> BTreeMap<Side, Client> {
        let (source, target) = futures::join!(self.client(Side::Source), self.client(Side::Target));
        BTreeMap::from([(Side::Source, source), (Side::Target, target)])
    }

    pub async fn sql(&self, side: Side, sql: &str) {
        self.client(side).await.batch_execute(sql).await.unwrap();
    }

    pub async fn print(&self) -> Print {
        Print::take(&self.clients().await).await
    }

    /// Drops both databases.
    pub async fn remove(self) {
        for side in SIDES {
            let drop = format!("drop database {} with (force)", self.database);
            admin(self.server(side)).await.batch_execute(&drop).await.unwrap();
        }
    }

    pub fn input(&self, step: &Step) -> StepInput {
        StepInput {
            v: VERSION,
            migration: crm::migration(),
            cohort: step.cohort.map(crm::cohort),
            attempt: step.attempt,
            epoch: step.epoch,
            dataset: crm::dataset(),
            storage: Storage::Path(self.storage().to_str().unwrap().into()),
            task: step.task.clone(),
        }
    }

    pub async fn wire(&self, place: Option<Place>) -> Wire {
        Wire::start(SIDES.map(|side| (side, self.server(side).port)), place).await
    }

    pub fn pod(&self, step: &Step, wire: &Wire) -> Pod {
        let folder = self.pod_folder(self.pods.fetch_add(1, Ordering::Relaxed));
        let uris = (wire.uri(Side::Source, &self.database), wire.uri(Side::Target, &self.database));
        Pod::start(&folder, &self.input(step), uris)
    }

    fn pod_folder(&self, number: u32) -> PathBuf {
        self.folder.path().join(format!("pod-{number}"))
    }

    /// The scratch folder of the pod that starts next.
    pub fn next_scratch(&self) -> PathBuf {
        inside(&self.pod_folder(self.pods.load(Ordering::Relaxed)), godwit::contract::SCRATCH_MOUNT)
    }

    /// Runs a worker to its end, with a fault at a place of its wire.
    pub async fn run(&self, step: &Step, fault: Option<(Place, Fault)>) -> Run {
        let started = Instant::now();
        let mut wire = self.wire(fault.map(|(place, _)| place)).await;
        let mut pod = self.pod(step, &wire);
        let mut reached = false;
        let working = async {
            loop {
                tokio::select! {
                    stopped = wire.stopped() => {
                        reached = true;
                        self.act(fault.unwrap().1, &mut pod, stopped).await;
                    }
                    ended = pod.ended() => return ended,
                }
            }
        };
        let ended = tokio::time::timeout(PATIENCE, working).await;
        let ended = ended.unwrap_or_else(|_| panic!("{} does not end: {:?}", step.task.name(), fault));
        let traffic = SIDES.map(|side| (side, wire.traffic(side))).into();
        if let Some((_, Fault::Fill)) = fault {
            self.make_room().await;
        }
        Run { ended, reached, traffic, time: started.elapsed() }
    }

    async fn act(&self, fault: Fault, pod: &mut Pod, stopped: Stopped) {
        match fault {
            Fault::Kill => {
                pod.kill().await;
                stopped.go_on(Verdict::Cut);
            }
            Fault::Cut => stopped.go_on(Verdict::Cut),
            Fault::Terminate(side) => {
                let terminate = "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()";
                self.sql(side, terminate).await;
                stopped.go_on(Verdict::Pass);
            }
            Fault::Crash(side) => {
                self.server(side).crash();
                self.server(side).start_again();
                stopped.go_on(Verdict::Pass);
            }
            Fault::Fill => {
                self.fill().await;
                stopped.go_on(Verdict::Pass);
            }
        }
    }

    /// Takes the rest of the small disk; nobody else is on it.
    async fn fill(&self) {
        let client = open(&self.servers.target, "ballast").await;
        // A loop: a series is kept in a file on the same disk, and that would be free again afterwards.
        let loop_of_inserts =
            "do $$ begin loop insert into public.ballast values (repeat('x', 6000)); end loop; end $$";
        let full = client.batch_execute(loop_of_inserts).await.unwrap_err();
        assert_eq!(full.code().map(tokio_postgres::error::SqlState::code), Some("53100"), "{full:?}");
    }

    /// Space that a failed insert took is not given back before the table is gone.
    async fn make_room(&self) {
        make_ballast(&self.servers.target).await;
    }
}

async fn make_ballast(server: &Server) {
    let client = open(server, "ballast").await;
    // One by one: a dropped table's space is free after the commit.
    for sql in [
        "drop table if exists ballast",
        "create table ballast (x text)",
        "alter table ballast alter x set storage plain",
        "checkpoint",
    ] {
        client.batch_execute(sql).await.unwrap();
    }
}

/// A pair of servers, the target with a small disk and a database that fills it.
pub async fn start_servers() -> Arc<Servers> {
    let servers = Servers { source: Server::start_in_memory(None), target: Server::start_in_memory(Some("48m")) };
    let target = admin(&servers.target).await;
    let folder = servers.target.small_disk();
    for sql in [
        format!("create tablespace {SMALL} location '{}'", folder.display()),
        format!("create database ballast tablespace {SMALL}"),
    ] {
        target.batch_execute(&sql).await.unwrap();
    }
    make_ballast(&servers.target).await;
    Arc::new(servers)
}

async fn admin(server: &Server) -> Client {
    open(server, "postgres").await
}

async fn open(server: &Server, database: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(&server.uri(database), NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// Copies a storage folder.
pub fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// The cohort's uid, or the migration's.
pub fn subject(cohort: Option<&str>) -> String {
    cohort.map_or_else(crm::migration, crm::cohort as fn(&str) -> Identity).uid
}
