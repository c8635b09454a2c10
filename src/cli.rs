//! Flags and environment: `godwit controller`, `godwit worker <step>`, `godwit crds`.
//! Called by `main`. The only reader of the environment; everything else gets settings.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::api;
use crate::build::PodSettings;
use crate::controller::{self, LeaseSettings, Settings};
use crate::metrics::Metrics;
use crate::server::{self, Readiness};
use crate::telemetry::{self, LogFormat};

#[derive(Debug, Parser)]
#[command(
    name = "godwit",
    version,
    about = "Moves customer data from one system to another, cohort by cohort, and can go back."
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the operator.
    Controller(Box<ControllerArgs>),
    /// Write the CustomResourceDefinitions to a folder, or to standard output.
    Crds(CrdArgs),
}

#[derive(Debug, clap::Args)]
struct ControllerArgs {
    /// Namespaces to watch, separated by commas; all when absent.
    #[arg(long, env = "GODWIT_NAMESPACES", value_delimiter = ',')]
    namespaces: Vec<String>,
    /// Passes at the same time, per kind and watched namespace.
    #[arg(long, env = "GODWIT_CONCURRENCY", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1000))]
    concurrency: u16,
    #[command(flatten)]
    jobs: JobArgs,
    #[command(flatten)]
    lease: LeaseArgs,
    /// Address of /livez, /readyz and /metrics.
    #[arg(long, env = "GODWIT_LISTEN", default_value = "0.0.0.0:8080")]
    listen: SocketAddr,
    /// Let http and prometheus checks reach this machine itself: for an operator outside its cluster.
    #[arg(long, env = "GODWIT_CHECKS_ALLOW_LOOPBACK")]
    checks_allow_loopback: bool,
    #[command(flatten)]
    log: LogArgs,
}

/// The pods of the Jobs.
#[derive(Debug, clap::Args)]
struct JobArgs {
    /// Image of the Jobs' pods, usually the operator's own.
    #[arg(long, env = "GODWIT_JOB_IMAGE")]
    job_image: String,
    /// Always, IfNotPresent or Never; the cluster's default when absent.
    #[arg(long, env = "GODWIT_JOB_PULL_POLICY", value_parser = ["Always", "IfNotPresent", "Never"])]
    job_pull_policy: Option<String>,
    /// Pull secrets in the migrations' namespaces, separated by commas.
    #[arg(long, env = "GODWIT_JOB_PULL_SECRETS", value_delimiter = ',')]
    job_pull_secrets: Vec<String>,
    /// Requests, such as cpu=500m,memory=512Mi.
    #[arg(long, env = "GODWIT_JOB_REQUESTS", value_delimiter = ',', value_parser = quantity)]
    job_requests: Vec<(String, Quantity)>,
    /// Limits, such as memory=2Gi.
    #[arg(long, env = "GODWIT_JOB_LIMITS", value_delimiter = ',', value_parser = quantity)]
    job_limits: Vec<(String, Quantity)>,
    /// Priority class of the pods.
    #[arg(long, env = "GODWIT_JOB_PRIORITY_CLASS")]
    job_priority_class: Option<String>,
    /// User and group that the pods run as; 0 leaves the choice to the platform (OpenShift).
    #[arg(long, env = "GODWIT_JOB_USER", default_value_t = 65532, value_parser = clap::value_parser!(i64).range(0..))]
    job_user: i64,
}

#[derive(Debug, clap::Args)]
struct LeaseArgs {
    /// Namespace of the lease, usually the operator's own.
    #[arg(long, env = "POD_NAMESPACE", default_value = "default")]
    lease_namespace: String,
    /// Name of the lease.
    #[arg(long, env = "GODWIT_LEASE_NAME", default_value = "godwit-controller")]
    lease_name: String,
    /// Name of this pod, for the lease and for events.
    #[arg(long, env = "POD_NAME", default_value = "godwit")]
    pod_name: String,
}

#[derive(Debug, clap::Args)]
struct LogArgs {
    /// Form of the log on standard error.
    #[arg(long, env = "GODWIT_LOG_FORMAT", value_enum, default_value_t = LogFormat::Json)]
    log_format: LogFormat,
    /// What is logged, such as info,godwit=debug.
    #[arg(long, env = "RUST_LOG", default_value = "info")]
    log_filter: String,
}

