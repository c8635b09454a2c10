//! Select: whole groups, frozen, in both ledgers, whatever happens in between.

use godwit::contract::{Owner, Selection, Side, Task, exit};

use crate::base::CRM;
use crate::job::Project;

fn percent(percent: f64) -> Task {
    Task::Select { selection: Selection::Percent { percent, risk_by: None } }
}

fn condition(sql: &str) -> Task {
    Task::Select { selection: Selection::Where(sql.into()) }
}

fn keys_from(sql: &str) -> Task {
    Task::Select { selection: Selection::KeysFrom(sql.into()) }
}

const REMAINDER: Task = Task::Select { selection: Selection::Remainder {} };

/// Accounts 10, 11, 12 are one group by their parent, 30 and 31 by a contact on another account's deal.
async fn prepared() -> Project {
    let project = Project::new(&format!(
        "{CRM} insert into deal_contact select (select min(id) from deal where account_id = 30), (select min(id) from contact where account_id = 31)"
    ));
    project.done(None, Task::Prepare {}).await;
    project
}

async fn members(project: &Project, side: Side, cohort: &str) -> String {
    let sql = format!(
        "select coalesce(string_agg(m.customer::text, ' ' order by m.customer), '') from godwit.member m join godwit.ownership o using (entry) where o.name = '{cohort}'"
    );
    let row = project.session(side).await.query_one(&sql, &[]).await.unwrap();
    row.get(0)
}

async fn same_members(project: &Project, cohort: &str) -> String {
    let source = members(project, Side::Source, cohort).await;
    assert_eq!(source, members(project, Side::Target, cohort).await);
    source
}

#[tokio::test]
async fn a_percentage_takes_small_groups_first_and_a_second_run_returns_the_same() {
    let project = prepared().await;
    let first = project.done(Some("canary"), percent(10.0)).await;
    assert_eq!((first.counts["customers"], first.counts["groups"]), (10, 10));
    assert_eq!((first.owner, first.epoch), (Some(Owner::Source), Some(0)));
    let chosen = same_members(&project, "canary").await;
    for linked in ["10", "11", "12", "30", "31"] {
        assert!(!chosen.split(' ').any(|key| key == linked));
    }
    let application = project.pair.application(Side::Source, "postgres").await;
    application.batch_execute("insert into account (name) select 'new' from generate_series(1, 50)").await.unwrap();
    let second = project.done(Some("canary"), percent(50.0)).await;
    assert_eq!((second.digest, &second.counts), (first.digest, &first.counts));
    assert_eq!(same_members(&project, "canary").await, chosen);
}

#[tokio::test]
async fn the_choice_depends_on_the_rows_alone() {
    let mut digests = Vec::new();
    for _ in 0..2 {
        let project = prepared().await;
        digests.push(project.done(Some("canary"), percent(7.0)).await.digest);
    }
    assert_eq!(digests[0], digests[1]);
}

#[tokio::test]
async fn named_customers_bring_the_ones_they_are_linked_to() {
    let project = prepared().await;
    let report = project.done(Some("linked"), condition("customer.id in (11, 30)")).await;
    assert_eq!(same_members(&project, "linked").await, "10 11 12 30 31");
    assert_eq!((report.counts["takenAlong"], report.counts["groups"]), (3, 2));
    assert!(report.findings[0].message.starts_with("3 customers were taken along"));
    let report = project.done(Some("more"), condition("id between 10 and 14")).await;
    assert_eq!(same_members(&project, "more").await, "13 14");
    assert_eq!(report.counts["elsewhere"], 3);
    let (code, report) =
        project.run(Some("clash"), keys_from("select id from public.account where id in (12, 13, 50)")).await;
    assert_eq!((code, report.findings[0].code.as_str()), (exit::DATA_DIFFERS, "CohortOverlap"));
    assert!(report.findings[0].message.starts_with("2 of the named"));
    project.done(Some("keys"), keys_from("select id from public.account where id in (50, 50, 51) -- a comment")).await;
    assert_eq!(same_members(&project, "keys").await, "50 51");
    let last = project.done(Some("rest"), REMAINDER).await;
    assert_eq!(last.counts["customers"], 100 - 9);
    let nothing = project.done(Some("nothing"), REMAINDER).await;
    assert_eq!(nothing.counts["customers"], 0);
}

#[tokio::test]
async fn an_empty_selection_unknown_keys_and_bad_sql_are_told_apart() {
    let project = prepared().await;
    for (task, code, finding) in [
        (condition("false"), exit::DATA_DIFFERS, "SelectionEmpty"),
        (keys_from("select 4711"), exit::DATA_DIFFERS, "KeysUnknown"),
        (condition("no_such_column = 1"), exit::MISCONFIGURED, "DatabaseFailed"),
        (condition("true); delete from public.account; select (true"), exit::MISCONFIGURED, "DatabaseFailed"),
        (
            keys_from("with gone as (delete from public.account returning id) select id from gone"),
            exit::MISCONFIGURED,
            "DatabaseFailed",
        ),
    ] {
        let (found, report) = project.run(Some("odd"), task.clone()).await;
        assert_eq!((found, report.findings[0].code.as_str()), (code, finding), "{task:?} {report:?}");
    }
    assert_eq!(project.number(Side::Source, "select count(*) from public.account").await, 100);
    // Nothing was registered; a later, better selection finds the way free.
    project.done(Some("odd"), condition("id = 1")).await;
}

