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
    small_disk: Option<SmallDisk>,
    /// The folder of `initdb` and `postgres`.
    programs: PathBuf,
    pub port: u16,
}

/// A file system in memory that outlives a crash of its server: a process that only waits holds the namespace it is mounted in.
struct SmallDisk(Child);

impl SmallDisk {
    fn mount(folder: &Path, size: &str) -> Self {
        let mut command = Command::new("unshare");
        // Owned as the folder below it is. `cat` ends with its input, and so with us.
        let script = "mount -t tmpfs -o size=$1 tmpfs \"$2\"; chown --reference=\"$2/..\" \"$2\"; chmod 700 \"$2\"; echo; exec cat";
        command.args(with_own_mounts()).args(["sh", "-ec", script, "sh", size]).arg(folder);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut ready = [0; 1];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut ready).unwrap();
        Self(child)
    }

    fn inside(&self, command: &Command) -> Command {
        let mut entered = Command::new("nsenter");
        entered.args(["--mount", "--target", &self.0.id().to_string()]);
        if !is_root() {
            entered.args(["--user", "--preserve-credentials"]);
        }
        entered.arg("--").arg(command.get_program()).args(command.get_args());
        entered.env_remove("PGOPTIONS").current_dir("/");
        entered
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

struct Running {
    child: Child,
    /// Ends the thread that is the server's parent.
    _keeper: mpsc::Sender<()>,
}

impl Server {
    /// Starts a server; `settings` are further `name=value` settings.
    pub fn start(settings: &[&str]) -> Self {
        Self::start_of(bin(""), settings)
    }

    /// Starts a server whose programs are in that folder: another version than the clients', as a worker image meets it.
    fn start_of(programs: PathBuf, settings: &[&str]) -> Self {
        let mut server = Self::new(&std::env::temp_dir(), settings);
        server.programs = programs;
        server.init();
        server.start_again();
        server
    }

    /// Starts a server whose data are in memory where there is room: a database is created there for a fifth of the cost.
    /// `small_disk` is the size of a further file system, mounted at [`Server::small_disk`] and seen by this server alone.
    pub fn start_in_memory(small_disk: Option<&str>) -> Self {
        let mut server = Self::new(memory(), &["max_wal_size=96MB", "min_wal_size=32MB"]);
        server.init();
        server.small_disk = small_disk.map(|size| SmallDisk::mount(&server.small_disk(), size));
        server.start_again();
        server
    }

    /// A server of its own with everything that this one has now; its small disk is an ordinary folder.
    pub fn twin(&self) -> Self {
        let twin = Self::new(self.directory.path().parent().unwrap(), &["max_wal_size=96MB", "min_wal_size=32MB"]);
        let copied = as_postgres(&bin("pg_basebackup"))
            .args(["-h", "127.0.0.1", "-U", "postgres", "-p", &self.port.to_string(), "-c", "fast", "--no-sync"])
            .arg(format!("--tablespace-mapping={}={}", self.small_disk().display(), twin.small_disk().display()))
            .arg("-D")
            .arg(twin.directory.path().join("data"))
            .status();
        assert!(copied.unwrap().success(), "pg_basebackup failed");
        twin.start_again();
        twin
    }

    fn new(parent: &Path, settings: &[&str]) -> Self {
        let directory = tempfile::Builder::new().prefix("godwit-pg").tempdir_in(parent).unwrap();
        std::fs::create_dir(directory.path().join("small")).unwrap();
        if is_root() {
            let owned = Command::new("chown").args(["-R", "postgres:postgres"]).arg(directory.path()).status();
            assert!(owned.unwrap().success());
        }
        let settings = settings.iter().map(ToString::to_string).collect();
        Self { running: Mutex::new(None), directory, settings, small_disk: None, port: free_port(), programs: bin("") }
    }

    fn init(&self) {
        let initialised = as_postgres(&self.programs.join("initdb"))
            .args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync", "-D"])
            .arg(self.directory.path().join("data"))
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .status();
        assert!(initialised.unwrap().success(), "initdb failed");
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
        let mut command = as_postgres(&self.programs.join("postgres"));
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
        match &self.small_disk {
            Some(disk) => disk.inside(&command),
            None => command,
        }
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

/// A folder in memory with room for some gigabytes, or the ordinary one for temporary files.
fn memory() -> &'static Path {
    let free = Command::new("df").args(["--output=avail", "-BG", "/dev/shm"]).output();
    let free = free.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let gigabytes = free.lines().last().and_then(|line| line.trim().trim_end_matches('G').parse().ok()).unwrap_or(0);
    if gigabytes >= 4 { Path::new("/dev/shm") } else { Path::new("/tmp") }
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// The source's and the target's server: of the newest version installed, or of those whose folders the environment names.
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
        let of = |variable: &str| {
            let programs =
                std::env::var_os(variable).map_or_else(|| bin(""), |folder| PathBuf::from(folder).join("bin"));
            Server::start_of(programs, &[])
        };
        let servers =
            Arc::new(Self { source: of("GODWIT_TEST_SOURCE_POSTGRES"), target: of("GODWIT_TEST_TARGET_POSTGRES") });
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
