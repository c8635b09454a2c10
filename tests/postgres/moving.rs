//! A cohort's life against real servers: copy, validate, cutover, and both ways back.
//! Other modules use [`World`]: a CRM on the source, an empty one on the target, ledger and fence in both.

use std::collections::BTreeMap;
use std::time::Duration;

use godwit::contract::{
    Dataset, Identity, KeyStrategy, Owner, OwnerPath, QueryPair, Report, Selection, Side, StepInput, Storage, Task,
    exit,
};
use godwit::worker::postgres::session::Session;
use godwit::worker::postgres::{catalog, fence, ledger, scope};
use godwit::worker::storage::Credentials;
use godwit::worker::{self, Settings};

use crate::base::{wait_for_lock, wait_for_locks};
use crate::server::Pair;

/// Two and three hops, a self reference, a junction that joins customers, a shared table, keys by identity and by sequence, and
/// types that travel as text (an array of enums) beside those that travel in binary.
const TABLES: &str = "
    create type stage as enum ('open', 'won', 'lost');
    create table currency (code text primary key, name text not null unique, rate numeric);
    create table account (id bigint generated always as identity primary key, parent_id bigint references account,
      name text not null, currency text references currency, data jsonb, tags text[], opened timestamptz not null default now());
    create table contact (id bigserial primary key, account_id bigint not null references account on delete cascade,
      email text unique, referred_by bigint references contact, nickname text);
    create table deal (id bigserial primary key, account_id bigint not null references account on delete cascade,
      amount numeric, stage stage not null, currency text references currency, label text generated always as ('deal ' || amount::text) stored);
    create table deal_contact (deal_id bigint references deal on delete cascade, contact_id bigint references contact on delete cascade,
      role text, primary key (deal_id, contact_id));
    create table activity (id bigserial primary key, contact_id bigint not null references contact on delete cascade, body text, stages stage[]);
    create table note (id bigserial primary key, activity_id bigint not null references activity on delete cascade, body text);
";

const ROWS: &str = "
    insert into currency values ('EUR', 'euro', 1), ('USD', 'dollar', 1.10), ('GBP', 'pound', 0.850);
    insert into account (parent_id, name, currency, data, tags, opened) select case when i in (11, 12) then 10 end, 'a' || i,
      case i % 3 when 0 then 'EUR' when 1 then 'USD' end, jsonb_build_object('n', i, 'v', 1.0), array['x', 'y' || i], '2024-01-01'::timestamptz + i * interval '1 hour'
      from generate_series(1, 60) i;
    insert into contact (account_id, email, nickname) select 1 + i % 60, 'c' || i || '@example.org', case when i % 2 = 0 then '' end from generate_series(1, 240) i;
    update contact set referred_by = (select min(c.id) from contact c where c.account_id = contact.account_id) where id % 3 = 0;
    insert into deal (account_id, amount, stage, currency) select 1 + i % 60, i * 1.50, (array['open', 'won', 'lost'])[1 + i % 3]::stage, 'GBP' from generate_series(1, 180) i;
    insert into deal_contact select d.id, min(c.id), 'buyer' from deal d join contact c on c.account_id = d.account_id group by d.id;
    insert into deal_contact select (select min(id) from deal where account_id = 20), (select min(id) from contact where account_id = 21), 'friend';
    insert into activity (contact_id, body, stages) select 1 + i % 240, 'did ' || i, array['open', 'won']::stage[] from generate_series(1, 600) i;
    insert into note (activity_id, body) select 1 + i % 600, E'line\\\\ttab ' || i from generate_series(1, 900) i;
";

/// What an application on the target does on each new contact; rows that land must not set it off.
const MAIL: &str = "
    create table mail (id bigserial primary key, contact_id bigint);
    create function send_mail() returns trigger language plpgsql as $$ begin insert into public.mail (contact_id) values (new.id); return new; end $$;
    create trigger send_mail after insert or update on contact for each row execute function send_mail();
";

pub const OWNED: [&str; 6] = ["account", "contact", "deal", "deal_contact", "activity", "note"];

