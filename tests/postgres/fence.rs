//! The fence against concurrent writers, old snapshots, cascades, moving rows, foreign roles and forged passes.

use std::time::Duration;

use godwit::contract::{Dataset, Owner, Side};
use godwit::worker::Error;
use godwit::worker::postgres::catalog::read_catalog;
use godwit::worker::postgres::model::{Scope, entry};
use godwit::worker::postgres::session::Session;
use godwit::worker::postgres::token::Token;
use godwit::worker::postgres::{fence, ledger, scope, token};
use tokio_postgres::Client;

use crate::base::{CRM, dataset, migration, wait_for_lock};
use crate::server::Pair;

/// A fenced source with account 10 and its linked 11, 12 in entry 16, and account 50 in entry 17.
struct Fenced {
    pair: Pair,
    session: Session,
    token: Token,
    scope: Scope,
    role: String,
}

async fn fenced(schema: &str) -> Fenced {
    fenced_with(schema, dataset()).await
}

async fn fenced_with(schema: &str, dataset: Dataset) -> Fenced {
    let pair = Pair::new(schema);
    let role = format!("app_{}", pair.database);
    pair.psql(
        Side::Source,
        &format!(
            "create role {role} login; grant all on all tables in schema public to {role}; grant all on all sequences in schema public to {role}"
        ),
    );
    let mut session = pair.session(Side::Source).await;
    let catalog = read_catalog(&session).await.unwrap();
    let scope = scope::resolve(&dataset, &catalog).unwrap();
    ledger::create(&mut session, Side::Source, &migration(), &scope.root_key_type).await.unwrap();
    fence::install(&mut session, Side::Source, &scope).await.unwrap();
    session
        .run(
            "register members",
            "insert into godwit.ownership (entry, name, owner, epoch) values (16, 'canary', 'Source', 4), (17, 'second', 'Source', 0)",
        )
        .await
        .unwrap();
    let token = token::take(&session, "cohort", 1).await.unwrap();
    Fenced { pair, session, token, scope, role }
}

impl Fenced {
    async fn members(&mut self, members: &str) {
        let sql = format!("insert into godwit.member (customer, entry) values {members}");
        self.session.run("register members", &sql).await.unwrap();
    }

    async fn crm() -> Self {
        let mut fenced = fenced(CRM).await;
        fenced.members("(10, 16), (11, 16), (12, 16), (50, 17)").await;
        fenced
    }

    async fn application(&self) -> Client {
        self.pair.application(Side::Source, &self.role).await
    }

    async fn close(&mut self, entry: i32) -> fence::Closed {
        fence::close(&mut self.session, &self.token, entry).await.unwrap()
    }
}

fn code(error: &tokio_postgres::Error) -> String {
    error.code().map(|code| code.code().to_owned()).unwrap_or_default()
}

async fn refused(client: &Client, sql: &str) {
    let error = client.batch_execute(sql).await.expect_err(sql);
    assert!(["GW001", "GW004"].contains(&code(&error).as_str()), "{sql}: {error:?}");
    let database = error.as_db_error().unwrap();
    assert!(database.detail().is_none() && database.hint().unwrap().contains("route table"));
}

async fn accepted(client: &Client, sql: &str) {
    if let Err(error) = client.batch_execute(sql).await {
        panic!("{sql}: {error:?}");
    }
}

#[tokio::test]
async fn a_refusal_tells_a_customer_that_switches_from_one_that_the_other_side_owns() {
    let mut fenced = Fenced::crm().await;
    let application = fenced.application().await;
    let write = "update account set name = 'x' where id = 10";
    let told = async || code(&application.batch_execute(write).await.unwrap_err());
    let closed = fenced.close(16).await;
    assert_eq!(told().await, "GW001", "nobody owns it: repeat in a moment");
    fence::open(&mut fenced.session, &fenced.token, 16, (Owner::Target, closed.epoch + 1)).await.unwrap();
    assert_eq!(told().await, "GW004", "the other side owns it: repeat it there");
}

