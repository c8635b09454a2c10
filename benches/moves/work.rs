//! Runs steps as a Job does: the worker's release binary, its input in the environment, its report at the termination path.
//! Used by the metrics. Backup and VerifyBackup need a scratch folder, which a pod mounts at a fixed path: they run the same
//! library code in a child of this program, which mounts its own.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use godwit::contract::{
    Dataset, Identity, KeyStrategy, Report, ReportResult, SOURCE_URI_ENV, STEP_ENV, Selection, StepInput, Storage,
    TARGET_URI_ENV, TERMINATION_PATH_ENV, Task, VERSION, exit,
};
use godwit::worker::storage::Credentials;
use godwit::worker::{Job, Settings, steps};

use crate::rig::Rig;

/// Set in a child of this program: the step that it runs.
pub const CHILD: &str = "GODWIT_BENCH_CHILD";
const SCRATCH: &str = "GODWIT_BENCH_SCRATCH";
const PARTITIONS: &str = "GODWIT_BENCH_PARTITIONS";

/// Rises over the whole run: an attempt's number never comes again.
static ATTEMPT: AtomicI64 = AtomicI64::new(0);

/// A migration from the CRM to one database on the target.
pub struct Move {
    source_uri: String,
    target_uri: String,
    folder: PathBuf,
    uid: String,
}

/// A step that passed.
pub struct Done {
    pub took: Duration,
    pub peak_bytes: u64,
    pub report: Report,
}

pub fn dataset() -> Dataset {
    Dataset {
        root_table: "public.customer".into(),
        root_key: "id".into(),
        keys: KeyStrategy::None,
        ..Dataset::default()
    }
}

pub fn cohort(name: &str) -> Identity {
    Identity { namespace: "bench".into(), name: name.into(), uid: format!("uid-of-{name}") }
}

