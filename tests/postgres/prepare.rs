//! Prepare: schema, baseline, natives, fences, key ranges, shared rows; idempotent, resumable.

use godwit::contract::{Dataset, KeyStrategy, Owner, Side, Task, exit};
use godwit::worker::postgres::baseline::Baseline;
use godwit::worker::postgres::identifier::TableName;
use godwit::worker::postgres::model::entry;
use godwit::worker::postgres::{fence, ledger};

use crate::base::CRM;
use crate::job::Project;

const PREPARE: Task = Task::Prepare {};

#[tokio::test]
async fn an_empty_target_gets_the_schema_the_shared_rows_and_key_ranges_of_its_own() {
    let project = Project::new(CRM);
    let report = project.done(None, PREPARE).await;
    assert_eq!(report.counts["tables"], 6);
    assert_eq!(report.counts["tablesCreated"], 6);
    assert_eq!(report.counts["referenceRows"], 2);
    assert_eq!(report.counts["sequencesSplit"], 4);
    assert!(report.evidence_uri.is_some() && report.digest.is_some());
    let rows = "select (select count(*) from public.currency) * 1000 + (select count(*) from public.account)";
    assert_eq!(project.number(Side::Target, rows).await, 2000);
    assert!(project.number(Side::Target, "select nextval('public.account_id_seq')").await > 1_000_000);
    assert_eq!(project.number(Side::Source, "select nextval('public.account_id_seq')").await, 101);
    let keys =
        "select count(*) from pg_constraint where contype in ('p', 'f', 'u') and connamespace = 'public'::regnamespace";
    assert_eq!(project.number(Side::Target, keys).await, project.number(Side::Source, keys).await);
    for side in [Side::Source, Side::Target] {
        let session = project.session(side).await;
        assert_eq!(fence::fenced_tables(&*session).await.unwrap().len(), 24, "{side:?}");
        let ownerships = ledger::ownerships(&*session).await.unwrap();
        let owners: Vec<_> = ownerships.iter().map(|one| (one.entry, one.owner, one.epoch)).collect();
        assert_eq!(
            owners,
            [
                (entry::UNASSIGNED, Owner::Source, 0),
                (entry::REFERENCE, Owner::Source, 0),
                (entry::NATIVE, Owner::Target, 0)
            ]
        );
    }
    // The target's application can create no customer yet; the source's can.
    let target = project.pair.application(Side::Target, "postgres").await;
    assert!(target.batch_execute("insert into account (name) values ('too early')").await.is_err());
    let source = project.pair.application(Side::Source, "postgres").await;
    source.batch_execute("insert into account (name) values ('in time')").await.unwrap();
}

#[tokio::test]
async fn preparing_again_changes_nothing() {
    let project = Project::new(CRM);
    let first = project.done(None, PREPARE).await;
    let position = "select last_value from public.account_id_seq";
    let before = project.number(Side::Target, position).await;
    let second = project.done(None, PREPARE).await;
    assert_eq!(first.counts, second.counts);
    assert_eq!(project.number(Side::Target, position).await, before);
    let same = project.run_attempt(None, PREPARE, 2).await;
    assert_eq!(same, (exit::DONE, second));
}

#[tokio::test]
async fn an_older_attempt_of_prepare_fails() {
    let project = Project::new(CRM);
    project.done(None, PREPARE).await;
    let (code, report) = project.run_attempt(None, PREPARE, 0).await;
    assert_eq!(code, exit::TRY_AGAIN);
    assert_eq!(report.findings[0].code, "NewerAttempt");
}

#[tokio::test]
async fn types_functions_triggers_and_partitions_come_along() {
    let schema = r#"create schema sales; create schema lib; create extension citext;
        create type lib.mood as enum ('sad', 'it''s ok'); create domain lib.rate as numeric(5,2) default 1 check (value > 0);
        create type lib.span as (a int, b lib.mood);
        create function lib.touch() returns trigger language plpgsql as $f$ begin new.at := now(); return new; end $f$;
        create function lib.valid(m lib.mood) returns boolean language sql immutable as $f$ select m is not null $f$;
        create sequence sales.loose;
        create table sales."Account" (id int generated always as identity primary key, m lib.mood check (lib.valid(m)), r lib.rate, s lib.span, e public.citext, at timestamptz,
           n bigint default nextval('sales.loose'), up text generated always as (upper('x' || at::text is null)) stored);
        "#
    .replace("upper('x' || at::text is null)", "'fixed'");
    let schema = format!(
        r#"{schema}
        create trigger touch before update on sales."Account" for each row execute function lib.touch();
        create table sales.event (id bigserial, account int not null references sales."Account", at date, primary key (id, at)) partition by range (at);
        create table sales.event_1 partition of sales.event for values from ('2020-01-01') to ('2021-01-01');
        create index on sales.event (account);
        insert into sales."Account" (m, s, e) values ('sad', row(1, 'sad'), 'A@b');"#
    );
    let dataset = Dataset { root_table: "sales.Account".into(), root_key: "id".into(), ..Dataset::default() };
    let project = Project::with(&schema, dataset);
    let report = project.done(None, PREPARE).await;
    assert_eq!(report.counts["tablesCreated"], 2);
    let target = project.session(Side::Target).await;
    let baseline = Baseline::load(&*target).await.unwrap().unwrap();
    assert!(baseline.created.contains(&TableName::new("sales", "Account")));
    assert!(baseline.dependencies.iter().any(|(kind, name)| kind == "type" && name == "lib.mood"));
    let count = "select (select count(*) from pg_trigger where tgname = 'touch') * 100 + (select count(*) from pg_inherits i join pg_class c on c.oid = i.inhrelid where c.relkind = 'r') * 10
      + (select count(*) from pg_proc where pronamespace = 'lib'::regnamespace)";
    assert_eq!(project.number(Side::Target, count).await, 112);
}

