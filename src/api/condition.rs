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

/// The same for reasons that ask something of a person: each with what to do.
macro_rules! answered {
    ($(#[doc = $about:literal] $list:ident { $($constant:ident = $text:literal, $meaning:literal, $remedy:literal;)* })*) => {
        $(
            $(#[doc = $meaning] pub const $constant: &str = $text;)*
            #[doc = $about]
            pub const $list: &[(&str, &str, &str)] = &[$(($text, $meaning, $remedy)),*];
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
    }

    answered! {
        /// Reasons while something is waited for, with what to do where waiting is not wanted.
        HOLDS {
            SOAKING = "Soaking", "The cohort runs on the target and is being watched.", "Wait, or skip the rest with the command `promote`.";
            APPROVAL_REQUIRED = "ApprovalRequired", "An Approval for the stated digest is waited for; one for another digest or another object does not count.", "Create an Approval with the digest of `status.plan`, or roll back.";
            APPROVAL_REJECTED = "ApprovalRejected", "An Approval with decision Reject exists.", "Delete it, or roll back.";
            GATE_FAILED = "GateFailed", "A check that must pass first fails; the message shows what was measured.", "Repair what is measured, or correct the check or the gate.";
            GATE_INCONCLUSIVE = "GateInconclusive", "A check that must pass first has no verdict: too few samples, no data, no answer, or an expression that cannot be evaluated.", "Read the message; correct the check's address, query or `passWhen`, or repair what it asks.";
            WAVE_NOT_REACHED = "WaveNotReached", "Cohorts of an earlier wave, or the concurrency limit, come first.", "Wait, or raise `rollout.maxConcurrentCohorts`.";
            MIGRATION_NOT_READY = "MigrationNotReady", "The migration has not reached its Move step.", "Wait, or look at the Migration's conditions.";
            COHORTS_REQUIRED = "CohortsRequired", "No cohort takes the remaining customers.", "Add a Cohort with `select: {remainder: {}}`.";
            COHORT_NEEDS_ATTENTION = "CohortNeedsAttention", "A cohort is stalled or was rolled back.", "Look at that Cohort's conditions.";
            PAUSED = "Paused", "Suspended by spec or annotation; running Jobs finish.", "Set `suspend: false` or remove the annotation `godwit.dev/paused`.";
            PAUSED_BY_TRIGGER = "PausedByTrigger", "A trigger with action Pause failed.", "Go on with the command `retry`, or roll back.";
            JOB_NOT_STARTED = "JobNotStarted", "The Job's pod cannot be made or placed: quota, admission, nodes, volumes. It starts by itself when it can.", "Repair what the message names, such as a PersistentVolumeClaim or a quota.";
            JOB_SUSPENDED = "JobSuspended", "The Job is suspended, by hand or by a queue; its pod is gone and what it had recorded is kept.", "Set the Job's `spec.suspend` to false; it goes on where it was.";
            POD_ENDING = "PodEnding", "The Job's pod is being taken from its node, and no other may start before it is known to have ended: seconds, or for ever where the node does not answer.", "Bring the node back, delete the Node, or taint it `node.kubernetes.io/out-of-service` once it is off.";
            CUSTOMERS_ON_TARGET = "CustomersOnTarget", "The Cohort is being deleted, but the target serves its customers and the way back is open: they stay under watch.", "Wait for the Migration's Finalize, request a rollback of the Cohort, or delete the Migration.";
            MIGRATION_DELETING = "MigrationDeleting", "The Migration is being deleted; no step starts.", "Delete the Cohort too, or wait.";
        }

        /// Reasons of `Stalled`: a person is needed.
        PROBLEMS {
            MIGRATION_NOT_FOUND = "MigrationNotFound", "The Migration named by migrationRef does not exist.", "Create it, or delete the Cohort.";
            MIGRATION_REPLACED = "MigrationReplaced", "The Cohort was started under a Migration of this name that was deleted; the one of today knows nothing of it.", "Delete the Cohort and create it again; rows that it had moved stay where they are.";
            SECRET_NOT_FOUND = "SecretNotFound", "A Secret named by the spec does not exist, or lacks the key.", "Create the Secret with that key: the waiting pod starts by itself.";
            CONFIG_MAP_NOT_FOUND = "ConfigMapNotFound", "A ConfigMap named by `backup.include` does not exist.", "Create it: the waiting pod starts by itself.";
            IMAGE_NOT_PULLED = "ImageNotPulled", "The node cannot get the image of the Job's container.", "Correct the image's name, the pull secret or the registry: the waiting pod starts by itself, and a corrected check is measured at once.";
            CONTAINER_NOT_STARTED = "ContainerNotStarted", "The node has the image and cannot start the container; the message is the node's.", "Repair what the message names: the waiting pod starts by itself.";
            INVALID_SPEC = "InvalidSpec", "The object, or a part that Godwit depends on, cannot be used; the message names the field.", "Correct that field; nothing was started from it.";
            SPEC_CHANGED = "SpecChanged", "Engine, dataset or storage differ from what was prepared: the next step would work on other rows than the one before.", "Undo the change. To move other rows, undo it, roll back, change it then and request `retry`.";
            BLOCKED_BY_FINDINGS = "BlockedByFindings", "Assess found blockers; the message names the first, `status.findings` and the evidence file all.", "Repair them, then request `retry`.";
            BACKUP_NEVER_YOUNG = "BackupNeverYoung", "Proving the backup's restore takes longer than `backup.maxAge` allows a backup to be old, so no cohort could ever start.", "Raise `backup.maxAge`: it is heeded at once.";
            NO_CUSTOMERS_SELECTED = "NoCustomersSelected", "The cohort's selection means no customer that is still free.", "Correct `spec.select` in a new Cohort, or delete this one.";
            COHORTS_OVERLAP = "CohortsOverlap", "The cohort names customers that another cohort has, or that were the target's own.", "Leave them out in a new Cohort, or delete the other one.";
            CUSTOMERS_UNKNOWN = "CustomersUnknown", "The cohort names keys that belong to no customer.", "Correct the query in a new Cohort.";
            KEY_RANGE_SPENT = "KeyRangeSpent", "The source has nearly drawn all keys reserved for it, or draws the target's: new rows of both sides would meet. What was copied stays.", "Set both sequences as the message says, then request `retry`.";
            DATA_DIFFERS = "DataDiffers", "A comparison found a difference; the evidence file names it.", "Find out who wrote the rows that differ, then request `retry`.";
            INPUT_MISSING = "InputMissing", "Something the step needs is missing: a table, a file, a record in the ledger.", "Bring it back, then request `retry`, or roll back.";
            NOT_PERMITTED = "NotPermitted", "A database or the storage refused the login or the permission.", "Correct user and password in the Secret, or grant what the message names, then request `retry`.";
            MISCONFIGURED = "Misconfigured", "A Job could not use its configuration: an address, TLS, SQL.", "Correct what the message names, then request `retry`.";
            RETRIES_EXHAUSTED = "RetriesExhausted", "Every attempt of the step failed; the message tells why the last one did.", "Repair that, then request `retry`: it starts over.";
            PROGRESS_DEADLINE_EXCEEDED = "ProgressDeadlineExceeded", "The step did not end in time and its Job was stopped; the message tells what it waited for, if anything.", "Repair that, then request `retry`.";
            JOB_NAME_TAKEN = "JobNameTaken", "A Job of that name belongs to somebody else.", "Delete that Job, then request `retry`.";
            NAMESPACE_TERMINATING = "NamespaceTerminating", "The namespace is going away; no Job can be created in it.", "Nothing: the object is let go. Schema `godwit` may remain in both databases.";
            PERMISSION_DENIED = "PermissionDenied", "The API server refuses what the operator asks: a role, a quota, a policy.", "Grant what the message names: the operator tries again within five minutes.";
            REQUEST_REFUSED = "RequestRefused", "The API server finds a request of the operator unusable, mostly because an admission policy says so.", "Change what the message names: the operator tries again within five minutes.";
            OPERATOR_DEFECT = "OperatorDefect", "The operator met a defect of its own at this object; others are not affected.", "Report it with the operator's log; suspend or delete the object to be left alone.";
        }
    }

    published! {
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
