//! A throw-away PostgreSQL for test restores: own folder, unix socket only, no durability, gone when dropped.
//! Started by `steps::verify_backup`; [`programs`] also serves whoever needs `pg_dump` or `psql`.
//! Must not listen on a network and must not outlive its value, whatever happens to the step.

use std::collections::VecDeque;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// Where a socket's path may end: the kernel's bound is 107 bytes.
const MAX_SOCKET_PATH: usize = 107;
const SOCKET_NAME: &str = ".s.PGSQL.5432";
/// Written by the server once it answers; its messages are in English since it runs under `LC_ALL=C`.
const READY: &str = "database system is ready to accept connections";
/// The server's last words before it answered, for the error message.
const KEPT_LINES: usize = 8;
const SUPERUSER: &str = "postgres";

/// The sandbox's settings: nothing in it must survive, and nobody but us may reach it.
const SETTINGS: &[&str] = &[
    "listen_addresses=",
    "fsync=off",
    "synchronous_commit=off",
    "full_page_writes=off",
    "wal_level=minimal",
    "max_wal_senders=0",
    "max_wal_size=2GB",
    "autovacuum=off",
    "jit=off",
    "max_connections=16",
    "shared_buffers=64MB",
    "maintenance_work_mem=64MB",
    "logging_collector=off",
    "log_destination=stderr",
    "log_min_messages=log",
    "log_min_error_statement=panic",
];

/// Why there is no sandbox.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    #[error("the programs of PostgreSQL (initdb, postgres, pg_ctl, psql, pg_dump, pg_restore) are not installed here")]
    Programs,
    #[error("failed to prepare the sandbox folder {folder}")]
    Folder {
        folder: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the path of the sandbox folder {folder} is too long for a unix socket")]
    SocketPath { folder: PathBuf },
    #[error("PostgreSQL does not run as root, and there is no user `postgres` to run the sandbox as")]
    Root,
    #[error("failed to run {program}")]
    Run {
        program: &'static str,
        #[source]
        source: std::io::Error,
    },
    #[error("{program} failed: {output}")]
    Failed { program: &'static str, output: String },
}

impl SandboxError {
    /// The image or the pod is not fit for a sandbox: a retry is pointless.
    pub fn is_misconfigured(&self) -> bool {
        match self {
            Self::Programs | Self::Root | Self::SocketPath { .. } => true,
            // PostgreSQL asks for the name of whom it runs as: the image's /etc/passwd must have the pod's user.
            Self::Failed { output, .. } => output.contains("could not look up effective user ID"),
            Self::Folder { .. } | Self::Run { .. } => false,
        }
    }
}

/// The folder of the newest PostgreSQL programs on this machine.
pub fn programs() -> Result<PathBuf, SandboxError> {
    const NEEDED: [&str; 6] = ["initdb", "postgres", "pg_ctl", "psql", "pg_dump", "pg_restore"];
    let mut versions: Vec<(u32, PathBuf)> = Vec::new();
    for (root, prefix) in [("/usr/lib/postgresql", ""), ("/usr", "pgsql-")] {
        let Ok(entries) = std::fs::read_dir(root) else {
            continue;
        };
        versions.extend(entries.flatten().filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let version = name.strip_prefix(prefix)?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        }));
    }
    versions.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
    let elsewhere = ["/usr/local/pgsql/bin", "/usr/local/bin", "/usr/bin"];
    versions
        .into_iter()
        .map(|(_, folder)| folder)
        .chain(elsewhere.map(PathBuf::from))
        .find(|folder| NEEDED.iter().all(|name| folder.join(name).is_file()))
        .ok_or(SandboxError::Programs)
}

/// Whom the server runs as: ourselves, or `postgres` when we are root (tests, not pods).
#[derive(Clone, Copy, Debug)]
struct Account(Option<(u32, u32)>);

