//! What goes wrong while a cohort moves: two workers at once, a process killed at each commit, an answer lost, a late writer.

use std::time::Duration;

use godwit::contract::{Owner, QueryPair, Side, Task, exit};
use godwit::worker::postgres::landing::Landing;
use godwit::worker::postgres::token;

use crate::moving::{CANARY, OWNED, World, cutover, finish, validate};
use crate::proxy::{Cut, Proxy};

#[tokio::test]
async fn of_two_workers_of_one_attempt_one_does_the_work_and_the_rows_land_once() {
    let world = World::new().await;
    world.select(16, "canary", CANARY);
    for (attempt, task) in [(1, Task::Copy {}), (2, cutover())] {
        let (one, other) =
            futures::join!(world.run("canary", attempt, task.clone()), world.run("canary", attempt, task.clone()));
        let mut codes = [one.code, other.code];
        codes.sort_unstable();
        assert!(
            codes == [exit::DONE, exit::TRY_AGAIN] || codes == [exit::DONE, exit::DONE],
            "{}: {codes:?} {:?} {:?}",
            task.name(),
            one.report.findings,
            other.report.findings
        );
    }
    assert_eq!(world.rows(Side::Target, "true"), world.rows(Side::Source, &format!("a.id in ({CANARY})")));
    assert_eq!(world.owner(Side::Source, 16), ("Target".into(), 2));
}

#[tokio::test]
async fn an_older_attempt_fails_and_changes_nothing() {
    let world = World::new().await;
    world.select(16, "canary", CANARY);
    world.run("canary", 5, Task::Copy {}).await.passed();
    for task in [validate(), cutover(), Task::Discard {}, Task::Freeze {}, Task::Reopen {}] {
        let late = world.run("canary", 4, task).await;
        assert_eq!(late.code, exit::TRY_AGAIN, "{:?}", late.report);
        assert_eq!(late.report.findings[0].code, "NewerAttempt");
    }
    assert_eq!(world.owner(Side::Source, 16), ("Source".into(), 0));
}

#[tokio::test]
async fn a_newer_attempt_waits_for_a_landing_in_flight_and_the_older_worker_lands_nothing_afterwards() {
    let world = World::new().await;
    let mut old = world.session(Side::Target).await;
    let new = world.session(Side::Target).await;
    let first = token::take(&old, "uid-canary", 1).await.unwrap();
    let landing = Landing::begin(&mut old, &first).await.unwrap();
    let mut taking = Box::pin(token::take(&new, "uid-canary", 2));
    let early = tokio::time::timeout(Duration::from_millis(300), &mut taking).await;
    assert!(early.is_err(), "the token was given away under a landing");
    landing.commit().await.unwrap();
    taking.await.unwrap();
    assert!(Landing::begin(&mut old, &first).await.is_err());
}

#[tokio::test]
async fn a_steps_record_changes_only_in_a_transaction_that_holds_its_token() {
    let world = World::new().await;
    world.select(16, "canary", CANARY);
    // Whoever has locked a row last and alone stands in its xmax.
    world.target(
        "create function holds_token() returns trigger language plpgsql as $$ begin
           if exists (select from godwit.fencing_token where subject = coalesce(new.subject, old.subject)
               and xmax::text::bigint = pg_current_xact_id()::text::bigint % 4294967296) then
             return coalesce(new, old);
           end if;
           raise exception 'without the token';
         end $$;
         create trigger holds_token before insert or update or delete on godwit.checkpoint for each row execute function public.holds_token();
         alter table godwit.checkpoint enable always trigger holds_token;",
    );
    let life = [Task::Copy {}, cutover(), Task::Freeze {}, Task::Return {}, Task::Verify {}, Task::Reopen {}];
    for (attempt, task) in (1..).zip(life.into_iter().chain([Task::Copy {}, Task::Discard {}])) {
        world.run("canary", attempt, task).await.passed();
    }
}

