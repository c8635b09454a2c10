//! One run: a namespace, a proxy, operators that are started again whenever one has ended, and the story.
//! Used by `campaign.rs`. The operators are left running when the story has ended: that they rest is still to be shown.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::DeleteParams;
use tokio::sync::mpsc;

use crate::operator::{Process, Start};
use crate::plan::Plan;
use crate::proxy::{Order, Proxy};
use crate::stage::Stage;
use crate::subject::Story;
use crate::traffic::Traffic;

/// An operator that ends more often than this is not disturbed but broken.
const MAX_PROCESSES: usize = 12;
/// Standbys need not wait for a leader that was killed: its lease is deleted. Renewals are rare, so that many runs fit.
const LONG_LEASE: [u32; 3] = [60, 40, 10];
/// Where a successor waits for the lease to run out.
const SHORT_LEASE: [u32; 3] = [4, 3, 1];

pub struct Run {
    pub plan: Plan,
    pub namespace: String,
    pub folder: PathBuf,
    pub proxy: Arc<Proxy>,
    stage: Arc<Stage>,
    processes: Mutex<Vec<Arc<Process>>>,
    stopped: AtomicBool,
    ordered: Mutex<Option<mpsc::UnboundedReceiver<Order>>>,
    pub outcome: Mutex<Outcome>,
}

#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub error: Option<String>,
    pub took: Duration,
}

impl Run {
    pub async fn start(stage: Arc<Stage>, namespace: &str, plan: Plan) -> Arc<Self> {
        stage.create_namespace(namespace).await;
        let folder = stage.folder.join(namespace);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("plan.json"), serde_json::to_string_pretty(&plan).unwrap()).unwrap();
        let (orders, ordered) = mpsc::unbounded_channel();
        let traffic = Traffic::new(&plan.faults, &folder);
        let proxy = Proxy::new(stage.client.clone(), traffic, orders);
        let namespace = namespace.to_owned();
        let run = Arc::new(Self {
            plan,
            namespace,
            folder,
            proxy,
            stage,
            processes: Mutex::default(),
            stopped: AtomicBool::new(false),
            ordered: Mutex::default(),
            outcome: Mutex::default(),
        });
        *run.ordered.lock().unwrap() = Some(ordered);
        run
    }

    /// Plays the story to its end.
    pub async fn play(self: Arc<Self>) {
        let began = Instant::now();
        let stage = &self.stage;
        let story = Story::new(self.plan.subject, self.plan.pods, stage, &self.proxy, &self.namespace);
        stage.kubelet.follow(&self.namespace, Arc::clone(&story) as Arc<_>);
        story.create(&stage.checks).await;
        // The operator comes last: what it sees first is then the same in every run.
        let orders = self.ordered.lock().unwrap().take().expect("a run is played once");
        tokio::spawn(Arc::clone(&self).supervise(orders));
        let error = story.play().await.err();
        self.proxy.over.send_replace(true);
        *self.outcome.lock().unwrap() = Outcome { error, took: began.elapsed() };
    }

    async fn start_process(&self) {
        let name = {
            let count = self.processes.lock().unwrap().len();
            format!("{}-{}", self.namespace, count + 1)
        };
        let (door, port) = self.proxy.open(&name).await;
        let lease = if self.plan.has_zombie() { SHORT_LEASE } else { LONG_LEASE };
        let process =
            Arc::new(Process::start(Start { name, namespace: &self.namespace, port, folder: &self.folder, lease }));
        door.belongs_to(Arc::clone(&process));
        self.processes.lock().unwrap().push(process);
    }

    /// Keeps an operator running, as a Deployment would.
    async fn supervise(self: Arc<Self>, mut orders: mpsc::UnboundedReceiver<Order>) {
        self.start_process().await;
        loop {
            let alive: Vec<_> = self.alive();
            let acting = alive.iter().any(|process| !process.deposed.load(Ordering::SeqCst));
            if !acting {
                if self.stopped.load(Ordering::SeqCst) || self.processes.lock().unwrap().len() >= MAX_PROCESSES {
                    return;
                }
                self.clear_lease().await;
                self.start_process().await;
                continue;
            }
            let ends = alive.iter().map(|process| Box::pin(process.ended()));
            tokio::select! {
                _ = futures::future::select_all(ends) => {}
                order = orders.recv() => match order {
                    Some(Order::SecondReplica) => self.start_process().await,
                    None => return,
                },
            }
        }
    }

    fn alive(&self) -> Vec<Arc<Process>> {
        self.processes.lock().unwrap().iter().filter(|process| !process.has_ended()).cloned().collect()
    }

    /// A killed operator does not give its lease up; the run need not wait for it.
    async fn clear_lease(&self) {
        let leases: Api<Lease> = Api::namespaced(self.stage.client.clone(), &self.namespace);
        let _ = leases.delete("godwit", &DeleteParams::default()).await;
    }

    /// Names of the operator processes, in the order of their start.
    pub fn processes(&self) -> Vec<String> {
        self.processes.lock().unwrap().iter().map(|process| process.name.clone()).collect()
    }

    /// Ends all operators; nobody starts another one.
    pub async fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        for process in self.alive() {
            process.kill().await;
        }
    }
}