/// Customers 10 (with 11 and 12, its children) and 20 with 21 (a contact of one on a deal of the other).
pub const CANARY: &str = "10, 11, 12, 20, 21";

pub struct World {
    pub pair: Pair,
    folder: tempfile::TempDir,
}

pub struct Done {
    pub code: i32,
    pub report: Report,
}

impl Done {
    #[track_caller]
    pub fn passed(self) -> Report {
        assert_eq!(self.code, exit::DONE, "{:?}", self.report.findings);
        self.report
    }

    #[track_caller]
    pub fn refused(self, code: &str) -> Report {
        self.refused_for(code, "")
    }

    #[track_caller]
    pub fn refused_for(self, code: &str, case: &str) -> Report {
        assert_eq!(self.code, exit::DATA_DIFFERS, "{case}: {:?}", self.report);
        let found: Vec<_> = self.report.findings.iter().map(|it| &it.code).collect();
        assert!(found.iter().any(|it| *it == code), "{case}: {:?}", self.report);
        self.report
    }
}

pub fn cohort(name: &str) -> Identity {
    Identity { namespace: "sales".into(), name: name.into(), uid: format!("uid-{name}") }
}

impl World {
    /// The source with rows, the target with tables, ledger and fence in both, as Prepare leaves them.
    pub async fn new() -> Self {
        let pair = Pair::new(&format!("{TABLES}{ROWS} analyze;"));
        pair.psql(Side::Target, &format!("{TABLES}{MAIL}"));
        let world = Self { pair, folder: tempfile::tempdir().unwrap() };
        for side in [Side::Source, Side::Target] {
            let mut session = world.pair.session(side).await;
            let catalog = catalog::read_catalog(&session).await.unwrap();
            let scope = scope::resolve(&dataset(), &catalog).unwrap();
            ledger::create(&mut session, side, &migration(), &scope.root_key_type).await.unwrap();
            fence::install(&mut session, side, &scope).await.unwrap();
        }
        world.target(
            "update godwit.migration set baseline = '{\"tables\": {}, \"created\": [], \"dependencies\": []}';
             select setval(s.seqrelid::regclass, 1000000) from pg_sequence s join pg_class c on c.oid = s.seqrelid join pg_namespace n on n.oid = c.relnamespace
               where n.nspname = 'public' and c.relname <> 'mail_id_seq';",
        );
        world
    }

    /// Only the source is there, with rows.
    pub fn unprepared() -> Self {
        Self { pair: Pair::new(&format!("{TABLES}{ROWS} analyze;")), folder: tempfile::tempdir().unwrap() }
    }

    pub fn source(&self, sql: &str) {
        self.pair.psql(Side::Source, sql);
    }

    pub fn target(&self, sql: &str) {
        self.pair.psql(Side::Target, sql);
    }

    /// What Select leaves: an entry, and members in chunks of two customers in both ledgers.
    pub fn select(&self, entry: i32, name: &str, customers: &str) {
        let remainder = customers == "remainder";
        let which = if remainder {
            "not exists (select from godwit.member m where m.customer = a.id)".to_owned()
        } else {
            format!("a.id in ({customers})")
        };
        self.source(&format!(
            "insert into godwit.ownership (entry, name, uid, owner) values ({entry}, '{name}', 'uid-{name}', 'Source');
             insert into godwit.member (customer, entry, chunk) select a.id, {entry}, (a.id / 10)::int from public.account a where {which};"
        ));
        let members = self.column(
            Side::Source,
            &format!("select format('(%s, {entry}, %s)', customer, chunk) from godwit.member where entry = {entry}"),
        );
        self.target(&format!(
            "insert into godwit.ownership (entry, name, uid, owner) values ({entry}, '{name}', 'uid-{name}', 'Source');
             insert into godwit.member (customer, entry, chunk) values {};
             insert into godwit.checkpoint (subject, step, part, state) values ('uid-{name}', 'select', 'selection', '{{\"remainder\": {remainder}}}');",
            members.join(", ")
        ));
    }