#[tokio::test]
async fn no_worker_of_an_attempt_writes_into_a_file_of_another() {
    let world = World::new().await;
    world.select(16, "canary", CANARY);
    world.copied("canary").await;
    // Each of the three files is written, and the worker is lost before it can tell of it.
    let lost = |table: &str, condition: &str| {
        world.target(&format!(
            "create sequence lost_{table}; create trigger lost before insert on godwit.{table} for each row when ({condition})
               execute function public.lose_once('public.lost_{table}');
             alter table godwit.{table} enable always trigger lost;"
        ));
    };
    world.target(
        "create function lose_once() returns trigger language plpgsql as $$ begin
           if nextval(tg_argv[0]::regclass) = 1 then perform pg_terminate_backend(pg_backend_pid()); end if;
           return new; end $$;",
    );
    lost("checkpoint", "new.part = 'restore-point'");
    lost("journal", "new.event = 'returned'");
    lost("report", "new.step = 'verify'");
    world.run("canary", 3, cutover()).await.passed();
    world.run("canary", 4, Task::Freeze {}).await.passed();
    world.run("canary", 5, Task::Return {}).await.passed();
    world.source("set session_replication_role = replica; set godwit.pass = '16:3'; update deal set amount = 0 where account_id = 20");
    assert_eq!(world.run("canary", 6, Task::Verify {}).await.code, exit::TRY_AGAIN);
    world.run("canary", 6, Task::Verify {}).await.refused("RowsDiffer");
    for (folder, name) in [("restore-point", "manifest.json"), ("set-aside", "manifest.json"), ("evidence", "jsonl")] {
        let files: Vec<_> = world.files(folder).into_iter().filter(|file| file.ends_with(name)).collect();
        assert_eq!(files.len(), 2, "{files:?}");
    }
}

#[tokio::test]
async fn a_finished_attempt_tells_the_same_again_and_writes_nothing() {
    let world = World::new().await;
    world.select(16, "canary", CANARY);
    let first = world.run("canary", 1, Task::Copy {}).await.passed();
    let again = world.run("canary", 1, Task::Copy {}).await.passed();
    assert_eq!(again, first);
    let row_versions = "select count(*) || ' ' || max(xmin::text::bigint) from note";
    let before = world.column(Side::Target, row_versions);
    let resumed = world.run("canary", 2, Task::Copy {}).await.passed();
    assert_eq!(resumed.counts["chunksResumed"], resumed.counts["chunks"]);
    assert_eq!(resumed.counts["rows"], first.counts["rows"]);
    assert_eq!(world.column(Side::Target, row_versions), before);
}

/// Runs a step through a proxy that cuts a connection at the `n`-th commit, and drops it there as `kill -9` would: first on the
/// source as often as asked, then on the target at 1, 2, 3, … until an attempt gets through. Returns the next attempt's number.
async fn killed_at_each_commit(world: &World, name: &str, first: i64, (task, on_source): (Task, usize)) -> i64 {
    let sources = (0..on_source).map(|n| (Side::Source, 1 + n / 2));
    let cuts = sources.chain((1..60).map(|n| (Side::Target, n)));
    for (attempt, (side, n)) in (first..).zip(cuts) {
        let cut = if attempt % 2 == 0 { Cut::Before } else { Cut::After };
        let proxy = Proxy::start(world.pair.server(side).port, n, cut).await;
        let mut settings = world.settings(name, attempt, task.clone());
        let uri = match side {
            Side::Source => &mut settings.source_uri,
            Side::Target => &mut settings.target_uri,
        };
        *uri = Some(proxy.uri(&world.pair.database));
        let outcome = tokio::select! {
            done = finish(settings) => Some(done),
            () = proxy.cut() => None,
        };
        if let Some(done) = outcome {
            done.passed();
            assert_eq!(side, Side::Target, "{} has no commit {n} on the source", task.name());
            return attempt + 1;
        }
    }
    panic!("{} never came to its end", task.name());
}

#[tokio::test]
async fn a_whole_life_killed_at_each_commit_ends_as_an_undisturbed_one() {
    let world = World::new().await;
    world.select(16, "canary", CANARY);
    let mut attempt = killed_at_each_commit(&world, "canary", 1, (Task::Copy {}, 0)).await;
    world.source_lives();
    attempt = killed_at_each_commit(&world, "canary", attempt, (cutover(), 2)).await;
    let cohort = world.rows(Side::Source, &format!("a.id in ({CANARY})"));
    assert_eq!(world.rows(Side::Target, "true"), cohort);
    for side in [Side::Source, Side::Target] {
        assert_eq!(world.owner(side, 16).0, "Target");
    }
    world.target("update account set name = 'on the target' where id = 10");
    for step in [(Task::Freeze {}, 1), (Task::Return {}, 0), (Task::Verify {}, 0), (Task::Reopen {}, 1)] {
        attempt = killed_at_each_commit(&world, "canary", attempt, step).await;
    }
    assert_eq!(world.rows(Side::Source, &format!("a.id in ({CANARY})")), cohort);
    assert!(world.rows(Side::Target, "true").values().all(Vec::is_empty));
    for side in [Side::Source, Side::Target] {
        assert_eq!(world.owner(side, 16).0, "Source");
    }
    // What was rolled back may be tried again.
    let copied = world.run("canary", attempt, Task::Copy {}).await.passed();
    assert_eq!(copied.counts["chunksResumed"], 0);
    killed_at_each_commit(&world, "canary", attempt + 1, (Task::Discard {}, 1)).await;
    assert!(world.rows(Side::Target, "true").values().all(Vec::is_empty));
}

