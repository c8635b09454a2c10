//! Two PostgreSQL clusters in temporary folders with the settings of a real server, and the reference CRM on the source.
//! Made once by `main`; ends with its value, by the servers' own pids. Must not leave a file behind.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::data;
use crate::server::{Server, bin};

/// Durable as a real server is; the write-ahead log is bounded so that the disk is.
const SETTINGS: &[&str] = &[
    "fsync=on",
    "shared_buffers=2GB",
    "max_wal_size=4GB",
    "min_wal_size=80MB",
    "checkpoint_timeout=30min",
    "wal_level=logical",
    "maintenance_work_mem=512MB",
    "work_mem=128MB",
];

pub const SOURCE_DATABASE: &str = "crm";

pub struct Rig {
    pub source: Server,
    pub target: Server,
    /// Backups, evidence, scratch files.
    pub folder: tempfile::TempDir,
    pub scale: f64,
    pub rounds: usize,
    pub runtime: tokio::runtime::Runtime,
}

impl Rig {
    pub fn new() -> Self {
        let number = |name: &str, default: f64| {
            std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is no number")))
        };
        let rig = Self {
            source: Server::start(SETTINGS),
            target: Server::start(SETTINGS),
            folder: tempfile::Builder::new().prefix("godwit-bench").tempdir().unwrap(),
            scale: number("GODWIT_BENCH_SCALE", 1.0),
            rounds: number("GODWIT_BENCH_ROUNDS", 5.0) as usize,
            runtime: godwit::worker::runtime().unwrap(),
        };
        let accounts = [&rig.source, &rig.target].map(|server| {
            let pid = std::fs::read_to_string(server.socket_directory().join("data/postmaster.pid")).unwrap();
            format!("/proc/{}/stat", pid.lines().next().unwrap_or_default())
        });
        let _ = crate::rounds::SERVERS.set(accounts.to_vec());
        let started = Instant::now();
        rig.source.psql("postgres", &format!("create database {SOURCE_DATABASE}"));
        rig.source.psql(SOURCE_DATABASE, &data::sql(rig.scale));
        // VACUUM sets the hint bits, so that no reader's first pass pays for them.
        rig.source.psql(SOURCE_DATABASE, "vacuum analyze");
        rig.settle();
        eprintln!("the CRM at scale {} was built in {:.0} s", rig.scale, started.elapsed().as_secs_f64());
        rig
    }

    pub fn source_uri(&self) -> String {
        self.source.uri(SOURCE_DATABASE)
    }

    /// Before each measurement: no contestant pays for the pages that another one left dirty.
    pub fn settle(&self) {
        for server in [&self.source, &self.target] {
            server.psql("postgres", "checkpoint");
        }
    }

    /// Makes an empty database on the target, dropping what has its name.
    pub fn fresh(&self, name: &str) -> String {
        self.drop_database(name);
        self.target.psql("postgres", &format!("create database {name} template template0"));
        self.settle();
        self.target.uri(name)
    }

    pub fn drop_database(&self, name: &str) {
        self.target.psql("postgres", &format!("drop database if exists {name} with (force)"));
    }

    /// A folder of its own for backups and evidence.
    pub fn place(&self, name: &str) -> PathBuf {
        let folder = self.folder.path().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }
}

/// Runs a shell pipeline in which every part must succeed.
pub fn shell(script: &str) -> Duration {
    let started = Instant::now();
    let output = Command::new("bash")
        .args(["-e", "-u", "-o", "pipefail", "-c", script])
        .stdin(Stdio::null())
        .env("PATH", path())
        .env("PGCLIENTENCODING", "UTF8")
        .output()
        .unwrap();
    let took = started.elapsed();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}\n{said}\n{}", String::from_utf8_lossy(&output.stdout));
    took
}

/// One line of output of a program, for the record.
pub fn line_of(script: &str) -> String {
    let output = Command::new("bash").args(["-c", script]).env("PATH", path()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().next().unwrap_or_default().to_owned()
}

/// The programs of the server that runs come first.
fn path() -> String {
    let programs = bin("psql");
    let inherited = std::env::var("PATH").unwrap_or_default();
    programs.parent().map_or(inherited.clone(), |folder| format!("{}:{inherited}", folder.display()))
}

/// A psql command line for one statement.
pub fn psql(uri: &str, sql: &str) -> String {
    format!("psql -X -q -v ON_ERROR_STOP=1 -d '{uri}' -c \"{sql}\"")
}

/// The only value of a query.
pub fn value(uri: &str, sql: &str) -> String {
    let output = Command::new(bin("psql"))
        .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", uri, "-c", sql])
        .output();
    let output = output.unwrap();
    assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}
