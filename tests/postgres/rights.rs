//! Godwit's roles with the rights that `docs/databases.md` grants and no others: a whole migration there and back, and what is said where
//! one of them is missing. The statements are read from the pages, so that pages and test are the same text.

use std::path::Path;
use std::process::Command;

use godwit::contract::{EvidenceRef, Owner, Report, ReportResult, Selection, Severity, Side, Task, exit};
use godwit::worker::{Error, Job, Mounts, steps};

use crate::base::CRM;
use crate::job::Project;

const SIDES: [Side; 2] = [Side::Source, Side::Target];
const TABLES: [&str; 6] = ["currency", "account", "contact", "deal", "deal_contact", "line_item"];

fn page(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name)).unwrap()
}

/// The statements of the block of SQL whose first line is the comment `-- <title>`.
fn block(page_name: &str, title: &str) -> Vec<String> {
    let page = page(page_name);
    let begin = format!("-- {title}");
    let mut blocks = page.split("```sql\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let found = blocks.find(|text| text.lines().next().is_some_and(|line| line.trim() == begin));
    let lines = found.unwrap_or_else(|| panic!("{page_name} has no block {title}")).lines().map(str::trim);
    let text: Vec<&str> = lines.filter(|line| !line.starts_with("--")).collect();
    text.join("\n").split_inclusive(';').map(|one| one.trim().to_owned()).filter(|one| !one.is_empty()).collect()
}

/// The statement for the database of one test: servers are shared, and roles belong to a server.
fn named(statement: &str, database: &str) -> String {
    let mut text = String::new();
    let mut rest = statement;
    while let Some(at) = rest.find(|letter: char| letter.is_ascii_alphabetic()) {
        let (before, from) = rest.split_at(at);
        let end = from.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_').unwrap_or(from.len());
        let (word, after) = from.split_at(end);
        text.push_str(before);
        let is_schema = after.starts_with('.') || text.ends_with("schema ");
        match word {
            "shop" => text.push_str(database),
            "godwit" if !is_schema => text.extend(["godwit_", database]),
            "shop_owner" | "shop_app" => text.extend([word, "_", database]),
            _ => text.push_str(word),
        }
        rest = after;
    }
    text + rest
}

/// A shop of its own on both servers, where nobody has a right that was not given: a source whose tables belong to `shop_owner`, and
/// Godwit's roles that hold what a list of statements gave them.
struct Shop {
    project: Project,
    scratch: tempfile::TempDir,
}

impl Shop {
    fn new(target_has_tables: bool) -> Self {
        let mut shop = Self { project: Project::new(""), scratch: tempfile::tempdir().unwrap() };
        // The sandbox runs as another user when the test is root.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o711);
        std::fs::set_permissions(shop.scratch.path(), open).unwrap();
        for side in SIDES {
            shop.as_superuser(
                side,
                "create role shop_owner; create role shop_app login;
                 revoke all on schema public from public; grant usage, create on schema public to shop_owner;
                 revoke all on database shop from public; grant connect on database shop to shop_app;",
            );
        }
        // Beside the dataset: Backup takes the schema of the whole database.
        shop.as_superuser(Side::Source, "create schema other; create table other.unrelated (id int primary key);");
        shop.as_superuser(Side::Source, &format!("set role shop_owner; {CRM}"));
        shop.let_application_in(Side::Source);
        if target_has_tables {
            // As it is by default: that the owner of the tables is missed shall be told, and not only that they cannot be named.
            shop.as_superuser(Side::Target, "grant usage on schema public to public");
            let tables = CRM.split("insert into").next().unwrap();
            shop.as_superuser(Side::Target, &format!("set role shop_owner; {tables}"));
            shop.let_application_in(Side::Target);
        }
        let database = shop.project.pair.database.clone();
        let role = format!("godwit_{database}");
        shop.project.pair.source_uri = shop.project.pair.servers.source.uri_as(&role, &database);
        shop.project.pair.target_uri = shop.project.pair.servers.target.uri_as(&role, &database);
        shop
    }

    /// The shop with its roles as the page makes them.
    fn granted(target: &str) -> Self {
        let shop = Self::new(target == WITH_TABLES);
        shop.run_all(Side::Source, &block("databases.md", "source"));
        shop.run_all(Side::Target, &block("databases.md", target));
        if target == EMPTY {
            shop.as_superuser(Side::Target, "grant usage on schema public to shop_app");
            shop.run_all(Side::Target, &block("databases.md", "target, empty: for the application"));
        }
        shop
    }

    fn as_superuser(&self, side: Side, sql: &str) {
        self.project.pair.psql(side, &named(sql, &self.project.pair.database));
    }

    fn run_all(&self, side: Side, statements: &[String]) {
        for statement in statements {
            self.as_superuser(side, statement);
        }
    }

    fn let_application_in(&self, side: Side) {
        self.as_superuser(
            side,
            "grant usage on schema public to shop_app; grant usage, select on all sequences in schema public to shop_app;
             grant select, insert, update, delete on all tables in schema public to shop_app;",
        );
    }

    async fn application(&self, side: Side) -> tokio_postgres::Client {
        let role = named("shop_app", &self.project.pair.database);
        self.project.pair.application(side, &role).await
    }

    async fn superuser(&self, side: Side) -> tokio_postgres::Client {
        self.project.pair.application(side, "postgres").await
    }

    async fn number(&self, side: Side, sql: &str) -> i64 {
        let sql = named(sql, &self.project.pair.database);
        self.superuser(side).await.query_one(&sql, &[]).await.unwrap().get(0)
    }

    fn job(&self, task: Task) -> Job {
        let mut job = self.project.job(None, task);
        job.mounts = Mounts { include: self.scratch.path().to_owned(), scratch: self.scratch.path().to_owned() };
        job
    }

    async fn back_up(&self) -> Result<Report, Error> {
        steps::backup::run(&self.job(Task::Backup { includes: vec![] }), &[]).await
    }

    async fn verify_backup(&self, backup: &Report) -> Result<Report, Error> {
        let evidence =
            EvidenceRef { uri: backup.evidence_uri.clone().unwrap(), digest: backup.digest.clone().unwrap() };
        steps::verify_backup::run(&self.job(Task::VerifyBackup { backup: evidence.clone() }), &evidence).await
    }

    async fn prepared(&self) {
        let report = self.project.done(None, Task::Assess {}).await;
        assert_eq!(report.result, ReportResult::Pass, "{:?}", report.findings);
        let backup = self.back_up().await.unwrap();
        let verified = self.verify_backup(&backup).await.unwrap();
        assert_eq!(verified.result, ReportResult::Pass, "{:?}", verified.findings);
        self.project.done(None, Task::Prepare {}).await;
    }

    async fn cut_over(&self, cohort: &str, selection: Selection) {
        for task in [
            Task::Select { selection },
            Task::Copy {},
            Task::Validate { checks: vec![] },
            Task::Cutover { checks: vec![] },
        ] {
            self.project.done(Some(cohort), task).await;
        }
        let owner = format!("select count(*) from godwit.ownership where name = '{cohort}' and owner = 'Target'");
        assert_eq!(self.number(Side::Source, &owner).await, 1);
    }

    /// The first step that says no, and what it says. The steps before it must be done.
    async fn first_refusal(&self) -> (&'static str, i32, Report) {
        let (code, report) = self.project.run(None, Task::Assess {}).await;
        if code != exit::DONE || report.result != ReportResult::Pass {
            return ("Assess", code, report);
        }
        if let Err(error) = self.back_up().await {
            let report = Report { findings: error.findings(), ..Report::new(ReportResult::Error) };
            return ("Backup", error.exit_code(), report);
        }
        let (code, report) = self.project.run(None, Task::Prepare {}).await;
        if code != exit::DONE {
            return ("Prepare", code, report);
        }
        ("no step", code, report)
    }

    /// Fence triggers and ledger of one side.
    async fn traces(&self, side: Side) -> i64 {
        let sql = "select (select count(*) from pg_trigger where tgname ~ '^[~!]godwit') + (select count(*) from pg_namespace where nspname = 'godwit')";
        self.number(side, sql).await
    }
}

const EMPTY: &str = "target, empty";
const WITH_TABLES: &str = "target, with tables";

/// The codes of what stands in the way.
fn codes(report: &Report) -> Vec<&str> {
    let blockers = report.findings.iter().filter(|finding| finding.severity == Severity::Blocker);
    blockers.map(|finding| finding.code.as_str()).collect()
}

async fn whole_life(target: &str) {
    let shop = Shop::granted(target);
    shop.run_all(Side::Source, &block("routing.md", "the lookup, announced before Prepare"));
    for side in SIDES {
        let weak = format!("rolname = 'godwit_{}' and not rolsuper and not rolbypassrls", shop.project.pair.database);
        assert_eq!(shop.number(side, &format!("select count(*) from pg_roles where {weak}")).await, 1);
    }
    shop.prepared().await;
    shop.run_all(Side::Target, &block("routing.md", "the lookup, after Prepare"));
    shop.cut_over("canary", Selection::Where("id in (11, 20)".into())).await;
    there_and_back(&shop).await;
    shop.cut_over("canary", Selection::Where("id in (11, 20)".into())).await;
    shop.cut_over("rest", Selection::Remainder {}).await;
    shop.run_all(Side::Source, &block("routing.md", "before Finalize is approved"));
    shop.project.done(None, Task::Finalize {}).await;
    let source = shop.application(Side::Source).await;
    let refused = source.execute("update public.account set name = 'z' where id = 20", &[]).await.unwrap_err();
    assert_eq!(refused.code().unwrap().code(), "42501");
    gone_without_a_trace(&shop).await;
    let target = shop.application(Side::Target).await;
    target.batch_execute("insert into public.contact (account_id, email) values (20, 'born later')").await.unwrap();
}

/// A cohort on the target, with an application that looks its customers up and writes there, comes back.
async fn there_and_back(shop: &Shop) {
    let (source, target) = (shop.application(Side::Source).await, shop.application(Side::Target).await);
    let lookup = block("routing.md", "the cohort of one customer; no row: it is in none").remove(0);
    for client in [&source, &target] {
        let row = client.query_one(lookup.as_str(), &[&20_i64]).await.unwrap();
        assert_eq!(row.get::<_, &str>(0), "canary");
    }
    let refused = source.execute("update public.account set name = 'x' where id = 20", &[]).await.unwrap_err();
    assert_eq!(refused.code().unwrap().code(), "GW004");
    target.batch_execute("insert into public.contact (account_id, email) values (20, 'born there')").await.unwrap();
    // The source is not what it was at the cutover any more, so that Return has something to restore.
    shop.as_superuser(
        Side::Source,
        "begin; select set_config('godwit.pass', entry || ':' || epoch, true) from godwit.ownership where name = 'canary';
         update public.account set name = 'past the fence' where id = 20;
         delete from public.line_item where deal_id in (select id from public.deal where account_id = 20); commit;",
    );
    shop.project.done(Some("canary"), Task::Freeze {}).await;
    let report = shop.project.done(Some("canary"), Task::Return {}).await;
    assert_eq!(report.counts["setAsideInserted"], 1);
    assert!(report.counts["tablesRestored"] >= 2, "{report:?}");
    shop.project.done(Some("canary"), Task::Verify {}).await;
    let report = shop.project.done(Some("canary"), Task::Reopen {}).await;
    assert_eq!(report.owner, Some(Owner::Source));
    source.execute("update public.account set name = 'y' where id = 20", &[]).await.unwrap();
}

/// No fence, no ledger, no role of Godwit's; every table is the owner's.
async fn gone_without_a_trace(shop: &Shop) {
    shop.run_all(Side::Source, &block("databases.md", "afterwards, on the source"));
    shop.run_all(Side::Target, &block("databases.md", "afterwards, on the target"));
    let database = &shop.project.pair.database;
    for side in SIDES {
        assert_eq!(shop.traces(side).await, 0);
        let names = TABLES.join("', '");
        let owned = format!("relname in ('{names}') and relowner = 'shop_owner_{database}'::regrole");
        assert_eq!(shop.number(side, &format!("select count(*) from pg_class where {owned}")).await, 6);
        let roles = format!("select count(*) from pg_roles where rolname = 'godwit_{database}'");
        assert_eq!(shop.number(side, &roles).await, 0);
    }
}

#[tokio::test]
async fn with_the_documented_rights_a_migration_goes_there_and_back_where_the_target_is_empty() {
    whole_life(EMPTY).await;
}

#[tokio::test]
async fn with_the_documented_rights_a_migration_goes_there_and_back_where_the_target_has_the_tables() {
    whole_life(WITH_TABLES).await;
}

/// What a statement of the page is about, and what is said without it: the step, its exit code, a finding.
const WITHOUT: &[(&str, &str, i32, &str)] = &[
    ("grant connect on database", "Assess", exit::NOT_PERMITTED, "ConnectionFailed"),
    ("grant create on database", "Assess", exit::DATA_DIFFERS, "CreateDenied"),
    ("grant temporary on database", "Assess", exit::DATA_DIFFERS, "TemporaryDenied"),
    ("grant set on parameter", "Assess", exit::DATA_DIFFERS, "ReplicationRoleDenied"),
    ("grant pg_read_all_data", "Backup", exit::NOT_PERMITTED, "ProgramFailed"),
    ("grant shop_owner", "Assess", exit::DATA_DIFFERS, "NotTableOwner"),
    ("grant usage on schema", "Assess", exit::NOT_PERMITTED, "DatabaseFailed"),
    ("grant create on schema", "Assess", exit::DATA_DIFFERS, "CreateDenied"),
];

#[tokio::test]
async fn each_documented_right_is_asked_for_by_name_when_it_is_missing() {
    let page = page("databases.md");
    let mut told = Vec::new();
    for (side, title) in [(Side::Source, "source"), (Side::Target, EMPTY), (Side::Target, WITH_TABLES)] {
        let other = if side == Side::Source { (Side::Target, EMPTY) } else { (Side::Source, "source") };
        let statements = block("databases.md", title);
        for (at, left_out) in statements.iter().enumerate().filter(|(_, one)| !one.starts_with("create role")) {
            let shop = Shop::new(title == WITH_TABLES);
            shop.run_all(other.0, &block("databases.md", other.1));
            let kept: Vec<String> =
                statements.iter().enumerate().filter(|(each, _)| *each != at).map(|(_, one)| one.clone()).collect();
            shop.run_all(side, &kept);
            let (step, code, report) = shop.first_refusal().await;
            let expected = WITHOUT.iter().find(|(begin, ..)| left_out.starts_with(begin));
            let (_, in_step, exit, finding) = expected.unwrap_or_else(|| panic!("{left_out}: not in the table"));
            if (step, code) != (*in_step, *exit) || !codes(&report).contains(finding) {
                told.push(format!("{title}: {left_out}: {step} {code} {:?}", report.findings));
            }
            assert!(page.contains(&format!("`{finding}`")), "the page does not name {finding}");
        }
    }
    assert!(told.is_empty(), "{}", told.join("\n"));
}

#[tokio::test]
async fn forced_row_security_asks_for_what_the_page_names() {
    let shop = Shop::granted(EMPTY);
    shop.as_superuser(
        Side::Source,
        "alter table public.contact enable row level security; alter table public.contact force row level security;
         create policy even on public.contact using (id % 2 = 0);",
    );
    let (_, report) = shop.project.run(None, Task::Assess {}).await;
    assert_eq!((report.result, codes(&report)), (ReportResult::Fail, vec!["RowSecurity"]));
    for side in SIDES {
        shop.run_all(side, &block("databases.md", "where row security is forced, on both sides"));
    }
    shop.prepared().await;
    shop.cut_over("rest", Selection::Remainder {}).await;
    assert_eq!(shop.number(Side::Target, "select count(*) from public.contact").await, 300);
}

#[tokio::test]
async fn rights_on_every_table_do_instead_of_the_right_to_read_all() {
    let shop = Shop::new(false);
    let kept: Vec<String> =
        block("databases.md", "source").into_iter().filter(|one| !one.contains("pg_read_all_data")).collect();
    shop.run_all(Side::Source, &kept);
    shop.run_all(Side::Target, &block("databases.md", EMPTY));
    shop.as_superuser(
        Side::Source,
        "grant usage on schema other to godwit; grant select on all tables in schema other to godwit;",
    );
    shop.prepared().await;
}

#[tokio::test]
async fn a_membership_that_is_not_inherited_is_none() {
    let shop = Shop::granted(EMPTY);
    shop.as_superuser(Side::Source, "alter role godwit noinherit; grant usage on schema public to godwit;");
    let (_, report) = shop.project.run(None, Task::Assess {}).await;
    assert!(codes(&report).contains(&"NotTableOwner"), "{report:?}");
}

#[tokio::test]
async fn the_fences_are_taken_out_by_hand_as_the_page_says() {
    let shop = Shop::granted(EMPTY);
    shop.prepared().await;
    shop.project.done(Some("canary"), Task::Select { selection: Selection::Where("id in (11, 20)".into()) }).await;
    for task in [Task::Copy {}, Task::Validate { checks: vec![] }, Task::Cutover { checks: vec![] }] {
        shop.project.done(Some("canary"), task).await;
    }
    for side in SIDES {
        for title in ["who is where: before the ledger is dropped", "the end of fence and ledger"] {
            let text = block("operations.md", title).join("\n");
            shop.project.pair.psql(side, &text);
        }
        assert_eq!(shop.traces(side).await, 0);
        let known = "select count(*) from public.who_was_where where owner = 'Target'";
        // Two were named, two are linked to one of them.
        assert_eq!(shop.number(side, known).await, 4);
        shop.application(side)
            .await
            .batch_execute("update public.account set name = 'free' where id = 20")
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn a_backup_is_restored_without_godwit_as_the_page_says() {
    let shop = Shop::granted(EMPTY);
    if Command::new("jq").arg("--version").output().is_err() {
        eprintln!("jq is not installed: the page's script was not run");
        return;
    }
    let backup = shop.back_up().await.unwrap();
    let page = page("operations.md");
    let mut scripts = page.split("```sh\n").map(|rest| rest.split("```").next().unwrap());
    let script = scripts.find(|text| text.starts_with("# restore a backup by hand\n")).unwrap();
    let restored = format!("{}_by_hand", shop.project.pair.database);
    shop.project.pair.psql(Side::Target, &format!("create database {restored}"));
    let uri = shop.project.pair.servers.target.uri(&restored);
    let ended = Command::new("bash")
        .args(["-euo", "pipefail", "-c", script, "restore", &backup.evidence_uri.unwrap(), &uri])
        .current_dir(shop.project.storage.path())
        .output()
        .unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    let source = shop.superuser(Side::Source).await;
    let (restored, connection) = tokio_postgres::connect(&uri, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let all = TABLES.map(|table| {
        format!("select '{table}' as name, count(*) as rows, sum(hashtextextended(t::text, 0)) as sum from public.{table} as t")
    });
    let all = format!("select string_agg(a::text, ' ' order by name) from ({}) as a", all.join(" union all "));
    let of = async |client: &tokio_postgres::Client, sql: &str| -> String {
        client.query_one(sql, &[]).await.unwrap().get(0)
    };
    assert_eq!(of(&source, &all).await, of(&restored, &all).await);
    let others = "select string_agg(conname || pg_get_constraintdef(oid), ' ' order by conname) ||
        (select last_value::text from public.account_id_seq) from pg_constraint where connamespace = 'public'::regnamespace";
    assert_eq!(of(&source, others).await, of(&restored, others).await);
}
