//! Whole migrations to their three ends: finalised, reset, deleted.

use godwit::contract::{Dataset, KeyStrategy, Owner, Selection, Side, Task, exit};

use crate::base::CRM;
use crate::job::Project;

const PREPARE: Task = Task::Prepare {};

fn select(selection: Selection) -> Task {
    Task::Select { selection }
}

fn condition(sql: &str) -> Task {
    select(Selection::Where(sql.into()))
}

async fn copy(project: &Project, cohort: &str, selection: Task) {
    project.done(Some(cohort), selection).await;
    project.done(Some(cohort), Task::Copy {}).await;
    project.done(Some(cohort), Task::Validate { checks: vec![] }).await;
}

async fn cut_over(project: &Project, cohort: &str, selection: Task) {
    copy(project, cohort, selection).await;
    let report = project.done(Some(cohort), Task::Cutover { checks: vec![] }).await;
    assert_eq!(report.owner, Some(Owner::Target));
}

/// What of Godwit is left in a database: triggers, and the schema.
async fn traces(project: &Project, side: Side) -> i64 {
    let sql = "select (select count(*) from pg_trigger where tgname like '~godwit%') + (select count(*) from pg_namespace where nspname = 'godwit')";
    project.number(side, sql).await
}

async fn rows(project: &Project, side: Side) -> Vec<i64> {
    let mut rows = Vec::new();
    for table in ["currency", "account", "contact", "deal", "deal_contact", "line_item"] {
        rows.push(project.number(side, &format!("select count(*) from public.{table}")).await);
    }
    rows
}

#[tokio::test]
async fn a_finalised_migration_leaves_both_databases_without_a_trace_and_the_target_complete() {
    for strategy in [KeyStrategy::Gap, KeyStrategy::Parity] {
        let mut project = Project::new(CRM);
        project.dataset.keys = strategy;
        project.done(None, PREPARE).await;
        cut_over(&project, "canary", condition("id in (11, 20)")).await;
        let (code, report) = project.run(None, Task::Finalize {}).await;
        assert_eq!((code, report.findings[0].code.as_str()), (exit::DATA_DIFFERS, "StillOnSource"));
        assert!(report.findings[0].object.contains("unassigned"));
        let source = project.pair.application(Side::Source, "postgres").await;
        let target = project.pair.application(Side::Target, "postgres").await;
        source.batch_execute("insert into account (name) values ('born in between')").await.unwrap();
        target.batch_execute("insert into contact (account_id) values (20)").await.unwrap();
        cut_over(&project, "rest", select(Selection::Remainder {})).await;
        let report = project.done(None, Task::Finalize {}).await;
        assert_eq!(report.counts["sequencesJoined"], 4);
        for side in [Side::Source, Side::Target] {
            assert_eq!(traces(&project, side).await, 0);
        }
        let mut complete = rows(&project, Side::Source).await;
        complete[2] += 1;
        assert_eq!(rows(&project, Side::Target).await, complete);
        // Keys go on above all that either side drew, one by one.
        let sql = "select nextval('public.contact_id_seq')";
        let first = project.number(Side::Target, sql).await;
        assert_eq!(project.number(Side::Target, sql).await, first + 1);
        let largest = "select max(id) from public.contact";
        assert!(first > project.number(Side::Target, largest).await);
        let source_keys = (project.number(Side::Source, sql).await, project.number(Side::Source, sql).await);
        assert_eq!(source_keys.1, source_keys.0 + 1);
        let file = project.storage.path().join(report.evidence_uri.clone().unwrap());
        let archive: serde_json::Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        assert_eq!(archive["target"]["members"], 101);
        assert!(archive["target"]["journal"].as_array().unwrap().len() > 3);
        assert!(archive["target"].get("member").is_none());
        // A second attempt finds nothing left to do, and tells what there was: its predecessor's answer may not have been heard.
        assert_eq!(project.done(None, Task::Finalize {}).await, report);
    }
}

#[tokio::test]
async fn a_finalisation_that_ended_halfway_is_completed() {
    let project = Project::new(CRM);
    project.done(None, PREPARE).await;
    cut_over(&project, "rest", select(Selection::Remainder {})).await;
    let session = project.session(Side::Source).await;
    session
        .run("drop one trigger", "drop trigger \"~godwit_fence_row\" on public.deal; drop schema godwit cascade")
        .await
        .unwrap();
    project.done(None, Task::Finalize {}).await;
    for side in [Side::Source, Side::Target] {
        assert_eq!(traces(&project, side).await, 0);
    }
}

