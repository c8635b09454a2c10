//! The data plane inside a Job: reads the step's input, runs the step, leaves a report and an exit code.
//! Called by `cli` with what it read from the environment. Names `contract` and no other room.
//! Must not print anything but progress lines, nor let a row's value reach a report or a log.

pub mod error;
pub mod postgres;
pub mod progress;
pub mod steps;
pub mod storage;

use std::io::Write;
use std::path::{Path, PathBuf};

pub use error::Error;
use postgres::ledger;
use postgres::model::{Catalog, Scope};
use postgres::session::{Purpose, Session, connect};
use progress::Progress;
use storage::{Credentials, Storage};

use crate::contract::{
    INCLUDE_MOUNT, Identity, Report, ReportResult, SCRATCH_MOUNT, Side, StepInput, Task, VERSION, exit,
};

/// What a Job was started with.
#[derive(Debug)]
pub struct Settings {
    pub input: StepInput,
    pub source_uri: Option<String>,
    pub target_uri: Option<String>,
    pub storage_credentials: Credentials,
    pub termination_path: PathBuf,
}

/// Folders of the container; tests put their own in their place.
#[derive(Clone, Debug)]
pub struct Mounts {
    /// Has a folder for each backup include.
    pub include: PathBuf,
    /// Writable, for scratch files and the sandbox database.
    pub scratch: PathBuf,
}

impl Default for Mounts {
    fn default() -> Self {
        Self { include: INCLUDE_MOUNT.into(), scratch: SCRATCH_MOUNT.into() }
    }
}

/// What a step gets.
#[derive(Debug)]
pub struct Job {
    pub input: StepInput,
    pub source_uri: Option<String>,
    pub target_uri: Option<String>,
    storage_credentials: Credentials,
    pub mounts: Mounts,
    pub progress: Progress,
}

impl Job {
    pub fn new(settings: &Settings) -> Self {
        let unit = match settings.input.task {
            Task::Assess {} | Task::Prepare {} | Task::Finalize {} | Task::Cleanup {} => "tables",
            _ => "rows",
        };
        Self {
            input: settings.input.clone(),
            source_uri: settings.source_uri.clone(),
            target_uri: settings.target_uri.clone(),
            storage_credentials: settings.storage_credentials.clone(),
            mounts: Mounts::default(),
            progress: Progress::new(unit),
        }
    }

    /// Opens a session on the source.
    pub async fn source(&self) -> Result<Session, Error> {
        connect(self.uri(Side::Source)?, self.purpose(Side::Source)).await
    }

    /// Opens a session on the target.
    pub async fn target(&self) -> Result<Session, Error> {
        connect(self.uri(Side::Target)?, self.purpose(Side::Target)).await
    }

    /// Opens the storage; steps that need none must not fail for it.
    pub fn storage(&self) -> Result<Storage, Error> {
        Ok(Storage::open(&self.input.storage, &self.storage_credentials)?)
    }

    /// Opens a session on which the server refuses every write.
    pub async fn reader(&self, side: Side) -> Result<Session, Error> {
        connect(self.uri(side)?, self.purpose(side).read_only()).await
    }

    pub fn uri(&self, side: Side) -> Result<&str, Error> {
        let (uri, name) = match side {
            Side::Source => (&self.source_uri, "source"),
            Side::Target => (&self.target_uri, "target"),
        };
        uri.as_deref().ok_or_else(|| Error::Uri { side: name, reason: "it was not given to this step".into() })
    }

    fn purpose(&self, side: Side) -> Purpose {
        Purpose::new(side, self.step())
    }

    pub fn step(&self) -> &'static str {
        self.input.task.name()
    }

    /// The cohort of a cohort's step.
    pub fn cohort(&self) -> Result<&Identity, Error> {
        self.input.cohort.as_ref().ok_or_else(|| Error::Input { reason: format!("{} needs a cohort", self.step()) })
    }

    /// The uid of the cohort, or of the migration in its own steps: the subject of tokens, checkpoints and reports.
    pub fn subject(&self) -> &str {
        let identity = self.input.cohort.as_ref().unwrap_or(&self.input.migration);
        &identity.uid
    }

    /// The key of this attempt in the ledger.
    pub fn attempt_key(&self) -> (&str, &'static str, i64) {
        (self.subject(), self.step(), self.input.attempt)
    }

    /// Reads a side's catalogue and what of it belongs to the dataset; blockers end the step.
    pub async fn scope(&self, session: &Session) -> Result<(Catalog, Scope), Error> {
        let catalog = postgres::catalog::read_catalog(session).await?;
        let scope = postgres::scope::resolve(&self.input.dataset, &catalog)
            .map_err(|findings| Error::Refused { exit: exit::DATA_DIFFERS, findings })?;
        Ok((catalog, scope))
    }
}

