//! A large cohort lands in bare tables: everything is keyed again afterwards, whatever happens in between.

use std::time::Duration;

use godwit::contract::{Report, Selection, Side, Task, exit};
use godwit::worker::postgres::catalog::read_catalog;
use godwit::worker::postgres::model::Scope;
use godwit::worker::postgres::session::Session;
use godwit::worker::postgres::token::Token;
use godwit::worker::postgres::{bare, scope, token};

use crate::base::{CRM, dataset};
use crate::job::{Project, cohort_named};

const TABLES: [&str; 5] = ["account", "contact", "deal", "deal_contact", "line_item"];

/// What only a definition as a whole brings back: a part of the rows, an expression, an order, columns that are only carried along,
/// what happens to children, a cycle and a reference of a table to itself.
const SHAPES: &str = "
    create index deal_open on deal (stage collate \"C\" desc nulls last) include (amount) where stage <> 'lost';
    create unique index contact_folded on contact (lower(email));
    create index line_item_hash on line_item using hash (product);
    alter table deal add constraint one_pair unique (id, account_id) include (stage);
    alter table contact add referred_by bigint references contact on update cascade on delete set null;
    alter table account add main_contact_id bigint references contact match full;
    alter table contact add paid_in text references currency;
";

/// Keys, indexes and constraints, with their definitions.
const SHAPE: &str = "select string_agg(line, ' | ' order by line) from (
    select format('%s %s %s %s', conrelid::regclass, conname, pg_get_constraintdef(oid), convalidated) as line from pg_constraint
      where connamespace = 'public'::regnamespace
    union all select pg_get_indexdef(indexrelid) || indisvalid from pg_index join pg_class on pg_class.oid = indrelid
      where relnamespace = 'public'::regnamespace) as lines";

/// An index that was built again is another one.
const INDEXES: &str = "select string_agg(indexrelid::text, ' ' order by indexrelid) from pg_index join pg_class on pg_class.oid = indrelid
    where relnamespace = 'public'::regnamespace and relname <> 'currency'";

const LANDED: &str = "select coalesce(sum((state -> 'sum' ->> 'rows')::bigint), 0)::bigint from godwit.checkpoint where part like 'filled %'";
const WAITING: &str = "select count(*) from godwit.checkpoint where part = 'bare'";

/// Prepared and selected, each customer a chunk of its own: tables land in many pieces.
async fn selected() -> Project {
    let project = Project::new(&format!("{CRM} {SHAPES} analyze;"));
    project.done(None, Task::Prepare {}).await;
    project.done(Some("all"), Task::Select { selection: Selection::Remainder {} }).await;
    chunked(&project);
    project
}

fn chunked(project: &Project) {
    for side in [Side::Source, Side::Target] {
        project.pair.psql(side, "update godwit.member set chunk = customer");
    }
}

/// Copied until the target refuses a deal in the middle of its table: what is larger has landed.
async fn interrupted(project: &Project) {
    project.pair.psql(Side::Target, "alter table deal add constraint no_more check (id < 150)");
    let (code, report) = project.run(Some("all"), Task::Copy {}).await;
    assert_ne!(code, exit::DONE, "{report:?}");
    project.pair.psql(Side::Target, "alter table deal drop constraint no_more");
    assert_eq!(project.number(Side::Target, WAITING).await, 1);
    let deals = project.number(Side::Target, "select count(*) from public.deal").await;
    assert!(deals > 0 && deals < 150, "{deals}");
    assert!(project.number(Side::Target, "select count(*) from public.contact").await == 300);
    assert_eq!(project.number(Side::Target, "select count(*) from public.account").await, 0);
}

/// With what Copy has in hand when it decides whether to lay the tables bare.
async fn about_to_copy() -> (Project, Session, Scope, Token) {
    let project = selected().await;
    let target = project.session(Side::Target).await;
    let source = project.session(Side::Source).await;
    let scope = scope::resolve(&dataset(), &read_catalog(&source).await.unwrap()).unwrap();
    let token = token::take(&target, "uid-of-all", 99).await.unwrap();
    (project, target, scope, token)
}

