//! One request to the API server: with a time limit, and with a name for what was attempted.
//! Every request of this room goes through here: the client library itself would wait for ever for a silent server.

use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;

use kube::Api;
use kube::api::ListParams;
use serde::de::DeserializeOwned;

use super::error::{Attempt, Error};

/// Longest wait for one answer.
pub const LIMIT: Duration = Duration::from_secs(15);
/// Objects a page.
const PAGE: u32 = 500;

/// Sends a request; an answer that does not come in time is an error like any other.
pub async fn call<T>(attempt: Attempt, request: impl Future<Output = kube::Result<T>>) -> Result<T, Error> {
    match tokio::time::timeout(LIMIT, request).await {
        Err(_) => Err(Error::NoAnswer { attempt, limit: LIMIT }),
        Ok(Err(kube::Error::SerdeError(source))) => Err(Error::Malformed(attempt, source)),
        Ok(Err(source)) => Err(Error::Request { attempt, source: Box::new(source) }),
        Ok(Ok(answer)) => Ok(answer),
    }
}

/// All pages of a consistent list.
pub async fn list<K>(resource: &'static str, api: &Api<K>, params: ListParams) -> Result<Vec<K>, Error>
where
    K: Clone + DeserializeOwned + Debug,
{
    let selectors = [&params.label_selector, &params.field_selector];
    let text: Vec<_> = selectors.into_iter().flatten().cloned().collect();
    let mut found = Vec::new();
    let mut page = params.limit(PAGE);
    loop {
        let attempt = Attempt::new("list", resource, text.join(","));
        let answer = call(attempt, api.list(&page)).await?;
        let next = answer.metadata.continue_.filter(|next| !next.is_empty());
        found.extend(answer.items);
        match next {
            Some(token) => page = page.continue_token(&token),
            None => return Ok(found),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::ResourceExt;
    use serde_json::json;
    use wiremock::matchers::{query_param, query_param_is_missing};
    use wiremock::{Mock, MockServer, ResponseTemplate};

    use super::*;

    fn page(names: &[&str], next: &str) -> ResponseTemplate {
        let items: Vec<_> = names.iter().map(|name| json!({"metadata": {"name": name}})).collect();
        ResponseTemplate::new(200).set_body_json(json!({"kind": "ConfigMapList", "apiVersion": "v1",
            "metadata": {"resourceVersion": "7", "continue": next}, "items": items}))
    }

    #[tokio::test]
    async fn a_list_is_read_to_its_last_page() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let server = MockServer::start().await;
        Mock::given(query_param_is_missing("continue")).respond_with(page(&["a", "b"], "p2")).mount(&server).await;
        Mock::given(query_param("continue", "p2")).respond_with(page(&["c"], "p3")).mount(&server).await;
        Mock::given(query_param("continue", "p3")).respond_with(page(&["d"], "")).mount(&server).await;
        let config = kube::Config::new(server.uri().parse().unwrap());
        let client = crate::controller::client::connect(config, &Arc::default()).unwrap().client;
        let api: Api<ConfigMap> = Api::namespaced(client, "shop");
        let found = list("configmaps", &api, ListParams::default()).await.unwrap();
        let names: Vec<String> = found.iter().map(ResourceExt::name_any).collect();
        assert_eq!(names, ["a", "b", "c", "d"]);
    }
}
