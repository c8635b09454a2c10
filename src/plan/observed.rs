//! What a decision is made from: small types of our own, filled by `controller/` from live reads.
//! Failure, absence and lateness are values here, never errors. Must hold no Kubernetes workload object.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::api::approval::ApprovalSpec;
use crate::api::names::{ANNOTATION_PAUSED, Verb};
use crate::api::{CohortSpec, CohortStatus, MigrationSpec, MigrationStatus};
use crate::contract::{Identity, Progress, Report};

/// What is the same for every kind.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ObjectFacts {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub generation: i64,
    /// The deletion mark, when there is one.
    pub deleted_at: Option<Timestamp>,
    pub has_finalizer: bool,
    /// The highest attempt that one of its Jobs bears: a status that was edited or lost must not let the number fall.
    pub last_attempt: i64,
    /// Annotations below `godwit.dev/`.
    pub annotations: BTreeMap<String, String>,
}

impl ObjectFacts {
    pub fn identity(&self) -> Identity {
        Identity { namespace: self.namespace.clone(), name: self.name.clone(), uid: self.uid.clone() }
    }

    /// The break-glass pause.
    pub fn paused(&self) -> bool {
        self.annotations.get(ANNOTATION_PAUSED).is_some_and(|value| value == "true")
    }

    /// The text of a command annotation.
    pub fn requested(&self, verb: Verb) -> Option<&str> {
        self.annotations.get(&verb.annotation()).map(String::as_str)
    }
}

/// A Job of ours, as far as decisions care.
#[derive(Clone, Debug, PartialEq)]
pub enum JobState {
    /// Created and not at its end: no `Complete` and no `Failed` condition is True yet.
    Running { progress: Option<Progress>, trouble: Option<Trouble> },
    /// `Complete`. The report is absent when the pod took it along.
    Succeeded { report: Option<Report> },
    /// `Failed`.
    Failed(Failure),
    /// The name is taken by an object that is not this owner's.
    Foreign,
    /// Marked for deletion, pods may still run.
    Terminating,
}

/// How a Job failed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Failure {
    /// Exit code of the worker; absent when it was killed, evicted or never ran.
    pub exit_code: Option<i32>,
    /// The reason of the Job's `Failed` condition, kept verbatim.
    pub reason: String,
    pub report: Option<Report>,
}

/// Why a Job does not get on: its pod does not start, or is in limbo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    pub kind: TroubleKind,
    /// For people: what the kubelet or the scheduler says.
    pub message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TroubleKind {
    /// A Secret or one of its keys is missing.
    Secret,
    /// A `ConfigMap` is missing.
    ConfigMap,
    /// The image cannot be pulled.
    Image,
    /// The image is there, the container cannot be made or started.
    Container,
    /// No node takes the pod, or quota, admission or volumes stand in the way.
    Scheduling,
    /// The Job is suspended: it has no pod.
    Suspended,
    /// The pod is to leave a node that does not answer, and nobody knows whether it has ended.
    Leaving,
}

/// Jobs of one owner by name. A name that is not listed is absent.
pub type Jobs = BTreeMap<String, JobState>;

/// A measurement of this pass: taken by `controller/` itself (condition, http, prometheus), or read from the report of
/// a check's finished Job (sql, job, validation).
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    pub check: String,
    pub outcome: Outcome,
}

/// What a measurement brought.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// `passWhen` was evaluated over these numbers, the latest measurement's.
    Numbers { values: Vec<f64>, passed: bool },
    /// A condition was compared.
    Compared { passed: bool, found: String },
    /// There was an answer without a number.
    NoData { message: String },
    /// There was no usable answer.
    Error { message: String },
}

/// Everything the Migration's next decision depends on.
#[derive(Clone, Debug, PartialEq)]
pub struct ObservedMigration {
    pub object: ObjectFacts,
    pub spec: MigrationSpec,
    pub status: MigrationStatus,
    pub jobs: Jobs,
    pub cohorts: Vec<CohortView>,
    pub approvals: Vec<ApprovalSpec>,
    pub measured: Vec<Measured>,
    /// Content of the route table, when it exists.
    pub route_table: Option<RouteTableSeen>,
    /// The namespace is going away: no Job can be created in it.
    pub namespace_terminating: bool,
}

/// The `ConfigMap` that applications read, as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteTableSeen {
    /// Text of the table; absent where the `ConfigMap` has no such key yet.
    pub routes: Option<String>,
    /// The Migration that wrote it last; absent where none did.
    pub migration_uid: Option<String>,
    /// Its resourceVersion.
    pub version: String,
}

/// A cohort as its Migration sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct CohortView {
    pub object: ObjectFacts,
    pub spec: CohortSpec,
    pub status: CohortStatus,
}

/// Everything a Cohort's next decision depends on.
#[derive(Clone, Debug, PartialEq)]
pub struct ObservedCohort {
    pub object: ObjectFacts,
    pub spec: CohortSpec,
    pub status: CohortStatus,
    pub jobs: Jobs,
    /// Absent when there is no Migration of that name.
    pub migration: Option<MigrationView>,
    pub approvals: Vec<ApprovalSpec>,
    pub measured: Vec<Measured>,
    pub namespace_terminating: bool,
}

/// The Migration as its cohorts see it.
#[derive(Clone, Debug, PartialEq)]
pub struct MigrationView {
    pub object: ObjectFacts,
    pub spec: MigrationSpec,
    pub status: MigrationStatus,
}