    pub fn settings(&self, name: &str, attempt: i64, task: Task) -> Settings {
        Settings {
            input: StepInput {
                v: 1,
                migration: migration(),
                cohort: Some(cohort(name)),
                attempt,
                epoch: 0,
                dataset: dataset(),
                storage: Storage::Path(self.folder.path().to_str().unwrap().into()),
                task,
            },
            source_uri: Some(self.pair.source_uri.clone()),
            target_uri: Some(self.pair.target_uri.clone()),
            storage_credentials: Credentials::default(),
            termination_path: tempfile::NamedTempFile::new_in(self.folder.path())
                .unwrap()
                .into_temp_path()
                .keep()
                .unwrap(),
        }
    }

    pub async fn run(&self, name: &str, attempt: i64, task: Task) -> Done {
        finish(self.settings(name, attempt, task)).await
    }

    pub async fn session(&self, side: Side) -> Session {
        self.pair.session(side).await
    }

    /// One text column of a query.
    pub fn column(&self, side: Side, sql: &str) -> Vec<String> {
        let output = std::process::Command::new(crate::server::bin("psql"))
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d"])
            .arg(self.pair.uri(side))
            .args(["-c", sql])
            .output()
            .unwrap();
        assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().map(ToOwned::to_owned).collect()
    }

    /// Every row of the customers that fulfil a condition on `a.id`, by table.
    pub fn rows(&self, side: Side, condition: &str) -> BTreeMap<&'static str, Vec<String>> {
        let of = |table: &'static str| {
            let joins = match table {
                "account" => "join account a on a.id = t.id",
                "contact" | "deal" => "join account a on a.id = t.account_id",
                "deal_contact" => "join deal d on d.id = t.deal_id join account a on a.id = d.account_id",
                "activity" => "join contact c on c.id = t.contact_id join account a on a.id = c.account_id",
                _ => {
                    "join activity v on v.id = t.activity_id join contact c on c.id = v.contact_id join account a on a.id = c.account_id"
                }
            };
            let sql = format!("select t::text from {table} t {joins} where {condition} order by 1");
            (table, self.column(side, &sql))
        };
        OWNED.into_iter().map(of).collect()
    }

    /// Every row of every table of the dataset.
    pub fn everything(&self, side: Side) -> BTreeMap<&'static str, Vec<String>> {
        OWNED
            .into_iter()
            .chain(["currency"])
            .map(|table| (table, self.column(side, &format!("select t::text from {table} t order by 1"))))
            .collect()
    }

    pub fn number(&self, side: Side, sql: &str) -> i64 {
        self.column(side, sql)[0].parse().unwrap()
    }

    pub fn owner(&self, side: Side, entry: i32) -> (String, i64) {
        let row =
            self.column(side, &format!("select owner || ' ' || epoch from godwit.ownership where entry = {entry}"));
        let (owner, epoch) = row[0].split_once(' ').unwrap();
        (owner.into(), epoch.parse().unwrap())
    }

    /// Whether an application's statement is refused by the fence.
    pub fn is_fenced(&self, side: Side, sql: &str) -> bool {
        let output = std::process::Command::new(crate::server::bin("psql"))
            .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-v", "VERBOSITY=sqlstate", "-d"])
            .arg(self.pair.uri(side))
            .args(["-c", sql])
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() || error.contains("GW001") || error.contains("GW004"), "{error}");
        !output.status.success()
    }

    /// Every file of a folder of the storage, and of the folders in it.
    pub fn files(&self, folder: &str) -> Vec<String> {
        let mut folders = vec![self.folder.path().join(folder)];
        let mut files = Vec::new();
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap().flatten() {
                let path = entry.path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    files.push(path.display().to_string());
                }
            }
        }
        files
    }

    pub fn file(&self, uri: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(uri)).unwrap()
    }

    pub fn bytes(&self, uri: &str) -> Vec<u8> {
        std::fs::read(self.folder.path().join(uri)).unwrap()
    }

    pub fn write(&self, uri: &str, bytes: &[u8]) {
        std::fs::write(self.folder.path().join(uri), bytes).unwrap();
    }

    /// Copy and Validate.
    pub async fn copied(&self, name: &str) {
        self.run(name, 1, Task::Copy {}).await.passed();
        self.run(name, 2, validate()).await.passed();
    }

    /// What the customers do on the source while the cohort is copied: every kind of change, in every kind of table.
    pub fn source_lives(&self) {
        self.source(
            "update account set name = 'renamed', data = '{\"n\": 1.00}' where id in (10, 20, 30);
             insert into currency values ('CHF', 'franc', 0.95);
             insert into deal (account_id, amount, stage, currency) values (10, 7, 'won', 'CHF'), (31, 8, 'open', 'CHF');
             insert into contact (account_id, email) values (20, 'new@example.org');
             delete from activity where id in (select min(v.id) from activity v join contact c on c.id = v.contact_id where c.account_id in (11, 32));
             update contact set nickname = null where account_id = 21 and nickname = '';
             update note set body = null where activity_id in (select v.id from activity v join contact c on c.id = v.contact_id where c.account_id = 12);",
        );
    }
}