#[tokio::test]
async fn a_reset_target_that_was_empty_is_empty_again() {
    let project = Project::new(&format!(
        "create schema lib; create type lib.mood as enum ('a'); {CRM} alter table deal add column mood lib.mood;"
    ));
    project.done(None, PREPARE).await;
    cut_over(&project, "canary", condition("id in (11, 20)")).await;
    copy(&project, "second", condition("id < 5")).await;
    let (code, report) = project.run(None, Task::Reset {}).await;
    assert_eq!((code, report.findings[0].code.as_str()), (exit::DATA_DIFFERS, "CohortNotBack"));
    for task in [Task::Freeze {}, Task::Return {}, Task::Verify {}, Task::Reopen {}] {
        project.done(Some("canary"), task).await;
    }
    let (code, report) = project.run(None, Task::Reset {}).await;
    assert_eq!((code, report.findings[0].code.as_str()), (exit::DATA_DIFFERS, "RowsLeft"));
    // The refusal did not lock the cohort out.
    project.done(Some("second"), Task::Discard {}).await;
    let before = rows(&project, Side::Source).await;
    let report = project.done(None, Task::Reset {}).await;
    assert_eq!(report.counts["tablesDropped"], 6);
    for side in [Side::Source, Side::Target] {
        assert_eq!(traces(&project, side).await, 0);
    }
    let left = "select count(*) from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname in ('public', 'lib')";
    assert_eq!(project.number(Side::Target, left).await, 0);
    let schemas = "select count(*) from pg_namespace where nspname = 'lib'";
    assert_eq!(project.number(Side::Target, schemas).await, 0);
    assert_eq!(rows(&project, Side::Source).await, before);
    project.done(None, Task::Reset {}).await;
    // And the whole thing may begin anew.
    project.done(None, PREPARE).await;
}

#[tokio::test]
async fn a_reset_target_keeps_its_own_customers_and_their_keys() {
    let mut project = Project::new(CRM);
    project.dataset.keys = KeyStrategy::Parity;
    project.pair.psql(Side::Target, CRM.split("insert into").next().unwrap());
    project.pair.psql(
        Side::Target,
        "insert into account (id, name) values (900001, 'native'); select setval('account_id_seq', 900001); select setval('contact_id_seq', 900000)",
    );
    project.done(None, PREPARE).await;
    copy(&project, "canary", condition("id = 20")).await;
    let target = project.pair.application(Side::Target, "postgres").await;
    target.batch_execute("insert into contact (account_id, email) values (900001, 'n1')").await.unwrap();
    project.done(Some("canary"), Task::Discard {}).await;
    let report = project.done(None, Task::Reset {}).await;
    assert_eq!(report.counts["tablesDropped"], 0);
    assert_eq!(report.counts["referenceRowsRemoved"], 2);
    assert_eq!(rows(&project, Side::Target).await, [0, 1, 1, 0, 0, 0]);
    let drawn = project.number(Side::Target, "select max(id) from public.contact").await;
    let sql = "select nextval('public.contact_id_seq')";
    assert_eq!(project.number(Side::Target, sql).await, drawn + 1);
    assert_eq!(project.number(Side::Target, "select nextval('public.account_id_seq')").await, 900_002);
    assert!(report.findings.iter().any(|f| f.code == "ChangedSinceBaseline" && f.object == "public.contact"));
    assert_eq!(traces(&project, Side::Target).await, 0);
}

#[tokio::test]
async fn a_prepare_that_ended_early_can_be_reset() {
    let project = Project::new(CRM);
    project.pair.psql(Side::Target, CRM.split("insert into").next().unwrap());
    project.pair.psql(Side::Target, "insert into account (id, name) values (900001, 'native')");
    project.done(None, PREPARE).await;
    // As if it had ended before the target's own customers were registered.
    project.pair.psql(
        Side::Target,
        "set godwit.pass = '1:0'; delete from currency; reset godwit.pass; delete from godwit.checkpoint; delete from godwit.member;
         update godwit.migration set prepared_at = null; update godwit.ownership set owner = 'Target'; insert into currency values ('own', 'own')",
    );
    project.done(None, Task::Reset {}).await;
    assert_eq!(rows(&project, Side::Target).await, [1, 1, 0, 0, 0, 0]);
    assert_eq!(traces(&project, Side::Target).await, 0);
}