async fn text(project: &Project, side: Side, sql: &str) -> String {
    let row = project.session(side).await.query_one(sql, &[]).await.unwrap();
    row.get::<_, Option<String>>(0).unwrap_or_default()
}

async fn assert_same_rows(project: &Project) {
    for table in TABLES {
        let sum = format!("select format('%s %s', count(*), sum(hashtext(t::text)::bigint)) from public.{table} t");
        let (there, here) = (text(project, Side::Target, &sum).await, text(project, Side::Source, &sum).await);
        assert_eq!(there, here, "{table}");
    }
}

async fn assert_empty(project: &Project) {
    for table in TABLES {
        assert_eq!(project.number(Side::Target, &format!("select count(*) from public.{table}")).await, 0, "{table}");
    }
}

/// Validated strictly, then cut over: what drifted is brought, and then both sides are the same.
async fn assert_moves_on(project: &Project) -> Report {
    let validated = project.done(Some("all"), Task::Validate { checks: Vec::new() }).await;
    project.done(Some("all"), Task::Cutover { checks: Vec::new() }).await;
    assert_same_rows(project).await;
    validated
}

#[tokio::test]
async fn a_large_cohort_lands_bare_and_ends_with_every_key_and_constraint_as_it_was() {
    let project = selected().await;
    let (shape, indexes) = (text(&project, Side::Target, SHAPE).await, text(&project, Side::Target, INDEXES).await);
    let report = project.done(Some("all"), Task::Copy {}).await;
    assert_same_rows(&project).await;
    assert_eq!(text(&project, Side::Target, SHAPE).await, shape);
    assert_ne!(text(&project, Side::Target, INDEXES).await, indexes, "the tables kept their indexes");
    assert_eq!(project.number(Side::Target, WAITING).await, 0);
    assert_eq!((report.counts["rows"], report.counts["chunks"]), (1200, 100));
    // What landed counts as landed: a repetition writes nothing, and the sums are those that Validate compares with.
    let again = project.done(Some("all"), Task::Copy {}).await;
    assert_eq!((again.counts["rows"], again.counts["chunksResumed"]), (1200, 100));
    let validated = assert_moves_on(&project).await;
    assert_eq!((validated.counts["rows"], validated.counts["drift"]), (1200, 0));
}

/// What each case does to the target, and how it is undone.
const SPECIAL: [(&str, &str); 19] = [
    ("alter table contact alter constraint contact_account_id_fkey deferrable", "alter table contact alter constraint contact_account_id_fkey not deferrable"),
    ("alter table deal add constraint late unique (id, stage) deferrable", "alter table deal drop constraint late"),
    ("alter table deal add constraint apart exclude (id with =)", "alter table deal drop constraint apart"),
    ("alter table deal add constraint unproven foreign key (id) references account not valid", "alter table deal drop constraint unproven"),
    ("create table past (check (id < 0)) inherits (deal)", "drop table past"),
    ("create index roomy on deal (stage) with (fillfactor = 50)", "drop index roomy"),
    ("create index told on deal ((amount + 1)); alter index told alter column 1 set statistics 500", "drop index told"),
    ("comment on index deal_open is 'mine'", "comment on index deal_open is null"),
    ("comment on constraint contact_account_id_fkey on contact is 'mine'", "comment on constraint contact_account_id_fkey on contact is null"),
    ("alter table contact replica identity full", "alter table contact replica identity default"),
    ("alter table contact replica identity using index contact_pkey", "alter table contact replica identity default"),
    ("alter table contact cluster on contact_pkey", "alter table contact set without cluster"),
    ("create table visit (id int primary key, contact_id bigint references contact)", "drop table visit"),
    ("create view per_deal as select id, stage, count(*) from deal group by id", "drop view per_deal"),
    ("alter table line_item set unlogged", "alter table line_item set logged"),
    ("alter table deal disable trigger all; alter table deal enable always trigger \"~godwit_fence_row\"", "alter table deal enable trigger all"),
    ("create publication everything for table contact", "drop publication everything"),
    ("alter table line_item enable row level security", "alter table line_item disable row level security"),
    (
        "create function public.no_ddl() returns event_trigger language plpgsql as $$ begin raise exception 'ddl'; end $$;
         create event trigger no_ddl on ddl_command_end when tag in ('CREATE INDEX') execute function public.no_ddl()",
        "drop event trigger no_ddl",
    ),
];