impl Account {
    fn find() -> Result<Self, SandboxError> {
        let us = std::fs::metadata("/proc/self")
            .map_err(|source| SandboxError::Folder { folder: "/proc/self".into(), source })?;
        if us.uid() != 0 {
            return Ok(Self(None));
        }
        let accounts = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        let ids = accounts.lines().find_map(|line| {
            let mut fields = line.strip_prefix("postgres:")?.split(':').skip(1);
            Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
        });
        ids.map(|ids| Self(Some(ids))).ok_or(SandboxError::Root)
    }

    fn give(self, folder: &Path) -> std::io::Result<()> {
        match self.0 {
            Some((uid, gid)) => std::os::unix::fs::chown(folder, Some(uid), Some(gid)),
            None => Ok(()),
        }
    }
}

/// The parts that outlive neither a failed start nor the value.
#[derive(Debug)]
struct Folder {
    path: PathBuf,
    programs: PathBuf,
    account: Account,
}

impl Folder {
    fn create(scratch: &Path) -> Result<Self, SandboxError> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = scratch.join(format!("sandbox-{}-{number}", std::process::id()));
        if path.join(SOCKET_NAME).as_os_str().len() > MAX_SOCKET_PATH {
            return Err(SandboxError::SocketPath { folder: path });
        }
        let folder = Self { programs: programs()?, account: Account::find()?, path };
        let failed = |source| SandboxError::Folder { folder: folder.path.clone(), source };
        // A container that was restarted has the same process id and may find its predecessor's folder.
        match std::fs::remove_dir_all(&folder.path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(failed(error));
            }
            _ => {}
        }
        std::fs::create_dir(&folder.path).map_err(failed)?;
        // The server trusts whoever reaches its socket, so nobody else may.
        std::fs::set_permissions(&folder.path, std::fs::Permissions::from_mode(0o700)).map_err(failed)?;
        folder.account.give(&folder.path).map_err(failed)?;
        Ok(folder)
    }

    fn data(&self) -> PathBuf {
        self.path.join("data")
    }

    fn command(&self, program: &'static str) -> std::process::Command {
        let mut command = std::process::Command::new(self.programs.join(program));
        command
            .env_clear()
            .env("LC_ALL", "C")
            .env("PATH", "/usr/bin:/bin")
            .current_dir(&self.path)
            .stdin(Stdio::null());
        if let Some((uid, gid)) = self.account.0 {
            use std::os::unix::process::CommandExt;
            command.uid(uid).gid(gid);
        }
        command
    }

    async fn init(&self) -> Result<(), SandboxError> {
        let mut command = Command::from(self.command("initdb"));
        command
            .arg("--pgdata")
            .arg(self.data())
            .args(["--username", SUPERUSER, "--auth", "trust"])
            .args(["--encoding", "UTF8", "--no-locale", "--no-sync", "--no-instructions"])
            .kill_on_drop(true);
        let output = command.output().await.map_err(|source| SandboxError::Run { program: "initdb", source })?;
        if output.status.success() {
            return Ok(());
        }
        Err(SandboxError::Failed { program: "initdb", output: last_lines(&String::from_utf8_lossy(&output.stderr)) })
    }

    fn spawn(&self) -> Result<Child, SandboxError> {
        let mut command = Command::from(self.command("postgres"));
        command.arg("-D").arg(self.data());
        for setting in SETTINGS {
            command.args(["-c", setting]);
        }
        command
            .arg("-c")
            .arg(format!("unix_socket_directories={}", self.path.display()))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| SandboxError::Run { program: "postgres", source })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // By the server's own pid file. A plain kill of the server would leave its shared memory behind.
        if self.data().join("postmaster.pid").exists() {
            let stopped = self
                .command("pg_ctl")
                .arg("stop")
                .arg("-D")
                .arg(self.data())
                .args(["-m", "immediate", "-w", "-t", "20", "-s"])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status();
            if !stopped.is_ok_and(|status| status.success()) {
                tracing::warn!(folder = %self.path.display(), "the sandbox server did not stop when asked to");
            }
        }
        if let Err(error) = std::fs::remove_dir_all(&self.path) {
            tracing::warn!(folder = %self.path.display(), %error, "the sandbox folder stays behind");
        }
    }
}

