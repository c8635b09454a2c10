//! Each class of corruption, injected alone: Validate fails, names the table in the report and the key in the evidence file only.

use godwit::contract::{QueryPair, Side, Task};

use crate::moving::{CANARY, World, cutover, validate};

/// As somebody would write who knows how to get past every guard.
const STRANGER: &str = "set session_replication_role = replica; set godwit.pass = '16:0'; ";

struct Corruption {
    name: &'static str,
    breaks: &'static str,
    repairs: &'static str,
    code: &'static str,
    table: &'static str,
    /// What the evidence file says; empty where there are no keys to name.
    evidence: &'static str,
}

const CORRUPTIONS: [Corruption; 17] = [
    Corruption {
        name: "one cell of a number, by its scale alone",
        breaks: "update deal set amount = trim_scale(amount) where id = (select min(id) from deal where account_id = 10)",
        repairs: "update deal set amount = amount + 0.00 where account_id = 10",
        code: "RowsDiffer",
        table: "public.deal",
        evidence: r#""class" : "Different", "key" : ["#,
    },
    Corruption {
        name: "NULL where there was an empty text",
        breaks: "create table saved as select id, nickname from contact; update contact set nickname = null where id = (select min(id) from contact where nickname = '')",
        repairs: "update contact set nickname = saved.nickname from saved where saved.id = contact.id; drop table saved",
        code: "RowsDiffer",
        table: "public.contact",
        evidence: r#""table" : "public.contact", "class" : "Different""#,
    },
    Corruption {
        name: "a row missing",
        breaks: "create table saved as select * from note where id = (select max(id) from note); delete from note where id = (select id from saved)",
        repairs: "insert into note select * from saved; drop table saved",
        code: "RowsDiffer",
        table: "public.note",
        evidence: r#""table" : "public.note", "class" : "Missing""#,
    },
    Corruption {
        name: "a row too many",
        breaks: "insert into note values (900001, (select min(id) from activity), 'extra')",
        repairs: "delete from note where id = 900001",
        code: "RowsDiffer",
        table: "public.note",
        evidence: r#""class" : "Extra", "key" : ["900001"]"#,
    },
    Corruption {
        name: "one row missing and another in its place",
        breaks: "update note set id = 900002 where id = (select max(id) from note)",
        repairs: "update note set id = (select id from lost) where id = 900002",
        code: "RowsDiffer",
        table: "public.note",
        evidence: r#""class" : "Extra", "key" : ["900002"]"#,
    },
    Corruption {
        name: "a value moved to a neighbour's row",
        breaks: "create table saved as select id, body from activity order by id limit 2; update activity set body = (select s.body from saved s where s.id <> activity.id) where id in (select id from saved)",
        repairs: "update activity set body = saved.body from saved where saved.id = activity.id; drop table saved",
        code: "RowsDiffer",
        table: "public.activity",
        evidence: r#""table" : "public.activity", "class" : "Different""#,
    },
    Corruption {
        name: "an enum's label",
        breaks: "create table saved as select id, stage from deal; update deal set stage = 'lost' where id = (select min(id) from deal where stage = 'open')",
        repairs: "update deal set stage = saved.stage from saved where saved.id = deal.id; drop table saved",
        code: "RowsDiffer",
        table: "public.deal",
        evidence: r#""table" : "public.deal", "class" : "Different""#,
    },
    Corruption {
        name: "an enum's label inside an array, in a table that travels as text",
        breaks: "update activity set stages = array['lost']::stage[] where id = (select min(id) from activity)",
        repairs: "update activity set stages = array['open', 'won']::stage[]",
        code: "RowsDiffer",
        table: "public.activity",
        evidence: r#""table" : "public.activity", "class" : "Different""#,
    },
    Corruption {
        name: "a row that hangs on another customer",
        breaks: "create table saved as select id, account_id from contact; update contact set account_id = 11 where id = (select min(id) from contact where account_id = 10)",
        repairs: "update contact set account_id = saved.account_id from saved where saved.id = contact.id; drop table saved",
        code: "RowsDiffer",
        table: "public.contact",
        evidence: r#""table" : "public.contact", "class" : "Different""#,
    },
    Corruption {
        name: "a shared row gone, so that rows refer to nothing though they are equal on both sides",
        breaks: "create table saved as select * from currency where code = 'GBP'; set godwit.pass = '1:0'; delete from currency where code = 'GBP'",
        repairs: "set godwit.pass = '1:0'; insert into currency select * from saved; drop table saved",
        code: "OrphanRows",
        table: "public.deal",
        evidence: r#""class" : "OrphanRows", "constraint" : "deal_currency_fkey""#,
    },
    Corruption {
        name: "a row without its parent, which belongs to no customer",
        breaks: "insert into note values (900003, 987654321, 'orphan')",
        repairs: "delete from note where id = 900003",
        code: "OrphanRows",
        table: "public.note",
        evidence: r#""constraint" : "note_activity_id_fkey", "key" : ["900003"]"#,
    },
    Corruption {
        name: "a sequence behind its column",
        breaks: "select setval('note_id_seq', 1)",
        repairs: "select setval('note_id_seq', 1000000)",
        code: "SequenceBehind",
        table: "public.note",
        evidence: "",
    },
    Corruption {
        name: "an identity column's sequence behind",
        breaks: "select setval(pg_get_serial_sequence('public.account', 'id'), 1)",
        repairs: "select setval(pg_get_serial_sequence('public.account', 'id'), 1000000)",
        code: "SequenceBehind",
        table: "public.account",
        evidence: "",
    },
    Corruption {
        name: "a foreign key absent",
        breaks: "alter table note drop constraint note_activity_id_fkey",
        repairs: "alter table note add constraint note_activity_id_fkey foreign key (activity_id) references activity on delete cascade",
        code: "ConstraintMissing",
        table: "public.note",
        evidence: "",
    },
    Corruption {
        name: "a foreign key not validated",
        breaks: "alter table note drop constraint note_activity_id_fkey; alter table note add constraint note_activity_id_fkey foreign key (activity_id) references activity on delete cascade not valid",
        repairs: "alter table note validate constraint note_activity_id_fkey",
        code: "ConstraintNotValidated",
        table: "public.note",
        evidence: "",
    },
    Corruption {
        name: "a foreign key's triggers disabled",
        breaks: "alter table note disable trigger all",
        repairs: "alter table note enable trigger all; alter table note enable always trigger \"~godwit_fence_row\"; alter table note enable always trigger \"!godwit_fence_insert\"; alter table note enable always trigger \"~godwit_fence_pass\"; alter table note enable always trigger \"~godwit_fence_truncate\"",
        code: "TriggerDisabled",
        table: "public.note",
        evidence: "",
    },
    Corruption {
        name: "an index that is not valid",
        breaks: "update pg_catalog.pg_index set indisvalid = false where indexrelid = 'contact_email_key'::regclass",
        repairs: "update pg_catalog.pg_index set indisvalid = true where indexrelid = 'contact_email_key'::regclass",
        code: "IndexInvalid",
        table: "public.contact",
        evidence: "",
    },
];

