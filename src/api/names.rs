//! Names that are part of the contract: labels, annotations, field managers.
//! Used by `build/` to write them and by users and dashboards to select by them. A name never changes its meaning.

/// API group of every kind.
pub const GROUP: &str = "godwit.dev";

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

published! {
    /// Labels of Jobs, their pods and the route table.
    LABELS {
        LABEL_MIGRATION = "godwit.dev/migration", "Name of the Migration.";
        LABEL_COHORT = "godwit.dev/cohort", "Name of the Cohort; absent on what belongs to the Migration itself.";
        LABEL_STEP = "godwit.dev/step", "The step that a Job carries out, as in `godwit worker <step>`; `check` for a check's own container.";
        LABEL_ATTEMPT = "godwit.dev/attempt", "Number of the attempt; rises over the whole life of the owner.";
        LABEL_CHECK = "godwit.dev/check", "Name of the check that a check's own container measures.";
        LABEL_OWNER_UID = "godwit.dev/owner-uid", "UID of the Migration or Cohort that the object belongs to.";
        LABEL_PLACEHOLDER = "godwit.dev/placeholder", "`true` on a suspended Job that only occupies the name of an attempt that was given up before its Job was seen.";
        LABEL_MANAGED_BY = "app.kubernetes.io/managed-by", "Always `godwit`.";
        LABEL_PART_OF = "app.kubernetes.io/part-of", "Always `godwit`.";
        LABEL_NAME = "app.kubernetes.io/name", "`godwit-worker` on Jobs and their pods.";
        LABEL_COMPONENT = "app.kubernetes.io/component", "The step of a Job; `route-table` on the route table.";
    }

    /// Annotations beside the commands.
    ANNOTATIONS {
        ANNOTATION_PAUSED = "godwit.dev/paused", "On a Migration or Cohort, `\"true\"` pauses it as `spec.suspend` does. For emergencies: it survives a GitOps sync.";
        ANNOTATION_PLAN_DIGEST = "godwit.dev/plan-digest", "On a Job: digest of the plan that it carries out, as in `status.plan.digest` and in Approvals.";
    }

    /// Finalizers.
    FINALIZERS {
        FINALIZER = "godwit.dev/finalizer", "Keeps a Migration until fences and ledger are out of both databases, and a Cohort until what was copied is removed or there is no way back any more; bounded where nothing can be reached. The conditions say what is waited for.";
    }

    /// Field managers, for `ignoreDifferences` of Argo CD and for whoever reads `managedFields`.
    MANAGERS {
        MANAGER_CHILDREN = "godwit", "Jobs, finalizers and everything else that is no status.";
        MANAGER_STATUS = "godwit-status", "Status of Migrations and Cohorts.";
        MANAGER_ROUTING = "godwit-routing", "The route table.";
    }
}

/// Value of the label `app.kubernetes.io/managed-by`.
pub const MANAGED_BY: &str = "godwit";

/// A one-shot command: the annotation `godwit.dev/<verb>-requested-at`, handled once per distinct text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verb {
    Retry,
    Rollback,
    Promote,
    Abort,
}

impl Verb {
    pub const ALL: [Verb; 4] = [Verb::Retry, Verb::Rollback, Verb::Promote, Verb::Abort];

    pub fn as_str(self) -> &'static str {
        match self {
            Verb::Retry => "retry",
            Verb::Rollback => "rollback",
            Verb::Promote => "promote",
            Verb::Abort => "abort",
        }
    }

    /// What the command does, for the reference page.
    pub fn meaning(self) -> &'static str {
        match self {
            Verb::Retry => {
                "Starts a stalled step over, goes on after a trigger with action Pause, and starts a Migration or Cohort anew that was rolled back."
            }
            Verb::Rollback => {
                "Takes the way back: a Cohort returns to the source, or is discarded before its cutover; a Migration brings back all its Cohorts, newest cutover first, and resets the target. Refused once Finalize has begun."
            }
            Verb::Promote => "Skips the rest of a Cohort's soak. Refused at any other step, and on a Migration.",
            Verb::Abort => {
                "Undoes what was not cut over. Refused once a customer of the object is on the target: request a rollback instead."
            }
        }
    }

    /// The annotation's key.
    pub fn annotation(self) -> String {
        format!("godwit.dev/{}-requested-at", self.as_str())
    }
}
