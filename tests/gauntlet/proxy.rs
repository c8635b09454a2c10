//! The fault proxy: everything that the operators of one run say to the API server goes through here.
//! Each process has a door of its own, so that the audit log and the trace know who spoke. The faults are the plan's;
//! without one the proxy changes nothing but the user agent.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderName, Request, Response, StatusCode, header};
use kube::Client;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

use crate::operator::Process;
use crate::plan::{Action, Cut};
use crate::traffic::{self, Sent, Traffic, classify};
use crate::watches::{self, Mode};
use crate::wire::{Wire, Wires};

/// The start of every user agent of an operator in the audit log; the rest is the process's name.
pub const AGENT: &str = "gauntlet-operator/";
/// Longest that watches stay frozen: an operator that is idle makes no later write.
const LONGEST_FREEZE: Duration = Duration::from_secs(4);

/// Longest that a deposed leader's write is held.
const LONGEST_HOLD: Duration = Duration::from_secs(120);

/// What the proxy asks of the run.
pub enum Order {
    SecondReplica,
}

pub struct Proxy {
    upstream: Client,
    pub traffic: Traffic,
    watches: watch::Sender<Mode>,
    denied: Mutex<Option<Denied>>,
    orders: mpsc::UnboundedSender<Order>,
    /// W3: what was listed first, by path and query without its version.
    first_lists: Mutex<HashMap<String, Bytes>>,
    old_lists: AtomicBool,
    processes: Mutex<Vec<Arc<Process>>>,
    /// The run has reached its end: what is held must not be held any longer.
    pub over: watch::Sender<bool>,
}

struct Denied {
    code: u16,
    until: Instant,
    resource: Option<String>,
}

/// One process's way in.
pub struct Door {
    proxy: Arc<Proxy>,
    name: String,
    process: OnceLock<Arc<Process>>,
}

type Answer = Response<Body>;

/// A write under way.
struct Write {
    request: Request<Bytes>,
    sent: Sent,
}

impl Proxy {
    pub fn new(upstream: Client, traffic: Traffic, orders: mpsc::UnboundedSender<Order>) -> Arc<Self> {
        Arc::new(Self {
            upstream,
            traffic,
            watches: watch::channel(Mode::default()).0,
            denied: Mutex::default(),
            orders,
            first_lists: Mutex::default(),
            old_lists: AtomicBool::new(false),
            processes: Mutex::default(),
            over: watch::channel(false).0,
        })
    }

    /// Opens a door; returns it with its port.
    pub async fn open(self: &Arc<Self>, name: &str) -> (Arc<Door>, u16) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let door = Arc::new(Door { proxy: Arc::clone(self), name: name.to_owned(), process: OnceLock::new() });
        let router = Router::new().fallback(enter).with_state(Arc::clone(&door));
        let service = router.into_make_service_with_connect_info::<Wire>();
        tokio::spawn(async move { axum::serve(Wires(listener), service).await });
        (door, port)
    }

    /// Sends a request on as this process's.
    async fn send(&self, process: &str, request: Request<Bytes>) -> Answer {
        let (mut parts, body) = request.into_parts();
        let kept: [HeaderName; 2] = [header::ACCEPT, header::CONTENT_TYPE];
        let headers: Vec<_> =
            kept.into_iter().filter_map(|name| Some((name.clone(), parts.headers.remove(name)?))).collect();
        parts.headers.clear();
        parts.headers.extend(headers);
        parts.headers.insert(header::USER_AGENT, format!("{AGENT}{process}").parse().unwrap());
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        parts.uri = path.parse().unwrap();
        match self.upstream.send(Request::from_parts(parts, kube::client::Body::from(body.to_vec()))).await {
            Ok(answer) => {
                let (mut parts, body) = answer.into_parts();
                let kind = parts.headers.remove(header::CONTENT_TYPE);
                parts.headers.clear();
                parts.headers.extend(kind.map(|kind| (header::CONTENT_TYPE, kind)));
                parts.version = axum::http::Version::HTTP_11;
                Response::from_parts(parts, Body::new(body))
            }
            Err(error) => status(502, &format!("the API server could not be reached: {error}")),
        }
    }

    fn denies(&self, path: &str) -> Option<u16> {
        let denied = self.denied.lock().unwrap();
        let denied = denied.as_ref().filter(|denied| Instant::now() < denied.until)?;
        let concerned = denied.resource.as_ref().is_none_or(|resource| path.contains(&format!("/{resource}")));
        concerned.then_some(denied.code)
    }

    fn freeze(self: &Arc<Self>, until: u64, gone: bool) {
        self.watches.send_modify(|mode| mode.frozen = true);
        let proxy = Arc::clone(self);
        tokio::spawn(async move {
            proxy.traffic.until_write(until, LONGEST_FREEZE).await;
            if gone {
                proxy.cut(Cut::Gone);
            }
            proxy.watches.send_modify(|mode| mode.frozen = false);
        });
    }

    fn cut(&self, how: Cut) {
        self.watches.send_modify(|mode| *mode = Mode { cuts: mode.cuts + 1, how: Some(how), ..*mode });
    }
}