pub async fn finish(settings: Settings) -> Done {
    let path = settings.termination_path.clone();
    let code = worker::run(settings).await;
    let text = std::fs::read_to_string(path).unwrap();
    let report = Report::from_termination_message(&text).unwrap();
    Done { code, report }
}

pub fn migration() -> Identity {
    Identity { namespace: "sales".into(), name: "crm".into(), uid: "uid-crm".into() }
}

pub fn dataset() -> Dataset {
    Dataset {
        root_table: "public.account".into(),
        root_key: "id".into(),
        owners: vec![OwnerPath { table: "public.deal_contact".into(), via: vec!["deal_id".into()] }],
        keys: KeyStrategy::Gap,
        ..Dataset::default()
    }
}

pub fn validate() -> Task {
    Task::Validate { checks: Vec::new() }
}

pub fn cutover() -> Task {
    Task::Cutover { checks: Vec::new() }
}

/// A pair that follows the cohort from one side to the other.
fn amounts(tolerance: &str) -> QueryPair {
    let query = "select coalesce(sum(d.amount), 0) from public.deal d join godwit.member m on m.customer = d.account_id \
                 where m.entry = current_setting('godwit.entry')::int";
    QueryPair { name: "amounts".into(), source: query.into(), target: query.into(), tolerance: tolerance.into() }
}

#[tokio::test]
async fn a_cohort_goes_over_and_comes_back_and_nobody_else_notices() {
    let world = World::new().await;
    world.select(16, "canary", CANARY);
    let copied = world.run("canary", 1, Task::Copy {}).await.passed();
    assert_eq!(copied.counts["customers"], 5);
    world.source_lives();
    let drift = world.run("canary", 2, Task::Validate { checks: Vec::new() }).await.passed();
    assert!(drift.counts["drift"] > 5, "{:?}", drift.counts);
    let source_before = world.everything(Side::Source);

    let over = world.run("canary", 3, Task::Cutover { checks: vec![amounts("0")] }).await.passed();
    assert_eq!((over.owner, over.epoch), (Some(Owner::Target), Some(2)));
    assert!(over.timings["pause"] >= 0 && over.timings["pause"] < 10_000, "{:?}", over.timings);
    let cohort_rows = world.rows(Side::Source, &format!("a.id in ({CANARY})"));
    assert_eq!(world.rows(Side::Target, "true"), cohort_rows);
    assert_eq!(world.everything(Side::Source), source_before);
    assert_eq!(world.number(Side::Target, "select count(*) from mail"), 0);
    assert_eq!(world.everything(Side::Target)["currency"], source_before["currency"]);

    assert!(world.is_fenced(Side::Source, "update account set name = 'late' where id = 10"));
    assert!(world.is_fenced(Side::Target, "insert into account (name) values ('early')"));
    world.target(
        "update deal set amount = 99 where account_id = 10;
         insert into contact (account_id, email) values (20, 'target@example.org');
         delete from activity where contact_id in (select id from contact where account_id = 12);",
    );
    world.source("update account set name = 'alive' where id = 40; insert into account (name) values ('born');");
    let (deals, activities, notes) = (
        world.number(Side::Source, "select count(*) from deal where account_id = 10"),
        world.number(Side::Source, "select count(*) from activity v join contact c on c.id = v.contact_id where c.account_id = 12"),
        world.number(Side::Source, "select count(*) from note n join activity v on v.id = n.activity_id join contact c on c.id = v.contact_id where c.account_id = 12"),
    );

    let frozen = world.run("canary", 4, Task::Freeze {}).await.passed();
    assert_eq!((frozen.owner, frozen.epoch), (Some(Owner::None), Some(3)));
    assert!(world.is_fenced(Side::Target, "update deal set amount = 1 where account_id = 10"));
    let returned = world.run("canary", 5, Task::Return {}).await.passed();
    assert_eq!(returned.counts["setAsideUpdated"], deals);
    assert_eq!(returned.counts["setAsideInserted"], 1);
    assert_eq!(returned.counts["setAsideDeleted"], activities + notes);
    assert_eq!(returned.counts["tablesRestored"], 0);
    world.run("canary", 6, Task::Verify {}).await.passed();
    let back = world.run("canary", 7, Task::Reopen {}).await.passed();
    assert_eq!((back.owner, back.epoch), (Some(Owner::Source), Some(4)));

    assert_eq!(world.rows(Side::Source, &format!("a.id in ({CANARY})")), cohort_rows);
    assert!(world.rows(Side::Target, "true").values().all(Vec::is_empty));
    assert!(!world.is_fenced(Side::Source, "update account set name = 'home' where id = 10"));
    assert_eq!(world.number(Side::Source, "select count(*) from account where name in ('alive', 'born')"), 2);
}

