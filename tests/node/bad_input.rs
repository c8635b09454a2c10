//! Bad input on a real node: what containerd, the kubelet, the cluster's name service and the servers themselves say when something is
//! missing, refused or taken away. Each story names the reason, mends it as the condition says, and sees the migration go on.
//! Called by the node tier between its two demos, on the first one's cluster and servers.

use std::path::Path;

use futures::future::join_all;
use godwit::api::{Cohort, Migration};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{DeleteParams, EvictParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::wait::await_condition;
use serde_json::json;

use crate::conditions::{condition, holds_for, is_completed, message, stalled_for};
use crate::shop::{CUSTOMERS, LIMIT, MUTE_URI, Shop, Street};

/// Told all at once: each has databases and objects of its own.
pub fn tell(kubeconfig: &Path) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be built");
    runtime.block_on(async {
        let names = ["no-secret", "no-key", "no-claim", "wrong-password", "no-server", "no-tls", "taken-away"];
        let (street, shops) = Street::open(kubeconfig, &names).await;
        join_all(shops.iter().map(|shop| Box::pin(story(shop)))).await;
        street.close().await;
    });
}

async fn story(shop: &Shop) {
    match shop.name {
        "no-secret" => a_missing_secret(shop).await,
        "no-key" => a_missing_key(shop).await,
        "no-claim" => a_missing_claim(shop).await,
        "wrong-password" => a_wrong_password(shop).await,
        "no-server" => a_server_that_is_not_there(shop).await,
        "no-tls" => tls_that_is_not_there(shop).await,
        _ => Box::pin(taken_away(shop)).await,
    }
    eprintln!("bad input: {} was named, mended, and went on", shop.name);
}

async fn a_missing_secret(shop: &Shop) {
    shop.has_claim().await;
    shop.has_target().await;
    shop.migrates(|_| {}).await;
    shop.until(
        "stalled",
        stalled_for("SecretNotFound", &["secret \"no-secret-source\"", "key uri", "Create that Secret"]),
    )
    .await;
    shop.has_source(json!({"uri": shop.source()})).await;
    goes_on(shop, "by itself").await;
}

async fn a_missing_key(shop: &Shop) {
    shop.migrates_with_source(json!({"url": shop.source()})).await;
    shop.until("stalled", stalled_for("SecretNotFound", &["key uri in Secret shops/no-key-source"])).await;
    shop.has_source(json!({"uri": shop.source()})).await;
    goes_on(shop, "by itself").await;
}

async fn a_missing_claim(shop: &Shop) {
    shop.has_target().await;
    shop.has_source(json!({"uri": shop.source()})).await;
    shop.migrates(|_| {}).await;
    shop.until("held", holds_for("JobNotStarted", &["persistentvolumeclaim \"no-claim\" not found"])).await;
    shop.has_claim().await;
    goes_on(shop, "by itself").await;
}

async fn a_wrong_password(shop: &Shop) {
    shop.migrates_with_source(json!({"uri": shop.source_of_a_stranger()})).await;
    let told = shop.until("stalled", stalled_for("NotPermitted", &["source", "password"])).await;
    assert!(!message(&told, "Stalled").contains("mistaken"), "what a Secret holds is shown to nobody");
    assert_eq!(attempts(&told), 1, "a refused login is not tried again: it could lock the user out");
    shop.has_source(json!({"uri": shop.source()})).await;
    shop.retry().await;
    goes_on(shop, "on retry").await;
}

async fn a_server_that_is_not_there(shop: &Shop) {
    shop.migrates_with_source(json!({"uri": shop.source().replace("crm-old", "crm-older")})).await;
    let named = |migration: &Migration| {
        condition(migration, "Progressing") == Some(("True", "RetryScheduled"))
            && ["source", "check host and port of the URI in its Secret"]
                .iter()
                .all(|it| message(migration, "Progressing").contains(it))
    };
    shop.until("retrying", named).await;
    shop.has_source(json!({"uri": shop.source()})).await;
    goes_on(shop, "with its next attempt").await;
}

async fn tls_that_is_not_there(shop: &Shop) {
    shop.migrates_with_source(json!({"uri": format!("{}?sslmode=require", shop.source())})).await;
    shop.until("stalled", stalled_for("Misconfigured", &["source", "TLS"])).await;
    shop.has_source(json!({"uri": shop.source()})).await;
    shop.retry().await;
    goes_on(shop, "on retry").await;
}

/// Until the backup is proven and the target prepared: only cohorts are wanted then.
async fn goes_on(shop: &Shop, how: &str) {
    shop.until(&format!("prepared, {how}"), holds_for("CohortsRequired", &[])).await;
}

