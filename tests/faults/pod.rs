//! The worker as a Job's pod has it: the built program, its input in the environment, mounts and processes of its own.
//! Used by `world`. Killing a pod ends everything in it at once, as the end of a container's first process does.
//! Must leave nothing behind: mounts and processes are in namespaces that end with it.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use godwit::contract::{
    INCLUDE_MOUNT, Report, SCRATCH_MOUNT, SOURCE_URI_ENV, STEP_ENV, StepInput, TARGET_URI_ENV, TERMINATION_PATH_ENV,
};
use tokio::process::{Child, Command};

use crate::server::with_own_mounts;

/// The folder of this machine that a pod sees its own in place of; both mounts are below it.
const SHADOWED: &str = "/var/lib";

pub struct Pod {
    child: Child,
    folder: PathBuf,
}

/// How a pod ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// `None`: killed.
    pub code: Option<i32>,
    pub report: Option<Report>,
    pub log: String,
}

impl Pod {
    /// `folder` is this pod's own; `uris` are of the source and of the target.
    pub fn start(folder: &Path, input: &StepInput, uris: (String, String)) -> Self {
        for mount in [INCLUDE_MOUNT, SCRATCH_MOUNT] {
            std::fs::create_dir_all(inside(folder, mount)).unwrap();
        }
        let log = std::fs::File::create(folder.join("log")).unwrap();
        let mut command = Command::new("unshare");
        command.args(with_own_mounts()).args(["--pid", "--fork", "--kill-child=KILL"]);
        command.args(["sh", "-ec", "mount --bind \"$1\" \"$2\"; shift 2; exec \"$@\"", "sh"]);
        command.arg(inside(folder, SHADOWED)).arg(SHADOWED);
        command.args([env!("CARGO_BIN_EXE_godwit"), "worker", input.task.name()]);
        command
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env(STEP_ENV, serde_json::to_string(input).unwrap())
            .env(SOURCE_URI_ENV, uris.0)
            .env(TARGET_URI_ENV, uris.1)
            .env(TERMINATION_PATH_ENV, folder.join("termination-log"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true);
        Self { child: command.spawn().unwrap(), folder: folder.to_owned() }
    }

    /// `kill -9`, and returns when it is dead.
    pub async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    pub async fn ended(&mut self) -> Ended {
        let status = self.child.wait().await.unwrap();
        let report = std::fs::read_to_string(self.folder.join("termination-log")).unwrap_or_default();
        let log = std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        Ended { code: status.code(), report: Report::from_termination_message(&report), log }
    }
}

/// Where the pod's `path` is outside of it.
pub fn inside(folder: &Path, path: &str) -> PathBuf {
    folder.join("root").join(path.trim_start_matches('/'))
}
