//! What the demo does on the cluster, and the conditions it waits for.
//! Called by `demo/`. Must wait for conditions, never for time to pass, and must touch nothing outside its namespace.

use std::time::Duration;

use anyhow::{Context, bail};
use godwit::api::{Cohort, Migration};
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, LogParams, Patch, PatchParams,
    PropagationPolicy,
};
use kube::runtime::conditions::is_deleted;
use kube::runtime::wait::{Condition, await_condition};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::manifests::NAMESPACE;
use super::view::View;
use crate::verify::Findings;

const MANAGER: &str = "crm-demo";
/// Images may have to be pulled.
const READY_LIMIT: Duration = Duration::from_secs(600);

pub struct Cluster {
    client: Client,
}

impl Cluster {
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    pub async fn namespace_exists(&self) -> anyhow::Result<bool> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        Ok(namespaces.get_opt(NAMESPACE).await.context("failed to look for the namespace")?.is_some())
    }

    pub async fn apply(&self, objects: &[Value]) -> anyhow::Result<()> {
        let parameters = PatchParams::apply(MANAGER).force();
        for object in objects {
            let kind = object["kind"].as_str().unwrap_or_default();
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            let (group, version) = match object["apiVersion"].as_str().unwrap_or_default().split_once('/') {
                Some((group, version)) => (group, version),
                None => ("", "v1"),
            };
            let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
            let api: Api<DynamicObject> = if kind == "Namespace" {
                Api::all_with(self.client.clone(), &resource)
            } else {
                Api::namespaced_with(self.client.clone(), NAMESPACE, &resource)
            };
            api.patch(name, &parameters, &Patch::Apply(object))
                .await
                .with_context(|| format!("failed to apply {kind} {name}"))?;
        }
        Ok(())
    }

    pub async fn databases_ready(&self) -> anyhow::Result<()> {
        let ready = |set: Option<&StatefulSet>| {
            set.and_then(|set| set.status.as_ref()?.ready_replicas).is_some_and(|ready| ready >= 1)
        };
        for name in ["crm-old", "crm-new"] {
            self.wait_for(name, ready).await?;
        }
        Ok(())
    }

    pub async fn traffic_available(&self) -> anyhow::Result<()> {
        let available = |deployment: Option<&Deployment>| {
            deployment.and_then(|d| d.status.as_ref()?.available_replicas).is_some_and(|available| available >= 1)
        };
        self.wait_for("crm-traffic", available).await
    }

    /// Users finish what they are doing; afterwards the record is complete.
    pub async fn stop_traffic(&self) -> anyhow::Result<()> {
        let scale = json!({"spec": {"replicas": 0}});
        self.api::<Deployment>()
            .patch("crm-traffic", &PatchParams::default(), &Patch::Merge(&scale))
            .await
            .context("failed to stop the traffic")?;
        let pods = self.api::<Pod>();
        let list = pods.list(&ListParams::default().labels("app=crm-traffic")).await?;
        for pod in list {
            until_gone(&pods, &pod).await?;
        }
        Ok(())
    }

    /// Waits until a Job has ended, and says why when it failed.
    pub async fn job_done(&self, name: &str) -> anyhow::Result<()> {
        self.wait_for(name, |job: Option<&Job>| ended(job).is_some()).await?;
        let job = self.api::<Job>().get(name).await?;
        if ended(Some(&job)) == Some(true) {
            return Ok(());
        }
        bail!("Job {name} failed; its log ends with:\n{}", self.log_of(name).await?)
    }

    pub async fn verify(&self, job: &[Value]) -> anyhow::Result<Findings> {
        self.apply(job).await?;
        self.job_done("crm-verify").await?;
        let log = self.log_of("crm-verify").await?;
        let line = log.lines().last().context("the search printed nothing")?;
        serde_json::from_str(line).context("failed to read what the search found")
    }

    async fn log_of(&self, job: &str) -> anyhow::Result<String> {
        let pods = self.api::<Pod>();
        let list = pods.list(&ListParams::default().labels(&format!("app={job}"))).await?;
        let pod = list.items.last().with_context(|| format!("Job {job} has no pod"))?;
        let parameters = LogParams { tail_lines: Some(20), ..LogParams::default() };
        pods.logs(&pod.name_any(), &parameters).await.with_context(|| format!("failed to read the log of {job}"))
    }

    pub async fn look(&self) -> anyhow::Result<View> {
        let migration = self.api::<Migration>().get("crm").await.context("failed to read the Migration")?;
        let cohorts = self.api::<Cohort>().list(&ListParams::default()).await.context("failed to list the Cohorts")?;
        let mut cohorts = cohorts.items;
        cohorts.sort_by_key(|cohort| cohort.spec.wave);
        Ok(View { migration, cohorts })
    }

    /// The Migration goes first, while its databases and its operator can still clean up; then the rest.
    pub async fn remove_everything(&self) -> anyhow::Result<()> {
        let cohorts = self.api::<Cohort>();
        let delete =
            DeleteParams { propagation_policy: Some(PropagationPolicy::Background), ..DeleteParams::default() };
        if let Some(migration) = self.api::<Migration>().get_opt("crm").await? {
            self.api::<Migration>().delete("crm", &delete).await.context("failed to delete the Migration")?;
            for cohort in cohorts.list(&ListParams::default()).await? {
                cohorts.delete(&cohort.name_any(), &delete).await.context("failed to delete a Cohort")?;
            }
            until_gone(&self.api::<Migration>(), &migration).await?;
        }
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let namespace = namespaces.get(NAMESPACE).await?;
        namespaces.delete(NAMESPACE, &delete).await.context("failed to delete the namespace")?;
        until_gone(&namespaces, &namespace).await
    }

    async fn wait_for<K>(&self, name: &str, condition: impl Condition<K>) -> anyhow::Result<()>
    where
        K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + for<'de> serde::Deserialize<'de>
            + Send
            + 'static,
    {
        timeout(READY_LIMIT, await_condition(self.api::<K>(), name, condition))
            .await
            .with_context(|| format!("{name} was not ready in time"))?
            .with_context(|| format!("failed to watch {name}"))?;
        Ok(())
    }
}

async fn until_gone<K>(api: &Api<K>, object: &K) -> anyhow::Result<()>
where
    K: kube::Resource + Clone + std::fmt::Debug + for<'de> serde::Deserialize<'de> + Send + 'static,
{
    let (name, uid) = (object.name_any(), object.uid().unwrap_or_default());
    timeout(READY_LIMIT, await_condition(api.clone(), &name, is_deleted(&uid)))
        .await
        .with_context(|| format!("{name} was not gone in time"))?
        .with_context(|| format!("failed to watch {name}"))?;
    Ok(())
}

/// True when the Job is complete, false when it failed, none while it runs.
fn ended(job: Option<&Job>) -> Option<bool> {
    let conditions = job?.status.as_ref()?.conditions.as_ref()?;
    let holds = |kind: &str| conditions.iter().any(|c| c.type_ == kind && c.status == "True");
    if holds("Complete") { Some(true) } else { holds("Failed").then_some(false) }
}