#[tokio::test]
async fn each_corruption_is_found_and_named_by_table_and_key() {
    let world = World::new().await;
    world.select(16, "canary", CANARY);
    world.copied("canary").await;
    world.target("create table lost as select max(id) as id from note");
    for (number, case) in CORRUPTIONS.iter().enumerate() {
        let attempt = 10 + number as i64 * 2;
        world.target(&format!("{STRANGER}{}", case.breaks));
        let report = world.run("canary", attempt, validate()).await.refused_for(case.code, case.name);
        let named = report.findings.iter().any(|finding| finding.code == case.code && finding.object == case.table);
        assert!(named, "{}: {:?}", case.name, report.findings);
        if !case.evidence.is_empty() {
            let evidence = world.file(report.evidence_uri.as_deref().unwrap());
            assert!(evidence.contains(case.evidence), "{}: {evidence}", case.name);
        }
        let text = report.to_termination_message();
        assert!(!text.contains("90000"), "{}: a key in the report", case.name);
        world.target(&format!("{STRANGER}{}", case.repairs));
        let repaired = world.run("canary", attempt + 1, validate()).await;
        assert_eq!(repaired.code, 0, "{}: {:?}", case.name, repaired.report.findings);
    }
}

#[tokio::test]
async fn what_the_source_writes_meanwhile_is_drift_and_no_difference() {
    let world = World::new().await;
    world.select(16, "canary", CANARY);
    world.copied("canary").await;
    world.source("update account set name = 'moved on' where id in (10, 11); delete from note where id = (select min(n.id) from note n join activity v on v.id = n.activity_id join contact c on c.id = v.contact_id where c.account_id = 20)");
    let report = world.run("canary", 3, validate()).await.passed();
    assert_eq!(report.counts["drift"], 3);
    assert_eq!(report.counts["differences"], 0);
}

