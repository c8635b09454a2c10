//! What a decision consists of: the status to record, the effects to perform after that, what to tell, when to look again.
//! Made by `migration.rs` and `cohort.rs`, carried out by `controller/`. Must stay plain data.

use jiff::Timestamp;

use crate::contract::{Identity, Task};

/// The answer to one observation. `status` is recorded first; nothing in `effects` happens unless that write landed.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision<S> {
    pub status: S,
    pub effects: Effects,
    pub notes: Vec<Note>,
    pub wait: Wait,
}

/// What is to be done in the cluster. Every effect is idempotent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Effects {
    /// Jobs that the recorded status names; created when absent.
    pub jobs: Vec<JobRequest>,
    /// Jobs of attempts that are given up: deleted in the foreground, so that no pod outlives them.
    pub abandoned_jobs: Vec<String>,
    /// The route table as it must read.
    pub route_table: Option<RouteTableContent>,
    pub finalizer: Option<FinalizerChange>,
}

/// A Job to create.
#[derive(Clone, Debug, PartialEq)]
pub struct JobRequest {
    pub name: String,
    pub attempt: i64,
    pub epoch: i64,
    pub migration: Identity,
    pub cohort: Option<Identity>,
    pub work: Work,
}

/// What runs in the Job.
#[derive(Clone, Debug, PartialEq)]
pub enum Work {
    /// Godwit's own worker.
    Worker(Task),
    /// A check's own container, by the check's name.
    Container { check: String },
}

/// The route table: a `ConfigMap`'s name and the text of its `routes.json`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteTableContent {
    pub config_map: String,
    pub routes: String,
    /// resourceVersion of the table that this one replaces; absent: it is to be created.
    pub replaces: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinalizerChange {
    Add,
    Remove,
}

/// Something to tell: becomes an event after the status write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    pub warning: bool,
    pub reason: &'static str,
    /// What was done or attempted, CamelCase.
    pub action: &'static str,
    pub message: String,
}

/// When to look again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// A watch will wake us (a slow requeue covers a wake-up that never came).
    ForChange,
    /// At this time at the latest.
    Until(Timestamp),
}

impl Wait {
    /// The earlier of two waits.
    #[must_use]
    pub fn sooner(self, other: Option<Timestamp>) -> Self {
        match (self, other) {
            (wait, None) => wait,
            (Wait::ForChange, Some(at)) => Wait::Until(at),
            (Wait::Until(a), Some(b)) => Wait::Until(a.min(b)),
        }
    }
}

impl Note {
    pub fn normal(reason: &'static str, action: &'static str, message: impl Into<String>) -> Self {
        Self { warning: false, reason, action, message: message.into() }
    }
    pub fn warning(reason: &'static str, action: &'static str, message: impl Into<String>) -> Self {
        Self { warning: true, reason, action, message: message.into() }
    }
}
