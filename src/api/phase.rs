//! The values of `status.phase`: summaries for people. Waits and alerts use conditions; values may be added.
//! Written by `plan/`, shown by `metrics`; the documentation of both fields is tested against these lists.

macro_rules! phases {
    ($(#[$meta:meta])* $name:ident { $($phase:ident),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($phase),+ }

        impl $name {
            /// In the order in which the documentation names them.
            pub const ALL: &'static [Self] = &[$(Self::$phase),+];

            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$phase => stringify!($phase)),+ }
            }
        }
    };
}

phases! {
    /// Phases of a Migration.
    MigrationPhase {
        Assessing, BackingUp, VerifyingBackup, Preparing, Moving, Holding, Finalizing, Completed, Reverting, RolledBack,
        Stalled, Paused, CleaningUp,
    }
}

phases! {
    /// Phases of a Cohort.
    CohortPhase {
        Pending, Selecting, Copying, Validating, Holding, CuttingOver, Soaking, Done, Reverting, RolledBack, Stalled,
        Paused,
    }
}

#[cfg(test)]
mod tests {
    use kube::CustomResourceExt;

    use super::*;
    use crate::api::{Cohort, Migration};

    /// The documented values of `status.phase`, in the definition that clusters get.
    fn documented(definition: &serde_json::Value) -> Vec<String> {
        let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        let text = schema["properties"]["status"]["properties"]["phase"]["description"].as_str().unwrap();
        let (_, values) = text.split_once("): ").unwrap();
        values.trim_end_matches('.').split(", ").map(ToOwned::to_owned).collect()
    }

    #[test]
    fn the_definitions_name_every_phase() {
        let names = |phases: Vec<&'static str>| phases.into_iter().map(ToOwned::to_owned).collect::<Vec<String>>();
        let migration = serde_json::to_value(Migration::crd()).unwrap();
        assert_eq!(documented(&migration), names(MigrationPhase::ALL.iter().map(|phase| phase.as_str()).collect()));
        let cohort = serde_json::to_value(Cohort::crd()).unwrap();
        assert_eq!(documented(&cohort), names(CohortPhase::ALL.iter().map(|phase| phase.as_str()).collect()));
    }
}
