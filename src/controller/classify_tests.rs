//! The Job classifier against states as the Job controller and the kubelet write them.
//! Beside `classify.rs`, whose budget of lines it would exceed.

use serde_json::{Value, json};

use super::*;
use crate::contract::ReportResult;

const OWNER: &str = "uid-owner";

fn job(status: &Value) -> Job {
    serde_json::from_value(json!({
        "metadata": {"name": "crm-copy-3", "ownerReferences": [{
            "apiVersion": "godwit.dev/v1alpha1", "kind": "Cohort", "name": "canary", "uid": OWNER, "controller": true,
        }]},
        "status": status,
    }))
    .unwrap()
}

fn with_conditions(conditions: &Value) -> Job {
    job(&json!({"conditions": conditions}))
}

fn pod(state: &Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": "p"},
        "status": {"containerStatuses": [
            {"name": "step", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": state},
        ]},
    }))
    .unwrap()
}

fn ended(code: i32, message: &str, at: &str) -> Pod {
    pod(&json!({"terminated": {"exitCode": code, "message": message, "finishedAt": at}}))
}

fn with_pods(pods: &[Pod]) -> Evidence<'_> {
    Evidence { pods, ..Evidence::default() }
}

fn failed() -> Job {
    with_conditions(&json!([{"type": "Failed", "status": "True", "reason": "PodFailurePolicy"}]))
}

#[test]
fn only_complete_and_failed_end_a_job() {
    for (conditions, running) in [
        (json!([]), true),
        (json!([{"type": "SuccessCriteriaMet", "status": "True"}]), true),
        (json!([{"type": "FailureTarget", "status": "True"}]), true),
        (json!([{"type": "Suspended", "status": "True"}]), true),
        (json!([{"type": "Complete", "status": "False"}]), true),
        (json!([{"type": "Complete", "status": "True"}]), false),
        (json!([{"type": "Failed", "status": "True"}]), false),
    ] {
        let state = classify(&with_conditions(&conditions), OWNER, Evidence::default());
        let is_running = matches!(state, JobState::Running { .. });
        assert_eq!(is_running, running, "{conditions}");
        assert_eq!(has_ended(&with_conditions(&conditions)), !running);
    }
}

#[test]
fn a_job_of_another_owner_is_foreign_whatever_its_state() {
    let complete = with_conditions(&json!([{"type": "Complete", "status": "True"}]));
    assert_eq!(classify(&complete, "uid-other", Evidence::default()), JobState::Foreign);
    let mut orphan = complete;
    orphan.metadata.owner_references = None;
    assert_eq!(classify(&orphan, OWNER, Evidence::default()), JobState::Foreign);
}

#[test]
fn a_job_that_only_occupies_a_name_is_an_attempt_that_failed() {
    let mut job = job(&json!({"conditions": [{"type": "Suspended", "status": "True"}]}));
    job.metadata.labels = Some([("godwit.dev/placeholder".to_owned(), "true".to_owned())].into());
    let JobState::Failed(failure) = classify(&job, OWNER, Evidence::default()) else {
        panic!("not failed");
    };
    assert_eq!((failure.exit_code, failure.reason.as_str()), (None, "Abandoned"));
    assert!(has_ended(&job));
}

#[test]
fn a_job_marked_for_deletion_is_terminating_until_it_has_ended() {
    let mut job = job(&json!({"active": 1}));
    job.metadata.deletion_timestamp = Some(serde_json::from_value(json!("2026-03-01T10:00:00Z")).unwrap());
    assert_eq!(classify(&job, OWNER, Evidence::default()), JobState::Terminating);
}

#[test]
fn a_finished_job_brings_the_report_of_the_pod_that_ended_well() {
    let complete = with_conditions(&json!([{"type": "Complete", "status": "True"}]));
    let pods = [
        ended(137, "Killed", "2026-03-01T10:09:00Z"),
        ended(0, r#"{"v":1,"result":"pass","counts":{"rows":7}}"#, "2026-03-01T10:05:00Z"),
    ];
    let JobState::Succeeded { report: Some(report) } = classify(&complete, OWNER, with_pods(&pods)) else {
        panic!("no report");
    };
    assert_eq!(report.counts["rows"], 7);
    assert_eq!(classify(&complete, OWNER, Evidence::default()), JobState::Succeeded { report: None });
}

#[test]
fn a_failed_job_keeps_the_reason_and_the_last_pods_code_and_report() {
    let pods = [ended(75, "", "2026-03-01T10:01:00Z"), ended(65, r#"{"v":1,"result":"fail"}"#, "2026-03-01T10:02:00Z")];
    let JobState::Failed(failure) = classify(&failed(), OWNER, with_pods(&pods)) else {
        panic!("not failed");
    };
    assert_eq!(failure.exit_code, Some(65));
    assert_eq!(failure.reason, "PodFailurePolicy");
    assert_eq!(failure.report.unwrap().result, ReportResult::Fail);
}

#[test]
fn a_killed_process_has_no_exit_code_of_its_own() {
    for state in [
        json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}}),
        json!({"terminated": {"exitCode": 143}}),
        json!({"terminated": {"exitCode": 1, "signal": 9}}),
    ] {
        let JobState::Failed(failure) = classify(&failed(), OWNER, with_pods(&[pod(&state)])) else {
            panic!("not failed");
        };
        assert_eq!(failure.exit_code, None, "{state}");
    }
}