#[tokio::test]
async fn the_remainder_killed_at_each_commit_takes_everything_over() {
    let world = World::new().await;
    world.select(16, "rest", "remainder");
    world.run("rest", 1, Task::Copy {}).await.passed();
    world.source_lives();
    world.source("insert into account (name) values ('born')");
    let attempt = killed_at_each_commit(&world, "rest", 2, (cutover(), 6)).await;
    assert_eq!(world.everything(Side::Target), world.everything(Side::Source));
    for entry in [0, 1, 16] {
        for side in [Side::Source, Side::Target] {
            assert_eq!(world.owner(side, entry).0, "Target");
        }
    }
    world.target("insert into account (name) values ('born on the target')");
    let source = world.everything(Side::Source);
    let mut attempt = attempt;
    for step in [(Task::Freeze {}, 3), (Task::Return {}, 1), (Task::Verify {}, 0), (Task::Reopen {}, 3)] {
        attempt = killed_at_each_commit(&world, "rest", attempt, step).await;
    }
    assert_eq!(world.everything(Side::Source), source);
    assert!(world.rows(Side::Target, "true").values().all(Vec::is_empty));
}

#[tokio::test]
async fn a_commit_without_an_answer_is_resolved_by_the_same_worker() {
    let world = World::new().await;
    world.select(16, "canary", CANARY);
    for (attempt, task) in [(1, Task::Copy {}), (2, cutover())] {
        for (n, cut) in [(2, Cut::After), (3, Cut::Before)] {
            let proxy = Proxy::start(world.pair.servers.target.port, n, cut).await;
            let mut settings = world.settings("canary", attempt * 10 + n as i64, task.clone());
            settings.target_uri = Some(proxy.uri(&world.pair.database));
            finish(settings).await.passed();
        }
    }
    assert_eq!(world.rows(Side::Target, "true"), world.rows(Side::Source, &format!("a.id in ({CANARY})")));
}

#[tokio::test]
async fn backends_terminated_again_and_again_do_not_stop_a_copy() {
    let world = World::new().await;
    world.select(16, "canary", CANARY);
    let terminate = async {
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_millis(150)).await;
            for side in [Side::Source, Side::Target] {
                world.pair.psql(side, "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and application_name like 'godwit%'");
            }
        }
    };
    let copy = async {
        // Outside the step's own work a lost connection ends the process, and the operator's next attempt goes on.
        for attempt in 1.. {
            let done = world.run("canary", attempt, Task::Copy {}).await;
            if done.code == exit::DONE {
                return attempt;
            }
            assert_eq!(done.code, exit::TRY_AGAIN, "{:?}", done.report);
        }
        unreachable!()
    };
    let (attempt, ()) = futures::join!(copy, terminate);
    world.run("canary", attempt + 1, validate()).await.passed();
}

#[tokio::test]
async fn a_write_in_flight_when_the_fence_closes_is_part_of_the_move() {
    let world = World::new().await;
    world.select(16, "canary", CANARY);
    world.copied("canary").await;
    let writer = world.session(Side::Source).await;
    writer.batch_execute("begin; update public.account set name = 'in flight' where id = 10").await.unwrap();
    let commit = async {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        writer.batch_execute("commit").await.unwrap();
    };
    let (done, ()) = futures::join!(world.run("canary", 3, cutover()), commit);
    let report = done.passed();
    assert!(report.timings["drain"] > 300, "{:?}", report.timings);
    assert_eq!(world.number(Side::Target, "select count(*) from account where name = 'in flight'"), 1);
    assert_eq!(world.owner(Side::Target, 16), ("Target".into(), 2));
}

