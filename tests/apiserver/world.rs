//! One test's world: a namespace of its own, the administrator's client, operators that can be stopped or killed.
//! Every wait is for a condition, with a limit that says what was waited for.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::FutureExt;
use godwit::api::{Cohort, Migration};
use godwit::build::PodSettings;
use godwit::controller::{self, Connection, LeaseSettings, Settings};
use godwit::metrics::Metrics;
use godwit::readiness::Readiness;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::client::ClientBuilder;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::wait::await_condition;
use kube::{Api, Client, Config, ResourceExt};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

use crate::cluster::Cluster;
pub use crate::conditions::{condition, holds_for, is_completed, message, stalled_for};
use crate::gate::{Death, Gate};
pub use crate::ground::of;
use crate::ground::{LIMIT, install_definitions, migration_spec};
use crate::kubelet::Kubelet;
use crate::line::Line;

pub struct World {
    config: Config,
    pub client: Client,
    pub namespace: String,
    pub kubelet: Kubelet,
    // Last: the cluster goes when everything that talks to it has gone.
    _cluster: Arc<Cluster>,
}

/// Runs a test in a namespace of its own.
pub fn run(test: impl AsyncFnOnce(&World)) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    // Shown with a failing test, when RUST_LOG asks for it.
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
    let cluster = Cluster::shared();
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        let world = World::new(cluster).await;
        test(&world).await;
    });
    runtime.shutdown_background();
}

impl World {
    async fn new(cluster: Arc<Cluster>) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let namespace = format!("t{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let kubeconfig = Kubeconfig::read_from(&cluster.kubeconfig).unwrap();
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
        let client = Client::try_from(config.clone()).unwrap();
        install_definitions(&client).await;
        let object: Namespace = of(json!({"metadata": {"name": namespace}}));
        Api::all(client.clone()).create(&PostParams::default(), &object).await.unwrap();
        let kubelet = Kubelet::start(&client, &namespace);
        Self { config, client, namespace, kubelet, _cluster: cluster }
    }

    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub async fn create_migration(&self, name: &str, change: impl FnOnce(&mut Value)) -> Migration {
        let mut spec = migration_spec();
        change(&mut spec);
        let object: Migration = of(
            json!({"apiVersion": "godwit.dev/v1alpha1", "kind": "Migration", "metadata": {"name": name}, "spec": spec}),
        );
        self.api().create(&PostParams::default(), &object).await.unwrap()
    }

    pub async fn create_cohort(&self, name: &str, migration: &str) -> Cohort {
        let object: Cohort = of(json!({
            "apiVersion": "godwit.dev/v1alpha1", "kind": "Cohort", "metadata": {"name": name},
            "spec": {"migrationRef": {"name": migration}, "select": {"remainder": {}}},
        }));
        self.api().create(&PostParams::default(), &object).await.unwrap()
    }

    pub async fn migration(&self, name: &str) -> Migration {
        self.api().get(name).await.unwrap()
    }

    pub async fn annotate(&self, migration: &str, key: &str, value: &str) {
        annotate(&self.client, &self.namespace, migration, key, value).await;
    }

    fn settings(&self, identity: &str, lease: Duration) -> Settings {
        Settings {
            namespaces: vec![self.namespace.clone()],
            concurrency: 4,
            pods: PodSettings { image: "godwit:test".into(), user_id: Some(65532), ..PodSettings::default() },
            lease: LeaseSettings {
                duration: lease,
                renew_deadline: lease * 4 / 5,
                retry: Duration::from_millis(200),
                ..LeaseSettings::new("default".into(), self.namespace.clone(), identity.into())
            },
            listen: "127.0.0.1:0".parse().unwrap(),
            instance: identity.into(),
            checks_may_reach_loopback: true,
        }
    }

    pub fn operator(&self) -> Operator {
        self.operator_behind("godwit-1", Gate::new(Death::Never))
    }

    /// An operator whose lease outlasts a busy machine's pauses: only the tests of the lease itself want a short one.
    pub fn operator_behind(&self, identity: &str, gate: Gate) -> Operator {
        self.operator_with_lease(identity, gate, Duration::from_secs(60))
    }

    pub fn operator_with_lease(&self, identity: &str, gate: Gate, lease: Duration) -> Operator {
        self.operator_with(self.config.clone(), identity, gate, lease)
    }

    /// An operator that reaches the API server over a line of the test's own.
    pub fn operator_over(&self, line: &Line, identity: &str, lease: Duration) -> Operator {
        let mut config = self.config.clone();
        config.cluster_url = format!("https://127.0.0.1:{}", line.port).parse().unwrap();
        self.operator_with(config, identity, Gate::new(Death::Never), lease)
    }

    /// The API server's port.
    pub fn port(&self) -> u16 {
        self.config.cluster_url.port_u16().unwrap()
    }

