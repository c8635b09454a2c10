//! What people see: `kubectl get` with its columns, names and selectors, and `kubectl explain`.

use serde_json::json;

use crate::case::{merged, store};
use crate::server::Server;
use crate::{approval, cohort, migration};

/// The cells of a line, which kubectl sets apart by three blanks.
fn cells(line: &str) -> Vec<&str> {
    line.split("   ").map(str::trim).filter(|cell| !cell.is_empty()).collect()
}

/// Heads and the one row of a table.
fn table(server: &Server, args: &[&str]) -> Vec<(String, String)> {
    let text = server.kubectl(&[&["get", "-n", "reading"], args].concat());
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    let (heads, row) = (cells(lines[0]), cells(lines[1]));
    assert_eq!(heads.len(), row.len(), "{text}");
    heads.into_iter().map(str::to_owned).zip(row.into_iter().map(str::to_owned)).collect()
}

async fn fill(server: &Server) {
    let condition = |kind: &str, status: &str, reason: &str, message: &str| json!({"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": "2026-01-02T03:04:05Z"});
    let conditions = json!([
        condition("Ready", "True", "Accepted", "Fine."),
        condition("Progressing", "False", "Soaking", "Until noon."),
    ]);
    let progress = json!({
        "unit": "rows", "total": 100, "completed": 63,
        "estimatedCompletionTime": "2126-01-02T03:04:05Z", "updateTime": "2026-01-02T03:04:05Z",
    });
    let step = |name: &str| json!({"name": name, "startTime": "2026-01-02T03:04:05Z"});
    let moving = json!({"status": {
        "observedGeneration": 1, "phase": "Moving", "cohortSummary": "3/12", "progressSummary": "63%",
        "conditions": conditions, "step": step("Move"), "progress": progress,
    }});
    let soaking = json!({"spec": {"wave": 4}, "status": {
        "observedGeneration": 1, "phase": "Soaking", "progressSummary": "64%", "owner": "Target",
        "conditions": conditions, "step": step("Soak"), "progress": progress,
    }});
    let api = server.api("Migration", "reading").await;
    store(&api, merged(&migration::valid(), &moving)).await;
    let suspended = json!({"metadata": {"name": "erp"}, "spec": {"suspend": true}});
    store(&api, merged(&migration::valid(), &suspended)).await;
    let api = server.api("Cohort", "reading").await;
    store(&api, merged(&cohort::valid(), &soaking)).await;
    let other = json!({"metadata": {"name": "other"}, "spec": {"migrationRef": {"name": "erp"}}});
    store(&api, merged(&cohort::valid(), &other)).await;
    let api = server.api("Approval", "reading").await;
    store(&api, approval::valid()).await;
}

fn assert_row(server: &Server, args: &[&str], wanted: &[(&str, &str)]) {
    let row = table(server, args);
    let shown: Vec<_> = row.iter().map(|(head, cell)| (head.as_str(), cell.as_str())).collect();
    let (age, rest) = shown.split_last().unwrap();
    assert_eq!(rest, wanted, "{args:?}");
    assert_eq!(age.0, "AGE");
    assert!(age.1.ends_with(['s', 'm']), "{age:?}");
}

#[tokio::test]
async fn kubectl_shows_each_column_finds_each_name_and_selects_by_each_field() {
    let server = Server::shared();
    fill(&server).await;
    let moving = [("NAME", "crm"), ("PHASE", "Moving"), ("COHORTS", "3/12"), ("PROGRESS", "63%"), ("READY", "True")];
    assert_row(&server, &["gmig", "crm"], &moving);
    let details = [
        ("SOURCE", "crm-source"),
        ("TARGET", "crm-target"),
        ("STEP", "Move"),
        ("REASON", "Soaking"),
        ("MESSAGE", "Until noon."),
        ("ETA", "2126-01-02T03:04:05Z"),
    ];
    assert_row(&server, &["migrations.godwit.dev", "crm", "-o", "wide"], &[&moving[..], &details].concat());
    let soaking = [("NAME", "canary"), ("PHASE", "Soaking"), ("WAVE", "4"), ("PROGRESS", "64%"), ("READY", "True")];
    assert_row(&server, &["gco", "canary"], &soaking);
    let details = [
        ("MIGRATION", "crm"),
        ("OWNER", "Target"),
        ("STEP", "Soak"),
        ("REASON", "Soaking"),
        ("MESSAGE", "Until noon."),
        ("ETA", "2126-01-02T03:04:05Z"),
    ];
    assert_row(&server, &["cohorts.godwit.dev", "canary", "-o", "wide"], &[&soaking[..], &details].concat());
    let approved = [
        ("NAME", "canary-cutover"),
        ("KIND", "Cohort"),
        ("SUBJECT", "canary"),
        ("BEFORE", "Cutover"),
        ("DECISION", "Approve"),
        ("BY", "alice"),
    ];
    assert_row(&server, &["gapp"], &approved);

    let names = |args: &[&str]| server.kubectl(&[&["get", "-n", "reading", "-o", "name"], args].concat());
    let all = names(&["godwit"]);
    for name in ["migration.godwit.dev/crm", "cohort.godwit.dev/canary", "approval.godwit.dev/canary-cutover"] {
        assert!(all.contains(name), "{all}");
    }
    for (kind, selector, name) in [
        ("gmig", "status.phase=Moving", "migration.godwit.dev/crm\n"),
        ("gmig", "spec.suspend=true", "migration.godwit.dev/erp\n"),
        ("gco", "spec.migrationRef.name=erp", "cohort.godwit.dev/other\n"),
        ("gco", "status.phase=Soaking", "cohort.godwit.dev/canary\n"),
        ("gapp", "spec.subject.name=canary", "approval.godwit.dev/canary-cutover\n"),
        ("gapp", "spec.subject.name=other", ""),
    ] {
        assert_eq!(names(&[kind, "--field-selector", selector]), name, "{selector}");
    }
}

#[test]
fn kubectl_explains_a_field_with_its_default_and_its_choices() {
    let server = Server::shared();
    let told = server.kubectl(&["explain", "migrations.spec.rollout.onFailure", "--api-version=godwit.dev/v1alpha1"]);
    let words = told.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("Revert (default: what was copied is removed) or Hold"), "{told}");
    let told = server.kubectl(&["explain", "cohorts.spec", "--api-version=godwit.dev/v1alpha1"]);
    assert!(told.contains("migrationRef") && told.contains("-required-") && told.contains("Immutable."), "{told}");
}