impl Door {
    pub fn belongs_to(&self, process: Arc<Process>) {
        self.proxy.processes.lock().unwrap().push(Arc::clone(&process));
        let _ = self.process.set(process);
    }

    async fn process(&self) -> Arc<Process> {
        loop {
            if let Some(process) = self.process.get() {
                return Arc::clone(process);
            }
            tokio::task::yield_now().await;
        }
    }

    async fn read(&self, request: Request<Bytes>) -> Answer {
        let query = request.uri().query().unwrap_or_default().to_owned();
        let key = format!("{}?{}", request.uri().path(), without_version(&query));
        let any_version = query.split('&').any(|one| one == "resourceVersion=0");
        if any_version && self.proxy.old_lists.load(Ordering::SeqCst) {
            let old = self.proxy.first_lists.lock().unwrap().get(&key).cloned();
            if let Some(old) = old {
                self.proxy.traffic.note(json!({"process": self.name, "read": key, "fault": "old list"}));
                return Response::builder().header(header::CONTENT_TYPE, "application/json").body(old.into()).unwrap();
            }
        }
        let answer = self.proxy.send(&self.name, request).await;
        let (parts, body) = answer.into_parts();
        let Ok(body) = axum::body::to_bytes(body, usize::MAX).await else {
            return status(502, "the API server's answer broke off");
        };
        if parts.status == StatusCode::OK && is_list(&body) {
            self.proxy.first_lists.lock().unwrap().entry(key).or_insert_with(|| body.clone());
        }
        Response::from_parts(parts, body.into())
    }

    async fn watch(&self, request: Request<Bytes>) -> Answer {
        let answer = self.proxy.send(&self.name, request).await;
        let (parts, body) = answer.into_parts();
        let body =
            if parts.status == StatusCode::OK { watches::told(body, self.proxy.watches.subscribe()) } else { body };
        Response::from_parts(parts, body)
    }

    /// Sends a write on and notes what became of it.
    async fn deliver(&self, write: &Write, fault: &str) -> Answer {
        let answer = self.proxy.send(&self.name, write.request.clone()).await;
        let (parts, body) = answer.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap_or_default();
        if parts.status.is_success() {
            self.proxy.traffic.count_accepted(&self.name);
        }
        self.note(write, fault, parts.status.as_u16());
        Response::from_parts(parts, body.into())
    }

    fn note(&self, write: &Write, fault: &str, code: u16) {
        let body: Value = serde_json::from_slice(write.request.body()).unwrap_or_default();
        let meta = &body["metadata"];
        self.proxy.traffic.note(json!({
            "n": write.sent.number, "of": write.sent.key, "nth": write.sent.nth, "process": self.name,
            "path": write.request.uri().path(), "uid": meta["uid"], "rv": meta["resourceVersion"],
            "status": code, "fault": fault,
        }));
    }

    /// Carries the plan's fault out. `None`: the connection breaks without an answer.
    async fn act(self: &Arc<Self>, write: &Arc<Write>, action: Action) -> Option<Answer> {
        let proxy = &self.proxy;
        match action {
            Action::KillBefore => {
                self.note(write, "killed before", 0);
                self.process().await.kill().await;
                None
            }
            Action::KillAfter | Action::OldLists => {
                self.deliver(write, "killed after").await;
                proxy.old_lists.store(action == Action::OldLists, Ordering::SeqCst);
                self.process().await.kill().await;
                None
            }
            Action::LoseAnswer { code } => {
                self.deliver(write, "answer lost").await;
                (code > 0).then(|| status(code, "the answer was lost"))
            }
            Action::Refuse { code } => {
                self.note(write, "refused", code);
                Some(status(code, "refused"))
            }
            Action::Twice { later } => {
                let first = self.deliver(write, "first of two").await;
                let (door, write) = (Arc::clone(self), Arc::clone(write));
                tokio::spawn(async move {
                    door.proxy.traffic.until_write(write.sent.number + later, LONGEST_FREEZE).await;
                    door.deliver(&write, "second of two").await;
                });
                Some(first)
            }
            Action::Zombie { writes } => {
                self.outlive(write, writes).await;
                None
            }
            Action::FreezeWatches { writes, gone } => {
                proxy.freeze(write.sent.number + writes, gone);
                Some(self.deliver(write, "watches frozen").await)
            }
            Action::CutWatches { how } => {
                proxy.cut(how);
                Some(self.deliver(write, "watches cut").await)
            }
            Action::Deny { code, millis, resource } => {
                let until = Instant::now() + Duration::from_millis(millis);
                *proxy.denied.lock().unwrap() = Some(Denied { code, until, resource });
                self.note(write, "denied", code);
                Some(status(code, "denied"))
            }
        }
    }