    fn operator_with(&self, mut config: Config, identity: &str, gate: Gate, lease: Duration) -> Operator {
        config.default_retry = false;
        let settings = self.settings(identity, lease);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let layer = gate.clone();
        let task = runtime.spawn(async move {
            let client = ClientBuilder::try_from(config).unwrap().with_layer(&layer).build();
            let stop = stopped.map(|_| ()).boxed().shared();
            let (metrics, readiness) = (Arc::new(Metrics::default()), Arc::new(Readiness::default()));
            let connection = Connection { client, mandate: Arc::default() };
            controller::run(connection, settings, metrics, readiness, stop).await
        });
        Operator { gate, runtime: Some(runtime), stop: Some(stop), task: Some(task) }
    }

    /// Waits until the Migration satisfies `wanted`.
    pub async fn until_migration(
        &self,
        name: &str,
        what: &str,
        wanted: impl Fn(&Migration) -> bool + Clone,
    ) -> Migration {
        let wanted = move |object: Option<&Migration>| object.is_some_and(&wanted);
        let found = tokio::time::timeout(LIMIT, await_condition(self.api(), name, wanted)).await;
        match found {
            Ok(found) => found.unwrap().unwrap(),
            Err(_) => panic!("{name} never became {what}: {:#?}", self.migration(name).await.status),
        }
    }

    pub async fn until_cohort(&self, name: &str, what: &str, wanted: impl Fn(&Cohort) -> bool + Clone) -> Cohort {
        let wanted = move |object: Option<&Cohort>| object.is_some_and(&wanted);
        let found = tokio::time::timeout(LIMIT, await_condition(self.api(), name, wanted)).await;
        found.unwrap_or_else(|_| panic!("{name} never became {what}")).unwrap().unwrap()
    }

    pub async fn jobs(&self) -> BTreeSet<String> {
        let jobs = self.api::<Job>().list(&ListParams::default()).await.unwrap();
        jobs.iter().map(ResourceExt::name_any).collect()
    }

    /// What two runs of the same story must agree on; uids and times differ.
    pub async fn facts(&self, migration: &str, cohort: &str) -> Value {
        let migration = self.migration(migration).await.status.unwrap();
        let cohort = self.api::<Cohort>().get(cohort).await.unwrap().status.unwrap();
        let steps = |history: &[godwit::api::status::HistoryEntry]| -> Vec<String> {
            history.iter().map(|entry| entry.step.clone()).collect()
        };
        let evidence = |evidence: &[godwit::api::status::Evidence]| -> Vec<String> {
            evidence.iter().map(|one| one.name.clone()).collect()
        };
        json!({
            "migration": {"phase": migration.phase, "attempts": migration.attempts,
                "steps": steps(&migration.history), "evidence": evidence(&migration.evidence)},
            "cohort": {"phase": cohort.phase, "attempts": cohort.attempts, "owner": cohort.owner,
                "epoch": cohort.epoch, "steps": steps(&cohort.history), "evidence": evidence(&cohort.evidence)},
            "jobs": self.jobs().await.len(),
        })
    }

    /// A killed operator does not give its lease up; the tests need not wait for it.
    pub async fn clear_lease(&self) {
        let _ = self.leases().delete(&self.namespace, &DeleteParams::default()).await;
    }

    /// The lease of this test's operators bears the namespace's name; it stands elsewhere, as an operator's own namespace does.
    pub fn leases(&self) -> Api<Lease> {
        Api::namespaced(self.client.clone(), "default")
    }
}

pub async fn annotate(client: &Client, namespace: &str, migration: &str, key: &str, value: &str) {
    let api: Api<Migration> = Api::namespaced(client.clone(), namespace);
    let patch = json!({"metadata": {"annotations": {key: value}}});
    api.patch(migration, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
}

/// An operator in this process, on threads of its own.
pub struct Operator {
    pub gate: Gate,
    runtime: Option<Runtime>,
    stop: Option<oneshot::Sender<()>>,
    task: Option<tokio::task::JoinHandle<Result<(), controller::Error>>>,
}

impl Operator {
    /// Asks it to end, as a signal would, and returns how it ended.
    pub async fn stop(mut self) -> Result<(), String> {
        drop(self.stop.take());
        self.ended().await
    }

    /// How it ended by itself.
    pub async fn ended(&mut self) -> Result<(), String> {
        let task = self.task.take().unwrap();
        let result = tokio::time::timeout(LIMIT, task).await.expect("the operator ends").unwrap();
        result.map_err(|error| error.to_string())
    }
}

impl Drop for Operator {
    /// Like `kill -9`: nothing more is sent, nothing is given back.
    fn drop(&mut self) {
        self.gate.cut();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Waits for something that no watch shows.
pub async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let deadline = tokio::time::Instant::now() + LIMIT;
    while !holds().await {
        assert!(tokio::time::Instant::now() < deadline, "{what} never came true");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
