//! What the server makes of objects: defaults, merged conditions, unknown fields, the largest one.

use godwit::api::condition::kind;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::case::{assert_all, merged, store};
use crate::schema::{definition_of, schema_of};
use crate::server::{Server, object};
use crate::{approval, cohort, migration};

#[tokio::test]
async fn a_new_object_says_that_nobody_has_looked_at_it() {
    let server = Server::shared();
    for (kind, valid) in [("Migration", migration::valid()), ("Cohort", cohort::valid())] {
        let api = server.api(kind, "objects-new").await;
        // A status that a user gives is not theirs to give.
        let given = merged(&valid, &json!({"status": {"observedGeneration": 1, "phase": "Done"}}));
        let created = api.create(&PostParams::default(), &object(given)).await.unwrap();
        let read = api.get(&created.metadata.name.unwrap()).await.unwrap();
        assert_eq!(read.data["status"]["observedGeneration"], -1, "{kind}");
        assert_eq!(read.data["status"].get("phase"), None, "{kind}");
    }
    let approvals = server.api("Approval", "objects-new").await;
    let created = approvals.create(&PostParams::default(), &object(approval::valid())).await.unwrap();
    // Nobody writes an Approval's status: one that waits to be looked at would wait for ever.
    assert_eq!(created.data.get("status"), None);
}

#[tokio::test]
async fn defaults_of_a_migration_are_filled_in_by_the_server() {
    let server = Server::shared();
    let api = server.api("Migration", "objects-defaults").await;
    let created = api.create(&PostParams::default(), &object(migration::valid())).await.unwrap();
    let spec = &created.data["spec"];
    assert_eq!(spec["suspend"], false);
    assert_eq!(spec["dataset"]["keys"]["strategy"], "Gap");
    assert_eq!(spec["backup"]["maxAge"], "24h");
    assert_eq!(spec["coexistence"]["mode"], "Freeze");
    assert_eq!(spec["rollout"], json!({"maxConcurrentCohorts": 1, "soak": "24h", "onFailure": "Revert"}));
    assert_eq!(spec["approvals"], json!([{"before": "Finalize", "required": 1}]));
}

#[tokio::test]
async fn conditions_are_merged_by_type_and_stand_once_each() {
    let server = Server::shared();
    let api = server.api("Cohort", "objects-conditions").await;
    api.create(&PostParams::default(), &object(cohort::valid())).await.unwrap();
    let condition = |kind: &str| json!({"type": kind, "status": "True", "reason": "Accepted", "message": "", "lastTransitionTime": "2026-01-02T03:04:05Z"});
    let status = |conditions: Value| json!({"apiVersion": "godwit.dev/v1alpha1", "kind": "Cohort", "status": {"conditions": conditions}});
    for (manager, kind) in [("one", kind::READY), ("another", kind::PAUSED)] {
        let patch = Patch::Apply(status(json!([condition(kind)])));
        api.patch_status("canary", &PatchParams::apply(manager), &patch).await.unwrap();
    }
    let read = api.get("canary").await.unwrap();
    let types: Vec<_> =
        read.data["status"]["conditions"].as_array().unwrap().iter().map(|one| one["type"].clone()).collect();
    assert_eq!(types, [kind::READY, kind::PAUSED]);

    let twice = Patch::Merge(status(json!([condition(kind::READY), condition(kind::READY)])));
    let refusal = api.patch_status("canary", &PatchParams::default(), &twice).await.unwrap_err();
    assert!(refusal.to_string().contains("Duplicate value"), "{refusal}");
    let neither = Patch::Merge(status(json!([merged(&condition(kind::READY), &json!({"status": "Yes"}))])));
    let refusal = api.patch_status("canary", &PatchParams::default(), &neither).await.unwrap_err();
    assert!(refusal.to_string().contains("supported values"), "{refusal}");
}

