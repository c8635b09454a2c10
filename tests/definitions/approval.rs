//! The rules and bounds of an Approval.

use serde_json::{Value, json};

use crate::case::{Case, accepted, assert_all, refused, ruled_out};

/// The smallest Approval that is accepted.
pub fn valid() -> Value {
    json!({
        "apiVersion": "godwit.dev/v1alpha1",
        "kind": "Approval",
        "metadata": {"name": "canary-cutover"},
        "spec": {
            "subject": {"kind": "Cohort", "name": "canary"},
            "before": "Cutover",
            "digest": format!("sha256:{}", "0a".repeat(32)),
            "decision": "Approve",
            "by": "alice",
        },
    })
}

fn spec(change: Value) -> Value {
    json!({"spec": change})
}

fn contents() -> Vec<Case> {
    vec![
        accepted("a cutover of a cohort", json!({})),
        accepted("the end of a migration", spec(json!({"subject": {"kind": "Migration"}, "before": "Finalize"}))),
        ruled_out(
            "a cutover of a migration",
            spec(json!({"subject": {"kind": "Migration"}})),
            ["spec.before", "FieldValueInvalid", "before Cutover belongs to a Cohort, not to a Migration"],
        ),
        ruled_out(
            "the end of a cohort",
            spec(json!({"before": "Finalize"})),
            ["spec.before", "FieldValueInvalid", "before Finalize belongs to a Migration, not to a Cohort"],
        ),
        refused(
            "a digest that is cut off",
            spec(json!({"digest": "sha256:0a"})),
            "spec.digest",
            "should be at least 71",
        ),
        refused(
            "a digest in capitals",
            spec(json!({"digest": format!("sha256:{}", "0A".repeat(32))})),
            "spec.digest",
            "should match",
        ),
        refused("a step that nobody approves", spec(json!({"before": "Copy"})), "spec.before", "supported values"),
        refused("neither yes nor no", spec(json!({"decision": "Perhaps"})), "spec.decision", "supported values"),
        refused("a decision of nobody", spec(json!({"by": ""})), "spec.by", "at least 1 chars long"),
        accepted("a reason of 1024 characters", spec(json!({"comment": "c".repeat(1024)}))),
        refused(
            "a reason of 1025 characters",
            spec(json!({"comment": "c".repeat(1025)})),
            "spec.comment",
            "may not be more than 1024",
        ),
    ]
}

fn transitions() -> Vec<Case> {
    let told = ["spec", "FieldValueForbidden", "an Approval is immutable: delete it and create another"];
    vec![
        accepted("a label", json!({"metadata": {"labels": {"team": "crm"}}})).on(json!({})),
        ruled_out("another decision", spec(json!({"decision": "Reject"})), told).on(json!({})),
        ruled_out("another approver", spec(json!({"by": "bob"})), told).on(json!({})),
        ruled_out("a late reason", spec(json!({"comment": "because"})), told).on(json!({})),
    ]
}

pub fn every_case() -> Vec<Case> {
    [contents(), transitions()].into_iter().flatten().collect()
}

#[tokio::test]
async fn an_approval_is_of_a_step_that_its_subject_has_and_of_a_whole_digest() {
    assert_all(&valid(), "approval-contents", contents()).await;
}

#[tokio::test]
async fn an_approval_is_immutable() {
    assert_all(&valid(), "approval-transitions", transitions()).await;
}
