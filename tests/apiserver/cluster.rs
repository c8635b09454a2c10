//! The control plane that the tests run against, brought up by the repository's own tool.
//! Removed by the last test that uses it, after a panic too; what a killed run left behind is removed by the next.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

static COUNT: AtomicU32 = AtomicU32::new(0);
static SHARED: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());

pub struct Cluster {
    dir: PathBuf,
    pub kubeconfig: PathBuf,
}

impl Cluster {
    /// The cluster of this moment; brought up when there is none.
    pub fn shared() -> Arc<Self> {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cluster) = shared.upgrade() {
            return cluster;
        }
        let cluster = Arc::new(Self::up("apiserver", &[]));
        *shared = Arc::downgrade(&cluster);
        cluster
    }

    /// Brings one up in a folder of this kind, with more flags for `cluster up`.
    pub fn up(kind: &str, flags: &[String]) -> Self {
        let parent = Path::new(env!("CARGO_TARGET_TMPDIR")).join(kind);
        std::fs::create_dir_all(&parent).unwrap();
        remove_leftovers(&parent);
        // A folder of its own: the one before may still be going down when the next test wants a cluster.
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = parent.join(format!("{}-{number}", std::process::id()));
        let output = tool()
            .args(["up", "--size=control-plane", "--dir"])
            .arg(&dir)
            .args(flags)
            .stderr(Stdio::inherit())
            .output()
            .expect("the cluster tool starts");
        assert!(output.status.success(), "the cluster did not come up");
        let kubeconfig = String::from_utf8(output.stdout).unwrap().trim().into();
        Self { dir, kubeconfig }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        down(&self.dir);
    }
}

fn tool() -> Command {
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/cluster");
    let path = std::env::var_os("GODWIT_CLUSTER_TOOL").map_or(ours, PathBuf::from);
    assert!(path.exists(), "{} is not there: `make test-apiserver` builds it", path.display());
    Command::new(path)
}

fn down(dir: &Path) {
    let status = tool().args(["down", "--dir"]).arg(dir).stdout(Stdio::null()).stderr(Stdio::null()).status();
    let removed = status.is_ok_and(|status| status.success());
    if removed {
        let _ = std::fs::remove_dir_all(dir);
    }
}

/// A run that was killed could not clean up; its folders begin with its process id.
fn remove_leftovers(parent: &Path) {
    for entry in std::fs::read_dir(parent).unwrap().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.split('-').next());
        let alive = pid.is_some_and(|pid| Path::new("/proc").join(pid).exists());
        if !alive {
            down(&entry.path());
        }
    }
}
