//! Which objects an event concerns. Only wakes: what is then true is read live.
//! Used by the watches of both controllers. Keeps a Migration's every status write from waking ten thousand cohorts.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};

use kube::ResourceExt;
use serde_json::{Value, json};

use crate::api::Migration;

/// The part of a Migration that its cohorts decide from.
#[derive(Clone, Debug, PartialEq)]
struct Published {
    admitted: BTreeSet<String>,
    /// Everything else, for comparison only.
    rest: Value,
}

/// Whom a change of a Migration concerns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Concerned {
    Nobody,
    Only(BTreeSet<String>),
    Everybody,
}

/// What each Migration published last.
#[derive(Debug, Default)]
pub struct Bulletin {
    last: Mutex<HashMap<String, Published>>,
}

impl Bulletin {
    pub fn concerned(&self, migration: &Migration) -> Concerned {
        let key = format!("{}/{}", migration.namespace().unwrap_or_default(), migration.name_any());
        let next = published(migration);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match last.insert(key, next.clone()) {
            Some(before) if before.rest == next.rest => {
                let changed: BTreeSet<_> = before.admitted.symmetric_difference(&next.admitted).cloned().collect();
                if changed.is_empty() { Concerned::Nobody } else { Concerned::Only(changed) }
            }
            _ => Concerned::Everybody,
        }
    }
}

fn published(migration: &Migration) -> Published {
    let status = migration.status.as_ref();
    let conditions = status.map(|status| &status.conditions);
    let said: Vec<_> =
        conditions.into_iter().flatten().map(|condition| (&condition.type_, &condition.status)).collect();
    Published {
        admitted: status.map(|status| status.admitted.iter().cloned().collect()).unwrap_or_default(),
        rest: json!({
            "uid": migration.uid(),
            "generation": migration.metadata.generation,
            "deleted": migration.metadata.deletion_timestamp,
            "annotations": migration.annotations(),
            "step": status.and_then(|status| status.step.as_ref()).map(|step| &step.name),
            "rollback": status.and_then(|status| status.rollback.as_ref()),
            "plan": status.and_then(|status| status.plan.as_ref()),
            "conditions": said,
        }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn migration(status: &Value) -> Migration {
        serde_json::from_value(json!({
            "apiVersion": "godwit.dev/v1alpha1", "kind": "Migration",
            "metadata": {"name": "crm", "namespace": "shop", "uid": "u", "generation": 1},
            "spec": {
                "engine": {},
                "dataset": {"root": {"table": "public.account", "key": "id"}},
                "backup": {"storage": {}},
                "rollback": {"mode": "RestoreOnly"},
            },
            "status": status,
        }))
        .unwrap()
    }

    fn named(names: &[&str]) -> Concerned {
        Concerned::Only(names.iter().map(|&name| name.to_owned()).collect())
    }

    #[test]
    fn only_what_cohorts_decide_from_wakes_them_and_admission_only_those_it_concerns() {
        let bulletin = Bulletin::default();
        let told = |status: &Value| bulletin.concerned(&migration(status));
        assert_eq!(told(&json!({})), Concerned::Everybody);
        assert_eq!(told(&json!({"cohortSummary": "1/9"})), Concerned::Nobody);
        assert_eq!(told(&json!({"admitted": ["a"]})), named(&["a"]));
        assert_eq!(told(&json!({"admitted": ["b"]})), named(&["a", "b"]));
        let moving = json!({"admitted": ["b"], "step": {"name": "Move", "startTime": "2026-03-01T10:00:00Z"}});
        assert_eq!(told(&moving), Concerned::Everybody);
        assert_eq!(told(&moving), Concerned::Nobody);
    }
}