#[derive(Debug, clap::Args)]
struct CrdArgs {
    /// Folder to write the files into; standard output when absent.
    #[arg(long)]
    out: Option<PathBuf>,
}

impl Cli {
    /// Carries the command out; the process ends with the returned code.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Controller(args) => run_controller(*args).map(|()| ExitCode::SUCCESS),
            Command::Crds(args) => write_crds(args.out.as_deref()).map(|()| ExitCode::SUCCESS),
        }
    }
}

/// `cpu=500m` as a resource and its quantity; the API server checks the rest.
fn quantity(text: &str) -> Result<(String, Quantity), String> {
    match text.split_once('=') {
        Some((name, amount)) if !name.is_empty() && !amount.is_empty() => {
            Ok((name.to_owned(), Quantity(amount.to_owned())))
        }
        _ => Err("expected resource=quantity, such as cpu=500m".to_owned()),
    }
}

fn pod_settings(args: JobArgs) -> PodSettings {
    let filled = |list: Vec<(String, Quantity)>| {
        let map: BTreeMap<_, _> = list.into_iter().collect();
        (!map.is_empty()).then_some(map)
    };
    PodSettings {
        image: args.job_image,
        pull_policy: args.job_pull_policy,
        pull_secrets: args.job_pull_secrets,
        resources: ResourceRequirements {
            requests: filled(args.job_requests),
            limits: filled(args.job_limits),
            ..ResourceRequirements::default()
        },
        priority_class: args.job_priority_class,
        user_id: (args.job_user != 0).then_some(args.job_user),
    }
}

fn controller_settings(args: ControllerArgs) -> Settings {
    // A restarted pod keeps its name: without the number it would take its predecessor's lease for its own.
    let number = RandomState::new().build_hasher().finish();
    let identity = format!("{}_{number:016x}", args.lease.pod_name);
    Settings {
        namespaces: args.namespaces,
        concurrency: args.concurrency,
        pods: pod_settings(args.jobs),
        lease: LeaseSettings::new(args.lease.lease_namespace, args.lease.lease_name, identity),
        listen: args.listen,
        instance: args.lease.pod_name,
        checks_may_reach_loopback: args.checks_allow_loopback,
    }
}

fn run_controller(args: ControllerArgs) -> anyhow::Result<()> {
    telemetry::install(args.log.log_format, &args.log.log_filter)?;
    let settings = controller_settings(args);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("failed to start the runtime")?;
    let outcome = runtime.block_on(operate(settings));
    // Fail-stop: whatever is still under way ends with the process, not before it.
    runtime.shutdown_background();
    outcome
}

async fn operate(settings: Settings) -> anyhow::Result<()> {
    let stop = controller::stop_on_signal().context("failed to listen for signals")?;
    let metrics = Arc::new(Metrics::default());
    let readiness = Arc::new(Readiness::default());
    let listener =
        server::bind(settings.listen).await.with_context(|| format!("failed to listen on {}", settings.listen))?;
    let server = server::serve(listener, Arc::clone(&metrics), Arc::clone(&readiness));
    let client = controller::client::infer(&metrics).await?;
    tokio::select! {
        ended = controller::run(client, settings, metrics, readiness, stop) => Ok(ended?),
        ended = server => ended.context("the server of /metrics ended"),
    }
}

fn write_crds(folder: Option<&Path>) -> anyhow::Result<()> {
    use std::io::Write as _;
    let files = api::crd::files().context("failed to write the definitions as YAML")?;
    let Some(folder) = folder else {
        let texts: Vec<_> = files.into_iter().map(|(_, text)| text).collect();
        return std::io::stdout()
            .write_all(texts.join("---\n").as_bytes())
            .context("failed to write to standard output");
    };
    std::fs::create_dir_all(folder).with_context(|| format!("failed to create {}", folder.display()))?;
    for (name, text) in files {
        let path = folder.join(name);
        std::fs::write(&path, text).with_context(|| format!("failed to write {}", path.display()))?;
    }
    Ok(())
}