impl Move {
    pub fn new(rig: &Rig, database: &str) -> Self {
        Self {
            source_uri: rig.source_uri(),
            target_uri: rig.target.uri(database),
            folder: rig.place(database),
            uid: format!("migration-{database}"),
        }
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn settings(&self, name: Option<&str>, task: Task) -> Settings {
        let attempt = ATTEMPT.fetch_add(1, Ordering::Relaxed) + 1;
        Settings {
            input: StepInput {
                v: VERSION,
                migration: Identity { namespace: "bench".into(), name: "crm".into(), uid: self.uid.clone() },
                cohort: name.map(cohort),
                attempt,
                epoch: 0,
                dataset: dataset(),
                storage: Storage::Path(self.folder.to_str().unwrap().to_owned()),
                task,
            },
            source_uri: Some(self.source_uri.clone()),
            target_uri: Some(self.target_uri.clone()),
            storage_credentials: Credentials::default(),
            termination_path: self.folder.join("termination-log"),
        }
    }

    /// Runs a step in the shipped binary.
    pub fn step(&self, name: Option<&str>, task: Task) -> Done {
        let mut command = Command::new(env!("CARGO_BIN_EXE_godwit"));
        command.args(["worker", task.name()]);
        self.finish(command, &self.settings(name, task))
    }

    /// Begins a step and kills it on its way.
    pub fn killed_after(&self, time: Duration, name: Option<&str>, task: Task) {
        let settings = self.settings(name, task);
        let mut command = Command::new(env!("CARGO_BIN_EXE_godwit"));
        command.args(["worker", settings.input.task.name()]);
        self.equip(&mut command, &settings);
        let mut child = command.spawn().unwrap();
        std::thread::sleep(time);
        assert!(child.try_wait().unwrap().is_none(), "it had ended before it could be killed");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Backup, in a child with a scratch folder of its own; `partitions` in the place of what the tables' size asks for.
    pub fn backup(&self, partitions: Option<u16>) -> Done {
        let mut command = self.child("backup");
        if let Some(partitions) = partitions {
            command.env(PARTITIONS, partitions.to_string());
        }
        self.finish(command, &self.settings(None, Task::Backup { includes: Vec::new() }))
    }

    pub fn verify_backup(&self, backup: &Report) -> Done {
        let evidence = godwit::contract::EvidenceRef {
            uri: backup.evidence_uri.clone().unwrap(),
            digest: backup.digest.clone().unwrap(),
        };
        self.finish(self.child("verify-backup"), &self.settings(None, Task::VerifyBackup { backup: evidence }))
    }

    fn child(&self, step: &str) -> Command {
        let scratch = self.folder.join("scratch");
        std::fs::create_dir_all(&scratch).unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.env(CHILD, step).env(SCRATCH, scratch);
        command
    }

    /// Gives a process what a pod gives it.
    fn equip(&self, command: &mut Command, settings: &Settings) {
        let _ = std::fs::remove_file(&settings.termination_path);
        command
            .env(STEP_ENV, serde_json::to_string(&settings.input).unwrap())
            .env(SOURCE_URI_ENV, &self.source_uri)
            .env(TARGET_URI_ENV, &self.target_uri)
            .env(TERMINATION_PATH_ENV, &settings.termination_path)
            .env("RUST_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(Stdio::null());
    }

    fn finish(&self, mut command: Command, settings: &Settings) -> Done {
        self.equip(&mut command, settings);
        let started = Instant::now();
        let (code, peak_bytes) = watch(command);
        let took = started.elapsed();
        let text = std::fs::read_to_string(&settings.termination_path).unwrap_or_default();
        let step = settings.input.task.name();
        let report = Report::from_termination_message(&text).unwrap_or_else(|| panic!("{step} left no report: {text}"));
        assert_eq!((code, report.result), (Some(exit::DONE), ReportResult::Pass), "{step}: {report:?}");
        Done { took, peak_bytes, report }
    }

    /// Takes the migration's traces from both databases, so that the source is as it was.
    pub fn cleanup(&self) {
        self.step(None, Task::Cleanup {});
    }
}

/// The exit code, and the most memory that the process ever held: the kernel's own mark, read until the end.
fn watch(mut command: Command) -> (Option<i32>, u64) {
    let mut child = command.spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let (ended, peak) = (AtomicBool::new(false), AtomicU64::new(0));
    let code = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                peak.fetch_max(high_water_mark(&status), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let code = child.wait().unwrap().code();
        ended.store(true, Ordering::Relaxed);
        code
    });
    (code, peak.load(Ordering::Relaxed))
}

fn high_water_mark(status: &str) -> u64 {
    let text = std::fs::read_to_string(status).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).map_or(0, |kib| kib << 10)
}

/// What a child of this program does.
pub fn child(step: &str) -> ExitCode {
    let text = std::env::var(STEP_ENV).unwrap();
    let settings = Settings {
        input: serde_json::from_str(&text).unwrap(),
        source_uri: std::env::var(SOURCE_URI_ENV).ok(),
        target_uri: std::env::var(TARGET_URI_ENV).ok(),
        storage_credentials: Credentials::default(),
        termination_path: std::env::var_os(TERMINATION_PATH_ENV).unwrap().into(),
    };
    let mut job = Job::new(&settings);
    job.mounts.scratch = std::env::var_os(SCRATCH).unwrap().into();
    let partitions = std::env::var(PARTITIONS).ok().map(|text| text.parse().unwrap());
    let outcome = godwit::worker::runtime().unwrap().block_on(async {
        match (&job.input.task, step) {
            (Task::Backup { includes }, "backup") => steps::backup::run_into(&job, includes, partitions).await,
            (Task::VerifyBackup { backup }, "verify-backup") => steps::verify_backup::run(&job, backup).await,
            _ => panic!("no such child: {step}"),
        }
    });
    match outcome {
        Ok(report) => {
            std::fs::write(&settings.termination_path, report.to_termination_message()).unwrap();
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{}", godwit::worker::error::spoken_chain_unbounded(&error));
            ExitCode::FAILURE
        }
    }
}

/// Customers of one of the twenty cohorts, for Select.
pub fn selection(condition: &str) -> Task {
    Task::Select { selection: Selection::Where(condition.replace("c.", "customer.")) }
}