#[tokio::test]
async fn a_closed_entry_refuses_writes_on_every_path_and_leaves_the_others_alone() {
    let mut fenced = Fenced::crm().await;
    let application = fenced.application().await;
    assert_eq!(fenced.close(16).await.epoch, 5);
    for sql in [
        "update account set name = 'x' where id = 10",
        "delete from account where id = 11",
        "insert into contact (account_id) values (12)",
        "update deal set stage = 'won' where account_id = 10",
        "delete from line_item where deal_id in (select id from deal where account_id = 10)",
        "insert into line_item (deal_id, product) select id, 'p' from deal where account_id = 10",
        "update deal_contact set role = 'r' where deal_id in (select id from deal where account_id = 10)",
        // The row moves into, and out of, the closed entry.
        "update contact set account_id = 10 where account_id = 20",
        "update contact set account_id = 20 where account_id = 10",
        "update account set id = 1000 where id = 10",
        "copy contact (account_id) from program 'echo 10'",
    ] {
        if sql.starts_with("copy") {
            let superuser = fenced.pair.application(Side::Source, "postgres").await;
            refused(&superuser, sql).await;
        } else {
            refused(&application, sql).await;
        }
    }
    for sql in [
        "insert into account (name) values ('born now')",
        "update account set name = 'x' where id = 50",
        "insert into contact (account_id) values (20)",
        "update contact set account_id = 21 where account_id = 20",
        "insert into line_item (deal_id, product) select id, 'p' from deal where account_id = 50",
        "delete from account where id = 60",
        "insert into currency values ('CHF', 'franc')",
    ] {
        accepted(&application, sql).await;
    }
    let open = fence::open(&mut fenced.session, &fenced.token, 16, (Owner::Source, 6));
    open.await.unwrap();
    accepted(&application, "update account set name = 'y' where id = 10").await;
}

#[tokio::test]
async fn what_the_other_side_owns_is_refused_and_comes_back_with_the_owner() {
    let mut fenced = Fenced::crm().await;
    let application = fenced.application().await;
    fenced.close(16).await;
    let Fenced { session, token, .. } = &mut fenced;
    // Not the next epoch: something else happened in between.
    let error = fence::open(session, token, 16, (Owner::Target, 7)).await.unwrap_err();
    assert!(matches!(error, Error::EpochMoved { entry: 16, expected: 6, found: 5 }));
    for _ in 0..2 {
        fence::open(session, token, 16, (Owner::Target, 6)).await.unwrap();
    }
    let error = application.batch_execute("update account set name = 'x' where id = 10").await.unwrap_err();
    assert!(error.as_db_error().unwrap().message().contains("owned by the other side"));
    let closed = fenced.close(16).await;
    assert_eq!((closed.epoch, closed.already), (7, false));
    let again = fenced.close(16).await;
    assert_eq!((again.epoch, again.already), (7, true));
}

#[tokio::test]
async fn closing_waits_for_a_writer_in_flight_and_no_writer_slips_in_behind() {
    let mut fenced = Fenced::crm().await;
    let mut writer = fenced.application().await;
    let transaction = writer.transaction().await.unwrap();
    transaction.batch_execute("insert into contact (account_id, email) values (10, 'before the close')").await.unwrap();
    let pair = Pair {
        servers: fenced.pair.servers.clone(),
        database: fenced.pair.database.clone(),
        source_uri: fenced.pair.source_uri.clone(),
        target_uri: fenced.pair.target_uri.clone(),
    };
    let late = fenced.application().await;
    let closing = tokio::spawn(async move {
        let closed = fenced.close(16).await;
        (fenced, closed)
    });
    wait_for_lock(&pair, Side::Source).await;
    assert!(!closing.is_finished());
    // A writer that comes while the close waits is neither lost nor let through afterwards: it ends before the close, or fails.
    let written = late.batch_execute("insert into contact (account_id, email) values (10, 'late')").await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert!(!closing.is_finished(), "the writer in flight was not waited for");
    transaction.commit().await.unwrap();
    let (fenced, closed) = closing.await.unwrap();
    assert!(closed.drain > Duration::from_millis(700));
    let count = fenced
        .session
        .number("count", "select count(*) from public.contact where email in ('before the close', 'late')")
        .await
        .unwrap();
    assert_eq!(count, 1 + i64::from(written.is_ok()));
}