#[tokio::test]
async fn customers_that_the_target_had_stay_its_own_and_writable() {
    let project = Project::new(CRM);
    project.pair.psql(Side::Target, &format!("{} ;", CRM.split("insert into").next().unwrap()));
    project.pair.psql(
        Side::Target,
        "insert into account (id, name) values (900001, 'native'); insert into contact (id, account_id) values (900001, 900001)",
    );
    let report = project.done(None, PREPARE).await;
    assert_eq!(report.counts["nativeCustomers"], 1);
    assert_eq!(report.counts["tablesCreated"], 0);
    let target = project.pair.application(Side::Target, "postgres").await;
    target.batch_execute("update contact set email = 'n' where account_id = 900001").await.unwrap();
    assert!(target.batch_execute("insert into account (id, name) values (900002, 'new')").await.is_err());
    let baseline = Baseline::load(&*project.session(Side::Target).await).await.unwrap().unwrap();
    assert_eq!(baseline.tables[&TableName::new("public", "contact")].rows, 1);
    assert!(baseline.created.is_empty());
}

#[tokio::test]
async fn rows_under_keys_of_the_source_are_refused_before_anything_is_made() {
    let project = Project::new(CRM);
    project.pair.psql(Side::Target, CRM.split("insert into").next().unwrap());
    project.pair.psql(
        Side::Target,
        "insert into account (id, name) values (900001, 'native'); insert into contact (id, account_id) values (7, 900001)",
    );
    let (code, report) = project.run(None, PREPARE).await;
    assert_eq!(code, exit::DATA_DIFFERS);
    assert_eq!(report.findings[0].code, "KeyCollision");
    assert_eq!(report.findings[0].object, "public.contact");
    assert!(Baseline::load(&*project.session(Side::Target).await).await.unwrap().is_none());
}

#[tokio::test]
async fn a_target_whose_columns_differ_is_refused_by_name() {
    let project = Project::new(CRM);
    project.pair.psql(
        Side::Target,
        "create table account (id bigserial primary key, parent_id bigint references account, name varchar(10) not null, currency text, extra int not null)",
    );
    let (code, report) = project.run(None, PREPARE).await;
    assert_eq!(code, exit::DATA_DIFFERS);
    let found: Vec<_> = report.findings.iter().map(|f| (f.code.as_str(), f.object.as_str())).collect();
    assert!(found.contains(&("ColumnTypeDiffers", "public.account.name")));
    assert!(found.contains(&("ColumnNeedsValue", "public.account.extra")));
    let there = "select count(*) from pg_namespace where nspname = 'godwit'";
    assert_eq!(project.number(Side::Target, there).await, 0);
}

#[tokio::test]
async fn shared_rows_that_differ_are_refused_and_equal_ones_are_kept() {
    let project = Project::new(CRM);
    project.pair.psql(Side::Target, "create table currency (code text primary key, name text not null)");
    project.pair.psql(Side::Target, "insert into currency values ('EUR', 'Euro')");
    let (code, report) = project.run(None, PREPARE).await;
    assert_eq!((code, report.findings[0].code.as_str()), (exit::DATA_DIFFERS, "ReferenceRowsDiffer"));
    // Nothing is fenced yet, so whoever has to change the rows still can.
    project
        .pair
        .psql(Side::Target, "delete from currency; insert into currency values ('EUR', 'euro'), ('USD', 'dollar')");
    let report = project.done(None, PREPARE).await;
    assert_eq!(report.counts["referenceRows"], 2);
}

#[tokio::test]
async fn parity_keeps_the_two_sides_keys_apart() {
    let mut project = Project::new(CRM);
    project.dataset.keys = KeyStrategy::Parity;
    project.done(None, PREPARE).await;
    project.done(None, PREPARE).await;
    let mut drawn = Vec::new();
    for _ in 0..5 {
        for side in [Side::Source, Side::Target] {
            drawn.push(project.number(side, "select nextval('public.contact_id_seq')").await);
        }
    }
    let all = drawn.len();
    drawn.sort_unstable();
    drawn.dedup();
    assert_eq!(drawn.len(), all, "{drawn:?}");
    assert!(drawn[0] > 300);
}
