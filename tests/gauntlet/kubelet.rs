//! Ends the pods of all runs as their scripts say; the Job controller that then ends the Jobs is the real one.
//! One watch for the whole cluster. Must not touch anything but pods.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use serde_json::Value;

use crate::board::Board;
use crate::plan::Pods;
use crate::pod_end::{ended, report};

/// How a run's pods end.
pub trait Script: Send + Sync {
    /// Exit code and report; `None`: it ends well.
    fn end(&self, cohort: &str, step: &str) -> Option<(i32, Value)>;
    /// The pod is left running.
    fn holds(&self, cohort: &str, step: &str) -> bool;
    fn pods(&self) -> Pods;
}

/// A pod does not wait longer than this for an operator that is away.
const PATIENCE: Duration = Duration::from_secs(3);

#[derive(Clone, Default)]
pub struct Kubelet {
    scripts: Arc<Mutex<HashMap<String, Arc<dyn Script>>>>,
}

struct Waiting {
    pod: Pod,
    since: Instant,
}

impl Kubelet {
    pub fn start(client: &Client, board: &Board) -> Self {
        let kubelet = Self::default();
        let (worker, client, board) = (kubelet.clone(), client.clone(), board.clone());
        tokio::spawn(async move { worker.work(client, board).await });
        kubelet
    }

    pub fn follow(&self, namespace: &str, script: Arc<dyn Script>) {
        self.scripts.lock().unwrap().insert(namespace.to_owned(), script);
    }

    async fn work(self, client: Client, mut board: Board) {
        let ours = watcher::Config::default().labels("godwit.dev/step");
        let mut pods = watcher(Api::<Pod>::all(client.clone()), ours).default_backoff().applied_objects().boxed();
        let mut waiting: HashMap<String, Waiting> = HashMap::new();
        let mut tick = tokio::time::interval(Duration::from_millis(250));
        loop {
            tokio::select! {
                pod = pods.next() => if let Some(Ok(pod)) = pod { take_up(&mut waiting, pod) },
                () = board.changed() => {}
                _ = tick.tick() => {}
            }
            waiting.retain(|_, one| {
                let Some((code, report)) = self.verdict(one, &board) else { return true };
                tokio::spawn(finish(client.clone(), one.pod.clone(), code, report));
                false
            });
        }
    }

    /// How the pod ends; `None`: not yet.
    fn verdict(&self, one: &Waiting, board: &Board) -> Option<(i32, Value)> {
        let namespace = one.pod.namespace()?;
        let script = self.scripts.lock().unwrap().get(&namespace).cloned()?;
        let label = |key: &str| one.pod.labels().get(key).cloned().unwrap_or_default();
        let (cohort, step) = (label("godwit.dev/cohort"), label("godwit.dev/step"));
        if script.holds(&cohort, &step) {
            return None;
        }
        let owner = if cohort.is_empty() { label("godwit.dev/migration") } else { cohort.clone() };
        let job = board.status(&namespace, &owner)["step"]["job"].clone();
        let seen = job["name"] == label("batch.kubernetes.io/job-name") && job["seen"] == true;
        if script.pods() == Pods::WhenSeen && !seen && one.since.elapsed() < PATIENCE {
            return None;
        }
        Some(script.end(&cohort, &step).unwrap_or_else(|| (0, report(&step, &one.pod))))
    }
}

fn take_up(waiting: &mut HashMap<String, Waiting>, pod: Pod) {
    let uid = pod.uid().unwrap_or_default();
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default();
    if phase != "Pending" || pod.metadata.deletion_timestamp.is_some() {
        waiting.remove(&uid);
        return;
    }
    waiting.entry(uid).or_insert_with(|| Waiting { pod, since: Instant::now() });
}

async fn finish(client: Client, pod: Pod, code: i32, report: Value) {
    let pods: Api<Pod> = Api::namespaced(client, &pod.namespace().unwrap_or_default());
    let status = ended(code, &report);
    for _ in 0..20 {
        let done = pods.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Merge(&status)).await;
        match done {
            Ok(_) => return,
            Err(kube::Error::Api(answer)) if answer.is_not_found() => return,
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}
