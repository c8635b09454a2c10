//! A plan: which story is played, and which faults come at which of the operator's requests. Same plan, same run.
//! Read from and written to JSON files, so that a failing plan is a file that goes into `plans/`.
//! Must not know how a fault is carried out: that is `proxy.rs`.

use serde::{Deserialize, Serialize};

/// One run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Plan {
    /// What the plan was drawn from; only for people.
    pub seed: u64,
    pub subject: Subject,
    /// When the fake kubelet ends a pod.
    #[serde(default)]
    pub pods: Pods,
    pub faults: Vec<Fault>,
}

/// The stories.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Subject {
    HappyPath,
    FailedValidation,
    TriggerAfterCutover,
    MigrationRollback,
}

impl Subject {
    pub const ALL: [Subject; 4] =
        [Subject::HappyPath, Subject::FailedValidation, Subject::TriggerAfterCutover, Subject::MigrationRollback];
}

/// When pods end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Pods {
    /// After the operator recorded that it saw the Job: every run then has the same writes.
    #[default]
    WhenSeen,
    /// At once: the operator may never see the Job running.
    AtOnce,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Fault {
    pub at: Trigger,
    #[serde(rename = "do")]
    pub action: Action,
}

/// A write of the operator. Leases and events have numbers of their own: renewals come with time, and events may be lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Trigger {
    /// Its running number over all operator processes of the run, from 1. With `of` it only tells where in the
    /// undisturbed run this write stands.
    pub write: u64,
    /// What is written, such as `PUT cohorts/canary/status`: passes of several objects run side by side, and the number
    /// within one object is steadier than the number within the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<String>,
    /// The n-th write of `of`, from 1.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub nth: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Trigger {
    pub fn at(write: u64) -> Self {
        Self { write, of: None, nth: 0 }
    }

    pub fn matches(&self, number: u64, key: &str, nth: u64) -> bool {
        match &self.of {
            Some(of) => of == key && self.nth == nth,
            None => self.write == number,
        }
    }
}

/// What happens at that write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fault", rename_all = "camelCase", deny_unknown_fields)]
pub enum Action {
    /// C1: `kill -9` before the write reaches the API server.
    KillBefore,
    /// C2: `kill -9` after it was committed; the answer is lost.
    KillAfter,
    /// C3: committed, but the operator gets a reset (0) or this code, and lives.
    LoseAnswer { code: u16 },
    /// C4: refused with this code, not committed.
    Refuse { code: u16 },
    /// C5: delivered twice, the second time after this many later writes.
    Twice { later: u64 },
    /// C6: held; the leader is stopped past its lease, a second replica takes over; released after that one's n-th write.
    Zombie { writes: u64 },
    /// W1, W2: no watch tells anything until this many later writes (at most four seconds); then it goes on, or it is
    /// closed with 410 and what it would have told is lost.
    FreezeWatches { writes: u64, gone: bool },
    /// W4: every open watch breaks off.
    CutWatches { how: Cut },
    /// W3: killed after the write; to the next process every list that would accept any version shows the state that was
    /// listed first.
    OldLists,
    /// A1: every request is refused with 401 or 403 for a time; with `resource` only requests for that one.
    Deny {
        code: u16,
        millis: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        resource: Option<String>,
    },
}

/// How a watch breaks off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Cut {
    /// The answer ends between two events.
    End,
    /// The connection breaks in the middle of an event.
    InEvent,
    /// An ERROR event with 410 Gone.
    Gone,
    /// An ERROR event with 500.
    Failure,
    /// It goes on, after telling once more everything that it told before.
    Again,
}

impl Plan {
    /// Names of the fault classes of `docs/reliability.md`, joined.
    pub fn class(&self) -> String {
        match self.faults.as_slice() {
            [] => "none".to_owned(),
            [one] => one.action.class().to_owned(),
            _ => "C7".to_owned(),
        }
    }

    /// A name for files and reports.
    pub fn name(&self) -> String {
        let faults: Vec<String> = self
            .faults
            .iter()
            .map(|fault| format!("{}-{:03}{}", fault.action.class(), fault.at.write, fault.action.detail()))
            .collect();
        let pods = if self.pods == Pods::AtOnce { "-atonce" } else { "" };
        let faults = if faults.is_empty() { "undisturbed".to_owned() } else { faults.join("_") };
        format!("{:?}-{faults}{pods}", self.subject)
    }

    pub fn has_zombie(&self) -> bool {
        self.faults.iter().any(|fault| matches!(fault.action, Action::Zombie { .. }))
    }
}

impl Action {
    pub fn class(&self) -> &'static str {
        match self {
            Action::KillBefore => "C1",
            Action::KillAfter => "C2",
            Action::LoseAnswer { .. } => "C3",
            Action::Refuse { .. } => "C4",
            Action::Twice { .. } => "C5",
            Action::Zombie { .. } => "C6",
            Action::FreezeWatches { gone: false, .. } => "W1",
            Action::FreezeWatches { gone: true, .. } => "W2",
            Action::OldLists => "W3",
            Action::CutWatches { .. } => "W4",
            Action::Deny { .. } => "A1",
        }
    }

    fn detail(&self) -> String {
        match self {
            Action::LoseAnswer { code } | Action::Refuse { code } => format!("-{code}"),
            Action::Twice { later } => format!("-after{later}"),
            Action::Zombie { writes } | Action::FreezeWatches { writes, .. } => format!("-for{writes}"),
            Action::CutWatches { how } => format!("-{how:?}"),
            Action::Deny { code, resource, .. } => format!("-{code}{}", resource.as_deref().unwrap_or_default()),
            Action::KillBefore | Action::KillAfter | Action::OldLists => String::new(),
        }
    }
}