#[tokio::test]
async fn a_discarded_cohort_leaves_the_target_as_it_was() {
    let world = World::new().await;
    world.select(16, "canary", CANARY);
    world.copied("canary").await;
    let source = world.everything(Side::Source);
    let discarded = world.run("canary", 3, Task::Discard {}).await.passed();
    assert_eq!(
        discarded.counts["rowsRemoved"],
        world.rows(Side::Source, &format!("a.id in ({CANARY})")).values().map(Vec::len).sum::<usize>() as i64
    );
    assert!(world.rows(Side::Target, "true").values().all(Vec::is_empty));
    assert_eq!(world.everything(Side::Source), source);
    for side in [Side::Source, Side::Target] {
        assert_eq!(world.number(side, "select count(*) from godwit.member where entry = 16"), 0);
    }
}

#[tokio::test]
async fn the_remainder_takes_new_customers_and_shared_tables_over_and_back() {
    let world = World::new().await;
    world.select(16, "canary", CANARY);
    world.copied("canary").await;
    world.run("canary", 3, cutover()).await.passed();
    world.select(17, "rest", "remainder");
    world.run("rest", 1, Task::Copy {}).await.passed();
    world.source("insert into account (name, parent_id) values ('born while copying', 10); insert into contact (account_id, email) select max(id), 'born@example.org' from account;");
    world.run("rest", 2, validate()).await.passed();
    world.source("insert into account (name, currency) values ('born later', 'EUR')");
    world.run("rest", 3, cutover()).await.passed();
    for entry in [0, 1, 16, 17] {
        assert_eq!(world.owner(Side::Source, entry), ("Target".into(), 2));
        assert_eq!(world.owner(Side::Target, entry), ("Target".into(), 2));
    }
    assert_eq!(world.everything(Side::Target), world.everything(Side::Source));
    assert_eq!(world.number(Side::Target, "select count(*) from account where name like 'born%'"), 2);
    assert!(world.is_fenced(Side::Source, "insert into account (name) values ('too late')"));
    assert!(world.is_fenced(Side::Source, "insert into currency values ('SEK', 'krona', 1)"));
    let source = world.everything(Side::Source);

    world.target("insert into currency values ('SEK', 'krona', 1); insert into account (name, currency) values ('born on the target', 'SEK'); update account set name = 'x' where id = 30;");
    world.run("rest", 4, Task::Freeze {}).await.passed();
    let returned = world.run("rest", 5, Task::Return {}).await.passed();
    assert_eq!((returned.counts["setAsideInserted"], returned.counts["setAsideUpdated"]), (2, 1));
    world.run("rest", 6, Task::Verify {}).await.passed();
    world.run("rest", 7, Task::Reopen {}).await.passed();
    assert_eq!(world.everything(Side::Source), source);
    assert_eq!(world.rows(Side::Target, "true"), world.rows(Side::Source, &format!("a.id in ({CANARY})")));
    assert_eq!(world.everything(Side::Target)["currency"], source["currency"]);
    assert!(!world.is_fenced(Side::Source, "insert into account (name) values ('home again')"));
    assert!(world.is_fenced(Side::Source, "update account set name = 'y' where id = 10"));
}

