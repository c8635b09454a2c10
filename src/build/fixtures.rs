//! The smallest specs and requests that can fail: every value differs, so that a swap shows.
//! Used by the tests of this room.

use serde_json::json;

use super::PodSettings;
use crate::api::MigrationSpec;
use crate::contract::{Identity, Task};
use crate::plan::decision::{JobRequest, Work};

pub fn identity(name: &str, uid: &str) -> Identity {
    Identity { namespace: "shop".into(), name: name.into(), uid: uid.into() }
}

pub fn request(task: Task) -> JobRequest {
    JobRequest {
        name: "crm-step-3".into(),
        attempt: 3,
        epoch: 5,
        migration: identity("crm", "uid-migration"),
        cohort: None,
        work: Work::Worker(task),
    }
}

pub fn cohort_request(task: Task) -> JobRequest {
    JobRequest { cohort: Some(identity("canary", "uid-cohort")), ..request(task) }
}

pub fn container_request(check: &str) -> JobRequest {
    JobRequest { work: Work::Container { check: check.into() }, ..cohort_request(Task::Copy {}) }
}

pub fn settings() -> PodSettings {
    PodSettings {
        image: "registry.example/godwit:1.2.3".into(),
        pull_policy: Some("IfNotPresent".into()),
        pull_secrets: vec!["pull".into()],
        priority_class: Some("low".into()),
        user_id: Some(65532),
        ..PodSettings::default()
    }
}

pub fn spec() -> MigrationSpec {
    serde_json::from_value(json!({
        "engine": {"postgres": {
            "source": {"uriFrom": {"secretKeyRef": {"name": "old", "key": "old-uri"}}},
            "target": {"uriFrom": {"secretKeyRef": {"name": "new", "key": "new-uri"}}},
        }},
        "dataset": {
            "root": {"table": "sales.account", "key": "account_id"},
            "include": ["sales.*"], "exclude": ["sales.log"], "reference": ["sales.currency"],
            "owners": [{"table": "sales.deal_contact", "via": ["deal_id"]}],
            "keys": {"strategy": "Parity"},
        },
        "backup": {
            "storage": {"persistentVolumeClaim": {"claimName": "vault"}},
            "include": [{"name": "workflows", "configMapRef": {"name": "crm-workflows"}}],
        },
        "rollback": {"mode": "RestoreOnly"},
        "checks": [{
            "name": "probe", "passWhen": "value < 5.0",
            "job": {
                "image": "example/probe:9", "command": ["/probe"], "args": ["--fast"],
                "env": [
                    {"name": "LIMIT", "value": "7"},
                    {"name": "TOKEN", "secretKeyRef": {"name": "probe-secret", "key": "token"}},
                ],
            },
        }],
    }))
    .unwrap()
}

pub fn spec_on_s3() -> MigrationSpec {
    let mut spec = spec();
    spec.backup.storage = serde_json::from_value(json!({"s3": {
        "bucket": "crm-backup", "prefix": "2026", "endpoint": "https://s3.shop",
        "credentialsSecretName": "s3-keys",
    }}))
    .unwrap();
    spec
}
