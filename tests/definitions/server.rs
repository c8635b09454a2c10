//! One throw-away control plane with the committed definitions, shared by the tests that run at the same time.
//! `Server::shared` is what a test starts with; the last holder takes the control plane down.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use godwit::api::names::GROUP;
use kube::api::{Api, DynamicObject};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Client, Config};
use serde_json::{Value, json};

use crate::cluster::Cluster;

static SHARED: Mutex<Weak<Server>> = Mutex::new(Weak::new());

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub struct Server {
    cluster: Cluster,
}

impl Server {
    /// The control plane of the tests that run now; the first one waits until it is up.
    pub fn shared() -> Arc<Self> {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(server) = shared.upgrade() {
            return server;
        }
        let server = Arc::new(Self::up());
        *shared = Arc::downgrade(&server);
        server
    }

    fn up() -> Self {
        let server = Self { cluster: Cluster::up("definitions", &[]) };
        server.kubectl(&["create", "-f", root().join("crds").to_str().unwrap()]);
        server.kubectl(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"]);
        server
    }

    /// What kubectl prints; ends the test when it fails.
    pub fn kubectl(&self, args: &[&str]) -> String {
        self.try_kubectl(args).unwrap_or_else(|error| panic!("kubectl {}: {error}", args.join(" ")))
    }

    pub fn try_kubectl(&self, args: &[&str]) -> Result<String, String> {
        self.kubectl_reading("", args)
    }

    /// Runs kubectl with `input` on its standard input.
    pub fn kubectl_reading(&self, input: &str, args: &[&str]) -> Result<String, String> {
        let mut child = Command::new("kubectl")
            .arg("--kubeconfig")
            .arg(&self.cluster.kubeconfig)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("kubectl is on the PATH");
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
    }

    pub async fn client(&self) -> Client {
        // Another test may have chosen the provider already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let file = Kubeconfig::read_from(&self.cluster.kubeconfig).unwrap();
        let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.unwrap();
        Client::try_from(config).unwrap()
    }

    /// A kind of ours in a namespace of the test's own, which is created when absent.
    pub async fn api(&self, kind: &str, namespace: &str) -> Api<DynamicObject> {
        self.api_of_group(GROUP, kind, namespace).await
    }

    pub async fn api_of_group(&self, group: &str, kind: &str, namespace: &str) -> Api<DynamicObject> {
        self.namespace(namespace);
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, "v1alpha1", kind));
        Api::namespaced_with(self.client().await, namespace, &resource)
    }

    pub fn namespace(&self, name: &str) {
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}).to_string();
        self.kubectl_reading(&namespace, &["apply", "-f", "-"]).unwrap();
    }
}

/// An object as the API takes it.
pub fn object(value: Value) -> DynamicObject {
    serde_json::from_value(value).unwrap()
}
