//! The world as the accepted writes of a run made it, one after the other.
//! Read by the rules. Must not judge.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::audit::{Actor, Event};

/// A Migration or Cohort: plural and name.
pub type Subject = (String, String);

#[derive(Default)]
pub struct History {
    statuses: BTreeMap<Subject, Value>,
    pub jobs: BTreeMap<String, Job>,
    /// Steps' attempts that have had a Job, by owner's uid, step and attempt.
    pub attempts: BTreeMap<(String, String, String), String>,
    pub approvals: Vec<Value>,
    /// Spec of the Migration, as people left it.
    pub spec: Value,
    /// When people suspended the Migration.
    pub suspended: Option<f64>,
    /// Subjects that people asked to roll back.
    pub asked_back: Vec<Subject>,
    /// Status conditions of pods that gates may look at: name and condition type.
    pub conditions: BTreeMap<(String, String), String>,
    /// Operator processes, in the order of their first accepted writes.
    pub writers: Vec<String>,
    /// By resource and name, which of them wrote the object last.
    last_writers: BTreeMap<Subject, String>,
}

#[derive(Clone, Debug)]
pub struct Job {
    pub owner: Subject,
    pub step: String,
    pub placeholder: bool,
    pub state: JobState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobState {
    Running,
    /// Decided but not ended: pods may still run.
    Decided,
    Ended,
    /// Marked for deletion.
    Going,
    Gone,
}

/// The owner of a Job, by its labels.
pub fn owner_of(event: &Event) -> Subject {
    match event.label("cohort") {
        "" => {
            let owner = &event.body["metadata"]["ownerReferences"][0];
            let plural = if owner["kind"] == "Cohort" { "cohorts" } else { "migrations" };
            (plural.to_owned(), owner["name"].as_str().unwrap_or_default().to_owned())
        }
        cohort => ("cohorts".to_owned(), cohort.to_owned()),
    }
}

pub fn is_placeholder(event: &Event) -> bool {
    event.label("placeholder") == "true"
}

/// Jobs that only measure.
pub fn is_check(step: &str) -> bool {
    ["check", "sql-check", "integrity-check"].contains(&step)
}

/// The Migration or Cohort whose status this write recorded. A patch only says what a person has to repair: it records no step.
pub fn recorded(event: &Event) -> Option<Subject> {
    let ours = ["migrations", "cohorts"].contains(&event.resource.as_str());
    let replaced = event.verb == "update" && event.subresource == "status";
    let status = replaced && event.accepted() && event.operator().is_some();
    (ours && status).then(|| (event.resource.clone(), event.name.clone()))
}

impl History {
    pub fn status(&self, subject: &Subject) -> &Value {
        self.statuses.get(subject).unwrap_or(&Value::Null)
    }

    /// The operator process that wrote this object last.
    pub fn last_writer(&self, event: &Event) -> Option<&String> {
        self.last_writers.get(&(event.resource.clone(), event.name.clone()))
    }

    pub fn subjects(&self) -> impl Iterator<Item = (&Subject, &Value)> {
        self.statuses.iter()
    }

    pub fn apply(&mut self, event: &Event) {
        if !event.accepted() {
            return;
        }
        if let Some(subject) = recorded(event) {
            self.statuses.insert(subject, event.body["status"].clone());
        }
        if let Some(name) = event.operator() {
            if !self.writers.iter().any(|known| known == name) {
                self.writers.push(name.to_owned());
            }
            self.last_writers.insert((event.resource.clone(), event.name.clone()), name.to_owned());
        }
        match (event.resource.as_str(), event.subresource.as_str()) {
            ("jobs", "") => self.apply_job(event),
            ("jobs", "status") => self.apply_job_status(event),
            ("approvals", "") if event.verb == "create" => self.approvals.push(event.body["spec"].clone()),
            ("pods", "status") => self.apply_pod_status(event),
            ("migrations" | "cohorts", "") if event.actor == Actor::Person => self.apply_person(event),
            _ => {}
        }
    }

    fn apply_job(&mut self, event: &Event) {
        match event.verb.as_str() {
            "create" => {
                let (step, attempt) = (event.label("step").to_owned(), event.label("attempt").to_owned());
                let placeholder = is_placeholder(event);
                if !placeholder {
                    let attempt = (event.label("owner-uid").to_owned(), step.clone(), attempt);
                    self.attempts.insert(attempt, event.name.clone());
                }
                let job = Job { owner: owner_of(event), step, placeholder, state: JobState::Running };
                self.jobs.insert(event.name.clone(), job);
            }
            "delete" => self.job_is(&event.name, JobState::Going),
            // The garbage collector takes its finalizer away when the pods are gone.
            "patch" | "update" if event.body["metadata"]["finalizers"].is_null() && self.is_going(&event.name) => {
                self.job_is(&event.name, JobState::Gone);
            }
            _ => {}
        }
    }

    fn apply_job_status(&mut self, event: &Event) {
        let conditions = event.body["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let holds = |kind: &str| conditions.iter().any(|one| one["type"] == kind && one["status"] == "True");
        if self.jobs.get(&event.name).is_some_and(|job| [JobState::Going, JobState::Gone].contains(&job.state)) {
            return;
        }
        if holds("Complete") || holds("Failed") {
            self.job_is(&event.name, JobState::Ended);
        } else if holds("SuccessCriteriaMet") || holds("FailureTarget") {
            self.job_is(&event.name, JobState::Decided);
        }
    }

    fn is_going(&self, name: &str) -> bool {
        self.jobs.get(name).is_some_and(|job| job.state == JobState::Going)
    }

    fn job_is(&mut self, name: &str, state: JobState) {
        if let Some(job) = self.jobs.get_mut(name) {
            job.state = state;
        }
    }

    fn apply_pod_status(&mut self, event: &Event) {
        for condition in event.body["status"]["conditions"].as_array().into_iter().flatten() {
            let text = |key: &str| condition[key].as_str().unwrap_or_default().to_owned();
            self.conditions.insert((event.name.clone(), text("type")), text("status"));
        }
    }

    fn apply_person(&mut self, event: &Event) {
        let subject = (event.resource.clone(), event.name.clone());
        if event.resource == "migrations" && event.verb == "create" {
            self.spec = event.body["spec"].clone();
        }
        if event.resource == "migrations"
            && let Some(suspend) = event.body["spec"]["suspend"].as_bool()
        {
            self.suspended = suspend.then_some(event.received);
        }
        if !event.body["metadata"]["annotations"]["godwit.dev/rollback-requested-at"].is_null() {
            self.asked_back.push(subject);
        }
    }
}
