//! A shop for each story of bad input: ten customers in a database of their own on the demo's servers, Secrets and a claim as they should be,
//! and the smallest Migration. What a story gets wrong it changes itself.
//! Used by `bad_input.rs`. Must leave nothing outside its namespace but databases on the demo's servers, which go with the demo.

use std::path::Path;
use std::time::Duration;

use godwit::api::Migration;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Namespace, PersistentVolumeClaim, Pod, Secret, Service};
use kube::api::{DeleteParams, LogParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::conditions::is_deleted;
use kube::runtime::wait::await_condition;
use kube::{Api, Client, Config, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Where the demo's servers and their passwords are.
const DEMO: &str = "crm";
const NAMESPACE: &str = "shops";
/// How long any condition may take to come true.
pub const LIMIT: Duration = Duration::from_secs(240);
pub const CUSTOMERS: i64 = 10;
/// A server that lets everybody in and never says a word.
pub const MUTE_URI: &str = "postgresql://anybody@mute:5432/shop?connect_timeout=3600&sslmode=disable";

const SCHEMA: &str = "create table customer (id bigint primary key, name text not null); \
    create table purchase (id bigint primary key, customer_id bigint not null references customer, article text); \
    insert into customer select n, 'c' || n from generate_series(1, 10) n; \
    insert into purchase select n, 1 + n % 10, 'a' || n from generate_series(1, 50) n";

/// The namespace of all shops.
pub struct Street {
    client: Client,
}

/// One story's databases, Secrets and Migration, all of its name.
#[derive(Clone)]
pub struct Shop {
    client: Client,
    pub name: &'static str,
    source: String,
    target: String,
}

impl Street {
    /// A shop of each name, of which nothing is in Kubernetes yet.
    pub async fn open(kubeconfig: &Path, names: &[&'static str]) -> (Self, Vec<Shop>) {
        let file = Kubeconfig::read_from(kubeconfig).expect("the cluster has a kubeconfig");
        let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.expect("it can be used");
        let client = Client::try_from(config).expect("a client can be built");
        let namespace =
            json!({"metadata": {"name": NAMESPACE, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}}});
        create::<Namespace>(&Api::all(client.clone()), namespace).await;
        make_databases(&client, names).await;
        let (source, target) = (uri(&client, "crm-source").await, uri(&client, "crm-target").await);
        let shop = |&name: &&'static str| Shop {
            client: client.clone(),
            name,
            source: of_database(&source, name),
            target: of_database(&target, name),
        };
        let shops = names.iter().map(shop).collect();
        (Self { client }, shops)
    }

    /// Deletes the namespace with all that is in it, and waits until it is gone.
    pub async fn close(self) {
        let api: Api<Namespace> = Api::all(self.client);
        let uid = api.get(NAMESPACE).await.expect("the namespace is there").uid().expect("an object has a uid");
        api.delete(NAMESPACE, &DeleteParams::default()).await.expect("the namespace can be deleted");
        let gone = tokio::time::timeout(LIMIT, await_condition(api, NAMESPACE, is_deleted(&uid))).await;
        gone.expect("the namespace goes, with Migrations at all steps in it").expect("it can be watched");
    }
}

impl Shop {
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    pub fn source(&self) -> &str {
        &self.source
    }

    /// The source as somebody who does not know the password would address it.
    pub fn source_of_a_stranger(&self) -> String {
        let (scheme, rest) = self.source.split_once("://").expect("a URI has a scheme");
        let (_, place) = rest.rsplit_once('@').expect("the URI has a user");
        format!("{scheme}://postgres:mistaken@{place}")
    }

    /// Writes the Secret of the source; `values` are all that it has.
    pub async fn has_source(&self, values: Value) {
        self.has_secret("source", values).await;
    }

    pub async fn has_target(&self) {
        self.has_secret("target", json!({"uri": self.target})).await;
    }

    async fn has_secret(&self, side: &str, values: Value) {
        let name = format!("{}-{side}", self.name);
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": values});
        let apply = PatchParams::apply("test");
        self.api::<Secret>().patch(&name, &apply, &Patch::Apply(&secret)).await.expect("a Secret can be written");
    }

    pub async fn has_claim(&self) {
        let claim = json!({"metadata": {"name": self.name}, "spec": {"accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "64Mi"}}}});
        create::<PersistentVolumeClaim>(&self.api(), claim).await;
    }

    pub async fn migrates(&self, change: impl FnOnce(&mut Value)) {
        let uri_from =
            |side: &str| json!({"uriFrom": {"secretKeyRef": {"name": format!("{}-{side}", self.name), "key": "uri"}}});
        let mut spec = json!({
            "engine": {"postgres": {"source": uri_from("source"), "target": uri_from("target")}},
            "dataset": {"root": {"table": "public.customer", "key": "id"}},
            "backup": {"storage": {"persistentVolumeClaim": {"claimName": self.name}}},
            "rollback": {"mode": "RestoreOnly"},
            "rollout": {"soak": "0s"},
            "approvals": [],
        });
        change(&mut spec);
        let object = json!({"apiVersion": "godwit.dev/v1alpha1", "kind": "Migration", "metadata": {"name": self.name}, "spec": spec});
        create::<Migration>(&self.api(), object).await;
    }

    /// Everything as it should be, but for what the story has changed.
    pub async fn migrates_with_source(&self, values: Value) {
        self.has_claim().await;
        self.has_target().await;
        self.has_source(values).await;
        self.migrates(|_| {}).await;
    }

    pub async fn change(&self, patch: Value) {
        let patched = self.api::<Migration>().patch(self.name, &PatchParams::default(), &Patch::Merge(patch)).await;
        patched.expect("the Migration can be changed");
    }

    pub async fn retry(&self) {
        self.change(json!({"metadata": {"annotations": {"godwit.dev/retry-requested-at": "2026-11-22T00:00:00Z"}}}))
            .await;
    }

    pub async fn migration(&self) -> Migration {
        self.api().get(self.name).await.expect("the Migration is there")
    }

    pub async fn until(&self, what: &str, wanted: impl Fn(&Migration) -> bool) -> Migration {
        let wanted = |object: Option<&Migration>| object.is_some_and(&wanted);
        let found = tokio::time::timeout(LIMIT, await_condition(self.api(), self.name, wanted)).await;
        let Ok(found) = found else {
            panic!("{} never became {what}: {:#?}", self.name, self.migration().await.status);
        };
        found.expect("it can be watched").expect("it is there")
    }

    /// A server at `MUTE_URI`.
    pub async fn has_mute_server(&self) {
        let listen = "use IO::Socket::INET; my $s = IO::Socket::INET->new(LocalPort => 5432, Listen => 64, ReuseAddr => 1) or die; sleep";
        let mut pod = pod_of_base("mute", &json!(["perl", "-e", listen]), &json!([]));
        pod["metadata"]["labels"] = json!({"app": "mute"});
        create::<Pod>(&self.api(), pod).await;
        let service =
            json!({"metadata": {"name": "mute"}, "spec": {"selector": {"app": "mute"}, "ports": [{"port": 5432}]}});
        create::<Service>(&self.api(), service).await;
    }
}

/// Databases of these names on both of the demo's servers; customers in those of the old one.
async fn make_databases(client: &Client, names: &[&str]) {
    let script = format!(
        "set -eu; for name in {}; do for uri in \"$SOURCE\" \"$TARGET\"; do psql -q \"$uri\" -c \"create database \\\"$name\\\"\"; done; \
         psql -qv ON_ERROR_STOP=1 \"${{SOURCE%/*}}/$name\" -c \"{SCHEMA}\"; done",
        names.join(" ")
    );
    let from = |name: &str| json!({"secretKeyRef": {"name": name, "key": "uri"}});
    let env = json!([{"name": "SOURCE", "valueFrom": from("crm-source")}, {"name": "TARGET", "valueFrom": from("crm-target")}]);
    let pods: Api<Pod> = Api::namespaced(client.clone(), DEMO);
    create(&pods, pod_of_base("shops", &json!(["sh", "-c", script]), &env)).await;
    let phase = |pod: Option<&Pod>| pod.and_then(|pod| pod.status.as_ref()?.phase.clone()).unwrap_or_default();
    let ended = |pod: Option<&Pod>| ["Succeeded", "Failed"].contains(&&*phase(pod));
    let pod = tokio::time::timeout(LIMIT, await_condition(pods.clone(), "shops", ended)).await;
    let pod = pod.expect("the databases are made in time").expect("the pod can be watched");
    let log = pods.logs("shops", &LogParams::default()).await.unwrap_or_default();
    assert_eq!(phase(pod.as_ref()), "Succeeded", "{log}");
    pods.delete("shops", &DeleteParams::default()).await.expect("the pod can be deleted");
}

/// A restricted pod of the image that has PostgreSQL's programs.
fn pod_of_base(name: &str, command: &Value, env: &Value) -> Value {
    json!({"metadata": {"name": name}, "spec": {
        "automountServiceAccountToken": false, "restartPolicy": "Never", "terminationGracePeriodSeconds": 1,
        "securityContext": {"runAsNonRoot": true, "runAsUser": 999, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{"name": "main", "image": "godwit-base:dev", "imagePullPolicy": "IfNotPresent", "command": command, "env": env,
            "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}],
    }})
}

async fn create<K>(api: &Api<K>, object: Value)
where
    K: Clone + std::fmt::Debug + serde::Serialize + DeserializeOwned,
{
    let object: K = serde_json::from_value(object).expect("the object is well formed");
    api.create(&PostParams::default(), &object).await.expect("the object can be created");
}

/// The demo's address of a server, good for other namespaces too.
async fn uri(client: &Client, secret: &str) -> String {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), DEMO);
    let data = secrets.get(secret).await.expect("the demo has its Secrets").data.expect("a Secret has data");
    let uri = String::from_utf8(data["uri"].0.clone()).expect("a URI is text");
    let (before, after) = uri.rsplit_once(':').expect("the URI has a port");
    format!("{before}.{DEMO}.svc:{after}")
}

fn of_database(uri: &str, name: &str) -> String {
    let (server, _) = uri.rsplit_once('/').expect("the URI names a database");
    format!("{server}/{name}")
}
