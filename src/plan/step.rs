//! The steps of both life cycles and what holds for each: attempts, deadline, words.
//! Read by the rest of `plan/` and by `build/`. A new step is a new row here; must not decide anything.

use jiff::SignedDuration;

use crate::api::condition::reason;

/// What a step may cost before a person is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Failed attempts after which the step is given up.
    pub attempts: u32,
    /// Time after which the step is given up, from the start of its first attempt.
    pub deadline: SignedDuration,
}

const fn limits(attempts: u32, hours: i64) -> Limits {
    Limits { attempts, deadline: SignedDuration::from_hours(hours) }
}

/// Steps of a Migration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MigrationStep {
    Assess,
    Backup,
    VerifyBackup,
    Prepare,
    Move,
    Finalize,
    Completed,
    /// Its cohorts are going back.
    Return,
    /// The target is being put back to its baseline.
    Reset,
    RolledBack,
    /// Deletion: fences and ledger are being removed.
    Cleanup,
}

impl MigrationStep {
    pub const ALL: [MigrationStep; 11] = [
        Self::Assess,
        Self::Backup,
        Self::VerifyBackup,
        Self::Prepare,
        Self::Move,
        Self::Finalize,
        Self::Completed,
        Self::Return,
        Self::Reset,
        Self::RolledBack,
        Self::Cleanup,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Assess => "Assess",
            Self::Backup => "Backup",
            Self::VerifyBackup => "VerifyBackup",
            Self::Prepare => "Prepare",
            Self::Move => "Move",
            Self::Finalize => "Finalize",
            Self::Completed => "Completed",
            Self::Return => "Return",
            Self::Reset => "Reset",
            Self::RolledBack => "RolledBack",
            Self::Cleanup => "Cleanup",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|step| step.as_str() == text)
    }

    /// `None` for steps without a Job: they wait for cohorts or are an end.
    pub fn limits(self) -> Option<Limits> {
        match self {
            Self::Assess => Some(limits(5, 6)),
            Self::Backup | Self::VerifyBackup | Self::Prepare => Some(limits(5, 24)),
            Self::Finalize | Self::Reset => Some(limits(10, 24)),
            // Deletion is bounded: a database that is gone for good must not hold the object for ever.
            Self::Cleanup => Some(Limits { attempts: 5, deadline: SignedDuration::from_mins(15) }),
            Self::Move | Self::Completed | Self::Return | Self::RolledBack => None,
        }
    }

    /// Reason of `Progressing` while the step runs.
    pub fn running_reason(self) -> &'static str {
        match self {
            Self::Assess => reason::ASSESSING,
            Self::Backup => reason::BACKING_UP,
            Self::VerifyBackup => reason::VERIFYING_BACKUP,
            Self::Prepare => reason::PREPARING,
            Self::Move => reason::MOVING,
            Self::Finalize => reason::FINALIZING,
            Self::Completed => reason::COMPLETED,
            Self::Return | Self::Reset => reason::REVERTING,
            Self::RolledBack => reason::ROLLED_BACK,
            Self::Cleanup => reason::CLEANING_UP,
        }
    }

    /// Name of the evidence that the step leaves.
    pub fn evidence(self) -> &'static str {
        match self {
            Self::Assess => "Assessment",
            Self::Backup => "Backup",
            Self::VerifyBackup => "RestoreTest",
            Self::Prepare => "Preparation",
            Self::Finalize => "Final",
            Self::Reset => "Reset",
            Self::Cleanup => "Removal",
            Self::Move | Self::Completed | Self::Return | Self::RolledBack => "None",
        }
    }

    /// On the way back, or at its end.
    pub fn is_backward(self) -> bool {
        matches!(self, Self::Return | Self::Reset | Self::RolledBack)
    }
}

/// Steps of a Cohort.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CohortStep {
    Pending,
    Select,
    Copy,
    Validate,
    Cutover,
    Soak,
    Done,
    /// Before cutover: copied rows are removed from the target.
    Discard,
    Freeze,
    Return,
    Verify,
    Reopen,
    RolledBack,
}

impl CohortStep {
    pub const ALL: [CohortStep; 13] = [
        Self::Pending,
        Self::Select,
        Self::Copy,
        Self::Validate,
        Self::Cutover,
        Self::Soak,
        Self::Done,
        Self::Discard,
        Self::Freeze,
        Self::Return,
        Self::Verify,
        Self::Reopen,
        Self::RolledBack,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Select => "Select",
            Self::Copy => "Copy",
            Self::Validate => "Validate",
            Self::Cutover => "Cutover",
            Self::Soak => "Soak",
            Self::Done => "Done",
            Self::Discard => "Discard",
            Self::Freeze => "Freeze",
            Self::Return => "Return",
            Self::Verify => "Verify",
            Self::Reopen => "Reopen",
            Self::RolledBack => "RolledBack",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|step| step.as_str() == text)
    }

    /// `None` for steps without a Job.
    pub fn limits(self) -> Option<Limits> {
        match self {
            Self::Select => Some(limits(5, 6)),
            Self::Copy | Self::Validate => Some(limits(5, 72)),
            // Writers wait while a cutover runs: it is given up early, and the way back reopens the source.
            Self::Cutover => Some(limits(3, 6)),
            Self::Discard | Self::Freeze | Self::Return | Self::Verify | Self::Reopen => Some(limits(10, 24)),
            Self::Pending | Self::Soak | Self::Done | Self::RolledBack => None,
        }
    }

    /// The step after this one passed.
    #[must_use]
    pub fn next(self) -> Self {
        match self {
            Self::Pending => Self::Select,
            Self::Select => Self::Copy,
            Self::Copy => Self::Validate,
            Self::Validate => Self::Cutover,
            Self::Cutover => Self::Soak,
            Self::Soak | Self::Done => Self::Done,
            Self::Freeze => Self::Return,
            Self::Return => Self::Verify,
            Self::Verify => Self::Reopen,
            Self::Discard | Self::Reopen | Self::RolledBack => Self::RolledBack,
        }
    }

    /// Reason of `Progressing` while the step runs.
    pub fn running_reason(self) -> &'static str {
        match self {
            Self::Pending => reason::WAVE_NOT_REACHED,
            Self::Select => reason::SELECTING,
            Self::Copy => reason::COPYING,
            Self::Validate => reason::VALIDATING,
            Self::Cutover => reason::CUTTING_OVER,
            Self::Soak => reason::SOAKING,
            Self::Done => reason::COMPLETED,
            Self::Discard | Self::Freeze | Self::Return | Self::Verify | Self::Reopen => reason::REVERTING,
            Self::RolledBack => reason::ROLLED_BACK,
        }
    }

    /// Name of the evidence that the step leaves.
    pub fn evidence(self) -> &'static str {
        match self {
            Self::Select => "Selection",
            Self::Copy => "Copy",
            Self::Validate => "Validation",
            Self::Cutover => "Cutover",
            Self::Discard => "Removal",
            Self::Freeze => "Freeze",
            Self::Return => "Return",
            Self::Verify => "Verification",
            Self::Reopen => "Reopening",
            Self::Pending | Self::Soak | Self::Done | Self::RolledBack => "None",
        }
    }

    /// On the way back, or at its end.
    pub fn is_backward(self) -> bool {
        matches!(self, Self::Discard | Self::Freeze | Self::Return | Self::Verify | Self::Reopen | Self::RolledBack)
    }

    /// Under way towards the target: it holds its place in the concurrency limit.
    pub fn is_forward(self) -> bool {
        matches!(self, Self::Select | Self::Copy | Self::Validate | Self::Cutover | Self::Soak)
    }
}
