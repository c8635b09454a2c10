//! What one run's operators sent: the running numbers, which fault comes at which of them, and the trace.
//! Used by the proxy. Must not send anything.

use std::collections::{BTreeMap, HashMap};
use std::io::Write as _;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use axum::http::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::plan::{Action, Fault};

/// What a request is, as far as faults are concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// A write that counts, such as `PUT cohorts/canary/status`.
    Write(String),
    /// Leases and events.
    Aside,
    Read,
    Watch,
}

/// Job names end in a hash over a uid, which differs from run to run.
fn without_hash(name: &str) -> String {
    let parts = name.rsplit_once('-');
    let hash = |text: &str| text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    parts.filter(|(_, tail)| hash(tail)).map_or(name, |(head, _)| head).to_owned()
}

/// `/apis/godwit.dev/v1alpha1/namespaces/x/migrations/crm/status` is `migrations/crm/status`.
fn resource_path(path: &str) -> &str {
    path.split("/namespaces/").nth(1).and_then(|rest| rest.split_once('/')).map_or(path, |(_, rest)| rest)
}

pub fn classify(method: &Method, path: &str, query: &str, body: &[u8]) -> Request {
    if method == Method::GET {
        return if query.contains("watch=true") || query.contains("watch=1") { Request::Watch } else { Request::Read };
    }
    let place = resource_path(path);
    if place.starts_with("leases") || place.starts_with("events") {
        return Request::Aside;
    }
    let mut key = place.split('/').map(without_hash).collect::<Vec<_>>().join("/");
    if method == Method::POST {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let name = body["metadata"]["name"].as_str().unwrap_or("?");
        let placeholder = body["metadata"]["labels"]["godwit.dev/placeholder"] == "true";
        key = format!("{key}/{}{}", without_hash(name), if placeholder { " (placeholder)" } else { "" });
    }
    Request::Write(format!("{method} {key}"))
}

/// One write as the trace has it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sent {
    pub number: u64,
    pub key: String,
    pub nth: u64,
}

pub struct Traffic {
    state: Mutex<State>,
    trace: Mutex<std::fs::File>,
    start: Instant,
    /// How many writes there were; faults that last until later writes wait for it.
    pub writes: watch::Sender<u64>,
}

struct State {
    waiting: Vec<Fault>,
    fired: usize,
    nth: HashMap<String, u64>,
    sent: Vec<Sent>,
    accepted: BTreeMap<String, u64>,
    last_write: Instant,
}

impl Traffic {
    pub fn new(faults: &[Fault], folder: &Path) -> Self {
        let state = State {
            waiting: faults.to_vec(),
            fired: 0,
            nth: HashMap::new(),
            sent: Vec::new(),
            accepted: BTreeMap::new(),
            last_write: Instant::now(),
        };
        Self {
            state: Mutex::new(state),
            trace: Mutex::new(std::fs::File::create(folder.join("trace.jsonl")).unwrap()),
            start: Instant::now(),
            writes: watch::channel(0).0,
        }
    }

    /// Numbers a write, and says what is to happen at it.
    pub fn number(&self, key: &str) -> (Sent, Option<Action>) {
        let mut state = self.state.lock().unwrap();
        let number = state.sent.len() as u64 + 1;
        let nth = state.nth.entry(key.to_owned()).or_default();
        *nth += 1;
        let sent = Sent { number, key: key.to_owned(), nth: *nth };
        state.last_write = Instant::now();
        state.sent.push(sent.clone());
        let due = state.waiting.iter().position(|fault| fault.at.matches(number, key, sent.nth));
        let action = due.map(|position| state.waiting.remove(position).action);
        state.fired += usize::from(action.is_some());
        drop(state);
        self.writes.send_replace(number);
        (sent, action)
    }

    pub fn accepted(&self, process: &str) -> u64 {
        self.state.lock().unwrap().accepted.get(process).copied().unwrap_or_default()
    }

    pub fn count_accepted(&self, process: &str) {
        *self.state.lock().unwrap().accepted.entry(process.to_owned()).or_default() += 1;
    }

    /// Every write so far, in the order in which they came.
    pub fn sent(&self) -> Vec<Sent> {
        self.state.lock().unwrap().sent.clone()
    }

    pub fn fired(&self) -> usize {
        self.state.lock().unwrap().fired
    }

    pub fn quiet_for(&self) -> Duration {
        self.state.lock().unwrap().last_write.elapsed()
    }

    /// Waits for later writes, at most so long.
    pub async fn until_write(&self, number: u64, limit: Duration) {
        let mut writes = self.writes.subscribe();
        let _ = tokio::time::timeout(limit, writes.wait_for(|count| *count >= number)).await;
    }

    pub fn note(&self, mut line: Value) {
        line["ms"] = json!(u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX));
        let _ = writeln!(self.trace.lock().unwrap(), "{line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Action, Trigger};

    fn kind(method: &Method, path: &str, body: &Value) -> Request {
        classify(method, path, "", body.to_string().as_bytes())
    }

    #[test]
    fn a_write_is_known_by_what_it_writes_and_leases_and_events_stand_aside() {
        let path = "/apis/godwit.dev/v1alpha1/namespaces/n/cohorts/canary/status";
        assert_eq!(kind(&Method::PUT, path, &json!({})), Request::Write("PUT cohorts/canary/status".into()));
        let jobs = "/apis/batch/v1/namespaces/n/jobs";
        let job = json!({"metadata": {"name": "canary-copy-7-0a1b2c3d"}});
        assert_eq!(kind(&Method::POST, jobs, &job), Request::Write("POST jobs/canary-copy-7".into()));
        let deleted = format!("{jobs}/canary-copy-7-0a1b2c3d");
        assert_eq!(kind(&Method::DELETE, &deleted, &json!({})), Request::Write("DELETE jobs/canary-copy-7".into()));
        for path in
            ["/apis/coordination.k8s.io/v1/namespaces/n/leases/godwit", "/apis/events.k8s.io/v1/namespaces/n/events"]
        {
            assert_eq!(kind(&Method::PUT, path, &json!({})), Request::Aside);
        }
        assert_eq!(classify(&Method::GET, jobs, "watch=true", b""), Request::Watch);
        assert_eq!(classify(&Method::GET, jobs, "limit=500", b""), Request::Read);
    }

    #[test]
    fn a_fault_comes_once_at_its_write_by_the_number_of_the_run_or_of_the_object() {
        let folder = tempfile::tempdir().unwrap();
        let of_object = Trigger { write: 9, of: Some("PUT a".into()), nth: 2 };
        let faults = [
            Fault { at: of_object, action: Action::KillBefore },
            Fault { at: Trigger::at(4), action: Action::KillAfter },
        ];
        let traffic = Traffic::new(&faults, folder.path());
        let came: Vec<_> = ["PUT a", "PUT b", "PUT a", "PUT b", "PUT a"].map(|key| traffic.number(key).1).into();
        assert_eq!(came, [None, None, Some(Action::KillBefore), Some(Action::KillAfter), None]);
        assert_eq!(traffic.fired(), 2);
    }
}
