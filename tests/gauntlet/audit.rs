//! The API server's own record of what was done, as events that the rules can be checked over.
//! Read by `campaign.rs` at the end of a batch. The order is that of the answers, which is that of the log.

use std::collections::HashMap;
use std::io::BufRead;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use crate::proxy::AGENT;

/// Who wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Actor {
    /// An operator process, by name.
    Operator(String),
    /// The controllers of Kubernetes, by service account.
    Controller(String),
    /// The test: people and the kubelet.
    Person,
}

/// One write, accepted or not.
#[derive(Clone, Debug)]
pub struct Event {
    pub actor: Actor,
    pub verb: String,
    pub resource: String,
    pub subresource: String,
    pub name: String,
    pub code: u16,
    /// Seconds since the epoch, when the request came in.
    pub received: f64,
    pub body: Value,
}

impl Event {
    pub fn accepted(&self) -> bool {
        (200..300).contains(&self.code)
    }

    pub fn operator(&self) -> Option<&str> {
        match &self.actor {
            Actor::Operator(name) => Some(name),
            _ => None,
        }
    }

    /// An accepted write of this kind, such as `("update", "cohorts", "status")`.
    pub fn is(&self, verb: &str, resource: &str, subresource: &str) -> bool {
        self.accepted() && self.verb == verb && self.resource == resource && self.subresource == subresource
    }

    pub fn label(&self, key: &str) -> &str {
        self.body["metadata"]["labels"][format!("godwit.dev/{key}")].as_str().unwrap_or_default()
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    verb: String,
    #[serde(default)]
    user_agent: String,
    user: User,
    object_ref: Option<Reference>,
    #[serde(default)]
    request_object: Value,
    response_status: Option<Status>,
    request_received_timestamp: jiff::Timestamp,
}

#[derive(Deserialize)]
struct User {
    username: String,
}

#[derive(Deserialize)]
struct Reference {
    resource: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    subresource: String,
}

#[derive(Deserialize)]
struct Status {
    #[serde(default)]
    code: u16,
}

/// The log and the files that it was rotated into, oldest first.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    // `audit-<time>.log` sorts before `audit.log`.
    files.sort();
    files
}

/// All writes by namespace; what only reads, leases and events are left out.
pub fn read(folder: &Path) -> HashMap<String, Vec<Event>> {
    let mut events: HashMap<String, Vec<Event>> = HashMap::new();
    for file in files(folder) {
        let reader = std::io::BufReader::with_capacity(1 << 20, std::fs::File::open(file).unwrap());
        for line in reader.split(b'\n') {
            let line = line.unwrap();
            if is_aside(&line) {
                continue;
            }
            let Ok(line) = serde_json::from_slice::<Line>(&line) else { continue };
            let Some(reference) = line.object_ref else { continue };
            if ["leases", "events"].contains(&reference.resource.as_str()) {
                continue;
            }
            let name = if reference.name.is_empty() {
                line.request_object["metadata"]["name"].as_str().unwrap_or_default().to_owned()
            } else {
                reference.name
            };
            let actor = actor(&line.user_agent, &line.user.username);
            #[expect(clippy::cast_precision_loss, reason = "microseconds of this century fit")]
            let received = line.request_received_timestamp.as_microsecond() as f64 / 1e6;
            events.entry(reference.namespace).or_default().push(Event {
                actor,
                verb: line.verb,
                resource: reference.resource,
                subresource: reference.subresource,
                name,
                code: line.response_status.map_or(0, |status| status.code),
                received,
                body: line.request_object,
            });
        }
    }
    events
}

/// Cheap: most lines are reads, and a whole batch is hundreds of megabytes.
fn is_aside(line: &[u8]) -> bool {
    let head = &line[..line.len().min(800)];
    let has = |text: &str| head.windows(text.len()).any(|part| part == text.as_bytes());
    line.is_empty() || has(r#""verb":"get""#) || has(r#""verb":"list""#) || has(r#""verb":"watch""#)
}

fn actor(agent: &str, user: &str) -> Actor {
    if let Some(name) = agent.strip_prefix(AGENT) {
        return Actor::Operator(name.to_owned());
    }
    match user.strip_prefix("system:serviceaccount:kube-system:") {
        Some(name) => Actor::Controller(name.to_owned()),
        None if user.starts_with("system:kube-") || user.starts_with("system:apiserver") => {
            Actor::Controller(user.to_owned())
        }
        None => Actor::Person,
    }
}
