//! The route table: a `ConfigMap` from which applications learn which side owns a cohort.
//! Applied by `controller/perform.rs` under its own field manager. Must hold only what the decision says, and must outlive its
//! Migration: applications that find no table go to the source, which nothing closes to them once the move is over.

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::labels;
use crate::api::names::{LABEL_COMPONENT, LABEL_OWNER_UID};
use crate::contract::Identity;
use crate::plan::decision::RouteTableContent;

/// Key of the table in the `ConfigMap`.
pub const ROUTES_KEY: &str = "routes.json";

/// The `ConfigMap` as it must read. Its label says whose it is; no owner reference, which would delete it with the Migration.
pub fn build_route_table(migration: &Identity, content: &RouteTableContent) -> ConfigMap {
    let mut labels = labels::of_child(migration);
    labels.insert(LABEL_COMPONENT.to_owned(), "route-table".to_owned());
    labels.insert(LABEL_OWNER_UID.to_owned(), migration.uid.clone());
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(content.config_map.clone()),
            namespace: Some(migration.namespace.clone()),
            labels: Some(labels),
            resource_version: content.replaces.clone(),
            ..ObjectMeta::default()
        },
        data: Some([(ROUTES_KEY.to_owned(), content.routes.clone())].into()),
        ..ConfigMap::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_route_table_names_its_migration_outlives_it_and_holds_the_routes_unchanged() {
        let migration = Identity { namespace: "shop".into(), name: "crm".into(), uid: "uid-7".into() };
        let content = RouteTableContent {
            config_map: "crm-routes".into(),
            routes: "{\"v\":1}".into(),
            replaces: Some("41".into()),
        };
        let map = build_route_table(&migration, &content);
        assert_eq!(map.metadata.name.as_deref(), Some("crm-routes"));
        assert_eq!(map.metadata.namespace.as_deref(), Some("shop"));
        assert_eq!(map.metadata.resource_version.as_deref(), Some("41"));
        assert_eq!(map.data.unwrap()["routes.json"], "{\"v\":1}");
        assert_eq!(map.metadata.labels.unwrap()[LABEL_OWNER_UID], "uid-7");
        assert_eq!(map.metadata.owner_references, None);
    }
}
