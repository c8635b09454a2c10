//! Flags and environment: `godwit controller`, `godwit worker <step>`, `godwit crds`.
//! Called by `main`. The only reader of the environment; everything else gets settings.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use k8s_openapi::api::core::v1::ResourceRequirements;

use crate::api::{self, DurationString};
use crate::build::PodSettings;
use crate::contract::{
    SOURCE_URI_ENV, STEP_ENV, StepInput, TARGET_URI_ENV, TERMINATION_PATH, TERMINATION_PATH_ENV, exit,
};
use crate::controller::{self, LeaseSettings, Settings};
use crate::metrics::Metrics;
use crate::readiness::Readiness;
use crate::server;
use crate::telemetry::{self, LogFormat};
use crate::worker;
use crate::worker::storage::Credentials;

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
    /// Run one step inside a Job; its input is in the environment.
    Worker(WorkerArgs),
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
    pods: PodArgs,
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
#[expect(clippy::struct_field_names, reason = "the fields are the names of the flags")]
struct PodArgs {
    /// Image of the Jobs' pods, usually the operator's own.
    #[arg(long, env = "GODWIT_WORKER_IMAGE")]
    worker_image: String,
    /// Always, IfNotPresent or Never; the cluster's default when absent.
    #[arg(long, env = "GODWIT_WORKER_PULL_POLICY", value_parser = ["Always", "IfNotPresent", "Never"])]
    worker_pull_policy: Option<String>,
    /// Pull secrets in the migrations' namespaces, separated by commas.
    #[arg(long, env = "GODWIT_WORKER_PULL_SECRETS", value_delimiter = ',')]
    worker_pull_secrets: Vec<String>,
    /// Requests and limits as JSON, such as {"requests":{"cpu":"500m"},"limits":{"memory":"2Gi"}}.
    #[arg(long, env = "GODWIT_WORKER_RESOURCES", value_parser = resources)]
    worker_resources: Option<ResourceRequirements>,
    /// Priority class of the pods.
    #[arg(long, env = "GODWIT_WORKER_PRIORITY_CLASS")]
    worker_priority_class: Option<String>,
    /// User and group that the pods run as; 0 leaves the choice to the platform (OpenShift).
    #[arg(long, env = "GODWIT_WORKER_USER", default_value_t = 65532, value_parser = clap::value_parser!(i64).range(0..))]
    worker_user: i64,
}

#[derive(Debug, clap::Args)]
struct LeaseArgs {
    /// Namespace of the lease, usually the operator's own.
    #[arg(long, env = "GODWIT_NAMESPACE", default_value = "default")]
    namespace: String,
    /// Name of the lease.
    #[arg(long, env = "GODWIT_LEASE_NAME", default_value = "godwit")]
    lease_name: String,
    /// Name of this pod, for the lease and for events.
    #[arg(long, env = "GODWIT_POD_NAME", default_value = "godwit")]
    pod_name: String,
    /// How long standbys wait before they take a lease that is not renewed; whole seconds, such as 15s.
    #[arg(long, env = "GODWIT_LEASE_DURATION", default_value = "15s", value_parser = seconds)]
    lease_duration: Duration,
    /// How long the leader tries to renew before it ends itself; shorter than the duration.
    #[arg(long, env = "GODWIT_LEASE_RENEW_DEADLINE", default_value = "10s", value_parser = seconds)]
    lease_renew_deadline: Duration,
    /// Pause between two tries; shorter than the renew deadline.
    #[arg(long, env = "GODWIT_LEASE_RETRY_PERIOD", default_value = "2s", value_parser = seconds)]
    lease_retry_period: Duration,
}

impl LeaseArgs {
    /// A leader that gave up renewing after others could take the lease would act beside them.
    fn settings(self) -> anyhow::Result<LeaseSettings> {
        let ordered =
            self.lease_retry_period < self.lease_renew_deadline && self.lease_renew_deadline < self.lease_duration;
        anyhow::ensure!(
            ordered,
            "the lease's duration must be longer than its renew deadline, and that longer than its retry period"
        );
        // A restarted pod keeps its name: without the number it would take its predecessor's lease for its own.
        let number = RandomState::new().build_hasher().finish();
        Ok(LeaseSettings {
            namespace: self.namespace,
            name: self.lease_name,
            identity: format!("{}_{number:016x}", self.pod_name),
            duration: self.lease_duration,
            renew_deadline: self.lease_renew_deadline,
            retry: self.lease_retry_period,
        })
    }
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

/// What a Job's pod finds in its environment; nothing of it may be given on a command line, where others can read it.
#[derive(Debug, clap::Args)]
struct WorkerArgs {
    /// The step's name; the input decides, this only has to agree with it.
    step: String,
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
            Command::Worker(args) => run_worker(&args),
            Command::Crds(args) => write_crds(args.out.as_deref()).map(|()| ExitCode::SUCCESS),
        }
    }
}

/// The API server checks the quantities; here only the shape counts.
fn resources(text: &str) -> Result<ResourceRequirements, String> {
    if text.trim().is_empty() {
        return Ok(ResourceRequirements::default());
    }
    serde_json::from_str(text).map_err(|error| format!("expected requests and limits as JSON: {error}"))
}

/// The lease itself counts in whole seconds.
fn seconds(text: &str) -> Result<Duration, String> {
    let parsed = DurationString(text.trim().to_owned()).parse().and_then(|length| Duration::try_from(length).ok());
    parsed
        .filter(|length| length.as_secs() > 0 && length.subsec_nanos() == 0)
        .ok_or_else(|| "expected whole seconds, one at least, such as 15s".to_owned())
}

