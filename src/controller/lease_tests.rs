//! The lease against an API server in memory that can be away, hang, or be written to behind our back.
//! Beside `lease.rs`, whose budget of lines they would exceed.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use axum::body::to_bytes;
use axum::http::{Method, Request, Response, StatusCode};
use kube::client::Body;
use serde_json::{Value, json};

use super::*;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Mood {
    Well,
    Away,
    Hanging,
}

/// One lease, with optimistic concurrency.
#[derive(Clone)]
struct Server {
    lease: Arc<Mutex<Option<Value>>>,
    mood: Arc<Mutex<Mood>>,
}

impl Server {
    fn new() -> Self {
        Self { lease: Arc::default(), mood: Arc::new(Mutex::new(Mood::Well)) }
    }

    fn client(&self) -> Client {
        let server = self.clone();
        let service = tower::service_fn(move |request| {
            let server = server.clone();
            async move { Ok::<_, Infallible>(server.answer(request).await) }
        });
        Client::new(service, "shop")
    }

    fn be(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    fn holder(&self) -> Option<String> {
        let lease = self.lease.lock().unwrap();
        lease.as_ref()?["spec"]["holderIdentity"].as_str().map(str::to_owned)
    }

    /// Writes past the elector, as a person or another program would.
    fn force(&self, holder: &str) {
        let mut lease = self.lease.lock().unwrap();
        let lease = lease.as_mut().unwrap();
        lease["spec"]["holderIdentity"] = json!(holder);
        bump(lease);
    }

    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let mood = *self.mood.lock().unwrap();
        match mood {
            Mood::Away => return status(StatusCode::SERVICE_UNAVAILABLE),
            Mood::Hanging => std::future::pending().await,
            Mood::Well => {}
        }
        let method = request.method().clone();
        let bytes = to_bytes(axum::body::Body::new(request.into_body()), 65_536).await.unwrap();
        let mut held = self.lease.lock().unwrap();
        if method == Method::GET {
            return held.as_ref().map_or_else(|| status(StatusCode::NOT_FOUND), ok);
        }
        let mut sent: Value = serde_json::from_slice(&bytes).unwrap();
        let version = |lease: &Value| lease["metadata"]["resourceVersion"].clone();
        let allowed = match held.as_ref() {
            None => method == Method::POST,
            Some(held) => method == Method::PUT && version(held) == version(&sent),
        };
        if !allowed {
            return status(StatusCode::CONFLICT);
        }
        if let Some(held) = held.as_ref() {
            sent["metadata"]["resourceVersion"] = version(held);
        }
        bump(&mut sent);
        *held = Some(sent.clone());
        ok(&sent)
    }
}

fn bump(lease: &mut Value) {
    let version = lease["metadata"]["resourceVersion"].as_str().unwrap_or("0");
    let next = version.parse::<u32>().unwrap() + 1;
    lease["metadata"]["resourceVersion"] = json!(next.to_string());
}

fn ok(lease: &Value) -> Response<Body> {
    Response::new(Body::from(serde_json::to_vec(lease).unwrap()))
}

/// As the API server answers: the client library tells answers apart by their reason.
fn status(code: StatusCode) -> Response<Body> {
    let reason = match code {
        StatusCode::NOT_FOUND => "NotFound",
        StatusCode::CONFLICT => "Conflict",
        _ => "ServiceUnavailable",
    };
    let body = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "no", "reason": reason, "code": code.as_u16()});
    let mut response = Response::new(Body::from(serde_json::to_vec(&body).unwrap()));
    *response.status_mut() = code;
    response
}

/// A lease of one second, the shortest that the API can express.
fn settings(identity: &str) -> LeaseSettings {
    LeaseSettings {
        duration: Duration::from_secs(1),
        renew_deadline: Duration::from_millis(600),
        retry: Duration::from_millis(50),
        ..LeaseSettings::new("shop".into(), "godwit".into(), identity.into())
    }
}

const SHORT: Duration = Duration::from_millis(400);
const LONG: Duration = Duration::from_secs(5);