#[test]
fn a_field_that_does_not_exist_is_refused_by_name() {
    let server = Server::shared();
    server.namespace("objects-unknown");
    let cases = [
        (merged(&migration::valid(), &json!({"spec": {"rehearsal": {}}})), "spec.rehearsal"),
        (merged(&migration::valid(), &json!({"spec": {"rollback": {"objective": "15m"}}})), "spec.rollback.objective"),
        (merged(&cohort::valid(), &json!({"spec": {"select": {"Percent": 1}}})), "spec.select.Percent"),
        (merged(&approval::valid(), &json!({"spec": {"subject": {"namespace": "other"}}})), "spec.subject.namespace"),
        (merged(&approval::valid(), &json!({"status": {}})), "status"),
    ];
    for (object, field) in cases {
        let args = ["create", "-n", "objects-unknown", "--dry-run=server", "--validate=strict", "-f", "-"];
        let refusal = server.kubectl_reading(&object.to_string(), &args).unwrap_err();
        assert!(refusal.contains(&format!("unknown field \"{field}\"")), "{field}: {refusal}");
    }
}

/// A way back can be chosen in one way so far, so this rule is tried on a copy of the definition that knows a second one.
#[tokio::test]
async fn the_way_back_is_fixed_once_a_migration_started() {
    let server = Server::shared();
    let mut trial = definition_of("Migration");
    trial["metadata"]["name"] = json!("migrations.trial.godwit.dev");
    trial["spec"]["group"] = json!("trial.godwit.dev");
    // The names are taken by the definition itself.
    trial["spec"]["names"]["shortNames"] = json!([]);
    trial["spec"]["names"]["categories"] = json!([]);
    let modes = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/rollback/properties/mode/enum";
    *trial.pointer_mut(modes).unwrap() = json!(["RestoreOnly", "ReverseSync"]);
    server.kubectl_reading(&trial.to_string(), &["create", "-f", "-"]).unwrap();
    server.kubectl(&["wait", "--for=condition=Established", "crd/migrations.trial.godwit.dev", "--timeout=60s"]);

    let valid = merged(&migration::valid(), &json!({"apiVersion": "trial.godwit.dev/v1alpha1"}));
    let mut free = migration::another_way_back();
    free.stored = Some(json!({}));
    free.answer = crate::case::Answer::Accepted;
    assert_all(&valid, "objects-trial", vec![free, migration::another_way_back()]).await;
}

/// The largest value that a schema takes, as far as plain text goes; `number` tells the elements of a list apart.
fn largest(schema: &Value, name: &str, number: usize) -> Value {
    if let Some(allowed) = schema["enum"].as_array() {
        return allowed[number % allowed.len()].clone();
    }
    match schema["type"].as_str() {
        Some("object") => {
            let fields = schema["properties"].as_object().into_iter().flatten();
            let is_check = schema["properties"].get("passWhen").is_some();
            fields
                .filter(|(name, _)| !(is_smaller_choice(name) || is_check && NOT_OF_A_JOB.contains(&name.as_str())))
                .map(|(name, field)| (name.clone(), largest(field, name, number)))
                .collect()
        }
        Some("array") => {
            let count = usize::try_from(schema["maxItems"].as_u64().unwrap()).unwrap();
            (0..count).map(|number| largest(&schema["items"], name, number)).collect()
        }
        Some("integer") => json!(schema["maximum"].as_f64().map_or(i64::from(i32::MAX), |most| most as i64)),
        Some("boolean") => json!(true),
        _ if schema["format"] == "date-time" => json!("2026-01-02T03:04:05Z"),
        _ => json!(longest(schema, name, number)),
    }
}

/// What a check of source job, the largest, cannot have beside it.
const NOT_OF_A_JOB: [&str; 2] = ["validation", "timeout"];

/// Members of unions that take less room than their neighbours.
fn is_smaller_choice(field: &str) -> bool {
    let checks = ["prometheus", "http", "sql", "condition"];
    let rest = ["persistentVolumeClaim", "secretKeyRef", "percent", "riskBy", "where", "remainder"];
    checks.contains(&field) || rest.contains(&field)
}

fn longest(schema: &Value, name: &str, number: usize) -> String {
    let length = usize::try_from(schema["maxLength"].as_u64().unwrap()).unwrap();
    // A trigger names a check that exists: there are fewer of them.
    let number = if name == "check" { number % 20 } else { number };
    let start = match schema["pattern"].as_str() {
        Some(pattern) if pattern == godwit::api::pattern::URL => "https://",
        Some(pattern) if pattern == godwit::api::pattern::TABLE => "public.",
        Some(pattern) if pattern.starts_with("^[A-Z") => "V",
        Some(pattern) if pattern.starts_with("^sha256") => "sha256:",
        Some(pattern) if pattern == godwit::api::duration::PATTERN => {
            return format!("1.{}h", "0".repeat(length - 3));
        }
        _ => "",
    };
    format!("{start}{number:0>width$}", width = length - start.len())
}