    /// The leader is stopped with its write on the way; a successor acts; then the write arrives, and the leader wakes up.
    async fn outlive(&self, write: &Write, writes: u64) {
        let process = self.process().await;
        process.freeze().await;
        self.note(write, "held", 0);
        let _ = self.proxy.orders.send(Order::SecondReplica);
        let proxy = &self.proxy;
        let others = || {
            let processes = proxy.processes.lock().unwrap();
            let names = processes.iter().map(|one| one.name.clone()).filter(|name| *name != self.name);
            names.map(|name| proxy.traffic.accepted(&name)).max().unwrap_or_default()
        };
        let before = others();
        let mut over = proxy.over.subscribe();
        let mut count = proxy.traffic.writes.subscribe();
        let patience = tokio::time::sleep(LONGEST_HOLD);
        tokio::pin!(patience);
        // A write is counted as accepted a moment after it was numbered, hence the tick.
        let mut tick = tokio::time::interval(Duration::from_millis(100));
        while others() < before + writes {
            tokio::select! {
                () = &mut patience => break,
                _ = over.wait_for(|over| *over) => break,
                _ = count.changed() => {}
                _ = tick.tick() => {}
            }
        }
        self.deliver(write, "released").await;
        process.thaw().await;
    }
}

/// The API server's way of saying no.
fn status(code: u16, message: &str) -> Answer {
    let reason = match code {
        401 => "Unauthorized",
        403 => "Forbidden",
        409 => "Conflict",
        422 => "Invalid",
        429 => "TooManyRequests",
        503 => "ServiceUnavailable",
        504 => "Timeout",
        _ => "InternalError",
    };
    let body = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": format!("injected: {message}"), "reason": reason, "code": code});
    let mut answer = Response::builder().status(code).header(header::CONTENT_TYPE, "application/json");
    if code == 429 {
        answer = answer.header(header::RETRY_AFTER, "1");
    }
    answer.body(body.to_string().into()).unwrap()
}

/// A list says so in its kind, wherever that stands: objects of a definition are told with their keys in order.
fn is_list(body: &[u8]) -> bool {
    let told: Value = serde_json::from_slice(body).unwrap_or_default();
    told["kind"].as_str().is_some_and(|kind| kind.ends_with("List"))
}

fn without_version(query: &str) -> String {
    query.split('&').filter(|one| !one.starts_with("resourceVersion")).collect::<Vec<_>>().join("&")
}

async fn enter(State(door): State<Arc<Door>>, ConnectInfo(wire): ConnectInfo<Wire>, request: Request<Body>) -> Answer {
    let (parts, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, usize::MAX).await else {
        wire.cut();
        return status(400, "the request broke off");
    };
    let uri = &parts.uri;
    let kind = classify(&parts.method, uri.path(), uri.query().unwrap_or_default(), &body);
    let denied = door.proxy.denies(uri.path());
    let request = Request::from_parts(parts, body);
    if let traffic::Request::Write(key) = kind {
        // On a task of its own: a client that hangs up does not take back what it sent.
        let answer = tokio::spawn(write(door, request, key, denied)).await.ok().flatten();
        return answer.unwrap_or_else(|| {
            wire.cut();
            status(500, "cut")
        });
    }
    if let Some(code) = denied {
        return status(code, "denied");
    }
    match kind {
        traffic::Request::Watch => door.watch(request).await,
        traffic::Request::Read => door.read(request).await,
        traffic::Request::Aside | traffic::Request::Write(_) => door.proxy.send(&door.name, request).await,
    }
}

async fn write(door: Arc<Door>, request: Request<Bytes>, key: String, denied: Option<u16>) -> Option<Answer> {
    let (sent, action) = door.proxy.traffic.number(&key);
    let write = Arc::new(Write { request, sent });
    if let Some(code) = denied {
        door.note(&write, "denied", code);
        return Some(status(code, "denied"));
    }
    match action {
        Some(action) => door.act(&write, action).await,
        None => Some(door.deliver(&write, "").await),
    }
}
