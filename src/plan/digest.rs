//! Digests of what was agreed: the parts of a spec that decide what happens to data.
//! Evidence and approvals are bound to them. Must cover exactly those parts: changing a soak invalidates nothing.

use serde::Serialize;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::api::MigrationSpec;

/// `sha256:…` of a value's JSON. Field order is that of the types, so it is stable.
pub fn of(value: &impl Serialize) -> String {
    let text = serde_json::to_string(value).unwrap_or_default();
    let hash = Sha256::digest(text.as_bytes());
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// Which rows, from where to where: the assessment, the backup and the preparation depend on it.
pub fn data(spec: &MigrationSpec) -> String {
    of(&json!({"engine": spec.engine, "dataset": spec.dataset, "storage": spec.backup.storage}))
}

/// What a validation compared.
pub fn validation(spec: &MigrationSpec) -> String {
    of(&json!({"data": data(spec), "validation": spec.validation}))
}

/// The migration's plan: what an approval of Finalize approves.
pub fn plan(spec: &MigrationSpec) -> String {
    of(&json!({"validation": validation(spec), "coexistence": spec.coexistence, "rollback": spec.rollback}))
}

/// A cohort's plan: the migration's, and exactly these customers.
pub fn cohort_plan(spec: &MigrationSpec, selection_digest: &str) -> String {
    of(&json!({"plan": plan(spec), "selection": selection_digest}))
}