#[tokio::test]
async fn deletion_cleans_up_whatever_is_there_and_touches_no_row() {
    let project = Project::new(CRM);
    // Nothing at all yet.
    let report = project.done(None, Task::Cleanup {}).await;
    assert_eq!(report.counts["databasesLeft"], 0);
    project.done(None, PREPARE).await;
    copy(&project, "canary", condition("id in (11, 20)")).await;
    let before = (rows(&project, Side::Source).await, rows(&project, Side::Target).await);
    // The dataset need not make sense any more, and a half of the work may be done.
    let mut project = project;
    project.dataset.root_table = "no.such".into();
    project.pair.psql(Side::Source, "drop trigger \"~godwit_fence_row\" on deal");
    let report = project.done(None, Task::Cleanup {}).await;
    assert_eq!(report.counts["databasesLeft"], 2);
    assert_eq!((rows(&project, Side::Source).await, rows(&project, Side::Target).await), before);
    for side in [Side::Source, Side::Target] {
        assert_eq!(traces(&project, side).await, 0);
    }
    project.done(None, Task::Cleanup {}).await;
}

#[tokio::test]
async fn rows_whose_key_is_of_an_extensions_type_come_back() {
    let schema = "create schema lib; create extension ltree schema lib;
         create table account (id bigint primary key, name text);
         create table folder (path lib.ltree primary key, account_id bigint not null references account, title text);
         insert into account select i, 'a' || i from generate_series(1, 4) i;
         insert into folder select ('top.f' || i)::lib.ltree, 1 + i % 4, 't' || i from generate_series(1, 40) i;";
    let dataset = Dataset { root_table: "public.account".into(), root_key: "id".into(), ..Dataset::default() };
    let project = Project::with(schema, dataset);
    project.done(None, PREPARE).await;
    let folders = "select count(*) from public.folder";
    copy(&project, "canary", condition("id = 2")).await;
    assert_eq!(project.done(Some("canary"), Task::Discard {}).await.counts["rowsRemoved"], 11);
    cut_over(&project, "canary", condition("id = 2")).await;
    project.done(Some("canary"), Task::Freeze {}).await;
    project.pair.psql(
        Side::Source,
        "set session_replication_role = replica; set godwit.pass = '16:3'; update folder set title = 'x' where account_id = 2",
    );
    let returned = project.done(Some("canary"), Task::Return {}).await;
    assert_eq!(returned.counts["tablesRestored"], 1);
    for task in [Task::Verify {}, Task::Reopen {}] {
        project.done(Some("canary"), task).await;
    }
    assert_eq!(project.number(Side::Source, folders).await, 40);
    assert_eq!(project.number(Side::Target, folders).await, 0);
}

#[tokio::test]
async fn a_reset_keeps_a_created_table_that_the_targets_own_customers_were_written_to() {
    let mut project = Project::new(
        &CRM.replace("amount numeric(12,2)", "amount numeric(12,2), currency text references unit").replacen(
            "create table currency",
            "create table unit (code text primary key); insert into unit values ('EUR'); create table currency",
            1,
        ),
    );
    project.dataset.keys = KeyStrategy::Parity;
    project.pair.psql(
        Side::Target,
        "create table currency (code text primary key, name text not null);
         create table account (id bigserial primary key, parent_id bigint references account, name text not null, currency text references currency);
         insert into account (id, name) values (900001, 'native'); select setval('account_id_seq', 900001)",
    );
    project.done(None, PREPARE).await;
    copy(&project, "canary", condition("id = 20")).await;
    let target = project.pair.application(Side::Target, "postgres").await;
    target.batch_execute("insert into deal (account_id, amount) values (900001, 7)").await.unwrap();
    project.done(Some("canary"), Task::Discard {}).await;
    // One who writes while the tables are looked at is waited for; then nothing goes before they were looked at again.
    target.batch_execute("begin; insert into contact (id, account_id) values (900003, 900001)").await.unwrap();
    let commit = async {
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
        target.batch_execute("commit").await.unwrap();
    };
    let ((code, _), ()) = futures::join!(project.run(None, Task::Reset {}), commit);
    assert_eq!(code, exit::TRY_AGAIN);
    let report = project.done(None, Task::Reset {}).await;
    assert_eq!(report.counts["tablesDropped"], 2);
    let kept: Vec<_> = report.findings.iter().filter(|f| f.code == "TableKept").map(|f| f.object.as_str()).collect();
    assert_eq!(kept, ["public.contact", "public.deal", "public.unit"]);
    let deals = "select count(*) from public.deal where account_id = 900001 and amount = 7";
    assert_eq!(project.number(Side::Target, deals).await, 1);
    let draw = "select nextval('public.deal_id_seq')";
    assert_eq!(project.number(Side::Target, draw).await + 1, project.number(Side::Target, draw).await);
    assert_eq!(traces(&project, Side::Target).await, 0);
}

