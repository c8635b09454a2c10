//! Runs steps as a Job does: input in, exit code and termination message out.

use std::sync::atomic::{AtomicI64, Ordering};

use godwit::contract::{Dataset, Identity, Report, Side, StepInput, Storage, Task, VERSION, exit};
use godwit::worker::postgres::session::Session;
use godwit::worker::storage::Credentials;
use godwit::worker::{Job, Settings};

use crate::base::{dataset, migration};
use crate::server::Pair;

/// A migration between the two databases of a pair.
pub struct Project {
    pub pair: Pair,
    pub storage: tempfile::TempDir,
    pub dataset: Dataset,
    attempt: AtomicI64,
}

impl Project {
    /// `schema` runs on the source.
    pub fn new(schema: &str) -> Self {
        Self::with(schema, dataset())
    }

    pub fn with(schema: &str, dataset: Dataset) -> Self {
        Self { pair: Pair::new(schema), storage: tempfile::tempdir().unwrap(), dataset, attempt: AtomicI64::new(0) }
    }

    pub fn settings(&self, cohort: Option<Identity>, task: Task, attempt: i64) -> Settings {
        Settings {
            input: StepInput {
                v: VERSION,
                migration: migration(),
                cohort,
                attempt,
                epoch: 0,
                dataset: self.dataset.clone(),
                storage: Storage::Path(self.storage.path().to_str().unwrap().to_owned()),
                task,
            },
            source_uri: Some(self.pair.source_uri.clone()),
            target_uri: Some(self.pair.target_uri.clone()),
            storage_credentials: Credentials::default(),
            termination_path: self.storage.path().join("termination-log"),
        }
    }

    pub fn job(&self, cohort: Option<Identity>, task: Task) -> Job {
        Job::new(&self.settings(cohort, task, self.next_attempt()))
    }

    pub fn next_attempt(&self) -> i64 {
        self.attempt.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Runs a step with the next attempt's number.
    pub async fn run(&self, cohort: Option<&str>, task: Task) -> (i32, Report) {
        let attempt = self.next_attempt();
        self.run_attempt(cohort, task, attempt).await
    }

    pub async fn run_attempt(&self, cohort: Option<&str>, task: Task, attempt: i64) -> (i32, Report) {
        let settings = self.settings(cohort.map(cohort_named), task, attempt);
        let path = settings.termination_path.clone();
        let code = godwit::worker::run(settings).await;
        let text = std::fs::read_to_string(path).unwrap();
        (code, Report::from_termination_message(&text).expect(&text))
    }

    /// Runs a step that must be done.
    pub async fn done(&self, cohort: Option<&str>, task: Task) -> Report {
        let (code, report) = self.run(cohort, task).await;
        assert_eq!(code, exit::DONE, "{report:?}");
        report
    }

    pub async fn session(&self, side: Side) -> Session {
        self.pair.session(side).await
    }

    pub async fn number(&self, side: Side, sql: &str) -> i64 {
        self.session(side).await.number("ask", sql).await.unwrap()
    }
}

pub fn cohort_named(name: &str) -> Identity {
    Identity { namespace: migration().namespace, name: name.to_owned(), uid: format!("uid-of-{name}") }
}
