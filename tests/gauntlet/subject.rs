//! The stories that are played: a migration of three cohorts, what its pods answer, and what people do meanwhile.
//! Used by `run.rs`. People act past the proxy: only the operator's requests are disturbed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use godwit::api::{Approval, Cohort, Migration};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::board::{Board, runs_step, step};
use crate::ground::{migration_spec, of};
use crate::kubelet::Script;
use crate::plan::{Pods, Subject};
use crate::proxy::Proxy;
use crate::stage::Stage;

/// What the gate of one story looks at.
const APP: &str = "app";
const COHORTS: [&str; 3] = ["canary", "early", "rest"];
/// An operator that has written nothing for so long will not go on: refused for the fourth time it waits 288 s. Writes, not
/// time, are what a busy machine does not change.
const SILENCE: Duration = Duration::from_secs(400);
/// Several times what any story needs.
const ENDLESS: usize = 800;
/// Text of the commands; fixed, so that all runs record the same.
const ASKED_AT: &str = "2026-03-01T10:00:00Z";

pub struct Story {
    subject: Subject,
    pods: Pods,
    namespace: String,
    client: Client,
    board: Board,
    proxy: Arc<Proxy>,
    /// The validation that failed passes from now on.
    repaired: AtomicBool,
}

impl Story {
    pub fn new(subject: Subject, pods: Pods, stage: &Stage, proxy: &Arc<Proxy>, namespace: &str) -> Arc<Self> {
        Arc::new(Self {
            subject,
            pods,
            namespace: namespace.to_owned(),
            client: stage.client.clone(),
            board: stage.board.clone(),
            proxy: Arc::clone(proxy),
            repaired: AtomicBool::new(false),
        })
    }

    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// `checks` is the address of the server that answers the check of the trigger.
    pub async fn create(&self, checks: &str) {
        let mut spec = migration_spec();
        match self.subject {
            Subject::HappyPath => spec["approvals"] = json!([{"before": "Cutover", "required": 1}]),
            Subject::TriggerAfterCutover => {
                let url = format!("http://{checks}/links/{}", self.namespace);
                spec["checks"] = json!([{"name": "links", "http": {"url": url, "pointer": "/broken"},
                    "passWhen": "value < 1.0", "interval": "1s"}]);
                spec["triggers"] = json!([{"check": "links", "category": "DataLoss", "action": "RollbackCohort"}]);
            }
            Subject::FailedValidation => {
                let pod = json!({"apiVersion": "v1", "kind": "Pod", "name": APP, "type": "Ready"});
                spec["checks"] = json!([{"name": "app", "condition": pod, "interval": "2s"}]);
                spec["gates"] = json!([{"check": "app", "before": ["Copy"]}]);
                self.create_app().await;
            }
            Subject::MigrationRollback => {}
        }
        let migration: Migration = of(json!({"apiVersion": "godwit.dev/v1alpha1", "kind": "Migration",
            "metadata": {"name": "crm"}, "spec": spec}));
        self.api().create(&PostParams::default(), &migration).await.unwrap();
        let selects = [json!({"percent": 1}), json!({"percent": 20}), json!({"remainder": {}})];
        for (wave, (name, select)) in COHORTS.into_iter().zip(selects).enumerate() {
            let mut spec = json!({"migrationRef": {"name": "crm"}, "wave": wave + 1, "select": select});
            if self.subject == Subject::TriggerAfterCutover && name == "early" {
                spec["soak"] = json!("1h");
            }
            let cohort: Cohort = of(json!({"apiVersion": "godwit.dev/v1alpha1", "kind": "Cohort",
                "metadata": {"name": name}, "spec": spec}));
            self.api().create(&PostParams::default(), &cohort).await.unwrap();
        }
    }

    /// Does what people do in this story and returns at its end.
    pub async fn play(&self) -> Result<(), String> {
        match self.subject {
            Subject::HappyPath => {
                for cohort in COHORTS {
                    self.until(&format!("{cohort} asks for an approval"), |story| story.asks(cohort)).await?;
                    self.approve(cohort).await;
                }
                self.until_completed().await
            }
            Subject::FailedValidation => {
                self.until("canary waits for its gate", |story| story.measured("canary", "app")).await?;
                self.app_is("True").await;
                self.until("early is rolled back", |story| step(&story.status("early")) == "RolledBack").await?;
                self.repaired.store(true, Ordering::SeqCst);
                self.annotate::<Cohort>("early", "retry").await;
                self.until_completed().await
            }
            Subject::TriggerAfterCutover => {
                self.until("early is rolled back", |story| step(&story.status("early")) == "RolledBack").await?;
                self.until("canary is done", |story| step(&story.status("canary")) == "Done").await
            }
            Subject::MigrationRollback => {
                self.until("rest is copied", |story| runs_step(&story.status("rest"), "Copy")).await?;
                let suspend = Patch::Merge(json!({"spec": {"suspend": true}}));
                self.api::<Migration>().patch("crm", &PatchParams::default(), &suspend).await.unwrap();
                self.annotate::<Migration>("crm", "rollback").await;
                self.until("crm is rolled back", |story| step(&story.status("crm")) == "RolledBack").await
            }
        }
    }