#[tokio::test]
async fn a_check_that_fails_inside_the_pause_gives_the_cohort_back_to_the_source() {
    let world = World::new().await;
    world.select(16, "canary", CANARY);
    world.copied("canary").await;
    let checks = vec![QueryPair {
        name: "never".into(),
        source: "select 1".into(),
        target: "select 2".into(),
        tolerance: "0.5".into(),
    }];
    let refused = world.run("canary", 3, Task::Cutover { checks }).await.refused("CheckDiffers");
    assert_eq!((refused.owner, refused.epoch), (Some(Owner::Source), Some(2)), "whoever waits hears that it may go on");
    for side in [Side::Source, Side::Target] {
        assert_eq!(world.owner(side, 16), ("Source".into(), 2));
    }
    assert!(!world.is_fenced(Side::Source, "update account set name = 'free' where id = 10"));
    assert_eq!(world.number(Side::Target, "select count(*) from godwit.checkpoint where step = 'cutover'"), 0);
    // The way back of a cutover that did not happen: nothing to set aside, and the source is left alone.
    let frozen = world.run("canary", 4, Task::Freeze {}).await.passed();
    assert_eq!(frozen.owner, Some(Owner::Source));
    assert!(!world.is_fenced(Side::Source, "update account set name = 'still free' where id = 10"));
    for (attempt, task) in [(5, Task::Return {}), (6, Task::Verify {}), (7, Task::Reopen {})] {
        world.run("canary", attempt, task).await.passed();
    }
    assert!(world.rows(Side::Target, "true").values().all(Vec::is_empty));
    assert_eq!(world.number(Side::Source, "select count(*) from account where name = 'still free'"), 1);
}

#[tokio::test]
async fn a_cohort_that_went_over_is_not_discarded_and_not_copied_again() {
    let world = World::new().await;
    world.select(16, "canary", CANARY);
    world.copied("canary").await;
    world.run("canary", 3, cutover()).await.passed();
    let rows = world.rows(Side::Target, "true");
    world.run("canary", 4, Task::Discard {}).await.refused("CutOverAlready");
    world.run("canary", 5, Task::Copy {}).await.refused("NotOwnedBySource");
    world.run("canary", 6, Task::Return {}).await.refused("NotFrozen");
    world.run("canary", 7, Task::Reopen {}).await.refused("NotFrozen");
    world.run("canary", 8, Task::Freeze {}).await.passed();
    world.run("canary", 9, Task::Discard {}).await.refused("CutOverAlready");
    assert_eq!(world.rows(Side::Target, "true"), rows);
}