#[tokio::test]
async fn tables_with_anything_special_keep_what_they_have() {
    let (project, mut target, scope, token) = about_to_copy().await;
    for (special, undone) in SPECIAL {
        project.pair.psql(Side::Target, special);
        let before = text(&project, Side::Target, INDEXES).await;
        let catalog = read_catalog(&target).await.unwrap();
        let bare = bare::lay_bare(&mut target, &token, (&scope, &catalog)).await.unwrap();
        assert!(!bare, "{special}");
        assert_eq!(text(&project, Side::Target, INDEXES).await, before, "{special}");
        project.pair.psql(Side::Target, undone);
    }
    // To build an index needs files.
    target.batch_execute("set temp_file_limit = '1GB'").await.unwrap();
    let catalog = read_catalog(&target).await.unwrap();
    assert!(!bare::lay_bare(&mut target, &token, (&scope, &catalog)).await.unwrap(), "temp_file_limit");
    target.batch_execute("reset temp_file_limit").await.unwrap();
    assert_eq!(project.number(Side::Target, WAITING).await, 0);
    // And none of it was left behind.
    let catalog = read_catalog(&target).await.unwrap();
    assert!(bare::lay_bare(&mut target, &token, (&scope, &catalog)).await.unwrap());
}

#[tokio::test]
async fn tables_that_may_be_anybody_elses_keep_what_they_have() {
    let (project, mut target, scope, token) = about_to_copy().await;
    let catalog = read_catalog(&target).await.unwrap();
    let mut stays_as_it_is = async |why: &str| {
        assert!(!bare::lay_bare(&mut target, &token, (&scope, &catalog)).await.unwrap(), "{why}");
        // The transaction has ended when the session answers again.
        target.batch_execute("").await.unwrap();
    };
    for (elses, undone) in [
        // A row of the target's own; a table that was there before; a customer, or new customers, that the target owns; another
        // cohort's customer.
        (
            "set session_replication_role = replica; set godwit.pass = '0:0'; insert into account (id, name) values (5000, 'own')",
            "set godwit.pass = '0:0'; delete from account",
        ),
        (
            "update godwit.migration set baseline = jsonb_set(baseline, '{created}', (baseline -> 'created') - 'public.deal')",
            "update godwit.migration set baseline = jsonb_set(baseline, '{created}', (baseline -> 'created') || '[\"public.deal\"]')",
        ),
        (
            "insert into godwit.ownership (entry, name, uid, owner) values (99, 'other', 'uid-of-other', 'Source');
             insert into godwit.member (customer, entry) values (5000, 99)",
            "delete from godwit.member where entry = 99",
        ),
        ("insert into godwit.member (customer, entry) values (5000, 2)", "delete from godwit.member where entry = 2"),
        (
            "update godwit.ownership set owner = 'None' where entry = 0",
            "update godwit.ownership set owner = 'Source' where entry = 0",
        ),
    ] {
        project.pair.psql(Side::Target, elses);
        stays_as_it_is(elses).await;
        project.pair.psql(Side::Target, undone);
    }
    // Somebody reads; a landing is under way.
    for reading in ["select from public.deal limit 1", &bare::among_landings()] {
        let mut other = project.session(Side::Target).await;
        let transaction = other.transaction().await.unwrap();
        transaction.batch_execute(reading).await.unwrap();
        stays_as_it_is(reading).await;
        transaction.rollback().await.unwrap();
    }
    assert!(bare::lay_bare(&mut target, &token, (&scope, &catalog)).await.unwrap());
}