#[tokio::test]
async fn a_writer_of_the_target_that_refers_to_a_shared_row_goes_on_while_that_row_changes() {
    let world = World::new().await;
    world.select(16, "canary", CANARY);
    world.copied("canary").await;
    world.run("canary", 3, cutover()).await.passed();
    world.select(17, "second", "40");
    world.source("update currency set rate = 9 where code = 'GBP'; insert into currency values ('CHF', 'franc', 1)");
    // Somebody's row in the way holds the step up between the changed row and the new one.
    let in_the_way = world.session(Side::Target).await;
    let held = "begin; set local godwit.pass = '1:0'; insert into public.currency values ('CHF', 'another', 1)";
    in_the_way.batch_execute(held).await.unwrap();
    let application = world.session(Side::Target).await;
    let live = async {
        wait_for_lock(&world.pair, Side::Target).await;
        let writing = tokio::spawn(async move {
            let deal = "insert into public.deal (account_id, stage, currency) values (10, 'open', 'GBP')";
            application.batch_execute(deal).await
        });
        tokio::time::sleep(Duration::from_millis(500)).await;
        in_the_way.batch_execute("rollback").await.unwrap();
        writing.await.unwrap()
    };
    let (copied, written) = futures::join!(world.run("second", 1, Task::Copy {}), live);
    copied.passed();
    written.unwrap();
    assert_eq!(world.everything(Side::Target)["currency"], world.everything(Side::Source)["currency"]);
}

#[tokio::test]
async fn cohorts_that_need_the_same_new_shared_row_bring_it_once() {
    let world = World::new().await;
    world.select(16, "canary", CANARY);
    world.select(17, "second", "40");
    for name in ["canary", "second"] {
        world.run(name, 1, Task::Copy {}).await.passed();
    }
    world.source(
        "insert into currency values ('CHF', 'franc', 1); update currency set rate = 9 where code = 'GBP';
         update account set currency = 'CHF' where id in (10, 40)",
    );
    // Both have come to the shared table before either may write it.
    let held = world.session(Side::Target).await;
    held.batch_execute("begin; lock table public.currency in share mode").await.unwrap();
    let release = async {
        wait_for_locks(&world.pair, Side::Target, 2).await;
        held.batch_execute("commit").await.unwrap();
    };
    let (one, other, ()) =
        futures::join!(world.run("canary", 2, Task::Copy {}), world.run("second", 2, Task::Copy {}), release);
    one.passed();
    other.passed();
    assert_eq!(world.everything(Side::Target)["currency"], world.everything(Side::Source)["currency"]);
}

#[tokio::test]
async fn shared_rows_that_swapped_a_unique_value_are_brought() {
    let world = World::new().await;
    world.select(16, "canary", CANARY);
    world.copied("canary").await;
    world.source(
        "update currency set name = 'x' where code = 'EUR'; update currency set name = 'euro' where code = 'USD';
         update currency set name = 'dollar' where code = 'EUR'; insert into currency values ('CHF', 'franc', 1)",
    );
    world.run("canary", 3, cutover()).await.passed();
    assert_eq!(world.everything(Side::Target)["currency"], world.everything(Side::Source)["currency"]);
}