/// A running throw-away server with an empty database in UTF-8.
#[derive(Debug)]
pub struct Sandbox {
    // Declared before `server`: the server is asked to stop before its process would be killed.
    folder: Folder,
    server: Child,
}

impl Sandbox {
    /// Starts a server below `scratch`, which must be a writable folder; ready when this returns.
    pub async fn start(scratch: &Path) -> Result<Self, SandboxError> {
        let folder = Folder::create(scratch)?;
        folder.init().await?;
        let server = folder.spawn()?;
        let mut sandbox = Self { folder, server };
        sandbox.await_ready().await?;
        Ok(sandbox)
    }

    /// How to connect as superuser to its database `postgres`.
    pub fn uri(&self) -> String {
        let folder: String = self
            .folder
            .path
            .to_string_lossy()
            .bytes()
            .map(|byte| match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => char::from(byte).to_string(),
                other => format!("%{other:02X}"),
            })
            .collect();
        format!("postgresql://{SUPERUSER}@/postgres?host={folder}&sslmode=disable")
    }

    /// The folder of its programs.
    pub fn programs(&self) -> &Path {
        &self.folder.programs
    }

    /// The server's process id, as long as it runs.
    pub fn pid(&self) -> Option<u32> {
        self.server.id()
    }

    async fn await_ready(&mut self) -> Result<(), SandboxError> {
        let run = |source| SandboxError::Run { program: "postgres", source };
        let Some(messages) = self.server.stderr.take() else {
            return Err(run(std::io::ErrorKind::BrokenPipe.into()));
        };
        let mut lines = BufReader::new(messages).lines();
        let mut kept = VecDeque::new();
        while let Some(line) = lines.next_line().await.map_err(run)? {
            if line.contains(READY) {
                // Its later messages may quote rows: they are read, so that it never waits for us, and dropped.
                tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
                return Ok(());
            }
            if kept.len() == KEPT_LINES {
                kept.pop_front();
            }
            kept.push_back(line);
        }
        Err(SandboxError::Failed { program: "postgres", output: Vec::from(kept).join("; ") })
    }
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(KEPT_LINES)..].join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn connect(sandbox: &Sandbox) -> tokio_postgres::Client {
        let (client, connection) = tokio_postgres::connect(&sandbox.uri(), tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    fn scratch() -> tempfile::TempDir {
        let scratch = tempfile::tempdir().unwrap();
        std::fs::set_permissions(scratch.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
        scratch
    }

    #[tokio::test]
    async fn a_sandbox_answers_on_its_socket_only_and_leaves_nothing_behind() {
        let scratch = scratch();
        let sandbox = Sandbox::start(scratch.path()).await.unwrap();
        let client = connect(&sandbox).await;
        let row = client
            .query_one(
                "select current_setting('listen_addresses'), current_setting('fsync'), current_setting('server_encoding')",
                &[],
            )
            .await
            .unwrap();
        assert_eq!((row.get(0), row.get(1), row.get(2)), ("", "off", "UTF8"));
        let pid = sandbox.pid().unwrap();
        assert!(Path::new(&format!("/proc/{pid}")).exists());
        drop(sandbox);
        assert!(!std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| { !stat.contains(") Z ") }));
        assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn two_sandboxes_do_not_meet() {
        let scratch = scratch();
        let (one, two) = tokio::join!(Sandbox::start(scratch.path()), Sandbox::start(scratch.path()));
        let (one, two) = (one.unwrap(), two.unwrap());
        let client = connect(&one).await;
        client.batch_execute("create table only_here ()").await.unwrap();
        let other = connect(&two).await;
        assert!(other.batch_execute("table only_here").await.is_err());
    }

    #[tokio::test]
    async fn an_unusable_scratch_folder_is_an_error_that_names_it() {
        let error = Sandbox::start(Path::new("/nonexistent")).await.unwrap_err();
        assert!(error.to_string().contains("/nonexistent"), "{error}");
        let long = "x".repeat(120);
        let error = Sandbox::start(Path::new(&long)).await.unwrap_err();
        assert!(matches!(error, SandboxError::SocketPath { .. }));
    }
}
