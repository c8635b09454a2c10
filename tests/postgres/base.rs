//! Sessions, catalogue, ledger and token.

use godwit::contract::{Dataset, Identity, Side, exit};
use godwit::worker::Error;
use godwit::worker::postgres::catalog::read_catalog;
use godwit::worker::postgres::identifier::TableName;
use godwit::worker::postgres::model::{RowFormat, entry};
use godwit::worker::postgres::session::{Purpose, connect};
use godwit::worker::postgres::{ledger, scope, token};

use crate::server::Pair;

pub const CRM: &str = "
    create table currency (code text primary key, name text not null);
    create table account (id bigserial primary key, parent_id bigint references account, name text not null, currency text references currency);
    create table contact (id bigserial primary key, account_id bigint not null references account on delete cascade, email text unique);
    create table deal (id bigserial primary key, account_id bigint not null references account on delete cascade, amount numeric(12,2), stage text);
    create table deal_contact (deal_id bigint references deal on delete cascade, contact_id bigint references contact on delete cascade, role text,
      primary key (deal_id, contact_id));
    create table line_item (id bigserial primary key, deal_id bigint not null references deal on delete cascade, product text, total numeric(10,2));
    insert into currency values ('EUR', 'euro'), ('USD', 'dollar');
    insert into account (parent_id, name, currency) select case when i in (11, 12) then 10 end, 'a' || i, 'EUR' from generate_series(1, 100) i;
    insert into contact (account_id, email) select 1 + i % 100, 'c' || i || '@example.org' from generate_series(1, 300) i;
    insert into deal (account_id, amount, stage) select 1 + i % 100, i, 'open' from generate_series(1, 200) i;
    insert into deal_contact select d.id, min(c.id) from deal d join contact c on c.account_id = d.account_id group by d.id;
    insert into line_item (deal_id, product, total) select 1 + i % 200, 'p', i from generate_series(1, 400) i;
";

pub fn dataset() -> Dataset {
    Dataset {
        root_table: "public.account".into(),
        root_key: "id".into(),
        owners: vec![godwit::contract::OwnerPath { table: "public.deal_contact".into(), via: vec!["deal_id".into()] }],
        ..Dataset::default()
    }
}

pub fn migration() -> Identity {
    Identity { namespace: "sales".into(), name: "crm".into(), uid: "11111111-aaaa".into() }
}

#[tokio::test]
async fn a_session_pins_what_changes_the_look_of_rows() {
    let pair = Pair::new("");
    pair.psql(
        Side::Source,
        &format!(
            "alter database {} set statement_timeout = '1s'; alter database {0} set datestyle = 'German'; alter database {0} set row_security = on",
            pair.database
        ),
    );
    let session = pair.session(Side::Source).await;
    for (name, value) in [
        ("search_path", "\"\""),
        ("row_security", "off"),
        ("client_encoding", "UTF8"),
        ("TimeZone", "UTC"),
        ("DateStyle", "ISO, YMD"),
        ("IntervalStyle", "postgres"),
        ("extra_float_digits", "1"),
        ("bytea_output", "hex"),
        ("lc_monetary", "C"),
        ("statement_timeout", "0"),
        ("idle_in_transaction_session_timeout", "0"),
        ("lock_timeout", "5s"),
        ("work_mem", "64MB"),
        ("client_min_messages", "error"),
        ("tcp_keepalives_idle", "30"),
        ("tcp_keepalives_interval", "10"),
        ("tcp_keepalives_count", "3"),
        ("tcp_user_timeout", "120000"),
        ("client_connection_check_interval", "10s"),
    ] {
        let row = session.query_one("select current_setting($1)", &[&name]).await.unwrap();
        assert_eq!(row.get::<_, &str>(0), value, "{name}");
    }
}

#[tokio::test]
async fn a_session_over_a_unix_socket_opens_though_it_has_nothing_to_keep_alive() {
    let pair = Pair::new("");
    let server = pair.server(Side::Source);
    let folder = server.socket_directory().display().to_string().replace('/', "%2F");
    let uri = format!("postgresql://postgres@{folder}:{}/{}?sslmode=disable", server.port, pair.database);
    let session = connect(&uri, Purpose::new(Side::Source, "test")).await.unwrap();
    let row = session.query_one("select current_setting('tcp_keepalives_idle')", &[]).await.unwrap();
    assert_eq!(row.get::<_, &str>(0), "0");
}

