//! `/livez`, `/readyz` and `/metrics` of the operator.
//! Started by the controller's run. Serves what others tell it; must not ask the API server anything.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;

use crate::metrics::Metrics;
use crate::readiness::Readiness;

#[derive(Clone)]
struct Shown {
    metrics: Arc<Metrics>,
    readiness: Arc<Readiness>,
}

/// Opens the port, so that a port that is taken is an error at start.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Serves until the process ends.
pub async fn serve(listener: TcpListener, metrics: Arc<Metrics>, readiness: Arc<Readiness>) -> std::io::Result<()> {
    let routes = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(shown))
        .with_state(Shown { metrics, readiness });
    axum::serve(listener, routes).await
}

async fn ready(State(shown): State<Shown>) -> Response {
    match shown.readiness.missing() {
        None => "ok\n".into_response(),
        Some(missing) => (StatusCode::SERVICE_UNAVAILABLE, format!("{missing}\n")).into_response(),
    }
}

async fn shown(State(shown): State<Shown>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], shown.metrics.text()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_operator_is_alive_at_once_and_ready_when_nothing_is_missing() {
        let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let readiness = Arc::new(Readiness::default());
        let metrics = Arc::new(Metrics::default());
        let server = tokio::spawn(serve(listener, metrics, Arc::clone(&readiness)));
        let _ = rustls::crypto::ring::default_provider().install_default();
        let ask = async |path: &str| {
            let answer = reqwest::get(format!("http://{address}{path}")).await.unwrap();
            (answer.status().as_u16(), answer.text().await.unwrap())
        };
        assert_eq!(ask("/livez").await.0, 200);
        readiness.not_yet("the CustomResourceDefinition cohorts.godwit.dev is not installed".into());
        let (code, text) = ask("/readyz").await;
        assert_eq!(code, 503);
        assert!(text.contains("cohorts.godwit.dev"));
        readiness.ready();
        assert_eq!(ask("/readyz").await.0, 200);
        assert!(ask("/metrics").await.1.ends_with("# EOF\n"));
        server.abort();
    }
}