#[tokio::test]
async fn no_confirmed_write_is_missing_from_what_is_read_after_the_close() {
    let mut fenced = Fenced::crm().await;
    let mut writers = Vec::new();
    for number in 0..4 {
        let client = fenced.application().await;
        writers.push(tokio::spawn(async move {
            let mut confirmed = 0_i64;
            loop {
                let sql = if number % 2 == 0 {
                    "insert into contact (account_id) values (10)"
                } else {
                    "begin; insert into deal (account_id, stage) values (11, 'race'); insert into line_item (deal_id, product) values (currval('deal_id_seq'), 'race'); commit"
                };
                match client.batch_execute(sql).await {
                    Ok(()) => confirmed += 1,
                    Err(error) => {
                        assert_eq!(code(&error), "GW001");
                        return confirmed;
                    }
                }
            }
        }));
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let count = "select (select count(*) from public.contact where account_id = 10) + (select count(*) from public.line_item where product = 'race') - 3";
    fenced.close(16).await;
    let seen = fenced.session.number("count", count).await.unwrap();
    let mut confirmed = 0;
    for writer in writers {
        confirmed += writer.await.unwrap();
    }
    assert!(confirmed > 10, "the race never ran");
    assert_eq!(seen, confirmed, "a write was confirmed after the close, or lost");
    assert_eq!(fenced.session.number("count", count).await.unwrap(), seen);
}

#[tokio::test]
async fn a_writer_with_an_old_snapshot_fails_instead_of_going_by_it() {
    for isolation in ["repeatable read", "serializable"] {
        let mut fenced = Fenced::crm().await;
        let application = fenced.application().await;
        let begin = format!("begin isolation level {isolation}; select count(*) from account");
        accepted(&application, &begin).await;
        fenced.close(16).await;
        let error = application.batch_execute("update account set name = 'x' where id = 10").await.unwrap_err();
        assert_eq!(code(&error), "40001", "{isolation}");
        accepted(&application, "rollback").await;
        // With a snapshot of its own time it is an ordinary refusal.
        accepted(&application, &begin).await;
        refused(&application, "update account set name = 'x' where id = 10").await;
    }
}

#[tokio::test]
async fn a_change_of_membership_waits_for_writers_and_reaches_old_snapshots() {
    let mut fenced = Fenced::crm().await;
    let old = fenced.application().await;
    accepted(&old, "begin isolation level repeatable read; select count(*) from account").await;
    let writer = fenced.application().await;
    accepted(&writer, "begin; update account set name = 'w' where id = 71").await;
    let pair_session = fenced.pair.session(Side::Source).await;
    let role = fenced.role.clone();
    let changing = tokio::spawn(async move {
        let Fenced { session, token, .. } = &mut fenced;
        let transaction = fence::change_members(session, token, &[entry::UNASSIGNED, 17]).await.unwrap();
        transaction.batch_execute("insert into godwit.member (customer, entry) values (70, 17)").await.unwrap();
        transaction.commit().await.unwrap();
        fenced
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!changing.is_finished(), "a writer of an unassigned customer was not waited for");
    accepted(&writer, "commit").await;
    let mut fenced = changing.await.unwrap();
    fenced.close(17).await;
    let error = old.batch_execute("update account set name = 'x' where id = 70").await.unwrap_err();
    assert_eq!(code(&error), "40001");
    drop((pair_session, role));
    refused(&writer, "update account set name = 'x' where id = 70").await;
}

#[tokio::test]
async fn a_writer_that_waited_through_a_change_of_membership_goes_by_the_new_one() {
    let mut fenced = Fenced::crm().await;
    let writer = fenced.application().await;
    let probe = fenced.pair.session(Side::Source).await;
    let Fenced { session, token, .. } = &mut fenced;
    let transaction = fence::change_members(session, token, &[entry::UNASSIGNED, 17]).await.unwrap();
    transaction
        .batch_execute(
            "insert into godwit.member (customer, entry) values (70, 17); update godwit.ownership set owner = 'Target' where entry = 17",
        )
        .await
        .unwrap();
    let waiting_write =
        tokio::spawn(async move { writer.batch_execute("update account set name = 'x' where id = 70").await });
    for _ in 0..500 {
        let waiting = "select count(*) from pg_locks where locktype = 'advisory' and not granted and database = (select oid from pg_database where datname = current_database())";
        if probe.number("look", waiting).await.unwrap() > 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    transaction.commit().await.unwrap();
    let error = waiting_write.await.unwrap().unwrap_err();
    assert_eq!(code(&error), "GW004");
}

#[tokio::test]
async fn cascades_of_an_open_customer_run_and_those_of_a_closed_one_do_not() {
    let mut fenced = Fenced::crm().await;
    let application = fenced.application().await;
    fenced.close(16).await;
    accepted(&application, "delete from account where id = 50").await;
    refused(&application, "delete from account where id = 12").await;
    let left = "select count(*) from public.line_item l left join public.deal d on d.id = l.deal_id where d.id is null or d.account_id = 50";
    assert_eq!(fenced.session.number("count", left).await.unwrap(), 0);
}

#[tokio::test]
async fn a_cascade_that_empties_an_owner_path_runs_and_a_row_without_customer_counts_as_unassigned() {
    let schema = "create table account (id int primary key);
        create table deal (id int primary key, account_id int references account on delete cascade);
        create table item (id int primary key, deal_id int references deal on delete set null);
        insert into account values (1), (2); insert into deal values (1, 1), (2, 2); insert into item values (1, 1), (2, 2), (3, null);";
    let mut fenced = fenced_with(
        schema,
        Dataset { root_table: "public.account".into(), root_key: "id".into(), ..Dataset::default() },
    )
    .await;
    fenced.members("(1, 16)").await;
    let application = fenced.application().await;
    fenced.close(entry::UNASSIGNED).await;
    accepted(&application, "delete from account where id = 1").await;
    refused(&application, "update item set id = 30 where id = 3").await;
    refused(&application, "insert into item values (4, null)").await;
}

#[tokio::test]
async fn a_row_whose_parent_moves_meanwhile_ends_on_one_side_of_the_close() {
    let mut fenced = Fenced::crm().await;
    let pair = fenced.pair.session(Side::Source).await;
    let deal = pair.number("find a deal", "select min(id) from public.deal where account_id = 50").await.unwrap();
    let writer = fenced.application().await;
    accepted(&writer, &format!("begin; insert into line_item (deal_id, product) values ({deal}, 'in flight')")).await;
    // The deal moves from entry 17 to entry 16 while the line item's writer, which holds only entry 17, is in flight.
    let mover = fenced.application().await;
    let moving = tokio::spawn(async move {
        mover.batch_execute(&format!("update deal set account_id = 10 where id = {deal}")).await
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!moving.is_finished(), "the move did not wait for the writer below it");
    accepted(&writer, "commit").await;
    moving.await.unwrap().unwrap();
    fenced.close(16).await;
    refused(&writer, &format!("insert into line_item (deal_id, product) values ({deal}, 'late')")).await;
}

/// Account 1 of entry 16; an item may come before its deal.
async fn fenced_with_late_parents() -> Fenced {
    let schema = "create table account (id int primary key);
        create table deal (id int primary key, account_id int not null references account);
        create table item (id int primary key, deal_id int not null references deal deferrable initially deferred);
        insert into account values (1), (2); insert into deal values (20, 2);";
    let dataset = Dataset { root_table: "public.account".into(), root_key: "id".into(), ..Dataset::default() };
    let mut fenced = fenced_with(schema, dataset).await;
    fenced.members("(1, 16)").await;
    fenced
}

#[tokio::test]
async fn closing_waits_for_a_row_whose_parent_nobody_else_can_see_yet() {
    let mut fenced = fenced_with_late_parents().await;
    let parent = fenced.application().await;
    let child = fenced.application().await;
    accepted(&parent, "begin; insert into deal values (99, 1)").await;
    accepted(&child, "begin; insert into item values (1, 99)").await;
    accepted(&parent, "commit").await;
    let closing = tokio::spawn(async move {
        fenced.close(16).await;
        fenced
    });
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert!(!closing.is_finished(), "the writer below a parent in flight was not waited for");
    accepted(&child, "commit").await;
    let fenced = closing.await.unwrap();
    refused(&child, "insert into item values (2, 99)").await;
    accepted(&child, "insert into item values (3, 20)").await;
    let items = "select count(*) from public.item where deal_id = 99";
    assert_eq!(fenced.session.number("count", items).await.unwrap(), 1);
}

#[tokio::test]
async fn a_row_whose_parent_is_newer_than_its_writers_snapshot_goes_by_no_old_owner() {
    let mut fenced = fenced_with_late_parents().await;
    let parent = fenced.application().await;
    let child = fenced.application().await;
    accepted(&child, "begin isolation level repeatable read; select count(*) from account").await;
    accepted(&parent, "insert into deal values (99, 1)").await;
    fenced.close(16).await;
    // Its snapshot knows neither the deal nor the close; the server's own check of the foreign key knows the deal.
    let error = child.batch_execute("insert into item values (1, 99); commit").await.unwrap_err();
    assert_eq!(code(&error), "40001");
}

#[tokio::test]
async fn a_table_is_emptied_only_by_the_side_that_owns_everything() {
    let mut fenced = Fenced::crm().await;
    let application = fenced.application().await;
    accepted(&application, "truncate line_item").await;
    fenced.close(17).await;
    refused(&application, "truncate deal_contact").await;
    // The cascade of a truncate reaches tables that are not ours alone.
    refused(&application, "truncate currency cascade").await;
}

#[tokio::test]
async fn shared_tables_follow_the_reference_entry() {
    let mut fenced = Fenced::crm().await;
    let application = fenced.application().await;
    fenced.close(entry::REFERENCE).await;
    refused(&application, "insert into currency values ('CHF', 'franc')").await;
    refused(&application, "update currency set name = 'x'").await;
    refused(&application, "delete from currency where code = 'USD'").await;
    accepted(&application, "update account set name = 'x' where id = 10").await;
}

#[tokio::test]
async fn a_session_in_replica_mode_meets_the_fence_too() {
    let mut fenced = Fenced::crm().await;
    fenced.close(16).await;
    let superuser = fenced.pair.application(Side::Source, "postgres").await;
    accepted(&superuser, "set session_replication_role = replica").await;
    refused(&superuser, "update account set name = 'x' where id = 10").await;
}

#[tokio::test]
async fn only_a_current_pass_of_the_ledgers_owner_goes_through() {
    let mut fenced = Fenced::crm().await;
    let epoch = fenced.close(16).await.epoch;
    let write = "update public.account set name = 'by godwit' where id = 10";
    let transaction = fenced.session.transaction().await.unwrap();
    fence::pass(&transaction, 16, epoch).await.unwrap();
    transaction.batch_execute(write).await.unwrap();
    transaction.commit().await.unwrap();
    // The pass ended with its transaction.
    refused(&fenced.session, write).await;
    let transaction = fenced.session.transaction().await.unwrap();
    fence::pass(&transaction, 16, epoch - 1).await.unwrap();
    let error = transaction.batch_execute(write).await.unwrap_err();
    assert_eq!(code(&error), "GW002");
    drop(transaction);
    let application = fenced.application().await;
    for (pass, expected) in [(format!("16:{epoch}"), "GW003"), ("anything".into(), "GW003")] {
        accepted(&application, &format!("set godwit.pass = '{pass}'")).await;
        let error = application.batch_execute("update account set name = 'forged' where id = 10").await.unwrap_err();
        assert_eq!(code(&error), expected, "{pass}");
        let error = application.batch_execute("truncate line_item").await.unwrap_err();
        assert_eq!(code(&error), expected, "{pass}");
    }
    let superuser = fenced.pair.application(Side::Source, "postgres").await;
    accepted(&superuser, "set godwit.pass = '16:x'; drop table if exists nothing").await;
    let error = superuser.batch_execute("delete from line_item").await.unwrap_err();
    assert_eq!(code(&error), "GW003");
}

#[tokio::test]
async fn nothing_of_an_applications_own_runs_as_the_ledgers_owner() {
    let schema = "create table account (id uuid primary key, name text);
        create table deal (id int primary key, account_id uuid not null references account);
        create table item (id int primary key, deal_id int not null references deal);
        insert into account values ('00000000-0000-0000-0000-000000000001', 'one');
        insert into deal select 1, id from account; insert into item values (1, 1);";
    let dataset = Dataset { root_table: "public.account".into(), root_key: "id".into(), ..Dataset::default() };
    let fenced = fenced_with(schema, dataset).await;
    let application = fenced.application().await;
    // Temporary types are found before all others, unless a search path says otherwise.
    let as_myself = "create function pg_temp.as_myself() returns pg_catalog.bool language plpgsql as $$ begin
          if current_user <> session_user then raise exception 'as %', current_user; end if; return true; end $$";
    accepted(&application, as_myself).await;
    for name in ["text", "uuid", "int4", "int8", "bool", "regclass"] {
        let hostile = format!("create domain pg_temp.{name} as pg_catalog.{name} check (pg_temp.as_myself())");
        accepted(&application, &hostile).await;
    }
    for sql in [
        "update account set name = 'x'",
        "update item set id = 2",
        "insert into item values (3, 1)",
        "delete from item where id = 3",
        "truncate item",
    ] {
        accepted(&application, sql).await;
    }
    accepted(&application, "set godwit.pass = 'forged'").await;
    for sql in ["update account set name = 'y'", "truncate item"] {
        let error = application.batch_execute(sql).await.unwrap_err();
        assert_eq!(code(&error), "GW003", "{sql}: {error:?}");
    }
}

#[tokio::test]
async fn an_epoch_cannot_change_under_a_transaction_that_passes() {
    let mut fenced = Fenced::crm().await;
    let mut other = fenced.pair.session(Side::Source).await;
    let transaction = other.transaction().await.unwrap();
    fence::pass(&transaction, 16, 4).await.unwrap();
    transaction.batch_execute("update public.account set name = 'landing' where id = 10").await.unwrap();
    let error = fence::close(&mut fenced.session, &fenced.token, 16).await;
    assert!(error.is_err(), "the epoch rose under a transaction that passes");
    transaction.commit().await.unwrap();
    assert_eq!(fenced.close(16).await.epoch, 5);
}

#[tokio::test]
async fn an_application_needs_no_right_on_the_ledger_and_cannot_call_into_it() {
    let fenced = Fenced::crm().await;
    let application = fenced.application().await;
    accepted(&application, "update account set name = 'x' where id = 10").await;
    for sql in
        ["select * from godwit.member", "select godwit.admit_entry(0)", "update godwit.ownership set owner = 'Target'"]
    {
        let error = application.batch_execute(sql).await.unwrap_err();
        assert_eq!(code(&error), "42501", "{sql}");
    }
}

#[tokio::test]
async fn the_fence_sees_the_row_as_an_applications_own_triggers_left_it() {
    let mut fenced = fenced(&format!(
        "{CRM} create function redirect() returns trigger language plpgsql as $$ begin new.account_id := 10; return new; end $$;
         create trigger zzz_redirect before insert on contact for each row execute function redirect();"
    ))
    .await;
    fenced.members("(10, 16)").await;
    let application = fenced.application().await;
    fenced.close(16).await;
    refused(&application, "insert into contact (account_id) values (50)").await;
}

#[tokio::test]
async fn partitions_are_fenced_also_when_named_directly_and_when_added_later() {
    let schema = "create table account (id int primary key);
        create table event (id int, account_id int not null references account on delete cascade, at date, primary key (id, at)) partition by range (at);
        create table event_old partition of event for values from ('2020-01-01') to ('2021-01-01');
        create table event_new partition of event for values from ('2021-01-01') to ('2022-01-01') partition by range (at);
        create table event_new_1 partition of event_new for values from ('2021-01-01') to ('2021-07-01');
        insert into account values (1), (2); insert into event values (1, 1, '2020-02-02'), (2, 2, '2021-02-02');";
    let dataset = Dataset { root_table: "public.account".into(), root_key: "id".into(), ..Dataset::default() };
    let mut fenced = fenced_with(schema, dataset.clone()).await;
    fenced.members("(1, 16)").await;
    let application = fenced.application().await;
    fenced.close(16).await;
    refused(&application, "insert into event values (9, 1, '2021-02-03')").await;
    refused(&application, "delete from event_old where account_id = 1").await;
    refused(&application, "truncate event_new_1").await;
    refused(&application, "update event set at = '2021-03-03' where account_id = 1").await;
    accepted(&application, "update event set at = '2020-03-03' where account_id = 2").await;
    fenced.pair.psql(
        Side::Source,
        "create table event_2021b partition of event_new for values from ('2021-07-01') to ('2022-01-01')",
    );
    refused(&application, "insert into event values (9, 1, '2021-08-03')").await;
    // A second install brings the new partition's statement triggers.
    let catalog = read_catalog(&fenced.session).await.unwrap();
    let scope = scope::resolve(&dataset, &catalog).unwrap();
    fence::install(&mut fenced.session, Side::Source, &scope).await.unwrap();
    let triggers = fence::fenced_tables(&*fenced.session).await.unwrap();
    assert_eq!(triggers.len(), 4 * 6);
    fence::remove(&mut fenced.session).await.unwrap();
    assert_eq!(fence::fenced_tables(&*fenced.session).await.unwrap(), []);
    accepted(&application, "delete from event_old where account_id = 1").await;
}

#[tokio::test]
async fn installing_again_takes_no_lock_and_a_busy_table_does_not_block_its_application() {
    let mut fenced = Fenced::crm().await;
    let application = fenced.application().await;
    accepted(&application, "begin; update account set name = 'x' where id = 10").await;
    // Nothing to do: the table in use does not matter.
    let Fenced { session, scope, .. } = &mut fenced;
    fence::install(session, Side::Source, scope).await.unwrap();
    accepted(&application, "commit; begin; select count(*) from account").await;
    let reader = fenced.application().await;
    let removing = tokio::spawn(async move {
        fence::remove(&mut fenced.session).await.unwrap();
        fenced
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    // Behind the waiting lock of ours, an application waits at most one short try.
    let started = std::time::Instant::now();
    accepted(&reader, "select count(*) from account").await;
    assert!(started.elapsed() < Duration::from_secs(2));
    accepted(&application, "commit").await;
    let fenced = removing.await.unwrap();
    assert_eq!(fence::fenced_tables(&*fenced.session).await.unwrap(), []);
}

#[tokio::test]
async fn hostile_names_composite_paths_and_text_keys_are_fenced() {
    let schema = r#"create schema "We""ird; Sch";
        create table "We""ird; Sch"."Cust'omer" ("K""ey" text primary key, "tenant" int not null default 1, unique ("tenant", "K""ey"));
        create table "We""ird; Sch"."Straße" ("tenant" int, "No" uuid default gen_random_uuid(), "Owner\x" text,
          primary key ("tenant", "No"), foreign key ("tenant", "Owner\x") references "We""ird; Sch"."Cust'omer" ("tenant", "K""ey"));
        create table "We""ird; Sch"."leaf" (id int primary key, t int, n uuid, foreign key (t, n) references "We""ird; Sch"."Straße" ("tenant", "No"));
        insert into "We""ird; Sch"."Cust'omer" values ('a''b'), ('ü');
        insert into "We""ird; Sch"."Straße" ("tenant", "Owner\x") values (1, 'a''b'), (1, 'ü');
        insert into "We""ird; Sch"."leaf" select row_number() over (), "tenant", "No" from "We""ird; Sch"."Straße";"#;
    let dataset =
        Dataset { root_table: "We\"ird; Sch.Cust'omer".into(), root_key: "K\"ey".into(), ..Dataset::default() };
    let mut fenced = fenced_with(schema, dataset).await;
    fenced.members("('a''b', 16)").await;
    fenced.close(16).await;
    let application = fenced.pair.application(Side::Source, "postgres").await;
    let leaf = |owner: &str| {
        format!(
            r#"update "We""ird; Sch"."leaf" set id = id + 10 where n = (select "No" from "We""ird; Sch"."Straße" where "Owner\x" = '{owner}')"#
        )
    };
    refused(&application, &leaf("a''b")).await;
    accepted(&application, &leaf("ü")).await;
    refused(&application, r#"update "We""ird; Sch"."Straße" set "Owner\x" = 'a''b'"#).await;
}
