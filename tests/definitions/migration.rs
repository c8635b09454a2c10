//! The rules and bounds of a Migration.

use serde_json::{Value, json};

use crate::case::{Case, accepted, assert_all, refused, ruled_out};

const INVALID: &str = "FieldValueInvalid";
const FORBIDDEN: &str = "FieldValueForbidden";
const REQUIRED: &str = "FieldValueRequired";

/// The smallest Migration that is accepted.
pub fn valid() -> Value {
    let database = |secret: &str| json!({"uriFrom": {"secretKeyRef": {"name": secret, "key": "uri"}}});
    json!({
        "apiVersion": "godwit.dev/v1alpha1",
        "kind": "Migration",
        "metadata": {"name": "crm"},
        "spec": {
            "engine": {"postgres": {"source": database("crm-source"), "target": database("crm-target")}},
            "dataset": {"root": {"table": "public.account", "key": "id"}},
            "backup": {"storage": {"persistentVolumeClaim": {"claimName": "crm-backup"}}},
            "rollback": {"mode": "RestoreOnly"},
        },
    })
}

fn spec(change: Value) -> Value {
    json!({"spec": change})
}

/// A spec with one check that differs from a valid one by `change`.
fn check(change: Value) -> Value {
    let valid = json!({"name": "links", "http": {"url": "http://crm/stats"}, "passWhen": "value < 5.0"});
    spec(json!({"checks": [crate::case::merged(&valid, &change)]}))
}

fn with_variable(variable: Value) -> Value {
    check(json!({"http": null, "job": {"image": "crm:1", "env": [variable]}}))
}

/// What a stored Migration has once its first step began.
fn started() -> Value {
    json!({"status": {"observedGeneration": 1, "startTime": "2026-01-02T03:04:05Z"}})
}

fn unions() -> Vec<Case> {
    let s3 = json!({"bucket": "crm", "credentialsSecretName": "crm-s3"});
    let storage = |storage: Value| spec(json!({"backup": {"storage": storage}}));
    let source = "needs exactly one of prometheus, http, sql, job, condition, validation";
    vec![
        accepted("an engine of PostgreSQL", json!({})),
        ruled_out(
            "no engine",
            spec(json!({"engine": {"postgres": null}})),
            ["spec.engine.postgres", REQUIRED, "engine needs exactly one of: postgres"],
        ),
        accepted("storage in a bucket", storage(json!({"persistentVolumeClaim": null, "s3": s3}))),
        ruled_out(
            "storage in a volume and a bucket",
            storage(json!({"s3": s3})),
            ["spec.backup.storage", INVALID, "storage needs exactly one of persistentVolumeClaim, s3"],
        ),
        ruled_out(
            "storage nowhere",
            storage(json!({"persistentVolumeClaim": null})),
            ["spec.backup.storage", INVALID, "storage needs exactly one of persistentVolumeClaim, s3"],
        ),
        accepted("a check of an HTTP answer", check(json!({}))),
        accepted("a check of integrity", check(json!({"http": null, "validation": {}}))),
        ruled_out("a check without a source", check(json!({"http": null})), ["spec.checks[0]", INVALID, source]),
        ruled_out(
            "a check with two sources, named",
            check(json!({"sql": {"side": "Target", "query": "select 1"}})),
            ["spec.checks[0]", INVALID, "check links needs exactly one of"],
        ),
        accepted("a variable with a value", with_variable(json!({"name": "LEVEL", "value": "2"}))),
        accepted(
            "a variable from a Secret",
            with_variable(json!({"name": "TOKEN", "secretKeyRef": {"name": "crm", "key": "token"}})),
        ),
        ruled_out(
            "a variable from nowhere",
            with_variable(json!({"name": "TOKEN"})),
            ["spec.checks[0].job.env[0]", INVALID, "variable TOKEN needs exactly one of value, secretKeyRef"],
        ),
        ruled_out(
            "a variable with a value and from a Secret",
            with_variable(json!({"name": "TOKEN", "value": "x", "secretKeyRef": {"name": "crm", "key": "token"}})),
            ["spec.checks[0].job.env[0]", INVALID, "needs exactly one of value, secretKeyRef"],
        ),
    ]
}

