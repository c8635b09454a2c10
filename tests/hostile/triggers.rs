//! What users attach to tables: triggers, rules, row security. Landing and leaving set none of it off, and none of it hides a row.

use godwit::contract::{Side, Task, exit};

use crate::base::rooted;
use crate::journey::{Journey, percent, remainder};
use crate::oracle;

/// A customer, its items, shared kinds; and on every table whatever can fire.
const TABLES: &str = "
    create table kind (code text primary key);
    create table customer (id int primary key, name text);
    create table item (id int primary key, customer int not null references customer on delete cascade, kind text references kind, body text);
";
const ROWS: &str = "
    insert into kind values ('a'), ('b'); insert into customer select i, 'c' || i from generate_series(1, 10) i;
    insert into item select i, 1 + i % 10, case when i % 2 = 0 then 'a' end, 'b' || i from generate_series(1, 40) i;
";
/// An outbox with a row for each time that something fired, and rules that would swallow what they see.
const ALARMS: &str = "
    create table outbox (id bigserial primary key, what text);
    create function alarm() returns trigger language plpgsql as $$ begin insert into public.outbox (what) values (tg_table_name || ' ' || tg_op); return coalesce(new, old); end $$;
    create trigger row_kind before insert or update or delete on kind for each row execute function alarm();
    create trigger row_customer after insert or update or delete on customer for each row execute function alarm();
    create trigger row_item before insert or update or delete on item for each row execute function alarm();
    create trigger statement_item after insert or update or delete on item execute function alarm();
    create trigger statement_item_truncate before truncate on item execute function alarm();
    create constraint trigger late after insert or delete on item deferrable initially deferred for each row execute function alarm();
";

#[tokio::test]
async fn no_trigger_and_no_rule_of_the_users_is_set_off_on_the_way_over_nor_on_the_way_back() {
    let journey = Journey::new(&format!("{TABLES}{ROWS}{ALARMS}"), rooted("public.customer", "id", &[]));
    let rules = "create rule no_insert as on insert to item do instead nothing; create rule no_delete as on delete to item do instead nothing;
        create rule no_update as on update to customer do instead nothing; create rule no_kind as on delete to kind do instead nothing;";
    journey.target(&format!("{TABLES}{ALARMS}{rules}"));
    let target_before = journey.rows(Side::Target).await;
    journey
        .prepared(&[
            ("RulesOnTarget", "public.customer"),
            ("RulesOnTarget", "public.item"),
            ("RulesOnTarget", "public.kind"),
        ])
        .await;
    let quiet = "set session_replication_role = replica; set godwit.pass = '2:0';";
    let live = format!(
        "{quiet} update item set body = 'drift'; delete from item where id in (7, 17); insert into kind values ('c'); update customer set name = 'x'"
    );
    journey.over("first", percent(30.0), &live).await;
    journey.over("rest", remainder(), "").await;
    let moved = journey.rows(Side::Source).await;
    oracle::assert_same(&journey.rows(Side::Target).await, &moved, "over");
    journey.target(&format!("{quiet} update item set body = 'target'; delete from item where id = 5"));
    // The source must be restored from the restore point, or nothing would land on it.
    journey.source(&format!(
        "{quiet} delete from item where id in (1, 2); update customer set name = 'forged' where id = 3"
    ));
    let returned = journey.back("rest").await;
    assert!(returned.counts["tablesRestored"] > 0, "{:?}", returned.counts);
    journey.back("first").await;
    journey.reset().await;
    oracle::assert_same(&journey.rows(Side::Source).await, &moved, "back on the source");
    oracle::assert_same(&journey.rows(Side::Target).await, &target_before, "back on the target");
}

