//! What all runs of a batch share: one control plane with an audit log, its administrator, the fake kubelet, the board.
//! Made by `campaign.rs`, removed with its last user.

use std::path::PathBuf;

use k8s_openapi::api::core::v1::Namespace;
use kube::api::PostParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde_json::json;

use crate::board::Board;
use crate::cluster::Cluster;
use crate::ground::{install_definitions, of};
use crate::kubelet::Kubelet;
use crate::{settings, subject};

pub struct Stage {
    pub client: Client,
    pub board: Board,
    pub kubelet: Kubelet,
    /// Address of the server that answers checks.
    pub checks: String,
    /// Folder of the audit log and of the runs' own folders.
    pub folder: PathBuf,
    // Last: the cluster goes when everything that talks to it has gone.
    _cluster: Cluster,
}

impl Stage {
    pub async fn up(name: &str) -> Self {
        let folder = settings::folder().join(name);
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        let log = folder.join("audit").join("audit.log");
        let flags = [format!("--audit-log={}", log.display()), "--audit-level=Request".to_owned()];
        let cluster = tokio::task::spawn_blocking(move || Cluster::up("gauntlet-cluster", &flags)).await.unwrap();
        let kubeconfig = Kubeconfig::read_from(&cluster.kubeconfig).unwrap();
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
        config.default_retry = false;
        let client = Client::try_from(config).unwrap();
        install_definitions(&client).await;
        let board = Board::start(&client);
        let kubelet = Kubelet::start(&client, &board);
        let checks = subject::serve_checks(client.clone()).await;
        Self { client, board, kubelet, checks, folder, _cluster: cluster }
    }

    pub async fn create_namespace(&self, name: &str) {
        let object: Namespace = of(json!({"metadata": {"name": name}}));
        Api::all(self.client.clone()).create(&PostParams::default(), &object).await.unwrap();
    }
}