#[tokio::test(start_paused = true)]
async fn the_first_takes_the_lease_and_keeps_it_while_a_standby_waits() {
    let server = Server::new();
    let mut first = acquire(&server.client(), &settings("a"), Arc::default()).await;
    let standby_client = server.client();
    let standby_settings = settings("b");
    let standby = acquire(&standby_client, &standby_settings, Arc::default());
    tokio::select! {
        lost = first.keep() => panic!("{lost:?}"),
        _ = standby => panic!("two leaders"),
        () = tokio::time::sleep(Duration::from_millis(1700)) => {}
    }
    assert_eq!(server.holder().as_deref(), Some("a"));
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_cannot_reach_the_server_gives_up_before_a_standby_may_take_over() {
    for mood in [Mood::Away, Mood::Hanging] {
        let server = Server::new();
        let mandate = Arc::new(Mandate::default());
        assert!(!mandate.holds());
        let mut held = acquire(&server.client(), &settings("a"), Arc::clone(&mandate)).await;
        let kept = tokio::time::timeout(settings("a").duration * 2, held.keep()).await;
        assert!(kept.is_err() && mandate.holds(), "{mood:?}");
        let began = Instant::now();
        server.be(mood);
        let lost = tokio::time::timeout(LONG, held.keep()).await.unwrap();
        assert_eq!(lost, Lost::NotRenewed, "{mood:?}");
        assert!(!mandate.holds(), "{mood:?}");
        assert!(began.elapsed() < settings("a").duration, "{mood:?}: {:?}", began.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_taken_by_force_is_noticed_at_the_next_renewal() {
    let server = Server::new();
    let mut held = acquire(&server.client(), &settings("a"), Arc::default()).await;
    server.force("intruder");
    let lost = tokio::time::timeout(SHORT, held.keep()).await.unwrap();
    assert_eq!(lost, Lost::Taken { by: "intruder".into() });
    assert_eq!(server.holder().as_deref(), Some("intruder"));
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_does_not_lose_the_lease() {
    let server = Server::new();
    let mut held = acquire(&server.client(), &settings("a"), Arc::default()).await;
    // The renewal landed and its answer did not: the stored version is ahead of ours.
    server.force("a");
    let kept = tokio::time::timeout(Duration::from_millis(900), held.keep()).await;
    assert!(kept.is_err(), "{kept:?}");
}

#[tokio::test(start_paused = true)]
async fn an_expired_lease_is_taken_by_one_of_two_standbys() {
    let server = Server::new();
    drop(acquire(&server.client(), &settings("dead"), Arc::default()).await);
    let (client_b, client_c) = (server.client(), server.client());
    let (settings_b, settings_c) = (settings("b"), settings("c"));
    let race = async {
        tokio::select! {
            held = acquire(&client_b, &settings_b, Arc::default()) => ("b", held),
            held = acquire(&client_c, &settings_c, Arc::default()) => ("c", held),
        }
    };
    let began = Instant::now();
    let (winner, mut held) = tokio::time::timeout(LONG, race).await.unwrap();
    assert!(began.elapsed() > settings("b").duration);
    assert_eq!(server.holder().as_deref(), Some(winner));
    let loser = if winner == "b" { settings_c } else { settings_b };
    let loser_client = server.client();
    tokio::select! {
        lost = held.keep() => panic!("{lost:?}"),
        _ = acquire(&loser_client, &loser, Arc::default()) => panic!("two leaders"),
        () = tokio::time::sleep(Duration::from_millis(1500)) => {}
    }
}

#[tokio::test(start_paused = true)]
async fn the_clock_that_a_holder_wrote_is_not_believed() {
    let server = Server::new();
    drop(acquire(&server.client(), &settings("a"), Arc::default()).await);
    for renewed in ["2001-01-01T00:00:00.000000Z", "2099-01-01T00:00:00.000000Z"] {
        {
            let mut lease = server.lease.lock().unwrap();
            lease.as_mut().unwrap()["spec"]["renewTime"] = json!(renewed);
            lease.as_mut().unwrap()["spec"]["holderIdentity"] = json!("a");
            bump(lease.as_mut().unwrap());
        }
        let began = Instant::now();
        let taken = tokio::time::timeout(LONG, acquire(&server.client(), &settings("b"), Arc::default())).await;
        assert!(taken.is_ok(), "{renewed}");
        assert!(began.elapsed() > Duration::from_secs(1), "{renewed}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_released_lease_is_taken_at_once() {
    let server = Server::new();
    let held = acquire(&server.client(), &settings("a"), Arc::default()).await;
    held.release().await;
    assert_eq!(server.holder(), None);
    let (client, standby) = (server.client(), settings("b"));
    let next = acquire(&client, &standby, Arc::default());
    tokio::time::timeout(SHORT, next).await.unwrap();
    assert_eq!(server.holder().as_deref(), Some("b"));
}