fn checks() -> Vec<Case> {
    let condition = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "crm", "type": "Available"});
    vec![
        ruled_out(
            "a check without passWhen",
            check(json!({"passWhen": null})),
            ["spec.checks[0].passWhen", REQUIRED, "check links needs passWhen: a CEL expression"],
        ),
        accepted(
            "a check of a condition without passWhen",
            check(json!({"http": null, "passWhen": null, "condition": condition})),
        ),
        ruled_out(
            "a check of a condition with passWhen",
            check(json!({"http": null, "condition": condition})),
            ["spec.checks[0].passWhen", FORBIDDEN, "of source condition compares a status and takes no passWhen"],
        ),
        accepted(
            "a variable whose name only contains the prefix",
            with_variable(json!({"name": "MY_GODWIT_X", "value": ""})),
        ),
        ruled_out(
            "a variable with a reserved name",
            with_variable(json!({"name": "GODWIT_STEP", "value": "x"})),
            ["spec.checks[0].job.env[0].name", FORBIDDEN, "variable GODWIT_STEP cannot be set"],
        ),
        refused(
            "two checks of one name",
            spec(json!({"checks": [
                {"name": "links", "validation": {}, "passWhen": "value == 0.0"},
                {"name": "links", "validation": {}, "passWhen": "value == 1.0"},
            ]})),
            "spec.checks[1]",
            "Duplicate value",
        ),
        refused(
            "a verdict that does not exist",
            check(json!({"onNoData": "Maybe"})),
            "spec.checks[0].onNoData",
            "supported values",
        ),
        accepted("ten samples", check(json!({"minSamples": 10, "consecutive": 10}))),
        refused(
            "eleven samples",
            check(json!({"minSamples": 11})),
            "spec.checks[0].minSamples",
            "less than or equal to 10",
        ),
        refused(
            "no agreeing measurement",
            check(json!({"consecutive": 0})),
            "spec.checks[0].consecutive",
            "greater than or equal to 1",
        ),
        refused(
            "a URL with a password",
            check(json!({"http": {"url": "http://user:secret@crm/stats"}})),
            "spec.checks[0].http.url",
            "should match",
        ),
        refused(
            "an address of another scheme",
            check(json!({"http": {"url": "file:///etc/passwd"}})),
            "spec.checks[0].http.url",
            "should match",
        ),
        refused(
            "a pointer that is none",
            check(json!({"http": {"pointer": "errors"}})),
            "spec.checks[0].http.pointer",
            "should match",
        ),
    ]
}