/// `ENABLE ALWAYS` and `ENABLE REPLICA` triggers fire whatever the worker does: they are refused before a row moves.
#[tokio::test]
async fn a_trigger_that_fires_all_the_same_is_refused_by_name_before_and_after_it_could_matter() {
    for (mode, attached) in [
        ("always", "alter table item enable always trigger row_item"),
        ("replica", "alter table item enable replica trigger row_item"),
        (
            "always rule",
            "create rule log as on insert to item do also insert into outbox (what) values ('rule'); alter table item enable always rule log",
        ),
    ] {
        for side in [Side::Source, Side::Target] {
            let journey = Journey::new(&format!("{TABLES}{ROWS}{ALARMS}"), rooted("public.customer", "id", &[]));
            journey.target(&format!("{TABLES}{ALARMS}"));
            journey.project.pair.psql(side, attached);
            let found = journey.findings().await;
            let named = found.iter().find(|finding| finding.code == "FiresOnLanding");
            let named = named.unwrap_or_else(|| panic!("{mode} on {side:?}: {found:?}"));
            assert_eq!(named.object, "public.item");
            assert!(
                named.message.contains("ENABLE TRIGGER") || named.message.contains("ENABLE RULE"),
                "{}",
                named.message
            );
        }
    }
    let journey = Journey::new(&format!("{TABLES}{ROWS}"), rooted("public.customer", "id", &[]));
    journey.project.done(None, Task::Prepare {}).await;
    journey.project.done(Some("first"), Task::Select { selection: percent(30.0) }).await;
    journey.target(&format!("{ALARMS} alter table item enable always trigger row_item"));
    let (code, report) = journey.project.run(Some("first"), Task::Copy {}).await;
    assert_eq!((code, report.findings[0].code.as_str()), (exit::DATA_DIFFERS, "FiresOnLanding"), "{report:?}");
    journey.target("alter table item enable trigger row_item");
    journey.project.done(Some("first"), Task::Copy {}).await;
    journey.target("alter table item enable always trigger row_item");
    let (code, report) = journey.project.run(Some("first"), Task::Cutover { checks: Vec::new() }).await;
    assert_eq!((code, report.findings[0].code.as_str()), (exit::DATA_DIFFERS, "FiresOnLanding"), "{report:?}");
    assert!(journey.rows(Side::Target).await["public.outbox"].is_empty());
    // The source was not paused for it.
    journey.source("update item set body = 'free'");
}

/// The target's own rows may hang on shared rows that came with the migration, and what that means is theirs to say.
#[tokio::test]
async fn taking_the_shared_rows_away_again_takes_no_row_of_the_target_along() {
    let journey = Journey::new(&format!("{TABLES}{ROWS}"), rooted("public.customer", "id", &[]));
    journey.target("create table kind (code text primary key); create table price (id int primary key, kind text references kind on delete cascade)");
    journey.project.done(None, Task::Prepare {}).await;
    journey.target("insert into price values (1, 'a')");
    let (code, report) = journey.project.run(None, Task::Reset {}).await;
    assert_eq!((code, report.findings[0].code.as_str()), (exit::DATA_DIFFERS, "OrphanRows"), "{report:?}");
    assert_eq!(journey.rows(Side::Target).await["public.price"].len(), 1);
    journey.target("delete from price");
    journey.reset().await;
    assert!(journey.rows(Side::Target).await["public.kind"].is_empty());
}

#[tokio::test]
async fn row_security_never_hides_a_row_from_a_copy_or_a_backup() {
    let mut journey = Journey::new(&format!("{TABLES}{ROWS}"), rooted("public.customer", "id", &[]));
    let role = format!("mover_{}", journey.project.pair.database);
    let database = journey.project.pair.database.clone();
    for side in [Side::Source, Side::Target] {
        journey.project.pair.psql(
            side,
            &format!("create role {role} login; grant create on database {database} to {role}; grant create, usage on schema public to {role};
                grant set on parameter session_replication_role to {role}"),
        );
    }
    journey.source(&format!(
        "alter table kind owner to {role}; alter table customer owner to {role}; alter table item owner to {role};
         alter table item enable row level security; alter table item force row level security; create policy few on item using (id < 10)"
    ));
    let pair = &mut journey.project.pair;
    pair.source_uri = pair.servers.source.uri_as(&role, &database);
    pair.target_uri = pair.servers.target.uri_as(&role, &database);
    let found = journey.findings().await;
    assert!(
        found
            .iter()
            .any(|it| it.code == "RowSecurity" && it.object == "public.item" && it.message.contains("BYPASSRLS")),
        "{found:?}"
    );
    // Whoever goes on all the same meets an error, never a part of the rows.
    let job = journey.mounted(Task::Backup { includes: Vec::new() });
    assert!(godwit::worker::steps::backup::run(&job, &[]).await.is_err());
    let (code, report) = journey.project.run(None, Task::Prepare {}).await;
    assert_eq!(code, exit::NOT_PERMITTED, "{report:?}");
    let bypass = |word: &str| {
        for server in [&journey.project.pair.servers.source, &journey.project.pair.servers.target] {
            server.psql(&database, &format!("alter role {role} {word}"));
        }
    };
    bypass("bypassrls");
    journey.project.done(None, Task::Prepare {}).await;
    journey.project.done(Some("first"), Task::Select { selection: percent(30.0) }).await;
    bypass("nobypassrls");
    let (code, report) = journey.project.run(Some("first"), Task::Copy {}).await;
    assert_eq!(code, exit::NOT_PERMITTED, "{report:?}");
    assert!(journey.rows(Side::Target).await["public.customer"].is_empty());
    bypass("bypassrls");
    assert!(!journey.findings().await.iter().any(|it| it.code == "RowSecurity"));
    journey.project.done(Some("first"), Task::Copy {}).await;
    assert!(journey.rows(Side::Target).await["public.item"].len() >= 8);
}
