//! What every test on a real API server stands on: the definitions, and the smallest migration.
//! Used by the API-server tests and by the gauntlet.

use std::time::Duration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Patch, PatchParams};
use kube::runtime::{conditions, wait::await_condition};
use kube::{Api, Client};
use serde_json::{Value, json};

/// How long any condition may take to come true.
pub const LIMIT: Duration = Duration::from_secs(180);

/// The smallest migration whose whole life needs nobody.
pub fn migration_spec() -> Value {
    json!({
        "engine": {"postgres": {
            "source": {"uriFrom": {"secretKeyRef": {"name": "old", "key": "uri"}}},
            "target": {"uriFrom": {"secretKeyRef": {"name": "new", "key": "uri"}}},
        }},
        "dataset": {"root": {"table": "public.account", "key": "id"}},
        "backup": {"storage": {"persistentVolumeClaim": {"claimName": "vault"}}},
        "rollback": {"mode": "RestoreOnly"},
        "rollout": {"soak": "0s"},
        "approvals": [],
        "routing": {"routeTable": {"configMapName": "routes"}},
    })
}

pub fn of<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

/// The definitions as they are committed; several tests may do this at once.
pub async fn install_definitions(client: &Client) {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for value in godwit::api::crd::definitions() {
        let name = value["metadata"]["name"].as_str().unwrap().to_owned();
        let params = PatchParams::apply("test").force();
        api.patch(&name, &params, &Patch::Apply(&value)).await.unwrap();
        let served = await_condition(api.clone(), &name, conditions::is_crd_established());
        tokio::time::timeout(LIMIT, served).await.expect("the definition is served").unwrap();
    }
}
