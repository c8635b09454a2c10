//! The operator as it is shipped: a process of its own that can be killed, stopped and continued.
//! Used by `run.rs`, and by the proxy to end it at a write. Must not talk to the API server.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use crate::settings;

pub struct Process {
    /// Such as `A1`; part of the user agent in the audit log.
    pub name: String,
    id: u32,
    kill: mpsc::UnboundedSender<()>,
    ended: watch::Receiver<bool>,
    /// Another replica leads by now: this one is not to be started again.
    pub deposed: AtomicBool,
}

/// What a process is started with.
pub struct Start<'a> {
    pub name: String,
    pub namespace: &'a str,
    pub port: u16,
    pub folder: &'a Path,
    /// Duration, renew deadline and retry period of the lease, in seconds.
    pub lease: [u32; 3],
}

impl Process {
    pub fn start(start: Start<'_>) -> Self {
        let Start { name, namespace, port, folder, lease } = start;
        let kubeconfig = write_kubeconfig(folder, &name, port);
        let log = std::fs::File::create(folder.join(format!("operator-{name}.log"))).unwrap();
        let mut command = tokio::process::Command::new(settings::operator());
        command
            .arg("controller")
            .env_clear()
            .env("KUBECONFIG", kubeconfig)
            .env("GODWIT_NAMESPACES", namespace)
            .env("GODWIT_NAMESPACE", namespace)
            .env("GODWIT_POD_NAME", &name)
            .env("GODWIT_WORKER_IMAGE", "godwit:test")
            .env("GODWIT_LISTEN", "127.0.0.1:0")
            .env("GODWIT_CHECKS_ALLOW_LOOPBACK", "true")
            .env("GODWIT_LEASE_DURATION", format!("{}s", lease[0]))
            .env("GODWIT_LEASE_RENEW_DEADLINE", format!("{}s", lease[1]))
            .env("GODWIT_LEASE_RETRY_PERIOD", format!("{}s", lease[2]))
            .env("RUST_LOG", "info")
            .env("TOKIO_WORKER_THREADS", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true);
        let mut child = command.spawn().expect("the operator starts");
        let id = child.id().expect("it was not waited for yet");
        let (kill, mut killed) = mpsc::unbounded_channel();
        let (tell, ended) = watch::channel(false);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = child.wait() => break,
                    asked = killed.recv() => {
                        let _ = child.start_kill();
                        if asked.is_none() {
                            let _ = child.wait().await;
                            break;
                        }
                    }
                }
            }
            tell.send_replace(true);
        });
        Self { name, id, kill, ended, deposed: AtomicBool::new(false) }
    }

    /// `kill -9`; returns when it is gone.
    pub async fn kill(&self) {
        let _ = self.kill.send(());
        self.ended().await;
    }

    pub async fn ended(&self) {
        let _ = self.ended.clone().wait_for(|ended| *ended).await;
    }

    pub fn has_ended(&self) -> bool {
        *self.ended.borrow()
    }

    /// It does nothing more until it is continued, and knows nothing of it.
    pub async fn freeze(&self) {
        self.signal("-STOP").await;
    }

    pub async fn thaw(&self) {
        self.deposed.store(true, Ordering::SeqCst);
        self.signal("-CONT").await;
    }

    async fn signal(&self, signal: &str) {
        if self.has_ended() {
            return;
        }
        let status = tokio::process::Command::new("kill").args([signal, &self.id.to_string()]).status();
        let _ = tokio::time::timeout(Duration::from_secs(5), status).await;
    }
}

fn write_kubeconfig(folder: &Path, name: &str, port: u16) -> PathBuf {
    let path = folder.join(format!("kubeconfig-{name}.yaml"));
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters:\n- name: c\n  cluster: {{server: \"http://127.0.0.1:{port}\"}}\n\
         contexts:\n- name: c\n  context: {{cluster: c, user: u}}\nusers:\n- name: u\n  user: {{}}\n"
    );
    std::fs::write(&path, text).unwrap();
    path
}
