//! Condition types and reasons: published, stable API that waits, alerts and health checks rely on.
//! Written by `plan/`, read by everyone. A reason may be added; none may be renamed.

/// Declares names with their meaning: the constants, and the list from which the reference page is generated.
macro_rules! published {
    ($(#[doc = $about:literal] $list:ident { $($constant:ident = $text:literal, $meaning:literal;)* })*) => {
        $(
            $(#[doc = $meaning] pub const $constant: &str = $text;)*
            #[doc = $about]
            pub const $list: &[(&str, &str)] = &[$(($text, $meaning)),*];
        )*
    };
}

pub mod kind {
    published! {
        /// Condition types with their meaning, in the order in which they stand in status.
        ALL {
            RECONCILING = "Reconciling", "True while a new spec is being looked at: seconds, not the weeks of a migration.";
            STALLED = "Stalled", "True when nothing goes on until a person acts; the message says what to do.";
            READY = "Ready", "True while the object is accepted and under control. It does not mean that anything has moved.";
            PROGRESSING = "Progressing", "True while a step is carried out, False while something is waited for; the reason says which.";
            SUCCEEDED = "Succeeded", "The outcome: True when everything that was asked for is done, False when it was rolled back or aborted, Unknown until then.";
            PAUSED = "Paused", "True while the stop cord is pulled.";
            BACKUP_VERIFIED = "BackupVerified", "True when the backup was restored and matched. Migration only.";
            DATA_VALIDATED = "DataValidated", "True when the cohort's rows were compared and matched, False when they differ. Cohort only.";
            ROLLBACK_AVAILABLE = "RollbackAvailable", "True while going back is possible, False from the point of no return.";
        }
    }
}

pub mod reason {
    published! {
        /// Reasons while a step is under way.
        RUNNING_STEPS {
            ASSESSING = "Assessing", "Both systems are being examined; nothing is written.";
            BACKING_UP = "BackingUp", "The source is being backed up in one snapshot.";
            VERIFYING_BACKUP = "VerifyingBackup", "The backup is being restored into a throw-away database and compared.";
            PREPARING = "Preparing", "Target schema, ledger, fences, reference tables and key ranges are being prepared.";
            MOVING = "Moving", "Cohorts are being moved.";
            FINALIZING = "Finalizing", "Fences are being removed; afterwards there is no way back.";
            SELECTING = "Selecting", "The cohort's customers are being chosen and frozen.";
            COPYING = "Copying", "The cohort's rows are being copied.";
            VALIDATING = "Validating", "Both sides are being compared.";
            CUTTING_OVER = "CuttingOver", "The cohort's writes are stopped for the last difference and then open on the target.";
            REVERTING = "Reverting", "The way back is under way.";
            CLEANING_UP = "CleaningUp", "Deletion: fences and ledger are being removed from both databases.";
            RETRY_SCHEDULED = "RetryScheduled", "An attempt failed; the next one starts at the stated time.";
        }

        /// Reasons while something is waited for.
        HOLDS {
            SOAKING = "Soaking", "The cohort runs on the target and is being watched.";
            APPROVAL_REQUIRED = "ApprovalRequired", "An Approval for the stated digest is waited for.";
            APPROVAL_REJECTED = "ApprovalRejected", "An Approval with decision Reject exists; delete it, or roll back.";
            GATE_FAILED = "GateFailed", "A check that must pass first fails.";
            GATE_INCONCLUSIVE = "GateInconclusive", "A check that must pass first has no verdict yet.";
            WAVE_NOT_REACHED = "WaveNotReached", "Cohorts of an earlier wave, or the concurrency limit, come first.";
            MIGRATION_NOT_READY = "MigrationNotReady", "The migration has not reached its Move step.";
            COHORTS_REQUIRED = "CohortsRequired", "No cohort takes the remaining customers; add one with `select: {remainder: {}}`.";
            COHORT_NEEDS_ATTENTION = "CohortNeedsAttention", "A cohort is stalled or was rolled back; see its own status.";
            PAUSED = "Paused", "Suspended by spec or annotation; running Jobs finish.";
            PAUSED_BY_TRIGGER = "PausedByTrigger", "A trigger with action Pause failed; `retry` goes on.";
            JOB_NOT_STARTED = "JobNotStarted", "The Job's pod cannot start; the message says why.";
            MIGRATION_DELETING = "MigrationDeleting", "The Migration is being deleted; no step starts.";
        }

        /// Reasons of `Stalled`: a person is needed.
        PROBLEMS {
            MIGRATION_NOT_FOUND = "MigrationNotFound", "The Migration named by migrationRef does not exist.";
            SECRET_NOT_FOUND = "SecretNotFound", "A Secret named by the spec does not exist, or lacks the key.";
            INVALID_SPEC = "InvalidSpec", "The spec cannot be used; the message names the field.";
            SPEC_CHANGED = "SpecChanged", "The spec was changed in a part that is fixed once started.";
            BLOCKED_BY_FINDINGS = "BlockedByFindings", "Assess found blockers; the message names them.";
            DATA_DIFFERS = "DataDiffers", "A comparison found a difference; the evidence file names it.";
            INPUT_MISSING = "InputMissing", "Something the step needs is missing.";
            NOT_PERMITTED = "NotPermitted", "A database or the storage refused permission.";
            MISCONFIGURED = "Misconfigured", "A Job could not use its configuration.";
            RETRIES_EXHAUSTED = "RetriesExhausted", "Every attempt of the step failed; `retry` starts over.";
            PROGRESS_DEADLINE_EXCEEDED = "ProgressDeadlineExceeded", "The step did not end in time.";
            JOB_NAME_TAKEN = "JobNameTaken", "A Job of that name belongs to somebody else.";
            NAMESPACE_TERMINATING = "NamespaceTerminating", "The namespace is going away; no Job can be created in it.";
        }

        /// Reasons of ends, and of conditions with nothing to tell.
        OUTCOMES {
            ROLLED_BACK = "RolledBack", "The way back was taken; the source owns the customers again.";
            ABORTED = "Aborted", "The run was aborted and undone before any cutover.";
            COMPLETED = "Completed", "Everything that was asked for is done.";
            ACCEPTED = "Accepted", "The spec is accepted and under control.";
            RUNNING = "Running", "Work is under way.";
            NOT_PAUSED = "NotPaused", "Nothing is paused.";
            NOT_STALLED = "NotStalled", "Nothing needs a person.";
            RESTORED = "Restored", "The backup was restored and matched.";
            NOT_YET_RESTORED = "NotYetRestored", "No backup of this plan has been restored yet.";
            VALIDATED = "Validated", "The copied rows were compared and matched.";
            NOT_YET_VALIDATED = "NotYetValidated", "No comparison of this cohort has passed yet.";
            NOTHING_MOVED = "NothingMoved", "Going back loses nothing: the source owns every row.";
            TARGET_WRITES_SET_ASIDE = "TargetWritesSetAside", "Going back sets aside what the target wrote since cutover; it is exported.";
            POINT_OF_NO_RETURN = "PointOfNoReturn", "Finalize has begun: there is no way back.";
        }
    }
}
