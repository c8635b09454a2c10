//! The rules and bounds of a Cohort.

use serde_json::{Value, json};

use crate::case::{Case, accepted, assert_all, refused, ruled_out};

const INVALID: &str = "FieldValueInvalid";
const FORBIDDEN: &str = "FieldValueForbidden";

/// The smallest Cohort that is accepted.
pub fn valid() -> Value {
    json!({
        "apiVersion": "godwit.dev/v1alpha1",
        "kind": "Cohort",
        "metadata": {"name": "canary"},
        "spec": {"migrationRef": {"name": "crm"}, "select": {"percent": 1}},
    })
}

fn select(change: Value) -> Value {
    json!({"spec": {"select": change}})
}

fn started() -> Value {
    json!({"status": {"observedGeneration": 1, "startTime": "2026-01-02T03:04:05Z"}})
}

fn selections() -> Vec<Case> {
    let one_of = ["spec.select", INVALID, "select needs exactly one of percent, where, keysFrom, remainder"];
    let percent = |what, percent: Value| {
        let told = ["spec.select.percent", INVALID, "percent must be above 0 and at most 100"];
        ruled_out(what, select(json!({"percent": percent})), told)
    };
    vec![
        accepted("a condition", select(json!({"percent": null, "where": "customer.country = 'PT'"}))),
        accepted("a query of keys", select(json!({"percent": null, "keysFrom": "select id from crm.pilot"}))),
        accepted("the remainder", select(json!({"percent": null, "remainder": {}}))),
        ruled_out("nobody", select(json!({"percent": null})), one_of),
        ruled_out("a share and the remainder", select(json!({"remainder": {}})), one_of),
        ruled_out(
            "a condition and a query",
            select(json!({"percent": null, "where": "true", "keysFrom": "select 1"})),
            one_of,
        ),
        accepted("a share by risk", select(json!({"riskBy": "customer.revenue"}))),
        ruled_out(
            "a condition by risk",
            select(json!({"percent": null, "where": "true", "riskBy": "customer.revenue"})),
            ["spec.select.riskBy", FORBIDDEN, "riskBy orders the customers that percent chooses from"],
        ),
        accepted("everybody", select(json!({"percent": 100}))),
        accepted("everybody, as text", select(json!({"percent": "100%"}))),
        accepted("a share without its sign", select(json!({"percent": "5"}))),
        accepted("a tenth of a percent", select(json!({"percent": "0.1%"}))),
        accepted("a hundredth of a percent", select(json!({"percent": "0.010%"}))),
        accepted("a thousandth of a percent", select(json!({"percent": "0.001%"}))),
        accepted("almost everybody", select(json!({"percent": "99.999%"}))),
        percent("no share", json!(0)),
        percent("no share, as text", json!("0%")),
        percent("no share, in digits", json!("0.000%")),
        percent("a fraction without its sign", json!("0.5")),
        percent("no number", json!("half")),
        percent("a share below zero", json!(-1)),
        percent("more than everybody", json!(101)),
        percent("more than everybody, as text", json!("100.1%")),
        percent("a share finer than it is kept", json!("0.0001%")),
        refused(
            "a share of many digits",
            select(json!({"percent": "10.00000%"})),
            "spec.select.percent",
            "may not be more than 8",
        ),
        refused(
            "a share that is a fraction",
            select(json!({"percent": 0.5})),
            "spec.select.percent",
            "must be of type",
        ),
        refused(
            "an empty condition",
            select(json!({"percent": null, "where": ""})),
            "spec.select.where",
            "at least 1 chars long",
        ),
        refused(
            "a condition of a book",
            select(json!({"percent": null, "where": "x".repeat(2049)})),
            "spec.select.where",
            "may not be more than 2048",
        ),
    ]
}

fn bounds() -> Vec<Case> {
    let spec = |change: Value| json!({"spec": change});
    vec![
        accepted("a name of 50 characters", json!({"metadata": {"name": "n".repeat(50)}})),
        ruled_out(
            "a name of 51 characters",
            json!({"metadata": {"name": "n".repeat(51)}}),
            ["<nil>", INVALID, "metadata.name may have 50 characters at most"],
        ),
        accepted("the last wave", spec(json!({"wave": 1000}))),
        refused("a wave below the first", spec(json!({"wave": -1})), "spec.wave", "greater than or equal to 0"),
        refused("a wave after the last", spec(json!({"wave": 1001})), "spec.wave", "less than or equal to 1000"),
        accepted("a soak of a year", spec(json!({"soak": "8760h"}))),
        ruled_out(
            "a soak of more than a year",
            spec(json!({"soak": "8760h0.1s"})),
            ["spec.soak", INVALID, "soak may be 8760h (a year) at most, not 8760h0.1s"],
        ),
        refused("a soak without a unit", spec(json!({"soak": "24"})), "spec.soak", "should match"),
        refused(
            "a migration without a name",
            spec(json!({"migrationRef": {"name": null}})),
            "spec.migrationRef.name",
            "Required value",
        ),
        refused(
            "a migration that cannot exist",
            spec(json!({"migrationRef": {"name": "CRM"}})),
            "spec.migrationRef.name",
            "should match",
        ),
        refused(
            "a migration whose name is too long",
            spec(json!({"migrationRef": {"name": "n".repeat(51)}})),
            "spec.migrationRef.name",
            "may not be more than 50",
        ),
        refused("a cohort of no migration", spec(json!({"migrationRef": null})), "spec.migrationRef", "Required value"),
    ]
}

fn transitions() -> Vec<Case> {
    vec![
        ruled_out(
            "another migration, even before the start",
            json!({"spec": {"migrationRef": {"name": "erp"}}}),
            ["spec.migrationRef", FORBIDDEN, "migrationRef is immutable; create another Cohort for erp"],
        )
        .on(json!({})),
        accepted("another share before the start", select(json!({"percent": 2}))).on(json!({})),
        accepted("another share while it waits", select(json!({"percent": 2})))
            .on(json!({"status": {"phase": "Pending"}})),
        ruled_out(
            "another share after the start",
            select(json!({"percent": 2})),
            ["spec.select", FORBIDDEN, "spec.select is frozen once the cohort has started"],
        )
        .on(started()),
        accepted("another wave after the start", json!({"spec": {"wave": 7}})).on(started()),
        accepted("the stop cord after the start", json!({"spec": {"suspend": true}})).on(started()),
        accepted("a status after the start", json!({"status": {"phase": "Copying"}})).on(started()),
    ]
}

pub fn every_case() -> Vec<Case> {
    [selections(), bounds(), transitions()].into_iter().flatten().collect()
}

#[tokio::test]
async fn a_cohort_selects_its_customers_in_exactly_one_way() {
    assert_all(&valid(), "cohort-selections", selections()).await;
}

#[tokio::test]
async fn names_waves_and_soaks_of_a_cohort_are_bounded() {
    assert_all(&valid(), "cohort-bounds", bounds()).await;
}

#[tokio::test]
async fn a_selection_is_frozen_once_the_cohort_started_and_its_migration_always() {
    assert_all(&valid(), "cohort-transitions", transitions()).await;
}