/// The runtime of a step: one thread for all of its tasks. They mostly hand bytes from one socket to another, some kilobytes at a
/// time, and to wake another thread for each of them cost as much as all that is done with the bytes. What blocks or digests for
/// long has threads of its own.
pub fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// Runs the step and returns the process's exit code; the report is durable before an exit code that ends the step.
pub async fn run(settings: Settings) -> i32 {
    let job = Job::new(&settings);
    // On the heap: the steps' futures are large, and every caller's would be.
    let (code, report) = Box::pin(finish(&job)).await;
    job.progress.finish();
    if let Err(error) = write_report(&settings.termination_path, &report) {
        tracing::error!(%error, "the report could not be written");
        return exit::TRY_AGAIN;
    }
    code
}

async fn finish(job: &Job) -> (i32, Report) {
    if job.input.v != VERSION {
        let error =
            Error::Input { reason: format!("version {} of the input is unknown, expected {VERSION}", job.input.v) };
        return failure(&error);
    }
    match stored_report(job).await {
        Ok(Some(stored)) => return stored,
        Ok(None) => {}
        Err(error) => return failure(&error),
    }
    let (code, report) = match dispatch(job).await {
        Ok(report) => (exit_code(&report), report),
        Err(error) => failure(&error),
    };
    let ends = code == exit::DONE || exit::PERMANENT.contains(&code);
    if ends && let Err(error) = store_report(job, code, &report).await {
        return failure(&error);
    }
    (code, report)
}

fn exit_code(report: &Report) -> i32 {
    match report.result {
        ReportResult::Pass => exit::DONE,
        ReportResult::Fail => exit::DATA_DIFFERS,
        ReportResult::Error => exit::TRY_AGAIN,
    }
}

fn failure(error: &Error) -> (i32, Report) {
    tracing::error!(error = %error::spoken_chain_unbounded(error), "the step failed");
    let result = match error {
        Error::Refused { .. } | Error::ForeignLedger { .. } => ReportResult::Fail,
        _ => ReportResult::Error,
    };
    let mut report = Report::new(result);
    report.findings = error.findings();
    (error.exit_code(), report)
}

/// Steps whose repetition must not happen twice have their report in the target's ledger; measurements are simply taken again.
fn is_recorded(task: &Task) -> bool {
    !matches!(
        task,
        Task::Assess {}
            | Task::Backup { .. }
            | Task::VerifyBackup { .. }
            | Task::Finalize {}
            | Task::Reset {}
            | Task::Cleanup {}
            | Task::SqlCheck { .. }
            | Task::IntegrityCheck {}
    )
}

async fn stored_report(job: &Job) -> Result<Option<(i32, Report)>, Error> {
    if !is_recorded(&job.input.task) {
        return Ok(None);
    }
    let target = job.target().await?;
    match ledger::owner_of(&target).await? {
        Some(owner) if owner.uid == job.input.migration.uid => ledger::report(&*target, job.attempt_key()).await,
        _ => Ok(None),
    }
}

async fn store_report(job: &Job, code: i32, report: &Report) -> Result<(), Error> {
    if !is_recorded(&job.input.task) {
        return Ok(());
    }
    let target = job.target().await?;
    match ledger::owner_of(&target).await? {
        Some(owner) if owner.uid == job.input.migration.uid => {
            ledger::store_report(&*target, job.attempt_key(), code, report).await
        }
        _ => Ok(()),
    }
}

async fn dispatch(job: &Job) -> Result<Report, Error> {
    match &job.input.task {
        Task::Assess {} => steps::assess::run(job).await,
        Task::Prepare {} => steps::prepare::run(job).await,
        Task::Finalize {} => steps::finalize::run(job).await,
        Task::Reset {} => steps::reset::run(job).await,
        Task::Cleanup {} => steps::cleanup::run(job).await,
        Task::Select { selection } => steps::select::run(job, selection).await,
        Task::Backup { includes } => steps::backup::run(job, includes).await,
        Task::VerifyBackup { backup } => steps::verify_backup::run(job, backup).await,
        Task::SqlCheck { side, query, timeout_seconds } => steps::check::sql(job, *side, query, *timeout_seconds).await,
        Task::IntegrityCheck {} => steps::check::integrity(job).await,
        Task::Copy {} => steps::copy::run(job).await,
        Task::Validate { checks } => steps::validate::run(job, checks).await,
        Task::Cutover { checks } => steps::cutover::run(job, checks).await,
        Task::Discard {} => steps::discard::run(job).await,
        Task::Freeze {} => steps::freeze::run(job).await,
        Task::Return {} => steps::return_::run(job).await,
        Task::Verify {} => steps::verify::run(job).await,
        Task::Reopen {} => steps::reopen::run(job).await,
    }
}

/// The kubelet reads it after the container has ended; what is only half there does not parse, and the ledger has the report too.
fn write_report(path: &Path, report: &Report) -> std::io::Result<()> {
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
    file.write_all(report.to_termination_message().as_bytes())?;
    file.flush()
}
