//! Measurements: a user's query, and the integrity of a cohort's rows.

use godwit::contract::{
    Owner, QueryPair, ReportResult, SOURCE_URI_ENV, STEP_ENV, Severity, Side, TARGET_URI_ENV, TERMINATION_PATH_ENV,
    Task, exit,
};

use crate::moving::{CANARY, Done, World};

async fn measure(world: &World, query: &str) -> Done {
    let task = Task::SqlCheck { side: Side::Source, query: query.into(), timeout_seconds: 1 };
    world.run("canary", 1, task).await
}

#[tokio::test]
async fn the_first_column_of_each_row_is_a_value_whatever_its_number_type() {
    let world = World::new().await;
    for (query, values) in [
        ("select count(*) from public.account", vec![60.0]),
        ("select 1.5::numeric, 'x' union all select 2, 'y' order by 1 -- sorted", vec![1.5, 2.0]),
        ("select true;", vec![1.0]),
        ("values (-1::smallint), (2.5e3)", vec![-1.0, 2500.0]),
        ("select length(current_setting('godwit.cohort'))", vec![6.0]),
        ("select null::int union all select 7", vec![7.0]),
        ("select 1 where false", vec![]),
        ("select avg(amount) from public.deal where false", vec![]),
    ] {
        let report = measure(&world, query).await.passed();
        let mut found = report.values;
        found.sort_by(f64::total_cmp);
        assert_eq!(found, values, "{query}");
    }
    let many = measure(&world, "select generate_series(1, 1000)").await.passed();
    assert_eq!(many.values.len(), 100);
}

#[tokio::test]
async fn a_query_can_neither_write_nor_leave_its_transaction_nor_run_for_ever() {
    let world = World::new().await;
    world.source("create function renames() returns int language sql as 'update public.account set name = ''hacked'' returning 1'");
    for (query, code) in [
        ("delete from public.note", exit::MISCONFIGURED),
        ("with gone as (delete from public.note returning 1) select count(*) from gone", exit::MISCONFIGURED),
        ("select public.renames()", exit::MISCONFIGURED),
        ("select 1; commit; delete from public.note", exit::MISCONFIGURED),
        ("select 1) as x; commit; delete from public.note; select * from (select 1", exit::MISCONFIGURED),
        ("select pg_sleep(60)", exit::TRY_AGAIN),
        ("select 1 from nowhere", exit::INPUT_MISSING),
        ("select name from public.account", exit::MISCONFIGURED),
    ] {
        let done = measure(&world, query).await;
        assert_eq!(done.code, code, "{query}: {:?}", done.report.findings);
        let refused = query.contains("renames");
        assert_eq!(done.report.result, if refused { ReportResult::Fail } else { ReportResult::Error });
        assert_eq!(refused, done.report.findings[0].code == "CheckWrites", "{:?}", done.report.findings);
        assert_eq!(refused, done.report.findings[0].message.contains("may only read"));
        assert_eq!(done.report.values, Vec::<f64>::new());
        let text = format!("{:?}", done.report.findings);
        assert!(!text.contains("a1"), "a customer's name in {text}");
    }
    assert_eq!(world.number(Side::Source, "select count(*) from note"), 900);
    assert_eq!(world.number(Side::Source, "select count(*) from account where name = 'hacked'"), 0);
}

#[tokio::test]
async fn the_integrity_of_a_cohort_is_measured_on_the_side_that_owns_it() {
    let world = World::new().await;
    world.select(16, "canary", CANARY);
    let sound = world.run("canary", 1, Task::IntegrityCheck {}).await.passed();
    assert_eq!((sound.values, sound.owner), (vec![0.0], Some(Owner::Source)));

    // One link of the cohort and one of another customer lose their contact, as only a replica's rights allow.
    let orphan = |account: i64| {
        format!(
            "set session_replication_role = replica; delete from contact where id = (select min(contact_id) from deal_contact x \
             join deal d on d.id = x.deal_id where d.account_id = {account})"
        )
    };
    let lose = |account| {
        // The fence is always on: it is taken off for what no application could do.
        world.source(&format!(
            "alter table contact disable trigger all; {}; alter table contact enable trigger all",
            orphan(account)
        ));
    };
    lose(50);
    let sound = world.run("canary", 1, Task::IntegrityCheck {}).await.passed();
    assert_eq!(sound.values, [0.0], "another customer's rows are not the cohort's");
    lose(11);
    let broken = world.run("canary", 1, Task::IntegrityCheck {}).await.passed();
    assert!(broken.values[0] > 0.0);
    assert!(broken.findings.iter().all(|finding| finding.severity == Severity::Warning));
    assert!(broken.findings.iter().any(|finding| finding.object == "public.deal_contact"));

    world.target("update godwit.ownership set owner = 'Target' where entry = 16");
    let on_target = world.run("canary", 1, Task::IntegrityCheck {}).await.passed();
    assert_eq!((on_target.values, on_target.owner), (vec![0.0], Some(Owner::Target)));
    world.target("update godwit.ownership set owner = 'None' where entry = 16");
    let switching = world.run("canary", 1, Task::IntegrityCheck {}).await;
    assert_eq!(switching.code, exit::TRY_AGAIN);
}

#[tokio::test]
async fn what_a_users_function_tells_of_a_row_is_not_in_the_workers_log() {
    let world = World::new().await;
    let body = "returns int language plpgsql as $$ begin raise warning 'hush %', (select name from public.account where id = 10); return 1; end $$";
    world.source(&format!(
        "create function tells() {body}; create function insists() {body} set client_min_messages = debug"
    ));
    for (query, filter) in
        [("select public.tells()", "info"), ("select public.insists()", "info"), ("select public.insists()", "debug")]
    {
        let task = Task::SqlCheck { side: Side::Source, query: query.into(), timeout_seconds: 1 };
        let settings = world.settings("canary", 1, task);
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_godwit"))
            .args(["worker", settings.input.task.name()])
            .env_clear()
            .env(STEP_ENV, serde_json::to_string(&settings.input).unwrap())
            .env(SOURCE_URI_ENV, settings.source_uri.unwrap())
            .env(TARGET_URI_ENV, settings.target_uri.unwrap())
            .env(TERMINATION_PATH_ENV, &settings.termination_path)
            .env("RUST_LOG", filter)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let printed = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(!printed.contains("hush"), "{query} with {filter}: {printed}");
    }
}

#[tokio::test]
async fn a_check_of_a_cohort_knows_its_entry_as_a_pair_does() {
    let world = World::new().await;
    world.select(16, "canary", CANARY);
    let report = measure(&world, "select current_setting('godwit.entry')").await.passed();
    assert_eq!(report.values, [16.0]);
}

#[tokio::test]
async fn a_pair_that_writes_is_told_to_read_and_the_cohort_stays_with_the_source() {
    let world = World::new().await;
    world.source("create function renames() returns int language sql as 'update public.account set name = ''hacked'' returning 1'");
    world.select(16, "canary", CANARY);
    world.copied("canary").await;
    let pair = QueryPair {
        name: "renaming".into(),
        source: "select public.renames()".into(),
        target: "select 1".into(),
        tolerance: "0".into(),
    };
    for (attempt, task) in
        [(3, Task::Validate { checks: vec![pair.clone()] }), (4, Task::Cutover { checks: vec![pair.clone()] })]
    {
        let report = world.run("canary", attempt, task).await.refused("CheckWrites");
        assert_eq!((report.owner, report.findings[0].object.as_str()), (Some(Owner::Source), "renaming"));
    }
    assert_eq!(world.number(Side::Source, "select count(*) from account where name = 'hacked'"), 0);
}