fn largest_of(kind: &str) -> Value {
    let schema = schema_of(kind);
    let part = |name: &str| largest(&schema["properties"][name], name, 0);
    let mut object = json!({"apiVersion": "godwit.dev/v1alpha1", "kind": kind, "metadata": {"name": "n".repeat(50)}, "spec": part("spec")});
    if schema["properties"].get("status").is_some() {
        object["status"] = part("status");
    }
    object
}

/// 1.4 MB in whatever place: either the place is named, or nothing of it is stored.
#[tokio::test]
async fn a_spec_of_more_than_a_megabyte_is_refused_by_the_name_of_its_field() {
    let server = Server::shared();
    let api = server.api("Migration", "objects-huge").await;
    let huge = "x".repeat(1_400_000);
    let many: Vec<String> = (0..12_000).map(|number| format!("public.table_{number:0>100}")).collect();
    let pair = |source: &str| json!({"name": "sum", "source": source, "target": "select 1", "tolerance": "0"});
    let check = json!({"name": "c", "http": {"url": "http://crm/"}, "passWhen": huge});
    for (field, change) in [
        ("spec.validation.checks[0].source", json!({"spec": {"validation": {"checks": [pair(&huge)]}}})),
        ("spec.dataset.include", json!({"spec": {"dataset": {"include": many}}})),
        ("spec.checks[0].passWhen", json!({"spec": {"checks": [check]}})),
        ("spec.engine.postgres.source.uriFrom.secretKeyRef.name", {
            let database = json!({"uriFrom": {"secretKeyRef": {"name": huge, "key": "uri"}}});
            json!({"spec": {"engine": {"postgres": {"source": database}}}})
        }),
        ("metadata.annotations", json!({"metadata": {"annotations": {"note": huge}}})),
    ] {
        let object = object(merged(&migration::valid(), &change));
        let error = api.create(&PostParams::default(), &object).await.unwrap_err();
        let kube::Error::Api(status) = &error else { panic!("{field}: {error}") };
        assert_eq!(status.code, 422, "{field}: {}", &status.message[..status.message.len().min(300)]);
        assert!(status.message.contains(field), "{field}: {}", &status.message[..status.message.len().min(300)]);
        // The answer is for people: it does not repeat the megabyte.
        assert!(status.message.len() < 10_000, "{field}: an answer of {} bytes", status.message.len());
    }
    let unknown = object(merged(&migration::valid(), &json!({"spec": {"comment": huge}})));
    let stored = api.create(&PostParams::default(), &unknown).await.unwrap();
    assert_eq!(stored.data["spec"].get("comment"), None, "a field that does not exist is not stored");
    assert!(stored.data.to_string().len() < 10_000);
}

#[tokio::test]
async fn an_object_of_the_largest_size_is_accepted_and_can_still_be_changed() {
    let server = Server::shared();
    let secret = json!({"secretKeyRef": {"name": "s".repeat(253), "key": "k".repeat(253)}});
    let database = json!({"uriFrom": secret});
    let engine = json!({"spec": {"engine": {"postgres": {"source": database, "target": database}}}});
    let step = json!({"spec": {"subject": {"kind": "Cohort"}, "before": "Cutover"}});
    for (kind, choice) in [("Migration", engine), ("Cohort", json!({})), ("Approval", step)] {
        let api = server.api(kind, "objects-largest").await;
        let largest = merged(&largest_of(kind), &choice);
        let sizes = [&largest["spec"], &largest["status"]].map(|part| part.to_string().len());
        println!("{kind}: largest spec {} bytes, largest status {} bytes", sizes[0], sizes[1]);
        store(&api, largest).await;
        let change = Patch::Merge(json!({"metadata": {"annotations": {"godwit.dev/paused": "true"}}}));
        api.patch(&"n".repeat(50), &PatchParams::default(), &change).await.unwrap();
    }
}