#[tokio::test]
async fn pairs_agree_within_their_tolerance_or_fail_and_no_number_is_no_pass() {
    let world = World::new().await;
    world.select(16, "canary", CANARY);
    world.copied("canary").await;
    let pair = |source: &str, target: &str, tolerance: &str| Task::Validate {
        checks: vec![QueryPair {
            name: "pair".into(),
            source: source.into(),
            target: target.into(),
            tolerance: tolerance.into(),
        }],
    };
    let run = async |attempt, task| world.run("canary", attempt, task).await;
    run(3, pair("select 1.0000000000000000001", "select 1.0000000000000000002", "0")).await.refused("CheckDiffers");
    run(4, pair("select 1.0000000000000000001", "select 1.0000000000000000002;", "0.0000000000000000001"))
        .await
        .passed();
    run(5, pair("select null::int", "select 1", "5")).await.refused("CheckWithoutNumber");
    run(6, pair("select 1 where false", "select 1", "5")).await.refused("CheckWithoutNumber");
    for query in [
        "delete from public.note where false returning 1",
        "select 1; commit; delete from public.note",
        "select 1) as x; commit; delete from public.note; select * from (select 1",
    ] {
        let done = run(7, pair(query, "select 1", "0")).await;
        assert_ne!(done.code, 0, "{query}");
    }
    assert!(world.number(Side::Source, "select count(*) from note") > 0);
}

#[tokio::test]
async fn a_strangers_write_on_the_target_stops_the_cutover_while_the_source_still_writes() {
    let world = World::new().await;
    world.select(16, "canary", CANARY);
    world.copied("canary").await;
    world.target(&format!("{STRANGER} update account set name = 'forged' where id = 10"));
    world.run("canary", 3, cutover()).await.refused("CopyDiffers");
    assert_eq!(world.owner(Side::Source, 16), ("Source".into(), 0));
    assert!(!world.is_fenced(Side::Source, "update account set name = 'still here' where id = 10"));
}

#[tokio::test]
async fn rows_that_refer_outside_the_cohort_are_not_landed() {
    let world = World::new().await;
    world.select(16, "canary", CANARY);
    world.source("insert into deal_contact select (select min(id) from deal where account_id = 10), (select min(id) from contact where account_id = 40), 'new friend'");
    let report = world.run("canary", 1, Task::Copy {}).await.refused("OrphanRows");
    assert_eq!(report.findings[0].object, "public.deal_contact");
    assert_eq!(world.number(Side::Target, "select count(*) from deal_contact"), 0);
}

#[tokio::test]
async fn rows_that_the_target_already_had_for_the_customers_are_refused() {
    let world = World::new().await;
    world.select(16, "canary", CANARY);
    world.target(&format!("{STRANGER} insert into contact (id, account_id) values (900004, 10)"));
    world.run("canary", 1, Task::Copy {}).await.refused("RowsOfOthers");
    assert_eq!(world.number(Side::Target, "select count(*) from account"), 0);
}

#[tokio::test]
async fn rows_that_the_target_changes_as_they_land_are_noticed_before_the_commit() {
    let world = World::new().await;
    world.select(16, "canary", CANARY);
    world.copied("canary").await;
    // No row of the copy has a fraction of a second; the next one does, and the server would round it away without a word.
    world.target("alter table account alter opened type timestamptz(0)");
    world.source("update account set name = 'quiet', opened = opened + interval '0.4 s' where id = 10");
    world.run("canary", 3, cutover()).await.refused("CopyDiffers");
    assert_eq!(world.number(Side::Target, "select count(*) from account where name = 'quiet'"), 0);
    assert!(!world.is_fenced(Side::Source, "update account set name = 'free' where id = 10"));
}
