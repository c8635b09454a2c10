//! A large cohort lands in bare tables: everything is keyed again afterwards, whatever happens in between.

use godwit::contract::{Selection, Side, Task, exit};

use crate::base::CRM;
use crate::job::Project;

const TABLES: [&str; 5] = ["account", "contact", "deal", "deal_contact", "line_item"];

/// Keys, indexes and constraints of the dataset, with their definitions.
const SHAPE: &str = "select string_agg(line, ' | ' order by line) from (
    select format('%s %s %s %s', conrelid::regclass, conname, pg_get_constraintdef(oid), convalidated) as line from pg_constraint
      where connamespace = 'public'::regnamespace
    union all select pg_get_indexdef(indexrelid) || indisvalid from pg_index join pg_class on pg_class.oid = indrelid
      where relnamespace = 'public'::regnamespace) as lines";

/// Prepared and selected, in more chunks than one.
async fn selected() -> Project {
    let project =
        Project::new(&format!("{CRM} create index deal_stage on deal (stage) where stage <> 'lost'; analyze;"));
    project.done(None, Task::Prepare {}).await;
    project.done(Some("all"), Task::Select { selection: Selection::Remainder {} }).await;
    for side in [Side::Source, Side::Target] {
        project.pair.psql(side, "update godwit.member set chunk = customer % 3");
    }
    project
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

async fn waiting(project: &Project) -> i64 {
    project.number(Side::Target, "select count(*) from godwit.checkpoint where part = 'bare'").await
}

#[tokio::test]
async fn a_large_cohort_lands_bare_and_ends_with_every_key_and_constraint_in_place() {
    let project = selected().await;
    let before = text(&project, Side::Target, SHAPE).await;
    let report = project.done(Some("all"), Task::Copy {}).await;
    assert_same_rows(&project).await;
    assert_eq!(text(&project, Side::Target, SHAPE).await, before);
    assert_eq!(waiting(&project).await, 0);
    assert_eq!(report.counts["chunks"], 3);
    assert_eq!(report.counts["rows"], 1200);
    // What landed counts as landed: a repetition writes nothing, and the sums are those that Validate compares with.
    let again = project.done(Some("all"), Task::Copy {}).await;
    assert_eq!((again.counts["rows"], again.counts["chunksResumed"]), (1200, 3));
    let validated = project.done(Some("all"), Task::Validate { checks: Vec::new() }).await;
    assert_eq!((validated.counts["rows"], validated.counts["drift"]), (1200, 0));
    project.done(Some("all"), Task::Cutover { checks: Vec::new() }).await;
    assert_same_rows(&project).await;
}

#[tokio::test]
async fn an_attempt_goes_on_where_the_last_one_died_and_takes_new_parents_along() {
    let project = selected().await;
    let before = text(&project, Side::Target, SHAPE).await;
    // Tables land in the order of their size; one that refuses its rows ends the attempt between two of them.
    project.pair.psql(Side::Target, "alter table account add constraint no_more check (id < 0)");
    let (code, _) = project.run(Some("all"), Task::Copy {}).await;
    assert_ne!(code, exit::DONE);
    assert_eq!(waiting(&project).await, 1);
    let landed = project.number(Side::Target, "select count(*) from godwit.checkpoint where part like 'piece-%'").await;
    assert!(landed > 0, "something must have landed before");
    project.pair.psql(Side::Target, "alter table account drop constraint no_more");
    // Born between the attempts, by customers of the cohort: a child that is new needs a parent that is new.
    project.pair.psql(
        Side::Source,
        "insert into contact (id, account_id, email) values (9001, 7, 'new'); insert into deal (id, account_id) values (9002, 7);
         insert into deal_contact values (9002, 9001, 'new'); insert into line_item (id, deal_id) values (9003, 9002);",
    );
    project.done(Some("all"), Task::Copy {}).await;
    assert_same_rows(&project).await;
    assert_eq!(text(&project, Side::Target, SHAPE).await, before);
    project.done(Some("all"), Task::Validate { checks: Vec::new() }).await;
}

#[tokio::test]
async fn rows_that_a_constraint_of_the_target_refuses_end_the_copy_and_discard_leaves_the_tables_as_they_were() {
    let project = selected().await;
    project.pair.psql(Side::Target, "create unique index one_stage on deal (stage)");
    let before = text(&project, Side::Target, SHAPE).await;
    let (code, report) = project.run(Some("all"), Task::Copy {}).await;
    assert_eq!(code, exit::DATA_DIFFERS, "{report:?}");
    assert_eq!(report.findings[0].code, "ConstraintViolated");
    assert!(report.findings[0].message.contains("one_stage"), "{report:?}");
    project.done(Some("all"), Task::Discard {}).await;
    assert_eq!(text(&project, Side::Target, SHAPE).await, before);
    for table in TABLES {
        assert_eq!(project.number(Side::Target, &format!("select count(*) from public.{table}")).await, 0, "{table}");
    }
    assert_eq!(waiting(&project).await, 0);
}

#[tokio::test]
async fn nobody_else_lands_while_the_tables_are_bare() {
    let project = Project::new(&format!("{CRM} analyze;"));
    project.done(None, Task::Prepare {}).await;
    project.done(Some("few"), Task::Select { selection: Selection::Where("customer.id > 90".into()) }).await;
    project.done(Some("all"), Task::Select { selection: Selection::Remainder {} }).await;
    project.pair.psql(
        Side::Target,
        "update godwit.member set chunk = customer % 3; alter table account add constraint no check (id < 0)",
    );
    let (code, _) = project.run(Some("all"), Task::Copy {}).await;
    assert_ne!(code, exit::DONE);
    assert_eq!(waiting(&project).await, 1);
    let (code, report) = project.run(Some("few"), Task::Copy {}).await;
    assert_eq!(code, exit::TRY_AGAIN, "{report:?}");
    project.pair.psql(Side::Target, "alter table account drop constraint no");
    project.done(Some("all"), Task::Copy {}).await;
    project.done(Some("few"), Task::Copy {}).await;
    assert_same_rows(&project).await;
}

#[tokio::test]
async fn tables_in_use_keep_their_keys() {
    let project = Project::new(&format!("{CRM} analyze;"));
    project.done(None, Task::Prepare {}).await;
    project.done(Some("few"), Task::Select { selection: Selection::Where("customer.id > 90".into()) }).await;
    project.done(Some("few"), Task::Copy {}).await;
    project.done(Some("few"), Task::Cutover { checks: Vec::new() }).await;
    project.done(Some("all"), Task::Select { selection: Selection::Remainder {} }).await;
    project.pair.psql(Side::Target, "update godwit.member set chunk = customer % 3 where entry > 16");
    project.pair.psql(
        Side::Target,
        "create function public.no_ddl() returns event_trigger language plpgsql as $$ begin raise exception 'ddl'; end $$;
         create event trigger no_ddl on ddl_command_end when tag in ('ALTER TABLE', 'DROP INDEX', 'CREATE INDEX') execute function public.no_ddl()",
    );
    project.done(Some("all"), Task::Copy {}).await;
    project.pair.psql(Side::Target, "drop event trigger no_ddl");
    assert_same_rows(&project).await;
}

#[tokio::test]
async fn cleanup_puts_back_what_an_unfinished_copy_took_off() {
    let project = selected().await;
    let before = text(&project, Side::Target, SHAPE).await;
    project.pair.psql(Side::Target, "alter table account add constraint no check (id < 0)");
    let (code, _) = project.run(Some("all"), Task::Copy {}).await;
    assert_ne!(code, exit::DONE);
    let report = project.done(None, Task::Cleanup {}).await;
    // The accounts never landed: what refers to them cannot be built over the rows that stay, and everything else is.
    let codes: Vec<_> = report.findings.iter().map(|it| (it.code.as_str(), it.message.contains("account"))).collect();
    assert!(!codes.is_empty() && codes.iter().all(|code| *code == ("ConstraintNotRebuilt", true)), "{report:?}");
    let after = text(&project, Side::Target, SHAPE).await;
    let left = |shape: &str| shape.split(" | ").filter(|line| !line.contains("REFERENCES account")).count();
    assert_eq!(left(&after), left(&before) + 1, "the check that the test made is the only addition");
}