#[tokio::test]
async fn a_source_whose_ledger_or_fence_is_not_as_the_targets_keeps_a_migration_from_its_end() {
    let project = Project::new(CRM);
    project.done(None, PREPARE).await;
    cut_over(&project, "rest", select(Selection::Remainder {})).await;
    let turns = "select sum(turn)::int8 from godwit.fencing_token";
    let before = project.number(Side::Target, turns).await;
    for (breaks, repairs, code, object) in [
        (
            "update godwit.ownership set owner = 'Source', epoch = 0 where entry = 16",
            "update godwit.ownership set owner = 'Target', epoch = 2 where entry = 16",
            "StillOnSource",
            "rest",
        ),
        (
            "update godwit.ownership set epoch = 4 where entry in (0, 1)",
            "update godwit.ownership set epoch = 2 where entry in (0, 1)",
            "LedgersDisagree",
            "unassigned, reference",
        ),
        (
            "alter table deal disable trigger \"~godwit_fence_row\"",
            "alter table deal enable always trigger \"~godwit_fence_row\"",
            "FenceDown",
            "public.deal",
        ),
    ] {
        project.pair.psql(Side::Source, breaks);
        let (exit, report) = project.run(None, Task::Finalize {}).await;
        assert_eq!(exit, godwit::contract::exit::DATA_DIFFERS, "{report:?}");
        let found: Vec<_> = report.findings.iter().map(|f| (f.code.as_str(), f.object.as_str())).collect();
        assert_eq!(found, [(code, object)]);
        project.pair.psql(Side::Source, repairs);
    }
    assert_eq!(project.number(Side::Target, turns).await, before);
    project.done(None, Task::Finalize {}).await;
    for side in [Side::Source, Side::Target] {
        assert_eq!(traces(&project, side).await, 0);
    }
}

#[tokio::test]
async fn rows_that_lose_their_customer_on_the_way_keep_the_remainder_on_the_source() {
    let schema = "create table account (id bigint primary key, name text);
         create table ticket (id bigint primary key, account_id bigint references account on delete set null, title text);
         insert into account select i, 'a' || i from generate_series(1, 4) i;
         insert into ticket select i, 1 + i % 4, 't' || i from generate_series(1, 40) i;";
    let dataset = Dataset { root_table: "public.account".into(), root_key: "id".into(), ..Dataset::default() };
    let project = Project::with(schema, dataset);
    project.done(None, PREPARE).await;
    copy(&project, "rest", select(Selection::Remainder {})).await;
    project.pair.psql(Side::Source, "delete from account where id = 2");
    for task in [Task::Validate { checks: vec![] }, Task::Cutover { checks: vec![] }] {
        let (code, report) = project.run(Some("rest"), task).await;
        assert_eq!((code, report.owner), (exit::DATA_DIFFERS, Some(Owner::Source)), "{report:?}");
        let found: Vec<_> = report.findings.iter().map(|f| (f.code.as_str(), f.object.as_str())).collect();
        assert_eq!(found, [("UnownedRows", "public.ticket")]);
    }
    project.pair.psql(Side::Source, "update ticket set account_id = 1 where account_id is null");
    // One whose writer has not ended when Cutover looks first: it waits for that writer, and looks again.
    let writing = project.session(Side::Source).await;
    writing.batch_execute("begin; update public.ticket set account_id = null where id = 4").await.unwrap();
    let commit = async {
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
        writing.batch_execute("commit").await.unwrap();
    };
    let ((code, report), ()) = futures::join!(project.run(Some("rest"), Task::Cutover { checks: vec![] }), commit);
    assert_eq!((code, report.owner), (exit::DATA_DIFFERS, Some(Owner::Source)), "{report:?}");
    assert_eq!(report.findings[0].code, "UnownedRows");
    let source = project.pair.application(Side::Source, "postgres").await;
    source.batch_execute("update ticket set account_id = 3 where account_id is null").await.unwrap();
    let report = project.done(Some("rest"), Task::Cutover { checks: vec![] }).await;
    assert_eq!(report.owner, Some(Owner::Target));
    assert_eq!(project.number(Side::Target, "select count(*) from public.ticket").await, 40);
}

#[tokio::test]
async fn deletion_leaves_another_migrations_ledger_alone() {
    let project = Project::new(CRM);
    project.done(None, PREPARE).await;
    project.pair.psql(Side::Target, "update godwit.migration set uid = 'other'");
    let report = project.done(None, Task::Cleanup {}).await;
    assert_eq!(report.counts["databasesLeft"], 1);
    assert_eq!(report.findings[0].code, "ForeignLedger");
    assert_eq!(traces(&project, Side::Source).await, 0);
    assert_eq!(traces(&project, Side::Target).await, 19);
}