#[tokio::test]
async fn a_role_that_could_not_build_them_again_leaves_the_keys_alone() {
    let project = selected().await;
    let role = format!("limited_{}", project.pair.database);
    project.pair.psql(
        Side::Target,
        &format!("create role {role}; grant all on all tables in schema public, godwit to {role}; grant usage on schema public, godwit to {role}; \
                  grant {role} to current_user"),
    );
    let mut target = project.session(Side::Target).await;
    let source = project.session(Side::Source).await;
    let scope = scope::resolve(&dataset(), &read_catalog(&source).await.unwrap()).unwrap();
    let catalog = read_catalog(&target).await.unwrap();
    let token = token::take(&target, "uid-of-all", 99).await.unwrap();
    let before = text(&project, Side::Target, INDEXES).await;
    // First it owns nothing; then the tables, but may create nothing in their schema.
    for (gift, laid_bare) in [
        ("", false),
        ("revoke create on schema public from public", false),
        ("grant create on schema public to LIMITED", true),
    ] {
        if gift.starts_with("revoke") {
            for table in TABLES.iter().chain(&["currency"]) {
                project.pair.psql(Side::Target, &format!("alter table {table} owner to {role}"));
            }
        }
        project.pair.psql(Side::Target, &gift.replace("LIMITED", &role));
        target.batch_execute(&format!("set role {role}")).await.unwrap();
        assert_eq!(bare::lay_bare(&mut target, &token, (&scope, &catalog)).await.unwrap(), laid_bare, "{gift}");
        target.batch_execute("reset role").await.unwrap();
        assert_eq!(text(&project, Side::Target, INDEXES).await == before, !laid_bare, "{gift}");
    }
    project.pair.psql(Side::Target, &format!("drop owned by {role} cascade"));
    project.pair.psql(Side::Target, &format!("drop role {role}"));
}

#[tokio::test]
async fn an_attempt_goes_on_where_the_last_one_died() {
    let project = selected().await;
    let before = text(&project, Side::Target, SHAPE).await;
    interrupted(&project).await;
    let landed = "select string_agg(concat_ws(' ', tableoid::regclass, ctid, xmin), ',' order by tableoid, ctid)
        from (select tableoid, ctid, xmin from public.contact union all select tableoid, ctid, xmin from public.line_item
              union all select tableoid, ctid, xmin from public.deal where id < 100) t";
    let rows = text(&project, Side::Target, landed).await;
    project.done(Some("all"), Task::Copy {}).await;
    assert_eq!(text(&project, Side::Target, landed).await, rows, "what has landed stays as it is");
    assert_eq!(text(&project, Side::Target, SHAPE).await, before);
    assert_same_rows(&project).await;
    assert_eq!(assert_moves_on(&project).await.counts["drift"], 0);
}

#[tokio::test]
async fn rows_whose_parents_were_written_between_two_attempts_are_left_to_cutover() {
    let project = selected().await;
    let before = text(&project, Side::Target, SHAPE).await;
    interrupted(&project).await;
    // The contacts have been read: a new one is not taken. What refers to it is, and so is what refers to that, around the cycle.
    project.pair.psql(
        Side::Source,
        "insert into contact (id, account_id, email) values (9001, 7, 'new'); insert into deal (id, account_id) values (9002, 7), (9004, 8);
         insert into deal_contact values (9002, 9001, 'new'), (1, 9001, 'new'); insert into line_item (id, deal_id) values (9003, 9002);
         update account set main_contact_id = 9001 where id = 7; update account set parent_id = 7 where id in (8, 9);
         update account set parent_id = 9 where id = 20; delete from deal where id = 160;",
    );
    project.done(Some("all"), Task::Copy {}).await;
    assert_eq!(text(&project, Side::Target, SHAPE).await, before);
    let accounts = "select count(*) from public.account where id in (7, 8, 9, 20)";
    assert_eq!(project.number(Side::Target, accounts).await, 0, "each of them hangs on a contact that did not land");
    assert_eq!(project.number(Side::Target, "select count(*) from public.line_item where deal_id = 160").await, 0);
    assert!(assert_moves_on(&project).await.counts["drift"] > 0);
}

