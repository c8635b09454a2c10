//! http and prometheus checks against a real server on this machine.
//! Beside `http.rs`, whose budget of lines they would exceed.

use serde_json::json;
use wiremock::matchers::{method, path, query_param};
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::super::Answer;
use super::*;
use crate::api::check::PrometheusSource;

fn fetcher() -> Fetcher {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Fetcher::new(true).unwrap()
}

async fn serving(at: &str, answer: ResponseTemplate) -> MockServer {
    let server = MockServer::start().await;
    Mock::given(method("GET")).and(path(at)).respond_with(answer).mount(&server).await;
    server
}

fn source(url: String, pointer: Option<&str>) -> HttpSource {
    HttpSource { url, pointer: pointer.map(str::to_owned) }
}

#[tokio::test]
async fn a_pointer_finds_its_number_and_without_one_the_status_code_is_the_value() {
    let answer = ResponseTemplate::new(200).set_body_json(json!({"errors": {"rate": 0.25, "text": "12"}}));
    let server = serving("/health", answer).await;
    let url = format!("{}/health", server.uri());
    let fetcher = fetcher();
    for (pointer, wanted) in [
        (Some("/errors/rate"), Answer::Numbers(vec![0.25])),
        (Some("/errors/text"), Answer::Numbers(vec![12.0])),
        (None, Answer::Numbers(vec![200.0])),
        (Some("/none"), Answer::NoData("the answer has nothing at /none".into())),
        (Some("/errors"), Answer::NoData("the answer has no number at /errors".into())),
    ] {
        assert_eq!(fetcher.ask_http(&source(url.clone(), pointer)).await, wanted);
    }
}

#[tokio::test]
async fn a_refusing_server_is_an_error_for_a_pointer_and_a_number_without_one() {
    let server = serving("/", ResponseTemplate::new(503)).await;
    let fetcher = fetcher();
    assert_eq!(fetcher.ask_http(&source(server.uri(), None)).await, Answer::Numbers(vec![503.0]));
    assert_eq!(
        fetcher.ask_http(&source(server.uri(), Some("/x"))).await,
        Answer::Error("the server answered 503".into())
    );
}

#[tokio::test]
async fn a_redirect_is_followed_on_its_own_host_only() {
    let target = serving("/there", ResponseTemplate::new(200)).await;
    let own = MockServer::start().await;
    for (at, to) in [("/out", format!("{}/there", target.uri())), ("/in", "/end".to_owned())] {
        Mock::given(path(at))
            .respond_with(ResponseTemplate::new(302).insert_header("location", to.as_str()))
            .mount(&own)
            .await;
    }
    Mock::given(path("/end")).respond_with(ResponseTemplate::new(204)).mount(&own).await;
    let fetcher = fetcher();
    let followed = fetcher.ask_http(&source(format!("{}/in", own.uri()), None)).await;
    assert_eq!(followed, Answer::Numbers(vec![204.0]));
    let refused = fetcher.ask_http(&source(format!("{}/out", own.uri()), None)).await;
    assert!(matches!(&refused, Answer::Error(text) if text.contains("another host")), "{refused:?}");
    assert!(target.received_requests().await.unwrap().is_empty());
}

#[tokio::test]
async fn metadata_addresses_are_refused_as_literals_and_after_resolution() {
    let fetcher = fetcher();
    for url in
        ["http://169.254.169.254/latest", "http://[fe80::1]/", "http://2852039166/", "http://[::ffff:a9fe:a9fe]/"]
    {
        let answer = fetcher.ask_http(&source(url.to_owned(), None)).await;
        assert!(matches!(&answer, Answer::Error(text) if text.contains("may not be reached")), "{url} {answer:?}");
    }
    // A name that resolves to a forbidden address: this machine's own name, when its loopback is forbidden.
    let strict = Fetcher::new(false).unwrap();
    let server = MockServer::start().await;
    let url = format!("http://localhost:{}/", server.address().port());
    let answer = strict.ask_http(&source(url, None)).await;
    assert!(matches!(&answer, Answer::Error(text) if text.contains("operator's own machine")), "{answer:?}");
    assert!(server.received_requests().await.unwrap().is_empty());
}

#[tokio::test]
async fn an_answer_above_one_mebibyte_is_an_error() {
    let body = format!("[{}1]", "1,".repeat(600_000));
    let server = serving("/", ResponseTemplate::new(200).set_body_string(body)).await;
    let answer = fetcher().ask_http(&source(server.uri(), Some("/0"))).await;
    assert!(matches!(&answer, Answer::Error(text) if text.contains("larger than")), "{answer:?}");
}

#[tokio::test]
async fn the_samples_of_a_prometheus_vector_are_the_values() {
    let answer = json!({"status": "success", "data": {"resultType": "vector", "result": [
        {"metric": {"job": "a"}, "value": [1.0, "0.5"]},
        {"metric": {"job": "b"}, "value": [1.0, "NaN"]},
        {"metric": {"job": "c"}, "value": [1.0, "7"]},
    ]}});
    let server = MockServer::start().await;
    Mock::given(path("/base/api/v1/query"))
        .and(query_param("query", "up{job=\"crm\"} > 0"))
        .respond_with(ResponseTemplate::new(200).set_body_json(answer))
        .mount(&server)
        .await;
    let source = PrometheusSource { address: format!("{}/base/", server.uri()), query: "up{job=\"crm\"} > 0".into() };
    assert_eq!(fetcher().ask_prometheus(&source).await, Answer::Numbers(vec![0.5, 7.0]));
}

#[tokio::test]
async fn prometheus_without_a_sample_is_no_data_and_a_refused_query_is_an_error() {
    let fetcher = fetcher();
    for (code, body, wanted) in [
        (200, json!({"status": "success", "data": {"resultType": "vector", "result": []}}), "NoData"),
        (200, json!({"status": "success", "data": {"resultType": "scalar", "result": [1.0, "3"]}}), "3.0"),
        (200, json!({"status": "success", "data": {"resultType": "matrix", "result": []}}), "matrix"),
        (400, json!({"status": "error", "errorType": "bad_data", "error": "parse error"}), "bad_data"),
        (502, json!("gateway"), "502"),
    ] {
        let answer = ResponseTemplate::new(code).set_body_json(&body);
        let server = serving("/api/v1/query", answer).await;
        let source = PrometheusSource { address: server.uri(), query: "up".into() };
        let answer = format!("{:?}", fetcher.ask_prometheus(&source).await);
        assert!(answer.contains(wanted), "{answer} for {body}");
    }
}