#[test]
fn what_a_custom_image_reports_is_cut_to_what_status_can_hold() {
    let findings: Vec<_> = (0..2)
        .map(|n| json!({"severity": "Info", "code": "C".repeat(99), "object": format!("t{n}"), "message": "m".repeat(600)}))
        .collect();
    let counts: BTreeMap<_, _> = (0..50).map(|n| (format!("c{n:02}"), n)).collect();
    let text = json!({"v": 1, "result": "pass", "digest": "d".repeat(200), "counts": counts, "findings": findings});
    let complete = with_conditions(&json!([{"type": "Complete", "status": "True"}]));
    let pods = [ended(0, &text.to_string(), "2026-03-01T10:05:00Z")];
    let JobState::Succeeded { report: Some(report) } = classify(&complete, OWNER, with_pods(&pods)) else {
        panic!("no report");
    };
    assert_eq!(report.digest.unwrap().len(), 80);
    assert_eq!(report.counts.len(), 32);
    assert_eq!(report.findings[0].code.len(), 64);
    assert_eq!(report.findings[1].message.len(), 512);
}

#[test]
fn an_oversized_message_is_no_report() {
    let text = format!(r#"{{"v":1,"result":"pass","digest":"{}"}}"#, "x".repeat(5000));
    let complete = with_conditions(&json!([{"type": "Complete", "status": "True"}]));
    let pods = [ended(0, &text, "2026-03-01T10:05:00Z")];
    assert_eq!(classify(&complete, OWNER, with_pods(&pods)), JobState::Succeeded { report: None });
}

#[test]
fn the_last_progress_line_counts_and_other_output_is_ignored() {
    let output = "starting\n{\"progress\":{\"unit\":\"rows\",\"done\":5,\"total\":9}}\n\
        {\"progress\":{\"unit\":\"rows\",\"done\":7,\"total\":9}}\n{\"progress\":{\"unit\":\"ro";
    let evidence = Evidence { output: Some(output), ..Evidence::default() };
    let JobState::Running { progress, trouble } = classify(&job(&json!({})), OWNER, evidence) else {
        panic!("not running");
    };
    assert_eq!(progress.unwrap().done, 7);
    assert_eq!(trouble, None);
}

#[test]
fn a_pod_that_cannot_start_says_which_kind_of_thing_is_missing() {
    for (reason, message, kind) in [
        ("CreateContainerConfigError", "secret \"crm-source\" not found", TroubleKind::Secret),
        ("CreateContainerConfigError", "couldn't find key uri in Secret shop/crm-source", TroubleKind::Secret),
        ("CreateContainerConfigError", "container has runAsNonRoot and image will run as root", TroubleKind::Container),
        ("ErrImagePull", "not found", TroubleKind::Image),
        ("ImagePullBackOff", "back-off", TroubleKind::Image),
        ("InvalidImageName", "bad", TroubleKind::Image),
    ] {
        let pods = [pod(&json!({"waiting": {"reason": reason, "message": message}}))];
        let JobState::Running { trouble: Some(trouble), .. } = classify(&job(&json!({})), OWNER, with_pods(&pods))
        else {
            panic!("no trouble for {message}");
        };
        assert_eq!(trouble.kind, kind, "{message}");
        assert_eq!(trouble.message, format!("{reason}: {message}"));
    }
    let pods = [pod(&json!({"waiting": {"reason": "ContainerCreating"}}))];
    let state = classify(&job(&json!({})), OWNER, with_pods(&pods));
    assert!(matches!(state, JobState::Running { trouble: None, .. }));
}

#[test]
fn a_missing_secret_is_named_with_the_key_that_is_wanted_of_it() {
    let mut waiting =
        pod(&json!({"waiting": {"reason": "CreateContainerConfigError", "message": "secret \"old\" not found"}}));
    waiting.spec = serde_json::from_value(json!({"containers": [{"name": "step", "image": "i", "env": [
        {"name": "A", "valueFrom": {"secretKeyRef": {"name": "new", "key": "other"}}},
        {"name": "B", "valueFrom": {"secretKeyRef": {"name": "old", "key": "uri"}}},
    ]}]}))
    .unwrap();
    let JobState::Running { trouble: Some(trouble), .. } = classify(&job(&json!({})), OWNER, with_pods(&[waiting]))
    else {
        panic!("no trouble");
    };
    assert_eq!(trouble.message, "CreateContainerConfigError: secret \"old\" not found (wanted for its key uri)");
    for (complaint, kind) in [
        ("FailedMount: MountVolume.SetUp failed: secret \"s3\" not found", TroubleKind::Secret),
        ("FailedMount: MountVolume.SetUp failed: configmap \"flows\" not found", TroubleKind::ConfigMap),
        ("FailedMount: timed out waiting for the condition", TroubleKind::Scheduling),
    ] {
        let evidence = Evidence { complaint: Some(complaint), ..Evidence::default() };
        let JobState::Running { trouble: Some(trouble), .. } = classify(&job(&json!({})), OWNER, evidence) else {
            panic!("no trouble");
        };
        assert_eq!(trouble.kind, kind, "{complaint}");
    }
}

#[test]
fn an_image_that_cannot_be_pulled_is_named_whatever_the_node_says() {
    for message in ["Back-off pulling image \"godwit:typo\"", "unauthorized"] {
        let mut waiting = pod(&json!({"waiting": {"reason": "ErrImagePull", "message": message}}));
        waiting.spec =
            serde_json::from_value(json!({"containers": [{"name": "step", "image": "godwit:typo"}]})).unwrap();
        let JobState::Running { trouble: Some(trouble), .. } = classify(&job(&json!({})), OWNER, with_pods(&[waiting]))
        else {
            panic!("no trouble");
        };
        assert_eq!(trouble.message.matches("godwit:typo").count(), 1, "{}", trouble.message);
    }
}

#[test]
fn a_suspended_job_and_a_pod_in_limbo_are_told_from_a_running_one() {
    let mut suspended = job(&json!({"conditions": [{"type": "Suspended", "status": "True"}]}));
    suspended.spec = Some(serde_json::from_value(json!({"suspend": true, "template": {}})).unwrap());
    let JobState::Running { trouble: Some(trouble), .. } = classify(&suspended, OWNER, Evidence::default()) else {
        panic!("no trouble");
    };
    assert_eq!((trouble.kind, trouble.message.as_str()), (TroubleKind::Suspended, "Job crm-copy-3 is suspended"));

    let limbo = |phase: &str, node: Option<&str>| -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p", "deletionTimestamp": "2026-03-01T10:00:00Z"},
            "spec": {"containers": [], "nodeName": node},
            "status": {"phase": phase, "conditions": [{"type": "DisruptionTarget", "status": "True", "message": "NoExecute"}]},
        }))
        .unwrap()
    };
    let trouble_of = |pod: Pod| match classify(&job(&json!({})), OWNER, with_pods(&[pod])) {
        JobState::Running { trouble, .. } => trouble,
        other => panic!("{other:?}"),
    };
    let trouble = trouble_of(limbo("Running", Some("n7"))).unwrap();
    assert_eq!(trouble.kind, TroubleKind::Leaving);
    assert_eq!(trouble.message, "pod p is being taken from node n7 (NoExecute) and has not ended");
    // It has ended, or never came to a node: nothing is waited for.
    assert_eq!(trouble_of(limbo("Failed", Some("n7"))), None);
    assert_eq!(trouble_of(limbo("Pending", None)), None);
}