#[tokio::test]
async fn a_value_that_moved_to_another_row_between_two_attempts_does_not_stand_against_its_key() {
    let project = selected().await;
    let before = text(&project, Side::Target, SHAPE).await;
    project.pair.psql(Side::Target, "alter table contact add constraint no_more check (id < 200)");
    let (code, _) = project.run(Some("all"), Task::Copy {}).await;
    assert_ne!(code, exit::DONE);
    project.pair.psql(Side::Target, "alter table contact drop constraint no_more");
    assert!(project.number(Side::Target, "select count(*) from public.contact").await > 10);
    project.pair.psql(
        Side::Source,
        "update contact set email = 'given up' where id = 3; update contact set email = 'c3@example.org' where id = 290;",
    );
    project.done(Some("all"), Task::Copy {}).await;
    assert_eq!(text(&project, Side::Target, SHAPE).await, before);
    assert_same_rows(&project).await;
    assert_moves_on(&project).await;
}

#[tokio::test]
async fn a_shared_row_that_came_after_the_last_look_is_brought_before_the_foreign_keys() {
    let project = selected().await;
    // Copy has brought the shared rows when it analyses the members; there it has to wait.
    let mut holder = project.session(Side::Source).await;
    let holding = holder.transaction().await.unwrap();
    holding.batch_execute("lock table godwit.member in share update exclusive mode").await.unwrap();
    let late = async {
        let waits = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock' and query like 'analyze godwit%'";
        while project.number(Side::Source, waits).await == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        project.pair.psql(
            Side::Source,
            "insert into currency values ('NOK', 'krone'); update account set currency = 'NOK' where id = 5",
        );
        holding.commit().await.unwrap();
    };
    let (copied, ()) = futures::join!(project.done(Some("all"), Task::Copy {}), late);
    assert_eq!(copied.counts["rows"], 1200);
    assert_eq!(project.number(Side::Target, "select count(*) from public.currency where code = 'NOK'").await, 1);
    assert_same_rows(&project).await;
    assert_eq!(assert_moves_on(&project).await.counts["drift"], 0);
}

/// A server that builds keys over rows, but no foreign key.
const NO_REFERENCES: &str = "create function public.refuse() returns event_trigger language plpgsql as $$ begin
      if exists (select from public.contact) and exists (select from pg_constraint where contype = 'f' and connamespace = 'public'::regnamespace) then
        raise exception 'not now';
      end if; end $$;
    create event trigger refuse on ddl_command_end when tag in ('ALTER TABLE') execute function public.refuse()";

#[tokio::test]
async fn a_shared_row_that_landed_rows_refer_to_stays_while_its_foreign_key_waits() {
    let project = selected().await;
    project.pair.psql(Side::Source, "update contact set paid_in = 'USD' where id = 5");
    project.pair.psql(Side::Target, NO_REFERENCES);
    let (code, report) = project.run(Some("all"), Task::Copy {}).await;
    assert_eq!(code, exit::TRY_AGAIN, "{report:?}");
    assert_eq!(project.number(Side::Target, LANDED).await, 1200, "every row is there, of one snapshot");
    project.pair.psql(Side::Target, "drop event trigger refuse");
    project
        .pair
        .psql(Side::Source, "update contact set paid_in = null where id = 5; delete from currency where code = 'USD'");
    project.done(Some("all"), Task::Copy {}).await;
    assert_eq!(project.number(Side::Target, "select count(*) from public.contact where paid_in = 'USD'").await, 1);
    assert_moves_on(&project).await;
}

#[tokio::test]
async fn a_strangers_row_in_a_bare_table_ends_the_copy() {
    let project = selected().await;
    interrupted(&project).await;
    project.pair.psql(
        Side::Target,
        "set session_replication_role = replica; set godwit.pass = '0:0'; insert into deal (id, account_id) values (7000, 7)",
    );
    let (code, report) = project.run(Some("all"), Task::Copy {}).await;
    assert_eq!((code, report.findings[0].code.as_str()), (exit::DATA_DIFFERS, "RowsOfOthers"), "{report:?}");
    assert_eq!(project.number(Side::Target, WAITING).await, 1);
}

#[tokio::test]
async fn an_orphan_of_the_source_ends_the_copy_as_it_does_in_tables_that_live() {
    let project = selected().await;
    project
        .pair
        .psql(Side::Source, "set session_replication_role = replica; update account set parent_id = 4711 where id = 5");
    let (code, report) = project.run(Some("all"), Task::Copy {}).await;
    assert_eq!(code, exit::DATA_DIFFERS, "{report:?}");
    assert_eq!(
        (report.findings[0].code.as_str(), report.findings[0].object.as_str()),
        ("OrphanRows", "public.account")
    );
}