/// An empty variable is a list with one empty name; it means none.
fn named(list: Vec<String>) -> Vec<String> {
    list.into_iter().map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect()
}

fn pod_settings(args: PodArgs) -> PodSettings {
    PodSettings {
        image: args.worker_image,
        pull_policy: args.worker_pull_policy,
        pull_secrets: named(args.worker_pull_secrets),
        resources: args.worker_resources.unwrap_or_default(),
        priority_class: args.worker_priority_class,
        user_id: (args.worker_user != 0).then_some(args.worker_user),
    }
}

fn controller_settings(args: ControllerArgs) -> anyhow::Result<Settings> {
    let instance = args.lease.pod_name.clone();
    Ok(Settings {
        namespaces: named(args.namespaces),
        concurrency: args.concurrency,
        pods: pod_settings(args.pods),
        lease: args.lease.settings()?,
        listen: args.listen,
        instance,
        checks_may_reach_loopback: args.checks_allow_loopback,
    })
}

fn run_controller(args: ControllerArgs) -> anyhow::Result<()> {
    telemetry::install(args.log.log_format, &args.log.log_filter)?;
    let settings = controller_settings(args)?;
    let runtime = runtime()?;
    let outcome = runtime.block_on(operate(settings));
    // Fail-stop: whatever is still under way ends with the process, not before it.
    runtime.shutdown_background();
    outcome
}

/// A variable of the environment; an empty one counts as absent.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the environment beside clap")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn worker_settings(args: &WorkerArgs) -> anyhow::Result<worker::Settings> {
    let text = variable(STEP_ENV).with_context(|| format!("{STEP_ENV} is not set"))?;
    let input: StepInput = serde_json::from_str(&text).with_context(|| format!("{STEP_ENV} cannot be read"))?;
    anyhow::ensure!(input.task.name() == args.step, "{STEP_ENV} is for {}, not for {}", input.task.name(), args.step);
    Ok(worker::Settings {
        input,
        source_uri: variable(SOURCE_URI_ENV),
        target_uri: variable(TARGET_URI_ENV),
        storage_credentials: Credentials {
            access_key_id: variable("AWS_ACCESS_KEY_ID"),
            secret_access_key: variable("AWS_SECRET_ACCESS_KEY"),
            session_token: variable("AWS_SESSION_TOKEN"),
        },
        termination_path: variable(TERMINATION_PATH_ENV).unwrap_or_else(|| TERMINATION_PATH.to_owned()).into(),
    })
}

/// The exit code is the worker's answer; an input that cannot be read is a configuration that cannot be used.
fn run_worker(args: &WorkerArgs) -> anyhow::Result<ExitCode> {
    let filter = variable("RUST_LOG").unwrap_or_else(|| "info".to_owned());
    telemetry::install(LogFormat::Json, &filter)?;
    let code = match worker_settings(args) {
        Ok(settings) => worker::runtime().context("failed to start the runtime")?.block_on(worker::run(settings)),
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "Step cannot start");
            exit::MISCONFIGURED
        }
    };
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)))
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("failed to start the runtime")
}

async fn operate(settings: Settings) -> anyhow::Result<()> {
    let stop = controller::stop_on_signal().context("failed to listen for signals")?;
    let metrics = Arc::new(Metrics::default());
    let readiness = Arc::new(Readiness::default());
    let listener =
        server::bind(settings.listen).await.with_context(|| format!("failed to listen on {}", settings.listen))?;
    let server = server::serve(listener, Arc::clone(&metrics), Arc::clone(&readiness));
    let connection = controller::client::infer(&metrics).await?;
    tokio::select! {
        ended = controller::run(connection, settings, metrics, readiness, stop) => Ok(ended?),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(flags: &[&str]) -> anyhow::Result<LeaseSettings> {
        let line = ["godwit", "controller", "--worker-image", "i"].into_iter().chain(flags.iter().copied());
        match Cli::try_parse_from(line)?.command {
            Command::Controller(args) => args.lease.settings(),
            _ => panic!("not the controller's arguments"),
        }
    }

    #[test]
    fn the_lease_can_be_made_shorter_or_longer() {
        let flags = ["--lease-duration=4s", "--lease-renew-deadline=3s", "--lease-retry-period=1s"];
        let chosen = lease(&flags).unwrap();
        assert_eq!([chosen.duration, chosen.renew_deadline, chosen.retry].map(|length| length.as_secs()), [4, 3, 1]);
    }

    #[test]
    fn without_flags_the_lease_is_as_its_settings_say() {
        let (chosen, known) = (lease(&[]).unwrap(), LeaseSettings::new("n".into(), "l".into(), "i".into()));
        let lengths = |lease: &LeaseSettings| [lease.duration, lease.renew_deadline, lease.retry];
        assert_eq!(lengths(&chosen), lengths(&known));
    }

    #[test]
    fn a_leader_that_would_act_beside_its_successor_is_refused() {
        for flags in
            [["--lease-duration=10s", "--lease-retry-period=2s"], ["--lease-duration=15s", "--lease-retry-period=10s"]]
        {
            assert!(lease(&flags).is_err(), "{flags:?}");
        }
        assert!(lease(&["--lease-duration=1.5s"]).is_err());
    }
}