fn durations() -> Vec<Case> {
    let during = |during: &str| {
        crate::case::merged(
            &check(json!({})),
            &spec(json!({"triggers": [
                {"check": "links", "category": "DataLoss", "action": "Alert", "during": during},
            ]})),
        )
    };
    let max_age = |age: &str| spec(json!({"backup": {"maxAge": age}}));
    let soak = |soak: &str| spec(json!({"rollout": {"soak": soak}}));
    vec![
        accepted("an interval of a second", check(json!({"interval": "1s"}))),
        accepted("an interval of a day", check(json!({"interval": "24h"}))),
        ruled_out(
            "an interval of less than a second",
            check(json!({"interval": "0.9s"})),
            ["spec.checks[0].interval", INVALID, "interval must lie between 1s and 24h, not 0.9s"],
        ),
        ruled_out(
            "an interval of more than a day",
            check(json!({"interval": "24h1s"})),
            ["spec.checks[0].interval", INVALID, "interval must lie between 1s and 24h, not 24h1s"],
        ),
        accepted("a timeout of half a minute", check(json!({"timeout": "30s"}))),
        ruled_out(
            "a timeout of nothing",
            check(json!({"timeout": "0s"})),
            ["spec.checks[0].timeout", INVALID, "timeout must lie between 1s and 30s, not 0s"],
        ),
        ruled_out(
            "a timeout of more than half a minute",
            check(json!({"timeout": "31s"})),
            ["spec.checks[0].timeout", INVALID, "timeout must lie between 1s and 30s, not 31s"],
        ),
        ruled_out(
            "a timeout where a Job measures",
            check(json!({"http": null, "sql": null, "job": {"image": "checks:1"}, "timeout": "5s"})),
            ["spec.checks[0].timeout", FORBIDDEN, "timeout is for prometheus, http and sql"],
        ),
        accepted("a trigger armed for a week", during("168h")),
        ruled_out(
            "a trigger armed for no time",
            during("0s"),
            ["spec.triggers[0].during", INVALID, "during must lie between 1s and 8760h (a year), not 0s"],
        ),
        ruled_out("a trigger armed for ever", during("8761h"), ["spec.triggers[0].during", INVALID, "not 8761h"]),
        accepted("a backup of a minute", max_age("1m")),
        ruled_out(
            "a backup that is always too old",
            max_age("59s"),
            ["spec.backup.maxAge", INVALID, "maxAge must lie between 1m and 8760h (a year), not 59s"],
        ),
        ruled_out("a backup that is never too old", max_age("8760h1s"), ["spec.backup.maxAge", INVALID, "not 8760h1s"]),
        accepted("no soak", soak("0s")),
        accepted("a soak in parts", soak("1h30m0.5s")),
        ruled_out(
            "a soak of more than a year",
            soak("8761h"),
            ["spec.rollout.soak", INVALID, "soak may be 8760h (a year) at most, not 8761h"],
        ),
        refused("a soak in days", soak("7d"), "spec.rollout.soak", "should match"),
        refused("a soak below zero", soak("-1h"), "spec.rollout.soak", "should match"),
    ]
}

fn references() -> Vec<Case> {
    let measured = check(json!({}));
    let and = |change: Value| crate::case::merged(&measured, &spec(change));
    let trigger = json!({"check": "links", "category": "DataLoss", "action": "RollbackCohort"});
    let lost_trigger = json!({"check": "orders", "category": "DataLoss", "action": "RollbackCohort"});
    vec![
        accepted("a gate on a check", and(json!({"gates": [{"check": "links", "before": ["Cutover"]}]}))),
        ruled_out(
            "a gate before Finalize on a check that looks at a cohort",
            crate::case::merged(
                &check(json!({"http": null, "validation": {}})),
                &spec(json!({"gates": [{"check": "links", "before": ["Finalize"]}]})),
            ),
            ["spec.gates", INVALID, "looks at a cohort"],
        ),
        ruled_out(
            "a gate on a check that is not there",
            and(json!({"gates": [{"check": "orders", "before": ["Cutover"]}]})),
            ["spec.gates", INVALID, "every gate must name one of spec.checks"],
        ),
        ruled_out(
            "a gate without any check",
            spec(json!({"gates": [{"check": "links", "before": ["Cutover"]}]})),
            ["spec.gates", INVALID, "every gate must name one of spec.checks"],
        ),
        refused(
            "two gates on one check",
            and(json!({"gates": [{"check": "links", "before": ["Copy"]}, {"check": "links", "before": ["Cutover"]}]})),
            "spec.gates[1]",
            "Duplicate value",
        ),
        refused(
            "a gate before nothing",
            and(json!({"gates": [{"check": "links", "before": []}]})),
            "spec.gates[0].before",
            "at least 1",
        ),
        refused(
            "a gate twice before a step",
            and(json!({"gates": [{"check": "links", "before": ["Copy", "Copy"]}]})),
            "spec.gates[0].before[1]",
            "Duplicate value",
        ),
        accepted("a trigger on a check", and(json!({"triggers": [trigger]}))),
        ruled_out(
            "a trigger on a check that is not there",
            and(json!({"triggers": [trigger, lost_trigger]})),
            ["spec.triggers", INVALID, "every trigger must name one of spec.checks"],
        ),
        refused(
            "approvals twice before a step",
            spec(json!({"approvals": [{"before": "Cutover"}, {"before": "Cutover", "required": 2}]})),
            "spec.approvals[1]",
            "Duplicate value",
        ),
        accepted("approvals of nobody", spec(json!({"approvals": []}))),
        refused(
            "six approvals",
            spec(json!({"approvals": [{"before": "Cutover", "required": 6}]})),
            "spec.approvals[0].required",
            "less than or equal to 5",
        ),
    ]
}

