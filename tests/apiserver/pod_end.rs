//! How a pod of ours ends: what a kubelet would write into its status, and what its worker would have reported.
//! Used by the fake kubelets of the API-server tests and of the gauntlet. The ledger of a real worker is replaced by the
//! epoch that the Job was given.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::{Value, json};

/// The status of a pod whose container ended with this code and left this report.
pub fn ended(code: i32, report: &Value) -> Value {
    let phase = if code == 0 { "Succeeded" } else { "Failed" };
    let end = json!({"exitCode": code, "message": report.to_string(), "startedAt": "2026-03-01T10:00:00Z", "finishedAt": "2026-03-01T10:00:01Z"});
    json!({"status": {"phase": phase, "containerStatuses": [
        {"name": "step", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": {"terminated": end}},
    ]}})
}

/// What a worker would report when all is well. Depends on the pod's labels and input alone, so a second pod of the
/// same attempt reports the same.
pub fn report(step: &str, pod: &Pod) -> Value {
    let label = |key: &str| pod.labels().get(key).cloned().unwrap_or_default();
    let evidence = format!("evidence/{}-{step}-{}.json", label("godwit.dev/cohort"), label("godwit.dev/attempt"));
    let mut report = json!({
        "v": 1, "result": "pass", "digest": format!("sha256:{}", "0".repeat(64)),
        "evidenceURI": evidence, "counts": {"customers": 100, "rows": 7000},
    });
    let (owner, passed) = match step {
        "select" | "discard" => ("Source", 0),
        "cutover" => ("Target", 2),
        "freeze" => ("None", 1),
        "reopen" => ("Source", 1),
        _ => return report,
    };
    report["owner"] = json!(owner);
    report["epoch"] = json!(epoch(pod) + passed);
    report
}

/// The epoch that the Job was started with.
fn epoch(pod: &Pod) -> i64 {
    let containers = pod.spec.as_ref().map(|spec| &spec.containers).into_iter().flatten();
    let mut inputs = containers.filter_map(|one| one.env.as_ref()?.iter().find(|env| env.name == "GODWIT_STEP"));
    let input = inputs.next().and_then(|env| serde_json::from_str::<Value>(env.value.as_deref()?).ok());
    input.and_then(|input| input["epoch"].as_i64()).unwrap_or_default()
}