#[tokio::test]
async fn a_reader_cannot_write() {
    let pair = Pair::new("");
    let purpose = Purpose::new(Side::Source, "assess").read_only();
    let session = connect(&pair.source_uri, purpose).await.unwrap();
    let error = session.run("create a table", "create table public.t ()").await.unwrap_err();
    assert!(error.findings()[0].message.contains("25006"), "{error:?}");
}

#[tokio::test]
async fn an_error_never_repeats_what_the_server_says_about_a_row() {
    let pair = Pair::new("create table t (id int primary key, secret text)");
    let session = pair.session(Side::Source).await;
    session.run("fill", "insert into public.t values (4711, 'hush')").await.unwrap();
    for sql in [
        "insert into public.t values (4711, 'hush')",
        "select 'hush4711'::int",
        "do $$ begin raise exception 'hush 4711'; end $$",
    ] {
        let error = session.run("try it", sql).await.unwrap_err();
        let text = format!("{:?} {}", error.findings(), godwit::worker::error::spoken_chain_unbounded(&error));
        assert!(!text.contains("4711") && !text.contains("hush"), "{text}");
    }
}

#[tokio::test]
async fn the_catalogue_knows_keys_types_partitions_and_sequences() {
    let pair = Pair::new(
        "create type mood as enum ('sad', 'ok');
         create domain positive as int check (value > 0);
         create type pair as (a int, b text);
         create table \"Account \"\"X\"\"\" (\"Id\" uuid primary key, m mood, p positive, ms mood[], c pair, r regclass, t timestamptz,
           g int generated always as (1) stored, code text collate \"C\" not null unique deferrable, ints int[]);
         create table event (id int generated always as identity, account uuid references \"Account \"\"X\"\"\" on delete cascade, at date not null,
           primary key (account, at, id)) partition by range (at);
         create table event_1 partition of event for values from ('2020-01-01') to ('2021-01-01');
         create sequence loose; create table uses_loose (id bigint primary key default nextval('loose'));",
    );
    let session = pair.session(Side::Source).await;
    let catalog = read_catalog(&session).await.unwrap();
    let account = &catalog.tables[&TableName::new("public", "Account \"X\"")];
    let safe: Vec<_> =
        account.columns.iter().filter(|column| !column.binary_safe).map(|column| column.name.as_str()).collect();
    assert_eq!(safe, ["ms", "c", "r"]);
    assert_eq!(account.format(), RowFormat::Text);
    assert!(account.column("g").unwrap().generated);
    assert_eq!(account.column("code").unwrap().collation.as_deref(), Some("pg_catalog.C"));
    assert!(account.uniques[0].deferrable);
    let event = &catalog.tables[&TableName::new("public", "event")];
    assert_eq!(event.primary_key, ["account", "at", "id"]);
    assert_eq!(event.partitions, [TableName::new("public", "event_1")]);
    assert_eq!(event.column_list(), "\"account\", \"at\", \"id\"");
    assert!(!catalog.tables.contains_key(&TableName::new("public", "event_1")));
    assert_eq!(catalog.foreign_keys.len(), 1);
    let column = |name: &str| {
        let found = catalog.sequences.iter().find(|s| s.name.name == name).unwrap();
        (found.columns[0].1.clone(), found.identity)
    };
    assert_eq!(column("event_id_seq"), ("id".into(), true));
    assert_eq!(column("loose"), ("id".into(), false));
}

#[tokio::test]
async fn rows_of_an_entry_are_found_over_every_owner_path() {
    let pair = Pair::new(CRM);
    let mut session = pair.session(Side::Source).await;
    let catalog = read_catalog(&session).await.unwrap();
    let scope = scope::resolve(&dataset(), &catalog).unwrap();
    ledger::create(&mut session, Side::Source, &migration(), &scope.root_key_type).await.unwrap();
    session
        .run(
            "register members",
            "insert into godwit.ownership (entry, name, owner) values (16, 'canary', 'Source'); \
             insert into godwit.member (customer, entry, chunk) values (10, 16, 0), (11, 16, 1), (12, 16, 2)",
        )
        .await
        .unwrap();
    let mut counts = Vec::new();
    for owned in &scope.owned {
        let all = session.number("count", &owned.count_of_entry(16, None)).await.unwrap();
        let some = session.number("count", &owned.count_of_entry(16, Some((1, 2)))).await.unwrap();
        counts.push((owned.table.name.name.as_str(), all, some));
    }
    assert_eq!(
        counts,
        [("account", 3, 2), ("contact", 9, 6), ("deal", 6, 4), ("deal_contact", 6, 4), ("line_item", 12, 8)]
    );
}

