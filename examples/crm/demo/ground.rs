//! The cluster under the demo: one of our own, the one that kubectl points at, or one that kind makes; and Godwit on it.
//! Called by `demo/` first. Must leave a user's own cluster as it is, but for the chart's release and the demo's namespace.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::UNIX_EPOCH;

use anyhow::{Context, bail, ensure};
use clap::{Args, ValueEnum};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tokio::process::Command;

use super::screen::Screen;

const KIND_CLUSTER: &str = "godwit-demo";

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Choice {
    /// A real Kubernetes made by tests/cluster: no Docker, no registry.
    Own,
    /// The cluster that kubectl points at; it must be able to pull the images.
    Current,
    /// A cluster that kind makes in Docker.
    Kind,
}

#[derive(Args)]
pub struct GroundOptions {
    /// Which cluster.
    #[arg(long, value_enum, default_value_t = Choice::Current)]
    cluster: Choice,
    /// Folder of our own cluster, or of kind's kubeconfig.
    #[arg(long, default_value = "target/demo")]
    dir: PathBuf,
    /// The program that makes our own cluster.
    #[arg(long, env = "GODWIT_CLUSTER_TOOL", default_value = "target/cluster")]
    cluster_tool: PathBuf,
    #[arg(long, env = "GODWIT_HELM", default_value = "helm")]
    helm: PathBuf,
    /// Folder with the images as archives.
    #[arg(long, env = "GODWIT_IMAGES", default_value = "target/images")]
    images: PathBuf,
    #[arg(long, default_value = "charts/godwit")]
    chart: PathBuf,
    /// Godwit's image, as `repository:tag`.
    #[arg(long, env = "GODWIT_IMAGE", default_value = "godwit:dev")]
    godwit_image: String,
}

/// A cluster with Godwit on it.
pub struct Ground {
    pub client: Client,
    /// None for the user's own cluster.
    pub kubeconfig: Option<PathBuf>,
}

impl GroundOptions {
    /// Brings the cluster up, or finds it up, and installs the chart.
    pub async fn prepare(&self, screen: &mut Screen) -> anyhow::Result<Ground> {
        let archives = self.archives()?;
        let kubeconfig = match self.cluster {
            Choice::Current => None,
            Choice::Own => {
                screen.say("Bringing up a Kubernetes of our own.");
                Some(self.bring_up_own(&archives).await?)
            }
            Choice::Kind => {
                screen.say("Bringing up a Kubernetes with kind.");
                Some(self.bring_up_kind(&archives).await?)
            }
        };
        screen.say("Installing Godwit by its chart.");
        self.install(kubeconfig.as_deref(), &archives).await?;
        Ok(Ground { client: connect(kubeconfig.as_deref()).await?, kubeconfig })
    }

    /// The cluster as it is.
    pub async fn find(&self) -> anyhow::Result<Client> {
        connect(None).await
    }

    /// Removes a cluster that we made. False when there is none of ours to remove.
    pub async fn remove(&self) -> anyhow::Result<bool> {
        match self.cluster {
            Choice::Current => Ok(false),
            Choice::Own => {
                run(Command::new(&self.cluster_tool).arg("down").arg("--dir").arg(&self.dir)).await?;
                Ok(true)
            }
            Choice::Kind => {
                run(Command::new("kind").args(["delete", "cluster", "--name", KIND_CLUSTER])).await?;
                Ok(true)
            }
        }
    }

    async fn bring_up_own(&self, archives: &[PathBuf]) -> anyhow::Result<PathBuf> {
        let mut up = Command::new(&self.cluster_tool);
        let kubeconfig = run(up.args(["up", "--size=node", "--dir"]).arg(&self.dir)).await?;
        ensure!(!archives.is_empty(), "no images in {}: run `make images`", self.images.display());
        let mut load = Command::new(&self.cluster_tool);
        run(load.args(["image", "load", "--dir"]).arg(&self.dir).args(archives)).await?;
        Ok(PathBuf::from(kubeconfig.trim()))
    }

    async fn bring_up_kind(&self, archives: &[PathBuf]) -> anyhow::Result<PathBuf> {
        let clusters = run(Command::new("kind").args(["get", "clusters"])).await?;
        tokio::fs::create_dir_all(&self.dir).await.context("failed to create the demo's folder")?;
        let kubeconfig = self.dir.join("kubeconfig");
        let known = clusters.lines().any(|name| name == KIND_CLUSTER);
        let verb: &[&str] = if known { &["export", "kubeconfig"] } else { &["create", "cluster"] };
        let mut kind = Command::new("kind");
        run(kind.args(verb).args(["--name", KIND_CLUSTER, "--kubeconfig"]).arg(&kubeconfig)).await?;
        for archive in archives {
            let mut load = Command::new("kind");
            run(load.args(["load", "image-archive", "--name", KIND_CLUSTER]).arg(archive)).await?;
        }
        Ok(kubeconfig)
    }

    async fn install(&self, kubeconfig: Option<&Path>, archives: &[PathBuf]) -> anyhow::Result<()> {
        let Some((repository, tag)) = self.godwit_image.rsplit_once(':') else {
            bail!("--godwit-image needs a tag, as in godwit:dev");
        };
        let mut helm = Command::new(&self.helm);
        helm.args(["upgrade", "--install", "godwit"]).arg(&self.chart);
        helm.args(["--namespace", "godwit-system", "--create-namespace", "--wait", "--timeout", "5m"]);
        helm.args(["--set-string", &format!("image.repository={repository},image.tag={tag}")]);
        // A tag that stays while its image changes would leave the old operator running.
        helm.args(["--set-string", &format!("podAnnotations.images-built={}", newest(archives))]);
        if let Some(kubeconfig) = kubeconfig {
            helm.arg("--kubeconfig").arg(kubeconfig);
        }
        run(&mut helm).await.map(drop)
    }

    fn archives(&self) -> anyhow::Result<Vec<PathBuf>> {
        if self.cluster == Choice::Current {
            return Ok(Vec::new());
        }
        let files = std::fs::read_dir(&self.images)
            .with_context(|| format!("no images in {}: run `make images`", self.images.display()))?;
        let mut archives: Vec<PathBuf> = files
            .filter_map(|file| Some(file.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|extension| extension == "tar"))
            .collect();
        archives.sort();
        Ok(archives)
    }
}

/// Seconds since 1970 of the latest archive; 0 when there are none.
fn newest(archives: &[PathBuf]) -> u64 {
    let modified = archives.iter().filter_map(|path| path.metadata().ok()?.modified().ok());
    modified.filter_map(|time| Some(time.duration_since(UNIX_EPOCH).ok()?.as_secs())).max().unwrap_or(0)
}

async fn connect(kubeconfig: Option<&Path>) -> anyhow::Result<Client> {
    let Some(path) = kubeconfig else {
        return Client::try_default().await.context("failed to set up a client; does KUBECONFIG name a cluster?");
    };
    let file = Kubeconfig::read_from(path).with_context(|| format!("failed to read {}", path.display()))?;
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
        .await
        .context("the cluster's kubeconfig cannot be used")?;
    Client::try_from(config).context("failed to set up a client")
}

/// Runs a program to its end and returns what it printed; its errors go to the terminal as they come.
async fn run(command: &mut Command) -> anyhow::Result<String> {
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .await
        .with_context(|| format!("failed to start {program}"))?;
    ensure!(output.status.success(), "{program} failed ({})", output.status);
    String::from_utf8(output.stdout).with_context(|| format!("{program} printed something that is no text"))
}