#[tokio::test]
async fn the_least_risky_customers_come_first() {
    let project = prepared().await;
    let task =
        Task::Select { selection: Selection::Percent { percent: 5.0, risk_by: Some("100 - customer.id".into()) } };
    project.done(Some("canary"), task).await;
    assert_eq!(same_members(&project, "canary").await, "96 97 98 99 100");
}

#[tokio::test]
async fn a_crash_between_the_ledgers_is_completed_with_the_same_members() {
    let project = prepared().await;
    let first = project.done(Some("canary"), percent(10.0)).await;
    let chosen = same_members(&project, "canary").await;
    // As if the process had ended after the target's commit: nothing on the source.
    project.pair.psql(
        Side::Source,
        "delete from godwit.member where entry = 16; delete from godwit.ownership where entry = 16; delete from godwit.checkpoint where step = 'select'; insert into account (name) select 'new' from generate_series(1, 300)",
    );
    let second = project.done(Some("canary"), percent(10.0)).await;
    assert_eq!(first.digest, second.digest);
    assert_eq!(same_members(&project, "canary").await, chosen);
}

#[tokio::test]
async fn a_select_that_ended_early_can_be_taken_back() {
    let project = prepared().await;
    // Before it recorded anything.
    let older = project.next_attempt();
    let report = project.done(Some("pilot"), Task::Discard {}).await;
    assert_eq!((report.owner, report.epoch, report.counts["rowsRemoved"]), (Some(Owner::Source), Some(0), 0));
    let (code, report) = project.run_attempt(Some("pilot"), condition("id = 10"), older).await;
    assert_eq!((code, report.findings[0].code.as_str()), (exit::TRY_AGAIN, "NewerAttempt"));
    // Between the two ledgers.
    project.done(Some("pilot"), condition("id = 10")).await;
    let forget = "delete from godwit.checkpoint where step = 'select'; delete from godwit.member where entry >= 16; delete from godwit.ownership where entry >= 16";
    project.pair.psql(Side::Source, forget);
    assert_eq!(members(&project, Side::Target, "pilot").await, "10 11 12");
    project.done(Some("pilot"), Task::Discard {}).await;
    assert_eq!(same_members(&project, "pilot").await, "");
    project.done(Some("pilot"), condition("id = 30")).await;
    assert_eq!(same_members(&project, "pilot").await, "30 31");
    // A cohort that the operator saw further is not one whose Select ended early: its ledger was lost.
    project.pair.psql(Side::Target, forget);
    let mut settings =
        project.settings(Some(crate::job::cohort_named("pilot")), Task::Discard {}, project.next_attempt());
    settings.input.epoch = 2;
    assert_eq!(godwit::worker::run(settings).await, exit::INPUT_MISSING);
}

#[tokio::test]
async fn select_ends_only_when_no_writer_takes_the_customers_for_unassigned() {
    let project = prepared().await;
    let mut writer = project.pair.application(Side::Source, "postgres").await;
    let transaction = writer.transaction().await.unwrap();
    transaction.batch_execute("update account set name = 'w' where id = 1").await.unwrap();
    let job = project.job(Some(crate::job::cohort_named("canary")), condition("id = 1"));
    let selecting = tokio::spawn(async move {
        let selection = Selection::Where("id = 1".into());
        godwit::worker::steps::select::run(&job, &selection).await
    });
    tokio::time::sleep(std::time::Duration::from_millis(900)).await;
    assert!(!selecting.is_finished());
    transaction.commit().await.unwrap();
    selecting.await.unwrap().unwrap();
    assert_eq!(same_members(&project, "canary").await, "1");
}

#[tokio::test]
async fn a_recreated_cohort_does_not_adopt_its_namesake() {
    let project = prepared().await;
    project.done(Some("canary"), condition("id = 1")).await;
    let mut other = crate::job::cohort_named("canary");
    other.uid = "another".into();
    let attempt = project.next_attempt();
    let settings = project.settings(Some(other.clone()), condition("id = 2"), attempt);
    assert_eq!(godwit::worker::run(settings).await, exit::DATA_DIFFERS);
    // Once the former one's customers are given back, the name is free.
    for side in [Side::Source, Side::Target] {
        project.pair.psql(side, "delete from godwit.member where entry = 16");
    }
    let settings = project.settings(Some(other), condition("id = 2"), project.next_attempt());
    assert_eq!(godwit::worker::run(settings).await, exit::DONE);
    assert_eq!(same_members(&project, "canary").await, "2");
}

#[tokio::test]
async fn two_cohorts_that_select_at_the_same_time_share_no_customer() {
    let project = prepared().await;
    let (one, two) = tokio::join!(project.run(Some("one"), percent(40.0)), project.run(Some("two"), percent(40.0)));
    for (code, report) in [one, two] {
        // The termination file is shared by the two runs, so only the code tells them apart.
        assert!(code == exit::DONE || code == exit::TRY_AGAIN, "{report:?}");
    }
    project.done(Some("one"), percent(40.0)).await;
    project.done(Some("two"), percent(40.0)).await;
    let all = "select count(*) from godwit.member where entry >= 16";
    assert_eq!(project.number(Side::Source, all).await, project.number(Side::Target, all).await);
    let numbers = "select count(distinct entry) from godwit.ownership where entry >= 16";
    assert_eq!(project.number(Side::Source, numbers).await, 2);
}
