//! Real, throw-away PostgreSQL servers for the tests, and pairs of databases on them.
//! `Pair::new` is what a test starts with; the two servers (source, target) are shared by the tests that run at the same time
//! and end with the last of them, by their own pid, after a panic too. `tests/faults` starts servers of its own and crashes them.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Weak, mpsc};
use std::time::{Duration, Instant};

use godwit::contract::Side;
use godwit::worker::postgres::session::{Purpose, Session, connect};

static SHARED: Mutex<Weak<Servers>> = Mutex::new(Weak::new());
static COUNTER: AtomicU32 = AtomicU32::new(0);

/// The newest installed server's programs.
pub fn bin(program: &str) -> PathBuf {
    let mut versions: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    versions.sort_by_key(|path| path.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok()));
    versions
        .iter()
        .rev()
        .map(|path| path.join("bin").join(program))
        .find(|path| path.exists())
        .unwrap_or_else(|| program.into())
}

fn is_root() -> bool {
    let output = Command::new("id").arg("-u").output().unwrap();
    output.stdout.starts_with(b"0\n")
}

/// What a command is put behind, so that mounts made in it are its own and end with it.
pub fn with_own_mounts() -> &'static [&'static str] {
    if is_root() { &["--mount"] } else { &["--user", "--map-current-user", "--keep-caps", "--mount"] }
}

/// PostgreSQL refuses to run as root: then it runs as the user `postgres`. The server dies with `keep_alive`'s thread.
fn as_postgres(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    if is_root() {
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
    }
    command.args(["--pdeathsig", "INT", "--"]).arg(program);
    command.env_remove("PGOPTIONS").current_dir("/");
    command
}

/// One running server with its own data directory, socket directory and port.
pub struct Server {
    running: Mutex<Option<Running>>,
    directory: tempfile::TempDir,
    settings: Vec<String>,
    small_disk: Option<&'static str>,
    pub port: u16,
}

struct Running {
    child: Child,
    /// Ends the thread that is the server's parent.
    _keeper: mpsc::Sender<()>,
}

impl Server {
    /// Starts a server; `settings` are further `name=value` settings.
    pub fn start(settings: &[&str]) -> Self {
        Self::start_with(settings, None)
    }

    /// Starts a server that has, as folder [`Server::small_disk`], a file system of this size in memory, seen by it alone.
    pub fn start_with_small_disk(size: &'static str) -> Self {
        Self::start_with(&[], Some(size))
    }

    fn start_with(settings: &[&str], small_disk: Option<&'static str>) -> Self {
        let directory = tempfile::Builder::new().prefix("godwit-pg").tempdir().unwrap();
        std::fs::create_dir(directory.path().join("small")).unwrap();
        if is_root() {
            let owned = Command::new("chown").args(["-R", "postgres:postgres"]).arg(directory.path()).status();
            assert!(owned.unwrap().success());
        }
        let initialised = as_postgres(&bin("initdb"))
            .args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync", "-D"])
            .arg(directory.path().join("data"))
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .status();
        assert!(initialised.unwrap().success(), "initdb failed");
        let settings = settings.iter().map(ToString::to_string).collect();
        let server = Self { running: Mutex::new(None), directory, settings, small_disk, port: free_port() };
        server.start_again();
        server
    }

    /// Starts the server on its data directory, and waits until it answers.
    pub fn start_again(&self) {
        let mut command = self.command();
        let log = std::fs::File::options().create(true).append(true).open(self.directory.path().join("log")).unwrap();
        command.stdout(Stdio::null()).stderr(log).stdin(Stdio::null());
        let (child, keeper) = spawn_kept(command);
        *self.running.lock().unwrap() = Some(Running { child, _keeper: keeper });
        self.wait_until_ready();
    }

    fn command(&self) -> Command {
        let mut command = as_postgres(&bin("postgres"));
        command.arg("-D").arg(self.directory.path().join("data")).args(["-p", &self.port.to_string()]);
        let sockets = format!("unix_socket_directories={}", self.directory.path().display());
        let fixed = [
            "listen_addresses=127.0.0.1",
            sockets.as_str(),
            "fsync=off",
            "shared_buffers=32MB",
            "max_connections=60",
            "autovacuum=off",
            "log_min_messages=fatal",
            "log_statement=none",
        ];
        for setting in fixed.into_iter().chain(self.settings.iter().map(String::as_str)) {
            command.args(["-c", setting]);
        }
        let Some(size) = self.small_disk else {
            return command;
        };
        let mut mounted = Command::new("unshare");
        mounted.args(with_own_mounts()).args(["sh", "-ec"]);
        mounted.arg("mount -t tmpfs -o size=$1,mode=777 tmpfs \"$2\"; shift 2; exec \"$@\"");
        mounted.args(["sh", size]).arg(self.small_disk()).arg(command.get_program()).args(command.get_args());
        mounted.env_remove("PGOPTIONS").current_dir("/");
        mounted
    }