    fn status(&self, name: &str) -> Value {
        self.board.status(&self.namespace, name)
    }

    async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) -> Result<(), String> {
        let traffic = &self.proxy.traffic;
        while traffic.quiet_for() < SILENCE && traffic.sent().len() < ENDLESS {
            if self.board.until(Duration::from_secs(5), |_| holds(self)).await {
                return Ok(());
            }
        }
        let now: Vec<String> = ["crm", "canary", "early", "rest"]
            .iter()
            .map(|name| {
                let status = self.status(name);
                let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
                let why = conditions.into_iter().find(|one| one["type"] == "Progressing").unwrap_or_default();
                format!("{name} at {}: {}", step(&status), why["message"])
            })
            .collect();
        Err(format!("never came true: {what}; {}", now.join("; ")))
    }

    async fn until_completed(&self) -> Result<(), String> {
        self.until("crm is completed", |story| step(&story.status("crm")) == "Completed").await?;
        self.until("all cohorts are done", |story| COHORTS.iter().all(|name| step(&story.status(name)) == "Done")).await
    }

    fn measured(&self, cohort: &str, check: &str) -> bool {
        let status = self.status(cohort);
        let checks = status["checks"].as_array().cloned().unwrap_or_default();
        checks.iter().any(|one| one["name"] == check && !one["measurements"].is_null())
    }

    /// A pod of the application; nothing runs it, so its conditions are what is written here.
    async fn create_app(&self) {
        let container = json!({"name": "app", "image": "app:test"});
        let pod: Pod = of(json!({"metadata": {"name": APP}, "spec": {"containers": [container]}}));
        // The namespace's service account is made a moment after the namespace.
        for _ in 0..100 {
            match self.api::<Pod>().create(&PostParams::default(), &pod).await {
                Err(kube::Error::Api(refused)) if refused.code == 403 => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                created => {
                    created.unwrap();
                    break;
                }
            }
        }
        self.app_is("False").await;
    }

    async fn app_is(&self, ready: &str) {
        let status = json!({"status": {"conditions": [{"type": "Ready", "status": ready}]}});
        self.api::<Pod>().patch_status(APP, &PatchParams::default(), &Patch::Merge(&status)).await.unwrap();
    }

    fn asks(&self, cohort: &str) -> bool {
        let status = self.status(cohort);
        step(&status) == "Cutover" && status["step"]["job"].is_null() && status["plan"]["digest"].is_string()
    }

    async fn approve(&self, cohort: &str) {
        let digest = self.status(cohort)["plan"]["digest"].clone();
        let approval: Approval = of(json!({"apiVersion": "godwit.dev/v1alpha1", "kind": "Approval",
            "metadata": {"name": format!("cutover-{cohort}")},
            "spec": {"subject": {"kind": "Cohort", "name": cohort}, "before": "Cutover", "digest": digest,
                "decision": "Approve", "by": "alice"}}));
        self.api().create(&PostParams::default(), &approval).await.unwrap();
    }

    async fn annotate<K>(&self, name: &str, verb: &str)
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + serde::de::DeserializeOwned
            + std::fmt::Debug,
    {
        let patch = json!({"metadata": {"annotations": {format!("godwit.dev/{verb}-requested-at"): ASKED_AT}}});
        self.api::<K>().patch_metadata(name, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    }
}

impl Script for Story {
    fn end(&self, cohort: &str, step: &str) -> Option<(i32, Value)> {
        let fails = self.subject == Subject::FailedValidation && !self.repaired.load(Ordering::SeqCst);
        (fails && cohort == "early" && step == "validate").then(|| {
            let finding = json!({"severity": "Blocker", "code": "RowsDiffer", "object": "public.deal",
                "message": "14 rows differ"});
            (65, json!({"v": 1, "result": "fail", "findings": [finding]}))
        })
    }

    fn holds(&self, cohort: &str, step: &str) -> bool {
        self.subject == Subject::MigrationRollback && cohort == "rest" && step == "copy"
    }

    fn pods(&self) -> Pods {
        self.pods
    }
}

/// Answers the trigger's check: links break as soon as the second cohort was cut over.
pub async fn serve_checks(client: Client) -> String {
    use axum::extract::{Path, State};
    let answer = async |State(client): State<Client>, Path(namespace): Path<String>| {
        let cohorts: Api<Cohort> = Api::namespaced(client, &namespace);
        let early = cohorts.get("early").await.ok().and_then(|early| early.status);
        let soaks = early.and_then(|status| status.step).is_some_and(|step| step.name == "Soak");
        axum::Json(json!({"broken": i32::from(soaks)}))
    };
    let router = axum::Router::new().route("/links/{namespace}", axum::routing::get(answer)).with_state(client);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}
