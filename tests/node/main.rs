//! The node tier: both demos on a real kubelet and containerd, through the very program that `make demo` runs, asserted; and
//! between them bad input, on the first one's cluster.
//! Run by `make test-node`, which builds the programs and images first. Must leave no process, mount or link behind.

mod bad_input;
#[path = "../apiserver/conditions.rs"]
mod conditions;
mod overhead;
mod shop;

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// A cluster that is removed whatever happens to the test.
struct Ground {
    folder: tempfile::TempDir,
}

impl Ground {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a temporary folder can be made") }
    }

    /// Runs a demo and returns its summary. A demo whose promises are broken ends with an error, after it stored them.
    fn tell(&self, story: &str) -> Value {
        let file = self.folder.path().join(format!("{story}.json"));
        let mut demo = self.program(story);
        let ended = demo.arg("--summary-file").arg(&file).status().expect("the demo can be started");
        let text =
            std::fs::read_to_string(&file).unwrap_or_else(|_| panic!("{story} ended with {ended} and no summary"));
        let summary: Value = serde_json::from_str(&text).expect("the summary is JSON");
        assert_eq!(broken_promises(&summary), Vec::<String>::new(), "{story}");
        assert!(ended.success(), "{story} ended with {ended}");
        summary
    }

    fn program(&self, subcommand: &str) -> Command {
        let mut program = Command::new(root().join("target/release/examples/crm"));
        program
            .current_dir(root())
            .args([subcommand, "--cluster=own", "--dir"])
            .arg(self.folder.path().join("cluster"));
        program
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        let ended = self.program("demo-down").status();
        if !ended.is_ok_and(|ended| ended.success()) {
            eprintln!("the cluster in {} could not be removed", self.folder.path().display());
        }
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn broken_promises(summary: &Value) -> Vec<String> {
    let promises = summary["promises"].as_array().expect("a summary lists its promises");
    let broken = promises.iter().filter(|promise| promise["kept"] != true);
    broken.map(|promise| format!("{}: {}", promise["text"], promise["seen"])).collect()
}

fn cohort<'a>(summary: &'a Value, name: &str) -> &'a Value {
    let cohorts = summary["facts"]["cohorts"].as_array().expect("a summary lists its cohorts");
    cohorts.iter().find(|cohort| cohort["name"] == name).unwrap_or(&Value::Null)
}

/// One test, because all stories share a cluster and a machine.
#[test]
fn both_demos_keep_every_promise_and_bad_input_is_named_and_mended_on_a_real_node() {
    let ground = Ground::new();

    let forward = ground.tell("demo");
    let customers: i64 = ["canary", "early", "rest"]
        .iter()
        .map(|name| cohort(&forward, name)["customers"].as_i64().expect("a cohort counts its customers"))
        .sum();
    // New customers come while the migration runs, and the remainder takes them in.
    assert!(customers >= 20_000, "{customers} customers moved");
    for name in ["canary", "early", "rest"] {
        let pause = cohort(&forward, name)["pauseMillis"].as_i64().expect("a cutover measures its pause");
        assert!((1..120_000).contains(&pause), "{name} paused for {pause} ms");
    }

    let kubeconfig = ground.folder.path().join("cluster/kubeconfig");
    let overhead = overhead::measure(&kubeconfig);
    println!(
        "a Job's creation to the worker's first session: {:#}; to an empty pod: {:#}",
        overhead.step, overhead.empty
    );

    bad_input::tell(&kubeconfig);

    let rollback = ground.tell("demo-rollback");
    let findings = &rollback["facts"]["findings"];
    assert!(findings["setAsideWrites"].as_i64() > Some(0), "the returned cohort wrote nothing on the new CRM");
    assert_eq!(cohort(&rollback, "early")["owner"], "Source");
    assert_eq!(cohort(&rollback, "rest")["pauseMillis"], Value::Null);
}
