//! Assess: everything in the way by name, in one run, without a single write.

use godwit::contract::{Dataset, KeyStrategy, Report, Side, Task, exit};

use crate::base::CRM;
use crate::job::Project;

const ASSESS: Task = Task::Assess {};

fn codes(report: &Report) -> Vec<(String, String)> {
    report.findings.iter().map(|finding| (finding.code.clone(), finding.object.clone())).collect()
}

fn has(report: &Report, code: &str, object: &str) -> bool {
    codes(report).contains(&(code.to_owned(), object.to_owned()))
}

fn evidence(project: &Project, report: &Report) -> serde_json::Value {
    let path = project.storage.path().join(report.evidence_uri.as_ref().unwrap());
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn plain_dataset() -> Dataset {
    Dataset { root_table: "public.account".into(), root_key: "id".into(), ..Dataset::default() }
}

#[tokio::test]
async fn a_sound_source_and_an_empty_target_pass_and_nothing_is_written() {
    let project = Project::new(CRM);
    let report = project.done(None, ASSESS).await;
    assert_eq!(report.counts["tables"], 6);
    assert_eq!(report.counts["customers"], 100);
    assert_eq!((report.counts["groups"], report.counts["largestGroup"]), (98, 3));
    assert_eq!(report.counts["rows"], 2 + 100 + 300 + 200 + 200 + 400);
    let file = evidence(&project, &report);
    assert_eq!(file["tables"].as_array().unwrap().len(), 6);
    assert_eq!(file["groups"]["linked_customers"], 3);
    for side in [Side::Source, Side::Target] {
        let schemas = "select count(*) from pg_namespace where nspname = 'godwit'";
        assert_eq!(project.number(side, schemas).await, 0);
    }
    let tables = "select count(*) from pg_class where relnamespace = 'public'::regnamespace";
    assert_eq!(project.number(Side::Target, tables).await, 0);
}

#[tokio::test]
async fn every_finding_comes_in_one_run_with_its_object() {
    let project = Project::with(
        "create table account (id int primary key, parent_id int references account);
         create table deal (id int primary key, account_id int references account, small smallserial);
         create table item (id int primary key, deal_id int not null references deal);
         create unlogged table log (id int primary key, account_id int not null);
         insert into account values (1, null), (2, 1), (3, 2); insert into deal values (1, 1), (2, null); insert into item values (1, 1), (2, 2);
         insert into log values (1, 1), (2, 4711);
         alter table log add constraint log_account foreign key (account_id) references account not valid;
         select setval('deal_small_seq', 32000); select lo_create(0);
         create table outside (id int); ",
        plain_dataset(),
    );
    let (code, report) = project.run(None, ASSESS).await;
    assert_eq!(code, exit::DATA_DIFFERS);
    for (code, object) in [
        ("UnownedRows", "public.deal"),
        ("UnownedRows", "public.item"),
        ("OrphanRows", "public.log"),
        ("ConstraintNotValidated", "public.log"),
        ("TableUnlogged", "public.log"),
        ("SequenceNearlySpent", "public.deal_small_seq"),
        ("LargeObjects", "source"),
        ("GroupLarge", "public.account"),
        ("TableOutside", "public.outside"),
    ] {
        assert!(has(&report, code, object), "{code} {object}: {:?}", codes(&report));
    }
    let large = report.findings.iter().find(|f| f.code == "GroupLarge").unwrap();
    assert!(large.message.contains("account_parent_id_fkey"));
    assert!(!format!("{report:?}").contains("4711"));
}

#[tokio::test]
async fn a_scope_that_cannot_be_resolved_is_reported_with_its_evidence() {
    let mut project = Project::new(CRM);
    project.dataset.owners.clear();
    let (code, report) = project.run(None, ASSESS).await;
    assert_eq!(code, exit::DATA_DIFFERS);
    assert!(has(&report, "OwnerAmbiguous", "public.deal_contact"));
    assert_eq!(evidence(&project, &report)["findings"][0]["code"], "OwnerAmbiguous");
}

#[tokio::test]
async fn what_the_target_has_already_is_compared_down_to_keys_labels_and_values() {
    let schema = "create type mood as enum ('sad', 'ok');
        create table account (id int primary key, m mood, email text unique);
        create table currency (code text primary key, name text);
        create table deal (id int primary key, account_id int not null references account, c text references currency);";
    let project = Project::with(
        &format!(
            "{schema} insert into account values (1, 'ok', 'a@b'); insert into currency values ('EUR', 'euro'); insert into deal values (5, 1, 'EUR')"
        ),
        plain_dataset(),
    );
    project.pair.psql(Side::Target, &schema.replace("'sad', 'ok'", "'sad'"));
    project.pair.psql(
        Side::Target,
        "insert into account values (2, 'sad', 'a@b'); insert into currency values ('EUR', 'Euro'); insert into deal values (5, 2, 'EUR'); alter table deal drop constraint deal_c_fkey",
    );
    let (code, report) = project.run(None, ASSESS).await;
    assert_eq!(code, exit::DATA_DIFFERS);
    for (code, object) in [
        ("EnumLabelMissing", "public.mood"),
        ("UniqueCollision", "public.account"),
        ("KeyCollision", "public.deal"),
        ("ReferenceRowsDiffer", "public.currency"),
        ("ForeignKeyMissingOnTarget", "public.deal"),
    ] {
        assert!(has(&report, code, object), "{code} {object}: {:?}", codes(&report));
    }
}

#[tokio::test]
async fn missing_rights_are_named_with_their_remedy() {
    let mut project = Project::with(CRM, crate::base::dataset());
    let role = format!("weak_{}", project.pair.database);
    for side in [Side::Source, Side::Target] {
        project.pair.psql(
            side,
            &format!("create role {role} login; grant usage on schema public to {role}; grant select on all tables in schema public to {role}; revoke create on schema public from public; alter default privileges grant select on tables to {role}"),
        );
    }
    project.pair.psql(Side::Source, "alter table deal enable row level security");
    for side in [Side::Source, Side::Target] {
        project.pair.psql(side, &format!("revoke temporary on database {} from public", project.pair.database));
    }
    let database = project.pair.database.clone();
    project.pair.source_uri = project.pair.servers.source.uri_as(&role, &database);
    project.pair.target_uri = project.pair.servers.target.uri_as(&role, &database);
    let (code, report) = project.run(None, ASSESS).await;
    assert_eq!(code, exit::DATA_DIFFERS, "{:?}", codes(&report));
    assert!(has(&report, "RowSecurity", "public.deal"));
    project.pair.psql(Side::Source, "alter table deal disable row level security");
    let (code, report) = project.run(None, ASSESS).await;
    assert_eq!(code, exit::DATA_DIFFERS);
    for (code, object) in [
        ("NotTableOwner", "public.account"),
        ("CreateDenied", "source"),
        ("CreateDenied", "target"),
        ("CreateDenied", "public"),
        ("TemporaryDenied", "source"),
        ("TemporaryDenied", "target"),
        ("ReplicationRoleDenied", "source"),
        ("ReplicationRoleDenied", "target"),
        ("NotSequenceOwner", "public.account_id_seq"),
    ] {
        assert!(has(&report, code, object), "{code} {object}: {:?}", codes(&report));
    }
    let temporary = report.findings.iter().find(|found| found.code == "TemporaryDenied").unwrap();
    let remedy = format!("GRANT TEMPORARY ON DATABASE {database} TO {role}");
    assert!(temporary.message.contains(&remedy), "{}", temporary.message);
}

#[tokio::test]
async fn parity_and_gap_name_the_sequences_that_they_cannot_split() {
    let schema = "create table account (id serial primary key); create sequence odd increment 2 owned by account.id; create sequence down increment -1;
        create table deal (id int primary key default nextval('odd'), d int default nextval('down'), account_id int not null references account);";
    let mut project = Project::with(schema, plain_dataset());
    let (_, report) = project.run(None, ASSESS).await;
    assert!(has(&report, "SequenceDescends", "public.down"));
    project.dataset.keys = KeyStrategy::Parity;
    let (_, report) = project.run(None, ASSESS).await;
    assert!(has(&report, "SequenceIncrement", "public.odd"));
    project.dataset.keys = KeyStrategy::None;
    project.done(None, ASSESS).await;
}

#[tokio::test]
async fn a_database_of_another_migration_is_named() {
    let project = Project::new(CRM);
    project.done(None, Task::Prepare {}).await;
    project.pair.psql(Side::Target, "update godwit.migration set uid = 'other', name = 'older'");
    let (code, report) = project.run(None, ASSESS).await;
    assert_eq!(code, exit::DATA_DIFFERS);
    let found = report.findings.iter().find(|f| f.code == "ForeignLedger").unwrap();
    assert!(found.message.contains("sales/older"), "{found:?}");
}

#[tokio::test]
async fn assessing_a_prepared_migration_again_passes() {
    let project = Project::new(CRM);
    project.done(None, Task::Prepare {}).await;
    project.done(None, ASSESS).await;
}
