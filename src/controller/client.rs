//! The client of the API server: without the library's own retry, counting its requests, and silent without a mandate.
//! Made once by `cli` or a test. Must not repeat a request: a write that was answered with 504 may have landed.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use axum::http::{Method, Request, Response};
use futures::future::BoxFuture;
use kube::client::{Body, ClientBuilder};
use kube::{Client, Config};
use tower::{BoxError, Layer, Service};

use super::error::Error;
use super::mandate::{Mandate, NoMandate};
use crate::metrics::Metrics;

/// A client, and what must be extended before it writes anything but the lease.
pub struct Connection {
    pub client: Client,
    pub mandate: Arc<Mandate>,
}

/// A connection to the cluster that the environment names.
pub async fn infer(metrics: &Arc<Metrics>) -> Result<Connection, Error> {
    let config = Config::infer().await;
    let config = config.map_err(|error| Error::Client(Box::new(kube::Error::InferConfig(error))))?;
    connect(config, metrics)
}

pub fn connect(mut config: Config, metrics: &Arc<Metrics>) -> Result<Connection, Error> {
    let mandate = Arc::new(Mandate::default());
    config.default_retry = false;
    let host = config.cluster_url.authority().map(ToString::to_string);
    let counting =
        Counting { metrics: Arc::clone(metrics), host: host.unwrap_or_default().into(), mandate: Arc::clone(&mandate) };
    let builder = ClientBuilder::try_from(config);
    let builder = builder.map_err(|error| Error::Client(Box::new(error)))?;
    Ok(Connection { client: builder.with_layer(&counting).build(), mandate })
}

#[derive(Clone)]
struct Counting {
    metrics: Arc<Metrics>,
    host: Arc<str>,
    mandate: Arc<Mandate>,
}

/// The lease itself is how a mandate is won.
fn needs_mandate<T>(request: &Request<T>) -> bool {
    request.method() != Method::GET && !request.uri().path().starts_with("/apis/coordination.k8s.io/")
}

impl<S> Layer<S> for Counting {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Counted<S> {
        Counted { counting: self.clone(), inner }
    }
}

struct Counted<S> {
    counting: Counting,
    inner: S,
}

impl<S, B> Service<Request<Body>> for Counted<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: Send + 'static,
{
    type Response = Response<B>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<B>, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let Counting { metrics, host, mandate } = self.counting.clone();
        if needs_mandate(&request) && !mandate.holds() {
            return Box::pin(async { Err(NoMandate.into()) });
        }
        let method = request.method().to_string();
        let began = Instant::now();
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await.map_err(Into::into);
            let code = match &answer {
                Ok(response) => response.status().as_str().to_owned(),
                Err(_) => "<error>".to_owned(),
            };
            metrics.request(&method, &host, &code, began.elapsed().as_secs_f64());
            answer
        })
    }
}

#[cfg(test)]
mod tests {
    use kube::Api;
    use kube::api::PostParams;
    use serde_json::json;
    use wiremock::matchers::any;
    use wiremock::{Mock, MockServer, ResponseTemplate};

    use super::*;
    use k8s_openapi::api::coordination::v1::Lease;
    use k8s_openapi::api::core::v1::ConfigMap;
    use std::time::Duration;

    #[tokio::test]
    async fn a_write_that_the_server_is_too_busy_for_is_sent_once() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let server = MockServer::start().await;
        let busy = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 503, "message": "busy"});
        let answer = ResponseTemplate::new(503).insert_header("Retry-After", "0").set_body_json(busy);
        Mock::given(any()).respond_with(answer).expect(1).mount(&server).await;
        let metrics = Arc::new(Metrics::default());
        let Connection { client, mandate } = connect(Config::new(server.uri().parse().unwrap()), &metrics).unwrap();
        mandate.extend(tokio::time::Instant::now() + Duration::from_secs(60));
        let api: Api<ConfigMap> = Api::namespaced(client, "shop");
        let map = serde_json::from_value(json!({"metadata": {"name": "routes"}})).unwrap();
        assert!(api.create(&PostParams::default(), &map).await.is_err());
        server.verify().await;
    }

    #[tokio::test]
    async fn without_a_mandate_everything_is_read_and_nothing_but_the_lease_is_written() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let server = MockServer::start().await;
        Mock::given(any()).respond_with(ResponseTemplate::new(200).set_body_json(json!({}))).mount(&server).await;
        let config = Config::new(server.uri().parse().unwrap());
        let Connection { client, mandate } = connect(config, &Arc::default()).unwrap();
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "shop");
        let leases: Api<Lease> = Api::namespaced(client, "shop");
        let map = serde_json::from_value(json!({"metadata": {"name": "routes"}})).unwrap();
        let lease = serde_json::from_value(json!({"metadata": {"name": "godwit"}})).unwrap();
        for (until, may_write) in [(None, false), (Some(60), true), (Some(0), false)] {
            if let Some(seconds) = until {
                mandate.extend(tokio::time::Instant::now() + Duration::from_secs(seconds));
            }
            assert_eq!(maps.create(&PostParams::default(), &map).await.is_ok(), may_write, "{until:?}");
            assert!(
                maps.get("routes").await.is_ok()
                    && leases.replace("godwit", &PostParams::default(), &lease).await.is_ok()
            );
        }
        mandate.end();
        assert!(maps.create(&PostParams::default(), &map).await.is_err());
    }
}