#[test]
fn a_failed_job_tells_what_the_node_said_of_its_pod() {
    let evicted: Pod = serde_json::from_value(json!({"status": {
        "phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."}}))
    .unwrap();
    let killed = pod(&json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}}));
    let plain = pod(&json!({"terminated": {"exitCode": 75, "reason": "Error"}}));
    for (pod, reason) in [
        (evicted, "PodFailurePolicy; Evicted: The node was low on resource: memory."),
        (killed, "PodFailurePolicy; OOMKilled"),
        (plain, "PodFailurePolicy"),
    ] {
        let JobState::Failed(failure) = classify(&failed(), OWNER, with_pods(&[pod])) else { panic!("not failed") };
        assert_eq!(failure.reason, reason);
    }
}

#[test]
fn the_attempt_of_a_job_is_read_from_its_label_and_only_for_its_owner() {
    let mut job = job(&json!({}));
    assert_eq!(attempt_of(&job, OWNER), 0);
    job.metadata.labels = Some([("godwit.dev/attempt".to_owned(), "41".to_owned())].into());
    assert_eq!((attempt_of(&job, OWNER), attempt_of(&job, "uid-other")), (41, 0));
}

#[test]
fn an_unscheduled_pod_and_a_refused_pod_are_trouble_with_scheduling() {
    let unscheduled: Pod = serde_json::from_value(json!({"status": {"conditions": [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes are available"},
    ]}}))
    .unwrap();
    let pods = [unscheduled];
    let state = classify(&job(&json!({})), OWNER, with_pods(&pods));
    let JobState::Running { trouble: Some(trouble), .. } = state else {
        panic!("no trouble");
    };
    assert_eq!(trouble.kind, TroubleKind::Scheduling);
    assert!(trouble.message.contains("0/3 nodes"));

    let evidence = Evidence { complaint: Some("FailedCreate: exceeded quota: small"), ..Evidence::default() };
    let JobState::Running { trouble: Some(trouble), .. } = classify(&job(&json!({})), OWNER, evidence) else {
        panic!("no trouble");
    };
    assert_eq!(trouble.kind, TroubleKind::Scheduling);
    assert!(trouble.message.contains("exceeded quota"));
}
