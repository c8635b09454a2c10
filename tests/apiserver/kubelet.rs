//! Ends the pods of Jobs as a kubelet would report it: exit code and termination message in the pod's status.
//! The Job controller that then ends the Job is the real one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::Value;

use crate::pod_end::{ended, report};

#[derive(Clone)]
pub struct Kubelet {
    pods: Api<Pod>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    held: BTreeSet<String>,
    ends: BTreeMap<String, Vec<(i32, Value)>>,
    finished: BTreeSet<String>,
}

impl Kubelet {
    /// Works until the test's runtime ends.
    pub fn start(client: &Client, namespace: &str) -> Self {
        let kubelet = Self { pods: Api::namespaced(client.clone(), namespace), state: Arc::default() };
        let worker = kubelet.clone();
        tokio::spawn(async move {
            loop {
                worker.finish_all().await;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        kubelet
    }

    /// Pods of this step stay pending.
    pub fn hold(&self, step: &str) {
        self.state.lock().unwrap().held.insert(step.to_owned());
    }

    /// Pods of this step end again, those that were held too.
    pub fn release(&self, step: &str) {
        self.state.lock().unwrap().held.remove(step);
    }

    /// The next pod of this step ends with this code and report.
    pub fn end_next(&self, step: &str, code: i32, report: Value) {
        self.state.lock().unwrap().ends.entry(step.to_owned()).or_default().push((code, report));
    }

    async fn finish_all(&self) {
        let Ok(pods) = self.pods.list(&ListParams::default()).await else {
            return;
        };
        for pod in pods {
            let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
            if matches!(phase, Some("Succeeded" | "Failed")) {
                continue;
            }
            let uid = pod.uid().unwrap_or_default();
            let step = pod.labels().get("godwit.dev/step").cloned().unwrap_or_default();
            let Some((code, report)) = self.end_of(&uid, &step, &pod) else {
                continue;
            };
            let status = ended(code, &report);
            let params = PatchParams::default();
            if self.pods.patch_status(&pod.name_any(), &params, &Patch::Merge(&status)).await.is_ok() {
                self.state.lock().unwrap().finished.insert(uid);
            }
        }
    }

    fn end_of(&self, uid: &str, step: &str, pod: &Pod) -> Option<(i32, Value)> {
        let mut state = self.state.lock().unwrap();
        if step.is_empty() || state.held.contains(step) || state.finished.contains(uid) {
            return None;
        }
        let scripted = state.ends.get_mut(step).filter(|ends| !ends.is_empty()).map(|ends| ends.remove(0));
        Some(scripted.unwrap_or_else(|| (0, report(step, pod))))
    }
}