/// A Job whose pod is suspended, evicted, and which is deleted; then a check whose image nobody has. At the end everybody has moved.
async fn taken_away(shop: &Shop) {
    shop.has_mute_server().await;
    shop.has_claim().await;
    shop.has_target().await;
    shop.has_source(json!({"uri": MUTE_URI})).await;
    shop.migrates(|spec| {
        spec["checks"] = json!([{"name": "ask", "job": {"image": "registry.invalid/ask:1"}, "passWhen": "value == 1.0", "interval": "1s"}]);
        spec["gates"] = json!([{"check": "ask", "before": ["Copy"]}]);
    })
    .await;
    suspended_evicted_and_deleted(shop).await;
    let cohort = json!({"apiVersion": "godwit.dev/v1alpha1", "kind": "Cohort", "metadata": {"name": "all"},
        "spec": {"migrationRef": {"name": shop.name}, "select": {"remainder": {}}}});
    let cohort: Cohort = serde_json::from_value(cohort).expect("the cohort is well formed");
    shop.api().create(&PostParams::default(), &cohort).await.expect("the cohort can be created");
    let named = |cohort: Option<&Cohort>| {
        let conditions = cohort.and_then(|cohort| cohort.status.as_ref()).map(|status| &status.conditions);
        conditions.into_iter().flatten().any(|one| {
            one.type_ == "Progressing"
                && one.reason == "GateInconclusive"
                && ["image", "registry.invalid/ask:1", "cannot be pulled"].iter().all(|word| one.message.contains(word))
        })
    };
    let held = tokio::time::timeout(LIMIT, await_condition(shop.api(), "all", named)).await;
    assert!(held.is_ok(), "{:#?}", shop.api::<Cohort>().get("all").await.expect("it is there").status);

    let answer = "printf '{\"v\":1,\"result\":\"pass\",\"values\":[1]}' > /dev/termination-log";
    let ask = json!({"name": "ask", "job": {"image": "godwit-base:dev", "command": ["sh", "-c", answer]}, "passWhen": "value == 1.0", "interval": "1s"});
    shop.change(json!({"spec": {"checks": [ask]}})).await;
    let completed = shop.until("completed", is_completed).await;
    let cohort: Cohort = shop.api().get("all").await.expect("the cohort is there");
    assert_eq!(cohort.status.and_then(|status| status.customers), Some(CUSTOMERS));
    assert_eq!(attempts(&completed), 6, "five steps, of which the first was begun twice");
}

async fn suspended_evicted_and_deleted(shop: &Shop) {
    let first = running_pod(shop, "").await;
    let job = first.labels()["job-name"].clone();
    let jobs = shop.api::<Job>();
    let suspend = |how: bool| Patch::Merge(json!({"spec": {"suspend": how}}));
    jobs.patch(&job, &PatchParams::default(), &suspend(true)).await.expect("a Job can be suspended");
    let told = shop.until("suspended", holds_for("JobSuspended", &["is suspended", "kubectl patch job"])).await;
    assert!(message(&told, "Progressing").contains(&job));
    jobs.patch(&job, &PatchParams::default(), &suspend(false)).await.expect("a Job can be resumed");

    let second = running_pod(shop, &first.name_any()).await.name_any();
    shop.api::<Pod>().evict(&second, &EvictParams::default()).await.expect("a pod can be evicted");
    running_pod(shop, &second).await;
    assert_eq!(attempts(&shop.migration().await), 1, "an attempt outlives its pods");

    // The next attempt finds the server as it should be.
    shop.has_source(json!({"uri": shop.source()})).await;
    jobs.delete(&job, &DeleteParams::background()).await.expect("a Job can be deleted");
    let vanished = |migration: &Migration| message(migration, "Progressing").contains("vanished");
    let told = shop.until("retrying", vanished).await;
    assert!(message(&told, "Progressing").contains(&job));
}

/// The story's pod that runs and is not on its way out, another than that one.
async fn running_pod(shop: &Shop, but: &str) -> Pod {
    let labels = format!("godwit.dev/migration={}", shop.name);
    let pods = shop.api::<Pod>();
    let found = async {
        loop {
            let listed = pods.list(&ListParams::default().labels(&labels)).await.expect("pods can be listed");
            let runs = |pod: &Pod| {
                let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
                phase == Some("Running") && pod.metadata.deletion_timestamp.is_none() && pod.name_any() != but
            };
            if let Some(pod) = listed.items.into_iter().find(runs) {
                return pod;
            }
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(LIMIT, found).await.expect("a pod runs")
}

fn attempts(migration: &Migration) -> i64 {
    migration.status.as_ref().map_or(0, |status| status.attempts)
}
