//! Endpoints that hang, drip, flood, lie and lead in circles: each costs a bounded time and is never a number.
//! Beside `mod.rs`, whose time limit and not the fetcher's own they show.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::*;

/// A server that answers each request with these bytes and then does as it likes.
async fn server<F>(answer: &'static str, then: fn(TcpStream) -> F) -> (String, JoinHandle<()>)
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/numbers", listener.local_addr().unwrap());
    let serving = tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = [0; 4096];
                let _ = connection.read(&mut request).await;
                let _ = connection.write_all(answer.as_bytes()).await;
                then(connection).await;
            });
        }
    });
    (url, serving)
}

async fn end(connection: TcpStream) {
    drop(connection);
}

async fn hang(connection: TcpStream) {
    std::future::pending::<()>().await;
    drop(connection);
}

/// One byte at a time, for ever.
async fn drip(mut connection: TcpStream) {
    while connection.write_all(b"1\r\n1\r\n").await.is_ok() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn flood(mut connection: TcpStream) {
    let piece = format!("10000\r\n{}\r\n", "1".repeat(65536));
    while connection.write_all(piece.as_bytes()).await.is_ok() {}
}

async fn measured(url: String, pointer: Option<&str>) -> Outcome {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let check: Check = serde_json::from_value(json!({
        "name": "errors", "passWhen": "value < 5.0", "timeout": "1s", "http": {"url": url, "pointer": pointer},
    }))
    .unwrap();
    let client = Client::try_from(kube::Config::new("http://127.0.0.1:9".parse().unwrap())).unwrap();
    let asked = Asked { namespace: "shop", checks: &[], statuses: &[], jobs: &Jobs::new() };
    let began = Instant::now();
    let mut all = Checks::new(true).unwrap().measure(&client, &asked, &[check]).await;
    assert!(began.elapsed() < Duration::from_secs(20), "the limit of one second is no limit");
    all.remove(0).outcome
}

const JSON: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";

#[tokio::test]
async fn an_endpoint_that_hangs_drips_or_floods_is_an_error_in_bounded_time_and_memory() {
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    for ((url, serving), why) in [
        (server("", hang).await, "no answer within 1 s"),
        (server("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{\"a\":", hang).await, "no answer within 1 s"),
        (server(chunked, drip).await, "no answer within 1 s"),
        (server(chunked, flood).await, "larger than 1048576 bytes"),
    ] {
        let outcome = measured(url, Some("/a")).await;
        serving.abort();
        assert!(matches!(&outcome, Outcome::Error { message } if message.contains(why)), "{why}: {outcome:?}");
    }
}

#[tokio::test]
async fn an_endpoint_that_lies_brings_no_number() {
    for (answer, why) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 900\r\n\r\n{\"a\": 1}", "request failed"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n{\"a\": 1}", "larger than"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 13\r\n\r\n<html></html>", "not JSON"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\n{\"a\": 1e999}", "not JSON"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\n{\"a\": \"NaN\"}", "no number at /a"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\n{\"a\": \"inf\"}", "no number at /a"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n{\"a\": true}", "no number at /a"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", "not JSON"),
        ("HTTP/1.1 503 Busy\r\ncontent-length: 8\r\n\r\n{\"a\": 1}", "answered 503"),
        ("SSH-2.0-OpenSSH_9.2\r\n", "request failed"),
        ("HTTP/1.1 302 Found\r\nlocation: /numbers\r\ncontent-length: 0\r\n\r\n", "too many redirects"),
        ("HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/latest\r\ncontent-length: 0\r\n\r\n", "another host"),
        ("HTTP/1.1 302 Found\r\nlocation: file:///etc/passwd\r\ncontent-length: 0\r\n\r\n", "302"),
    ] {
        let (url, serving) = server(answer, end).await;
        let outcome = measured(url, Some("/a")).await;
        serving.abort();
        let (Outcome::Error { message } | Outcome::NoData { message }) = &outcome else {
            panic!("{answer}: {outcome:?}");
        };
        assert!(message.contains(why), "{why}: {message}");
    }
    let deep: &'static str = Box::leak(
        format!("{JSON}content-length: 200006\r\n\r\n{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000))
            .into_boxed_str(),
    );
    let (url, serving) = server(deep, end).await;
    let outcome = measured(url, Some("/a")).await;
    serving.abort();
    assert!(matches!(&outcome, Outcome::Error { message } if message.contains("not JSON")), "{outcome:?}");
}

#[tokio::test]
async fn an_endpoint_that_is_not_there_says_so_without_its_address() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let outcome = measured(format!("http://user:hunter2@{closed}/secret-path"), None).await;
    let Outcome::Error { message } = outcome else { panic!("{outcome:?}") };
    assert!(message.contains("no connection") && !message.contains("hunter2") && !message.contains("secret-path"));
}
