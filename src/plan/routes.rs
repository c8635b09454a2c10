//! The route table: which side owns each cohort, for applications to read.
//! Used by the Migration's decision. Must be stable text: equal facts are equal bytes, so that steady state writes nothing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::cohort::step_of;
use super::observed::CohortView;
use super::step::{CohortStep, MigrationStep};

/// Content of `routes.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Routes {
    pub migration: String,
    /// Customers in no cohort, new ones too.
    pub unassigned: Route,
    pub cohorts: BTreeMap<String, Route>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Source, Target, or None while it switches.
    pub owner: String,
    pub epoch: i64,
}

/// The table as text.
pub fn text(migration: &str, step: MigrationStep, cohorts: &[CohortView]) -> String {
    let routes: BTreeMap<String, Route> =
        cohorts.iter().map(|cohort| (cohort.object.name.clone(), route(cohort))).collect();
    let remainder = cohorts.iter().find(|cohort| cohort.spec.select.remainder.is_some());
    let unassigned = match remainder.map(route) {
        Some(remainder) if remainder.owner != SOURCE => remainder,
        _ if step == MigrationStep::Completed => Route { owner: "Target".to_owned(), epoch: 0 },
        _ => Route { owner: SOURCE.to_owned(), epoch: 0 },
    };
    let table = Routes { migration: migration.to_owned(), unassigned, cohorts: routes };
    serde_json::to_string(&table).unwrap_or_default()
}

const SOURCE: &str = "Source";

fn route(cohort: &CohortView) -> Route {
    let owner = match step_of(&cohort.status) {
        // Nothing was selected: its future customers are still in no cohort.
        CohortStep::Pending => SOURCE.to_owned(),
        _ => cohort.status.owner.clone().unwrap_or_else(|| SOURCE.to_owned()),
    };
    Route { owner, epoch: cohort.status.epoch }
}
