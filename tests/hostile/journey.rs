//! A whole migration by its own steps: Assess to the last cutover, and the migration's way back.
//! Used by the modules that move a schema. Each step must be done, or the test ends with its report.

use std::os::unix::fs::PermissionsExt;

use godwit::contract::{Dataset, EvidenceRef, Finding, Report, ReportResult, Selection, Severity, Side, Task, exit};
use godwit::worker::{Job, Mounts, steps};

use crate::job::Project;
use crate::oracle;

pub struct Journey {
    pub project: Project,
    pub scratch: tempfile::TempDir,
    pub include: tempfile::TempDir,
}

/// Blockers and warnings; what only informs is left out.
pub fn concerns(report: &Report) -> Vec<(&str, &str)> {
    let concerns = report.findings.iter().filter(|finding| finding.severity != Severity::Info);
    concerns.map(|finding| (finding.code.as_str(), finding.object.as_str())).collect()
}

pub fn evidence(report: &Report) -> EvidenceRef {
    EvidenceRef { uri: report.evidence_uri.clone().unwrap(), digest: report.digest.clone().unwrap() }
}

pub fn remainder() -> Selection {
    Selection::Remainder {}
}

pub fn percent(percent: f64) -> Selection {
    Selection::Percent { percent, risk_by: None }
}

impl Journey {
    /// `schema` runs on the source.
    pub fn new(schema: &str, dataset: Dataset) -> Self {
        Self::of(Project::with(schema, dataset))
    }

    pub fn of(project: Project) -> Self {
        let journey = Self { project, scratch: tempfile::tempdir().unwrap(), include: tempfile::tempdir().unwrap() };
        // The sandbox runs as another user when the test is root.
        std::fs::set_permissions(journey.scratch.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
        journey
    }

    pub fn source(&self, sql: &str) {
        self.project.pair.psql(Side::Source, sql);
    }

    pub fn target(&self, sql: &str) {
        self.project.pair.psql(Side::Target, sql);
    }

    pub async fn rows(&self, side: Side) -> oracle::Rows {
        oracle::rows(&self.project.pair, side).await
    }

    pub fn mounted(&self, task: Task) -> Job {
        let mut job = self.project.job(None, task);
        job.mounts = Mounts { include: self.include.path().into(), scratch: self.scratch.path().into() };
        job
    }

    /// What Assess says, whatever it is.
    pub async fn assess(&self) -> Report {
        let (code, report) = self.project.run(None, Task::Assess {}).await;
        assert!([exit::DONE, exit::DATA_DIFFERS].contains(&code), "{report:?}");
        report
    }

    /// Whole, with what does not fit into a report.
    pub async fn findings(&self) -> Vec<Finding> {
        let report = self.assess().await;
        let path = self.project.storage.path().join(report.evidence_uri.unwrap());
        let file: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        serde_json::from_value(file["findings"].clone()).unwrap()
    }

    pub async fn back_up(&self, includes: &[String]) -> Report {
        let job = self.mounted(Task::Backup { includes: includes.to_vec() });
        steps::backup::run(&job, includes).await.unwrap()
    }

    /// Assess without a concern but those named, a backup that restores whole, and Prepare.
    pub async fn prepared(&self, expected: &[(&str, &str)]) {
        let assessed = self.project.done(None, Task::Assess {}).await;
        assert_eq!(concerns(&assessed), expected, "{:?}", assessed.findings);
        let backup = evidence(&self.back_up(&[]).await);
        let verify = self.mounted(Task::VerifyBackup { backup: backup.clone() });
        let verified = steps::verify_backup::run(&verify, &backup).await.unwrap();
        assert_eq!(verified.result, ReportResult::Pass, "{:?}", verified.findings);
        assert_eq!(concerns(&verified), [], "{:?}", verified.findings);
        self.project.done(None, Task::Prepare {}).await;
    }

    pub async fn copied(&self, cohort: &str, selection: Selection) {
        self.project.done(Some(cohort), Task::Select { selection }).await;
        self.project.done(Some(cohort), Task::Copy {}).await;
        self.project.done(Some(cohort), validate()).await;
    }

    /// Select, Copy, Validate, Cutover; the source lives on by `meanwhile` before the cutover.
    pub async fn over(&self, cohort: &str, selection: Selection, meanwhile: &str) -> Report {
        self.copied(cohort, selection).await;
        self.source(meanwhile);
        self.project.done(Some(cohort), Task::Cutover { checks: Vec::new() }).await
    }

    /// Freeze, Return, Verify, Reopen; returns Return's report.
    pub async fn back(&self, cohort: &str) -> Report {
        self.project.done(Some(cohort), Task::Freeze {}).await;
        let returned = self.project.done(Some(cohort), Task::Return {}).await;
        self.project.done(Some(cohort), Task::Verify {}).await;
        self.project.done(Some(cohort), Task::Reopen {}).await;
        returned
    }

    pub async fn reset(&self) -> Report {
        self.project.done(None, Task::Reset {}).await
    }

    /// A small schema goes over in two cohorts and comes back, and the oracle looks at it in between: the default journey.
    ///
    /// The first cohort has the three lowest keys. `lives` is what an application writes for others, on whichever side owns them.
    pub async fn there_and_back(&self, expected: &[(&str, &str)], lives: &str) {
        let target_before = self.rows(Side::Target).await;
        let promises = oracle::promises(&self.project.pair, Side::Source).await;
        self.prepared(expected).await;
        let root = &self.project.dataset.root_table;
        let (schema, table) = root.split_once('.').unwrap();
        let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
        let key = quoted(&self.project.dataset.root_key);
        let lowest = format!("select {key} from {}.{} order by 1 limit 3", quoted(schema), quoted(table));
        self.over("first", Selection::KeysFrom(lowest), "").await;
        self.over("rest", remainder(), lives).await;
        let moved = self.rows(Side::Source).await;
        let there = self.rows(Side::Target).await;
        let of_target = |table: &str| !target_before.contains_key(table) || moved.contains_key(table);
        oracle::assert_same(&oracle::only(&there, of_target), &moved, "after the last cutover");
        let arrived = oracle::promises(&self.project.pair, Side::Target).await;
        let lost: Vec<_> = promises.difference(&arrived).collect();
        assert!(lost.is_empty(), "the target does not promise {lost:#?}");
        self.target(lives);
        self.back("rest").await;
        self.back("first").await;
        self.reset().await;
        oracle::assert_same(&self.rows(Side::Source).await, &moved, "after the way back");
        oracle::assert_same(&self.rows(Side::Target).await, &target_before, "the target after the way back");
        assert_eq!(oracle::promises(&self.project.pair, Side::Source).await, promises);
        self.source(lives);
    }
}

pub fn validate() -> Task {
    Task::Validate { checks: Vec::new() }
}
