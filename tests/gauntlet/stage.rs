//! What all runs of a batch share: one control plane with an audit log, its administrator, the fake kubelet, the board.
//! Made by `campaign.rs` for each batch.

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
use crate::subject;

pub struct Stage {
    pub client: Client,
    pub board: Board,
    pub kubelet: Kubelet,
    /// Address of the server that answers checks.
    pub checks: String,
    /// Folder of the audit log and of the runs' own folders.
    pub folder: PathBuf,
}

impl Stage {
    pub async fn on(cluster: &Cluster, folder: PathBuf) -> Self {
        let kubeconfig = Kubeconfig::read_from(&cluster.kubeconfig).unwrap();
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
        config.default_retry = false;
        let client = Client::try_from(config).unwrap();
        install_definitions(&client).await;
        let board = Board::start(&client);
        let kubelet = Kubelet::start(&client, &board);
        let checks = subject::serve_checks(client.clone()).await;
        Self { client, board, kubelet, checks, folder }
    }

    pub async fn create_namespace(&self, name: &str) {
        let object: Namespace = of(json!({"metadata": {"name": name}}));
        Api::all(self.client.clone()).create(&PostParams::default(), &object).await.unwrap();
    }
}