#[tokio::test]
async fn a_source_that_was_changed_behind_the_fence_is_restored_and_verified() {
    let world = World::new().await;
    world.select(16, "canary", CANARY);
    world.copied("canary").await;
    world.run("canary", 3, cutover()).await.passed();
    let before = world.everything(Side::Source);
    let of_cohort = || world.rows(Side::Source, &format!("a.id in ({CANARY})"));
    let cohort = of_cohort();
    let stranger = "set session_replication_role = replica; set godwit.pass = '16:3';";
    world.run("canary", 4, Task::Freeze {}).await.passed();
    world.source(&format!("{stranger} delete from activity where contact_id in (select id from contact where account_id = 10); update deal set amount = 0 where account_id = 20; update contact set account_id = 30, nickname = 'elsewhere' where id = (select min(id) from contact where account_id = 21)"));
    world.run("canary", 5, Task::Verify {}).await.refused("RowsDiffer");
    let found = of_cohort();
    let gone = |table: &str| cohort[table].len() - found[table].len();
    let deals = world.number(Side::Source, "select count(*) from deal where account_id = 20");
    world.source(&format!("{stranger} insert into note values (900008, (select min(v.id) from activity v join contact c on c.id = v.contact_id where c.account_id = 20), 'only here')"));
    let returned = world.run("canary", 6, Task::Return {}).await.passed();
    assert_eq!(returned.counts["tablesRestored"], 4);
    // What goes from the source is set aside as well: rows as they were there, keys of those that were missing.
    assert_eq!(returned.counts["setAside"], 0);
    assert_eq!(returned.counts["sourceSetAside"], OWNED.into_iter().map(gone).sum::<usize>() as i64 + deals + 1);
    let manifest: serde_json::Value =
        serde_json::from_str(&world.file(returned.evidence_uri.as_deref().unwrap())).unwrap();
    let aside = manifest["source"].as_array().unwrap();
    assert_eq!(aside.len(), 4);
    let of = |table: &str| aside.iter().find(|it| it["table"] == table).unwrap();
    let inserted = world.bytes(of("public.note")["files"]["inserted"]["path"].as_str().unwrap());
    assert!(String::from_utf8_lossy(&inserted).contains("only here"));
    assert_eq!(of("public.deal")["updated"], deals);
    let moved = world.bytes(of("public.contact")["files"]["elsewhere"]["path"].as_str().unwrap());
    assert!(String::from_utf8_lossy(&moved).contains("elsewhere"));
    assert_eq!(of("public.contact")["elsewhere"], 1);
    assert_eq!(of("public.activity")["deleted"], gone("activity"));
    assert_eq!(world.everything(Side::Source), before);
    world.run("canary", 7, Task::Verify {}).await.passed();
    world.source(&format!("{stranger} insert into note values (900009, (select min(v.id) from activity v join contact c on c.id = v.contact_id where c.account_id = 10), 'x')"));
    let report = world.run("canary", 8, Task::Verify {}).await.refused("RowsDiffer");
    let evidence = world.file(report.evidence_uri.as_deref().unwrap());
    assert!(evidence.contains(r#""class" : "Extra", "key" : ["900009"]"#), "{evidence}");
}

#[tokio::test]
async fn a_damaged_restore_point_is_not_restored_from() {
    let world = World::new().await;
    world.select(16, "canary", CANARY);
    world.copied("canary").await;
    let over = world.run("canary", 3, cutover()).await.passed();
    world.run("canary", 4, Task::Freeze {}).await.passed();
    let file = over.evidence_uri.unwrap().replace("manifest.json", "0001.copy");
    let mut bytes = world.bytes(&file);
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    world.write(&file, &bytes);
    world.run("canary", 5, Task::Return {}).await.refused("RestorePointDamaged");
}

#[tokio::test]
async fn a_ledger_that_was_set_back_stops_every_step() {
    let world = World::new().await;
    world.select(16, "canary", CANARY);
    let mut settings = world.settings("canary", 1, Task::Copy {});
    settings.input.epoch = 3;
    finish(settings).await.refused("LedgerBehind");
}

#[tokio::test]
async fn a_source_that_was_set_back_is_told_of_and_not_tried_again() {
    let world = World::new().await;
    world.select(16, "canary", CANARY);
    world.copied("canary").await;
    world.run("canary", 3, cutover()).await.passed();
    world.source("update godwit.ownership set owner = 'Source', epoch = 0 where entry = 16");
    world.run("canary", 4, Task::Freeze {}).await.refused("LedgersDisagree");
}

#[tokio::test]
async fn rows_that_others_on_the_target_refer_to_stay_until_the_links_are_gone() {
    let world = World::new().await;
    world.select(16, "canary", CANARY);
    world.select(17, "second", "40");
    for name in ["canary", "second"] {
        world.copied(name).await;
        world.run(name, 3, cutover()).await.passed();
    }
    world.target("insert into deal_contact select (select min(id) from deal where account_id = 40), (select min(id) from contact where account_id = 10), 'new friend'");
    let before = world.everything(Side::Target);
    for (attempt, task) in [(4, Task::Freeze {}), (5, Task::Return {}), (6, Task::Verify {})] {
        world.run("canary", attempt, task).await.passed();
    }
    let report = world.run("canary", 7, Task::Reopen {}).await.refused("ReferredByOthers");
    assert_eq!(report.findings[0].object, "public.deal_contact");
    assert_eq!(world.everything(Side::Target), before);
    assert!(!world.is_fenced(Side::Source, "update account set name = 'served' where id = 10"));
    world.target("delete from deal_contact where role = 'new friend'");
    // A link that is being made right now is waited for, and then refused as well.
    let linking = world.session(Side::Target).await;
    let link = "begin; insert into public.deal_contact select (select min(id) from public.deal where account_id = 40), (select min(id) from public.contact where account_id = 10), 'late friend'";
    linking.batch_execute(link).await.unwrap();
    let commit = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        linking.batch_execute("commit").await.unwrap();
    };
    let (late, ()) = futures::join!(world.run("canary", 8, Task::Reopen {}), commit);
    late.refused("ReferredByOthers");
    world.target("delete from deal_contact where role = 'late friend'");
    world.run("canary", 9, Task::Reopen {}).await.passed();
    assert_eq!(world.rows(Side::Target, "true"), world.rows(Side::Target, "a.id = 40"));
}