    /// Where the small disk is mounted for the server.
    pub fn small_disk(&self) -> PathBuf {
        self.directory.path().join("small")
    }

    /// `pg_ctl stop -m immediate`: no checkpoint, no farewell.
    pub fn crash(&self) {
        self.end("-QUIT");
    }

    fn end(&self, signal: &str) {
        let Some(mut running) = self.running.lock().unwrap().take() else {
            return;
        };
        // The pid is our own child's, not yet waited for, so it cannot be another's.
        let _ = Command::new("kill").args([signal, &running.child.id().to_string()]).status();
        let _ = running.child.wait();
    }

    fn wait_until_ready(&self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let ready = Command::new(bin("pg_isready"))
                .args(["-q", "-h", "127.0.0.1", "-U", "postgres", "-p", &self.port.to_string()])
                .status()
                .unwrap();
            if ready.success() {
                return;
            }
            let log = std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "the server is not ready: {log}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn uri(&self, database: &str) -> String {
        self.uri_as("postgres", database)
    }

    pub fn uri_as(&self, user: &str, database: &str) -> String {
        format!("postgresql://{user}@127.0.0.1:{}/{database}?sslmode=disable", self.port)
    }

    /// The folder of the unix socket.
    pub fn socket_directory(&self) -> &Path {
        self.directory.path()
    }

    /// Runs SQL through psql, stopping at the first error.
    pub fn psql(&self, database: &str, sql: &str) {
        let output = Command::new(bin("psql"))
            .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d"])
            .arg(self.uri(database))
            .args(["-c", sql])
            .output()
            .unwrap();
        assert!(output.status.success(), "psql failed: {}\n{sql}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // PostgreSQL's fast shutdown.
        self.end("-INT");
    }
}

/// The parent-death signal follows the thread that spawned the child, and test threads end early: so a thread of its own.
fn spawn_kept(mut command: Command) -> (Child, mpsc::Sender<()>) {
    let (keeper, kept) = mpsc::channel::<()>();
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let _ = sender.send(command.spawn());
        let _ = kept.recv();
        // Dropped by the server after its end.
    });
    (receiver.recv().unwrap().unwrap(), keeper)
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// The source's and the target's server.
pub struct Servers {
    pub source: Server,
    pub target: Server,
}

impl Servers {
    pub fn shared() -> Arc<Self> {
        let mut shared = SHARED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(servers) = shared.upgrade() {
            return servers;
        }
        let servers = Arc::new(Self { source: Server::start(&[]), target: Server::start(&[]) });
        *shared = Arc::downgrade(&servers);
        servers
    }
}

/// A database on each of the two servers, for one test.
pub struct Pair {
    pub servers: Arc<Servers>,
    pub database: String,
    pub source_uri: String,
    pub target_uri: String,
}

impl Pair {
    /// `schema` runs on the source only; the target stays empty.
    pub fn new(schema: &str) -> Self {
        let servers = Servers::shared();
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let database = format!("d{}_{number}", std::process::id());
        for server in [&servers.source, &servers.target] {
            server.psql("postgres", &format!("create database {database}"));
        }
        servers.source.psql(&database, schema);
        Self { source_uri: servers.source.uri(&database), target_uri: servers.target.uri(&database), servers, database }
    }

    pub fn server(&self, side: Side) -> &Server {
        match side {
            Side::Source => &self.servers.source,
            Side::Target => &self.servers.target,
        }
    }

    pub fn uri(&self, side: Side) -> &str {
        match side {
            Side::Source => &self.source_uri,
            Side::Target => &self.target_uri,
        }
    }

    pub fn psql(&self, side: Side, sql: &str) {
        self.server(side).psql(&self.database, sql);
    }

    /// A session as Godwit opens it, as superuser.
    pub async fn session(&self, side: Side) -> Session {
        connect(self.uri(side), Purpose::new(side, "test")).await.unwrap()
    }

    /// A plain connection as an application would have it.
    pub async fn application(&self, side: Side, user: &str) -> tokio_postgres::Client {
        let uri = self.server(side).uri_as(user, &self.database);
        let (client, connection) = tokio_postgres::connect(&uri, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }
}

#[test]
fn a_server_ends_with_its_handle_and_leaves_nothing_behind() {
    let server = Server::start(&[]);
    let pid = server.running.lock().unwrap().as_ref().unwrap().child.id();
    let directory = server.socket_directory().to_owned();
    server.psql("postgres", "select 1");
    drop(server);
    assert!(!directory.exists());
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
}
