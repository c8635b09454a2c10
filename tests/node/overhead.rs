//! How long a step takes to begin on a node that has its image: from the creation of the Job to the worker's first session, beside a pod
//! of the same image that does nothing. Called by the node tier after the first story, when a Job to repeat is there.
//! Must judge nothing but that all of them began: times are for `docs/benchmarks.md`.

use std::path::Path;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, ListParams, LogParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::wait::await_condition;
use kube::{Api, Client, Config, ResourceExt};

const NAMESPACE: &str = "crm";
/// The source of the demo, which logs each session that it accepts.
const SOURCE: &str = "crm-old-0";
const ROUNDS: usize = 9;
const LIMIT: Duration = Duration::from_secs(60);

/// Medians of the rounds.
pub struct Overhead {
    /// Until the source accepted the worker.
    pub step: SignedDuration,
    /// Until a container of the same image, that does nothing, ran.
    pub empty: SignedDuration,
}

pub fn measure(kubeconfig: &Path) -> Overhead {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be built");
    runtime.block_on(async {
        let file = Kubeconfig::read_from(kubeconfig).expect("the cluster has a kubeconfig");
        let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.expect("it can be used");
        let rounds = Rounds::of(Client::try_from(config).expect("a client can be built")).await;
        Box::pin(rounds.play()).await
    })
}

struct Rounds {
    jobs: Api<Job>,
    pods: Api<Pod>,
    step: Job,
    empty: Job,
}

impl Rounds {
    /// An Assess as the operator ordered it, and the same pod with nothing to do.
    async fn of(client: Client) -> Self {
        let jobs: Api<Job> = Api::namespaced(client.clone(), NAMESPACE);
        let assessed =
            jobs.list(&ListParams::default().labels("godwit.dev/step=assess")).await.expect("Jobs are listed");
        let step = again(assessed.items.into_iter().next().expect("the story began with an Assess"), "overhead-step-");
        let mut empty = step.clone();
        empty.metadata.generate_name = Some("overhead-empty-".into());
        container_of(&mut empty).args = Some(vec!["--version".into()]);
        Self { jobs, pods: Api::namespaced(client, NAMESPACE), step, empty }
    }

    async fn play(&self) -> Overhead {
        let (mut steps, mut empties) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let (created, _) = self.run(&self.step).await;
            let log = LogParams { timestamps: true, since_seconds: Some(120), ..LogParams::default() };
            let source = self.pods.logs(SOURCE, &log).await.expect("the source's log can be read");
            let sessions = source.lines().filter(|line| line.contains("authorized") && line.contains("godwit assess"));
            steps.push(first_after(created, sessions));
            let (created, printed) = self.run(&self.empty).await;
            empties.push(first_after(created, printed.lines()));
        }
        Overhead { step: median(steps), empty: median(empties) }
    }

    /// Runs a Job to its end; returns when its creation was asked for, and its pod's log.
    async fn run(&self, job: &Job) -> (Timestamp, String) {
        let created = now();
        let job = self.jobs.create(&PostParams::default(), job).await.expect("a Job can be created");
        let name = job.name_any();
        // An Assess of databases that have moved says no: it began all the same.
        let ended = |job: Option<&Job>| {
            let conditions = job.and_then(|job| job.status.as_ref()?.conditions.as_ref());
            conditions.is_some_and(|all| all.iter().any(|one| ["Complete", "Failed"].contains(&one.type_.as_str())))
        };
        let done = tokio::time::timeout(LIMIT, await_condition(self.jobs.clone(), &name, ended)).await;
        assert!(matches!(done, Ok(Ok(_))), "{name} did not come to its end");
        let pods = self.pods.list(&ListParams::default().labels(&format!("job-name={name}"))).await.expect("pods");
        let pod = pods.items.first().expect("the Job has a pod").name_any();
        let log = LogParams { timestamps: true, ..LogParams::default() };
        let log = self.pods.logs(&pod, &log).await.expect("the pod's log can be read");
        self.jobs.delete(&name, &DeleteParams::background()).await.expect("the Job can be deleted");
        (created, log)
    }
}

/// The same work under another name, and nobody's: the operator must not take it for its own.
fn again(job: Job, prefix: &str) -> Job {
    let mut spec = job.spec.expect("a Job has a spec");
    spec.selector = None;
    spec.template = PodTemplateSpec { metadata: None, ..spec.template };
    let metadata = ObjectMeta { generate_name: Some(prefix.into()), ..ObjectMeta::default() };
    Job { metadata, spec: Some(spec), status: None }
}

fn container_of(job: &mut Job) -> &mut k8s_openapi::api::core::v1::Container {
    let spec = job.spec.as_mut().and_then(|spec| spec.template.spec.as_mut()).expect("a Job has a pod");
    spec.containers.first_mut().expect("a pod has a container")
}

/// The kubelet puts the time before each line.
fn first_after<'a>(created: Timestamp, mut lines: impl Iterator<Item = &'a str>) -> SignedDuration {
    let time_of = |line: &str| line.split(' ').next().and_then(|time| time.parse::<Timestamp>().ok());
    lines.find_map(|line| time_of(line).filter(|time| *time >= created)).expect("it began").duration_since(created)
}

fn median(mut times: Vec<SignedDuration>) -> SignedDuration {
    times.sort();
    times[times.len() / 2]
}

#[expect(clippy::disallowed_methods, reason = "what is measured is time")]
fn now() -> Timestamp {
    Timestamp::now()
}