#[tokio::test]
async fn rows_that_a_key_of_the_target_refuses_end_the_copy_and_discard_leaves_the_tables_as_they_were() {
    let project = selected().await;
    project.pair.psql(Side::Target, "create unique index one_stage on deal (stage)");
    let before = text(&project, Side::Target, SHAPE).await;
    let (code, report) = project.run(Some("all"), Task::Copy {}).await;
    assert_eq!(code, exit::DATA_DIFFERS, "{report:?}");
    assert_eq!(report.findings[0].code, "ConstraintViolated");
    assert!(report.findings[0].message.contains("one_stage"), "{report:?}");
    project.done(Some("all"), Task::Discard {}).await;
    assert_eq!(text(&project, Side::Target, SHAPE).await, before);
    assert_eq!(project.number(Side::Target, WAITING).await, 0);
    assert_empty(&project).await;
}

#[tokio::test]
async fn discard_in_mid_copy_empties_the_tables_and_the_customers_can_be_moved_again() {
    let project = selected().await;
    let before = text(&project, Side::Target, SHAPE).await;
    interrupted(&project).await;
    assert!(project.number(Side::Target, LANDED).await > 700);
    // A stranger's row is not ours to take away.
    project.pair.psql(Side::Target, "set session_replication_role = replica; set godwit.pass = '0:0'; insert into account (id, name) values (5000, 'own')");
    let (code, report) = project.run(Some("all"), Task::Discard {}).await;
    assert_eq!((code, report.findings[0].code.as_str()), (exit::DATA_DIFFERS, "RowsOfOthers"), "{report:?}");
    project.pair.psql(Side::Target, "set godwit.pass = '0:0'; delete from account");
    project.done(Some("all"), Task::Discard {}).await;
    assert_eq!(text(&project, Side::Target, SHAPE).await, before);
    assert_eq!((project.number(Side::Target, WAITING).await, project.number(Side::Target, LANDED).await), (0, 0));
    assert_empty(&project).await;
    project.done(Some("all"), Task::Select { selection: Selection::Remainder {} }).await;
    chunked(&project);
    project.done(Some("all"), Task::Copy {}).await;
    assert_same_rows(&project).await;
    assert_eq!(text(&project, Side::Target, SHAPE).await, before);
}

/// A large cohort's copy was interrupted, its tables are bare, and meanwhile another cohort was selected.
async fn bare_beside_another() -> Project {
    let project = Project::new(&format!("{CRM} {SHAPES} analyze;"));
    project.done(None, Task::Prepare {}).await;
    project.done(Some("all"), Task::Select { selection: Selection::Where("customer.id <= 90".into()) }).await;
    chunked(&project);
    interrupted_of_some(&project).await;
    project.done(Some("few"), Task::Select { selection: Selection::Remainder {} }).await;
    project
}

#[tokio::test]
async fn nobody_else_lands_or_judges_the_tables_while_they_are_bare() {
    let project = bare_beside_another().await;
    for (cohort, task) in [(Some("few"), Task::Copy {}), (None, Task::Prepare {}), (None, Task::Assess {})] {
        let (code, report) = project.run(cohort, task).await;
        assert_eq!((code, report.findings[0].code.as_str()), (exit::TRY_AGAIN, "LockNotGranted"), "{report:?}");
    }
    project.done(Some("all"), Task::Copy {}).await;
    project.done(Some("few"), Task::Copy {}).await;
    assert_same_rows(&project).await;
    project.done(None, Task::Prepare {}).await;
}