#[tokio::test]
async fn a_migration_moves_whole_by_its_own_steps_and_a_discarded_cohort_starts_over() {
    let world = World::unprepared();
    let mut prepare = world.settings("none", 1, Task::Prepare {});
    prepare.input.cohort = None;
    finish(prepare).await.passed();
    world.target(MAIL);
    let select = |selection| Task::Select { selection };
    let canary = || select(Selection::KeysFrom("select 10 union select 20".into()));
    let selected = world.run("canary", 1, canary()).await.passed();
    assert_eq!(selected.counts["customers"], 5);
    world.run("canary", 2, Task::Copy {}).await.passed();
    world.run("canary", 3, validate()).await.passed();
    world.run("canary", 4, Task::Discard {}).await.passed();
    let again = world.run("canary", 5, canary()).await.passed();
    assert_eq!(again.digest, selected.digest);
    let copied = world.run("canary", 6, Task::Copy {}).await.passed();
    assert_eq!(copied.counts["chunksResumed"], 0);
    world.run("canary", 7, validate()).await.passed();
    let over = world.run("canary", 8, cutover()).await.passed();
    // Back, and over once more: what was frozen by Select stays.
    let mut attempt = 9;
    for task in [
        Task::Freeze {},
        Task::Return {},
        Task::Verify {},
        Task::Reopen {},
        canary(),
        Task::Copy {},
        validate(),
        cutover(),
    ] {
        let mut settings = world.settings("canary", attempt, task);
        settings.input.epoch = over.epoch.unwrap();
        finish(settings).await.passed();
        attempt += 1;
    }
    world.run("rest", 1, select(Selection::Remainder {})).await.passed();
    for (attempt, task) in [(2, Task::Copy {}), (3, validate()), (4, cutover())] {
        world.source(&format!("insert into account (name, parent_id) values ('born {attempt}', 30)"));
        world.run("rest", attempt, task).await.passed();
    }
    assert_eq!(world.everything(Side::Target), world.everything(Side::Source));
    assert_eq!(world.number(Side::Target, "select count(*) from mail"), 0);
    world.target("insert into account (name) values ('first of the target'); insert into note (activity_id) select min(id) from activity");
    assert!(world.is_fenced(Side::Source, "insert into account (name) values ('too late')"));
}

#[tokio::test]
async fn customers_that_the_target_had_before_live_on_through_it_all() {
    let world = World::unprepared();
    world.target(TABLES);
    world.target(
        "insert into currency values ('EUR', 'euro', 1), ('USD', 'dollar', 1.10), ('GBP', 'pound', 0.850);
         insert into account (id, name, currency) overriding system value select i, 'native ' || i, 'GBP' from generate_series(5001, 5010) i;
         insert into contact (id, account_id, email) select i, i, 'n' || i || '@example.org' from generate_series(5001, 5010) i;",
    );
    let mut prepare = world.settings("none", 1, Task::Prepare {});
    prepare.input.cohort = None;
    finish(prepare).await.passed();
    let natives = || world.rows(Side::Target, "a.id > 5000");
    let before = natives();
    world.run("canary", 1, Task::Select { selection: Selection::KeysFrom("select 10".into()) }).await.passed();
    for (attempt, task) in [(2, Task::Copy {}), (3, validate()), (4, Task::Discard {})] {
        world.run("canary", attempt, task).await.passed();
    }
    assert_eq!(natives(), before);
    world.run("canary", 5, Task::Select { selection: Selection::KeysFrom("select 10".into()) }).await.passed();
    for (attempt, task) in
        [(6, Task::Copy {}), (7, validate()), (8, cutover()), (9, Task::Freeze {}), (10, Task::Return {})]
    {
        world.run("canary", attempt, task).await.passed();
    }
    world.target("update account set name = 'alive' where id = 5001; insert into contact (account_id) values (5002)");
    let lived = natives();
    for (attempt, task) in [(11, Task::Verify {}), (12, Task::Reopen {})] {
        world.run("canary", attempt, task).await.passed();
    }
    assert_eq!(natives(), lived);
    assert_eq!(world.number(Side::Target, "select count(*) from account"), 10);
    assert_eq!(world.everything(Side::Target)["currency"], world.everything(Side::Source)["currency"]);
}