#[tokio::test]
async fn a_ledger_of_another_migration_is_named_and_left_alone() {
    let pair = Pair::new("");
    let mut session = pair.session(Side::Target).await;
    for _ in 0..2 {
        ledger::create(&mut session, Side::Target, &migration(), "bigint").await.unwrap();
    }
    let mut other = migration();
    other.uid = "22222222-bbbb".into();
    let error = ledger::create(&mut session, Side::Target, &other, "bigint").await.unwrap_err();
    assert_eq!(error.exit_code(), exit::DATA_DIFFERS);
    assert!(error.to_string().contains("sales/crm") && error.to_string().contains("11111111-aaaa"));
    let entries = ledger::ownerships(&*session).await.unwrap();
    assert_eq!(
        entries.iter().map(|o| o.entry).collect::<Vec<_>>(),
        [entry::UNASSIGNED, entry::REFERENCE, entry::NATIVE]
    );
}

#[tokio::test]
async fn of_two_attempts_the_older_one_can_change_nothing() {
    let pair = Pair::new("");
    let mut older = pair.session(Side::Target).await;
    ledger::create(&mut older, Side::Target, &migration(), "bigint").await.unwrap();
    let newer = pair.session(Side::Target).await;
    let first = token::take(&older, "cohort", 1).await.unwrap();
    let transaction = older.transaction().await.unwrap();
    token::hold(&transaction, &first).await.unwrap();
    // The newer attempt waits for the transaction in flight.
    let taking = tokio::spawn(async move {
        let token = token::take(&newer, "cohort", 2).await.unwrap();
        (newer, token)
    });
    wait_for_lock(&pair, Side::Target).await;
    transaction.commit().await.unwrap();
    let (newer, _second) = taking.await.unwrap();
    let transaction = older.transaction().await.unwrap();
    let error = token::hold(&transaction, &first).await.unwrap_err();
    assert!(matches!(error, Error::NewerAttempt { .. }));
    assert_eq!(error.exit_code(), exit::TRY_AGAIN);
    drop(transaction);
    // The same attempt started twice: the second pod takes over, the first one fails.
    let again = token::take(&newer, "cohort", 2).await.unwrap();
    assert!(token::hold(&*newer, &again).await.is_ok());
    assert!(matches!(token::take(&older, "cohort", 1).await.unwrap_err(), Error::NewerAttempt { .. }));
}

#[tokio::test]
async fn of_two_workers_of_one_attempt_the_one_that_began_later_has_both_databases() {
    let pair = Pair::new("");
    let mut target = pair.session(Side::Target).await;
    let mut source = pair.session(Side::Source).await;
    ledger::create(&mut target, Side::Target, &migration(), "bigint").await.unwrap();
    ledger::create(&mut source, Side::Source, &migration(), "bigint").await.unwrap();
    for attempt in [1, 2] {
        let earlier = token::take(&target, "cohort", attempt).await.unwrap();
        let later = token::take(&target, "cohort", attempt).await.unwrap();
        let on_source = token::follow(&source, &later).await.unwrap();
        // It comes last to the source, and gets nothing all the same.
        assert!(matches!(token::follow(&source, &earlier).await.unwrap_err(), Error::NewerAttempt { .. }));
        assert!(matches!(token::hold(&*target, &earlier).await.unwrap_err(), Error::NewerAttempt { .. }));
        token::hold(&*target, &later).await.unwrap();
        token::hold(&*source, &on_source).await.unwrap();
    }
}

/// Until some backend of the test's database waits for a lock.
pub async fn wait_for_lock(pair: &Pair, side: Side) {
    wait_for_locks(pair, side, 1).await;
}

/// Until so many do.
pub async fn wait_for_locks(pair: &Pair, side: Side, backends: i64) {
    let session = pair.session(side).await;
    for _ in 0..500 {
        let waiting = session
            .number(
                "look for waiting backends",
                "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'",
            )
            .await
            .unwrap();
        if waiting >= backends {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("fewer than {backends} backends wait for a lock");
}