#[tokio::test]
async fn another_cohorts_copy_waits_for_the_one_that_fills_the_tables() {
    let project = bare_beside_another().await;
    let filling = project.session(Side::Target).await;
    bare::fill(&filling).await.unwrap();

    let mut few = project.settings(Some(cohort_named("few")), Task::Copy {}, project.next_attempt());
    few.termination_path.set_file_name("termination-log-of-few");
    let few = godwit::worker::run(few);
    tokio::pin!(few);
    let somebody_waits = async {
        let waits = "select count(*) from pg_locks where locktype = 'advisory' and not granted";
        while project.number(Side::Target, waits).await == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        code = &mut few => panic!("the copy did not wait, and ended with {code}"),
        () = somebody_waits => {}
    }
    project.done(Some("all"), Task::Copy {}).await;
    drop(filling);
    let code = few.await;
    assert_eq!(code, exit::DONE);
    assert_same_rows(&project).await;
}

async fn interrupted_of_some(project: &Project) {
    project.pair.psql(Side::Target, "alter table account add constraint no check (id < 0)");
    let (code, _) = project.run(Some("all"), Task::Copy {}).await;
    assert_ne!(code, exit::DONE);
    assert_eq!(project.number(Side::Target, WAITING).await, 1);
    project.pair.psql(Side::Target, "alter table account drop constraint no");
}

#[tokio::test]
async fn cleanup_puts_back_what_an_unfinished_copy_took_off() {
    let project = selected().await;
    let before = text(&project, Side::Target, SHAPE).await;
    interrupted_of_some(&project).await;
    let report = project.done(None, Task::Cleanup {}).await;
    // The accounts never landed: what refers to them cannot be built over the rows that stay, and everything else is.
    let codes: Vec<_> = report.findings.iter().map(|it| (it.code.as_str(), it.message.contains("account"))).collect();
    assert!(!codes.is_empty() && codes.iter().all(|code| *code == ("ConstraintNotRebuilt", true)), "{report:?}");
    let after = text(&project, Side::Target, SHAPE).await;
    let left = |shape: &str| shape.split(" | ").filter(|line| !line.contains("REFERENCES public.account(")).count();
    assert_eq!(left(&after), left(&before), "{report:?}\n{before}\n{after}");
    assert_eq!(before.split(" | ").count() - after.split(" | ").count(), codes.len());
}

#[tokio::test]
async fn reset_does_not_stumble_over_tables_that_a_dead_copy_laid_bare() {
    let project = selected().await;
    project.pair.psql(Side::Target, "alter table contact add constraint no check (id < 0)");
    let (code, _) = project.run(Some("all"), Task::Copy {}).await;
    assert_ne!(code, exit::DONE);
    let landed = project.number(Side::Target, LANDED).await;
    assert_eq!((landed, project.number(Side::Target, WAITING).await), (0, 1), "the largest table comes first");
    project.done(None, Task::Reset {}).await;
    assert_eq!(text(&project, Side::Target, "select to_regclass('public.account')::text").await, "");
}

#[tokio::test]
async fn what_is_not_back_as_it_was_keeps_a_copy_from_being_done() {
    let project = selected().await;
    interrupted(&project).await;
    // Of the same name, but another one.
    project.pair.psql(Side::Target, "create index deal_open on deal (stage)");
    let (code, report) = project.run(Some("all"), Task::Copy {}).await;
    assert_eq!((code, report.findings[0].code.as_str()), (exit::DATA_DIFFERS, "NotInForce"), "{report:?}");
    project.pair.psql(Side::Target, "drop index deal_open");
    project.done(Some("all"), Task::Copy {}).await;
    assert_same_rows(&project).await;
}

#[tokio::test]
async fn tables_in_use_keep_their_keys() {
    let project = Project::new(&format!("{CRM} {SHAPES} analyze;"));
    project.done(None, Task::Prepare {}).await;
    project.done(Some("few"), Task::Select { selection: Selection::Where("customer.id > 90".into()) }).await;
    project.done(Some("few"), Task::Copy {}).await;
    project.done(Some("few"), Task::Cutover { checks: Vec::new() }).await;
    project.done(Some("all"), Task::Select { selection: Selection::Remainder {} }).await;
    for side in [Side::Source, Side::Target] {
        project.pair.psql(side, "update godwit.member set chunk = customer / 40 where entry > 16");
    }
    let before = text(&project, Side::Target, INDEXES).await;
    project.done(Some("all"), Task::Copy {}).await;
    assert_eq!(text(&project, Side::Target, INDEXES).await, before);
    assert_same_rows(&project).await;
}
