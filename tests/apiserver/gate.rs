//! Stands between an operator and the API server: counts its writes, ends it at one of them, or lets another writer in first.
//! The faults are enumerated by the index of the write, so a failing case can be run again.

use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use axum::http::{Method, Request, Response};
use futures::future::BoxFuture;
use kube::client::Body;
use tokio::sync::Notify;
use tower::{Layer, Service};

/// When the operator dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    Never,
    /// The n-th write lands, its answer never comes.
    After(usize),
    /// The n-th write is never sent.
    Before(usize),
}

type Hook = Box<dyn Fn(&str) -> Option<BoxFuture<'static, ()>> + Send + Sync>;

#[derive(Clone)]
pub struct Gate {
    state: Arc<State>,
}

struct State {
    death: Death,
    writes: Mutex<Vec<String>>,
    /// What came back for each write, in the order of the answers.
    answers: Mutex<Vec<(String, u16)>>,
    dead: Mutex<bool>,
    died: Notify,
    before_write: Mutex<Option<Hook>>,
}

impl Gate {
    pub fn new(death: Death) -> Self {
        Self {
            state: Arc::new(State {
                death,
                writes: Mutex::default(),
                answers: Mutex::default(),
                dead: Mutex::new(false),
                died: Notify::new(),
                before_write: Mutex::default(),
            }),
        }
    }

    /// Writes so far, as `POST jobs`, `PUT migrations/crm/status`; the lease's are left out.
    pub fn writes(&self) -> Vec<String> {
        self.state.writes.lock().unwrap().clone()
    }

    pub fn answers(&self) -> Vec<(String, u16)> {
        self.state.answers.lock().unwrap().clone()
    }

    /// Runs before a write is sent, when the hook wants it.
    pub fn before_write(&self, hook: impl Fn(&str) -> Option<BoxFuture<'static, ()>> + Send + Sync + 'static) {
        *self.state.before_write.lock().unwrap() = Some(Box::new(hook));
    }

    /// Cuts the operator off: nothing is answered any more.
    pub fn cut(&self) {
        *self.state.dead.lock().unwrap() = true;
        self.state.died.notify_one();
    }

    pub async fn death(&self) {
        self.state.died.notified().await;
    }

    fn is_dead(&self) -> bool {
        *self.state.dead.lock().unwrap()
    }

    /// True: the write is to be sent.
    fn admit(&self, write: &str) -> bool {
        let mut writes = self.state.writes.lock().unwrap();
        if self.state.death == Death::Before(writes.len() + 1) {
            drop(writes);
            self.cut();
            return false;
        }
        writes.push(write.to_owned());
        true
    }

    fn answered(&self, write: &str, code: u16) {
        self.state.answers.lock().unwrap().push((write.to_owned(), code));
        if let Death::After(n) = self.state.death
            && self.state.answers.lock().unwrap().len() >= n
        {
            self.cut();
        }
    }
}

/// `/apis/godwit.dev/v1alpha1/namespaces/x/migrations/crm/status` is `PUT migrations/crm/status`.
fn write_of(request: &Request<Body>) -> Option<String> {
    let path = request.uri().path();
    if request.method() == Method::GET || path.contains("/leases") {
        return None;
    }
    let inside = path.split("/namespaces/").nth(1).and_then(|rest| rest.split_once('/'));
    Some(format!("{} {}", request.method(), inside.map_or(path, |(_, rest)| rest)))
}

impl<S> Layer<S> for Gate {
    type Service = Gated<S>;

    fn layer(&self, inner: S) -> Gated<S> {
        Gated { gate: self.clone(), inner }
    }
}

pub struct Gated<S> {
    gate: Gate,
    inner: S,
}

impl<S, B> Service<Request<Body>> for Gated<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    B: Send + 'static,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response<B>, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let gate = self.gate.clone();
        let write = write_of(&request);
        // Sent when it is polled first, not before.
        let sent = self.inner.call(request);
        Box::pin(async move {
            if gate.is_dead() {
                return std::future::pending().await;
            }
            let Some(write) = write else {
                let answer = sent.await;
                return if gate.is_dead() { std::future::pending().await } else { answer };
            };
            let first = gate.state.before_write.lock().unwrap().as_ref().and_then(|hook| hook(&write));
            if let Some(first) = first {
                first.await;
            }
            if !gate.admit(&write) {
                return std::future::pending().await;
            }
            let answer = sent.await;
            let code = answer.as_ref().map_or(0, |answer| answer.status().as_u16());
            gate.answered(&write, code);
            if gate.is_dead() { std::future::pending().await } else { answer }
        })
    }
}