fn bounds() -> Vec<Case> {
    let named = |name: String| json!({"metadata": {"name": name}});
    let root = |root: Value| spec(json!({"dataset": {"root": root}}));
    let pair = |change: Value| {
        let valid = json!({"name": "open", "source": "select 1", "target": "select 1"});
        spec(json!({"validation": {"checks": [crate::case::merged(&valid, &change)]}}))
    };
    let tables = |count: usize| spec(json!({"dataset": {"include": vec!["public.*"; count]}}));
    vec![
        accepted("a name of 50 characters", named("n".repeat(50))),
        ruled_out(
            "a name of 51 characters",
            named("n".repeat(51)),
            ["<nil>", INVALID, "metadata.name may have 50 characters at most"],
        ),
        refused(
            "a way back left open",
            spec(json!({"rollback": {"mode": null}})),
            "spec.rollback.mode",
            "Required value",
        ),
        refused(
            "a way back that does not exist",
            spec(json!({"rollback": {"mode": "ReverseSync"}})),
            "spec.rollback.mode",
            "supported values",
        ),
        refused(
            "a coexistence that does not exist",
            spec(json!({"coexistence": {"mode": "Sync"}})),
            "spec.coexistence.mode",
            "supported values",
        ),
        refused(
            "a root table without a schema",
            root(json!({"table": "account"})),
            "spec.dataset.root.table",
            "should match",
        ),
        refused("a root table without a key", root(json!({"key": null})), "spec.dataset.root.key", "Required value"),
        refused(
            "a key column longer than PostgreSQL has them",
            root(json!({"key": "k".repeat(64)})),
            "spec.dataset.root.key",
            "may not be more than 63",
        ),
        accepted("256 tables", tables(256)),
        refused("257 tables", tables(257), "spec.dataset.include", "must have at most 256 items"),
        refused(
            "two owners of a table",
            spec(json!({"dataset": {"owners": [
                {"table": "public.deal", "via": ["account_id"]}, {"table": "public.deal", "via": ["contact_id"]},
            ]}})),
            "spec.dataset.owners[1]",
            "Duplicate value",
        ),
        refused(
            "an owner through no column",
            spec(json!({"dataset": {"owners": [{"table": "public.deal", "via": []}]}})),
            "spec.dataset.owners[0].via",
            "at least 1",
        ),
        refused(
            "a Secret that cannot exist",
            spec(json!({"engine": {"postgres": {"source": {"uriFrom": {"secretKeyRef": {"name": "Crm Source"}}}}}})),
            "spec.engine.postgres.source.uriFrom.secretKeyRef.name",
            "should match",
        ),
        refused(
            "a claim that cannot exist",
            spec(json!({"backup": {"storage": {"persistentVolumeClaim": {"claimName": "../crm"}}}})),
            "spec.backup.storage.persistentVolumeClaim.claimName",
            "should match",
        ),
        refused(
            "an include whose name is a path",
            spec(json!({"backup": {"include": [{"name": "../etc", "configMapRef": {"name": "crm"}}]}})),
            "spec.backup.include[0].name",
            "should match",
        ),
        accepted("a tolerance of a fraction", pair(json!({"tolerance": "0.25"}))),
        refused(
            "a tolerance below zero",
            pair(json!({"tolerance": "-1"})),
            "spec.validation.checks[0].tolerance",
            "should match",
        ),
        refused(
            "a pair without a name for its report",
            pair(json!({"name": ""})),
            "spec.validation.checks[0].name",
            "at least 1 chars long",
        ),
        accepted("a hundred cohorts at a time", spec(json!({"rollout": {"maxConcurrentCohorts": 100}}))),
        refused(
            "no cohort at a time",
            spec(json!({"rollout": {"maxConcurrentCohorts": 0}})),
            "spec.rollout.maxConcurrentCohorts",
            "greater than or equal to 1",
        ),
        refused(
            "a route table that cannot exist",
            spec(json!({"routing": {"routeTable": {"configMapName": "crm..routes"}}})),
            "spec.routing.routeTable.configMapName",
            "should match",
        ),
    ]
}

