//! The stories that are played: a migration of three cohorts, what its pods answer, and what people do meanwhile.
//! Used by `run.rs`. People act past the proxy: only the operator's requests are disturbed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use godwit::api::{Approval, Cohort, Migration};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::board::{Board, runs_step, step};
use crate::ground::{migration_spec, of};
use crate::kubelet::Script;
use crate::plan::{Pods, Subject};

const COHORTS: [&str; 3] = ["canary", "early", "rest"];
/// Longer than any fault lasts; a refusal alone may cost the operator 72 s.
const LIMIT: Duration = Duration::from_secs(300);
/// Text of the commands; fixed, so that all runs record the same.
const ASKED_AT: &str = "2026-03-01T10:00:00Z";

pub struct Story {
    subject: Subject,
    pods: Pods,
    namespace: String,
    client: Client,
    board: Board,
    /// The validation that failed passes from now on.
    repaired: AtomicBool,
}

impl Story {
    pub fn new(subject: Subject, pods: Pods, namespace: &str, client: &Client, board: &Board) -> Arc<Self> {
        let (namespace, client, board) = (namespace.to_owned(), client.clone(), board.clone());
        Arc::new(Self { subject, pods, namespace, client, board, repaired: AtomicBool::new(false) })
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
            Subject::FailedValidation | Subject::MigrationRollback => {}
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
        if self.board.until(LIMIT, |_| holds(self)).await {
            return Ok(());
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
