//! Labels and annotations of children: what `kubectl logs -l`, dashboards and `observe` select by.
//! Used by the other builders. Values are names, uids and numbers of ours, never text from users' annotations or labels.

use std::collections::BTreeMap;

use crate::api::names::{
    ANNOTATION_PLAN_DIGEST, LABEL_ATTEMPT, LABEL_CHECK, LABEL_COHORT, LABEL_COMPONENT, LABEL_MANAGED_BY,
    LABEL_MIGRATION, LABEL_NAME, LABEL_OWNER_UID, LABEL_PART_OF, LABEL_STEP, MANAGED_BY,
};
use crate::contract::Identity;
use crate::plan::decision::{JobRequest, Work};

/// Value of the step label for a check's own container.
pub const STEP_CHECK: &str = "check";

pub use crate::api::names::LABEL_PLACEHOLDER;

/// What every child carries.
pub fn of_child(migration: &Identity) -> BTreeMap<String, String> {
    [(LABEL_MANAGED_BY, MANAGED_BY), (LABEL_PART_OF, MANAGED_BY), (LABEL_MIGRATION, &migration.name)]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
}

/// What a Job and its pods carry.
pub fn of_job(request: &JobRequest) -> BTreeMap<String, String> {
    let step = match &request.work {
        Work::Worker(task) => task.name(),
        Work::Container { .. } => STEP_CHECK,
    };
    let owner = request.cohort.as_ref().unwrap_or(&request.migration);
    let mut labels = of_child(&request.migration);
    let mut put = |key: &str, value: &str| labels.insert(key.to_owned(), value.to_owned());
    put(LABEL_NAME, "godwit-worker");
    put(LABEL_COMPONENT, step);
    put(LABEL_STEP, step);
    put(LABEL_ATTEMPT, &request.attempt.to_string());
    put(LABEL_OWNER_UID, &owner.uid);
    if let Some(cohort) = &request.cohort {
        put(LABEL_COHORT, &cohort.name);
    }
    if let Work::Container { check } = &request.work {
        put(LABEL_CHECK, check);
    }
    labels
}

/// Ties a Job to the plan that it carries out.
pub fn plan_annotation(digest: Option<&str>) -> Option<BTreeMap<String, String>> {
    digest.map(|digest| [(ANNOTATION_PLAN_DIGEST.to_owned(), digest.to_owned())].into())
}