fn transitions() -> Vec<Case> {
    let other_engine =
        || spec(json!({"engine": {"postgres": {"target": {"uriFrom": {"secretKeyRef": {"name": "other"}}}}}}));
    let other_root = || spec(json!({"dataset": {"root": {"table": "public.customer"}}}));
    vec![
        accepted("another engine before the start", other_engine()).on(json!({})),
        accepted("another root before the start", other_root()).on(json!({"status": {"observedGeneration": 1}})),
        ruled_out(
            "another engine after the start",
            other_engine(),
            ["spec.engine", FORBIDDEN, "spec.engine is fixed once the migration has started"],
        )
        .on(started()),
        ruled_out(
            "another root after the start",
            other_root(),
            ["spec.dataset.root", FORBIDDEN, "spec.dataset.root is fixed once the migration has started"],
        )
        .on(started()),
        accepted("the stop cord after the start", spec(json!({"suspend": true}))).on(started()),
        accepted("another table pattern after the start", spec(json!({"dataset": {"exclude": ["public.log"]}})))
            .on(started()),
        accepted("an annotation after the start", json!({"metadata": {"annotations": {"godwit.dev/paused": "true"}}}))
            .on(started()),
        accepted("a status after the start", json!({"status": {"phase": "Moving"}})).on(started()),
    ]
}

/// Needs a definition with a second way back, or none that knows the values.
pub fn another_way_back() -> Case {
    ruled_out(
        "another way back after the start",
        spec(json!({"rollback": {"mode": "ReverseSync"}})),
        ["spec.rollback.mode", FORBIDDEN, "spec.rollback.mode is fixed once the migration has started"],
    )
    .on(started())
}

pub fn every_case() -> Vec<Case> {
    [unions(), checks(), durations(), references(), bounds(), transitions()].into_iter().flatten().collect()
}

#[tokio::test]
async fn of_each_union_exactly_one_member_is_given() {
    assert_all(&valid(), "migration-unions", unions()).await;
}

#[tokio::test]
async fn a_check_says_how_it_is_judged_and_keeps_out_of_reserved_names() {
    assert_all(&valid(), "migration-checks", checks()).await;
}

#[tokio::test]
async fn a_duration_of_a_migration_stays_within_its_bounds() {
    assert_all(&valid(), "migration-durations", durations()).await;
}

#[tokio::test]
async fn gates_and_triggers_name_checks_that_exist() {
    assert_all(&valid(), "migration-references", references()).await;
}

#[tokio::test]
async fn names_lists_and_numbers_of_a_migration_are_bounded() {
    assert_all(&valid(), "migration-bounds", bounds()).await;
}

#[tokio::test]
async fn what_is_fixed_once_a_migration_started_can_be_changed_before_it_only() {
    assert_all(&valid(), "migration-transitions", transitions()).await;
}
