//! A large cohort's rows are found without joins, and they are the same rows.

use std::collections::BTreeMap;

use godwit::contract::{Selection, Side, Storage as Place, Task};
use godwit::worker::postgres::catalog::read_catalog;
use godwit::worker::postgres::model::Scope;
use godwit::worker::postgres::scope;
use godwit::worker::postgres::session::Session;
use godwit::worker::postgres::sides::{Origin, Portion, Sides};
use godwit::worker::steps::snapshot;
use godwit::worker::storage::{Credentials, Storage};

use crate::base::{CRM, dataset};
use crate::job::Project;

/// Besides the CRM: a way to the customer that not every row has, and a hop behind it.
const MORE: &str = "
    create table note (id serial primary key, deal_id bigint references deal, body text);
    create table mark (id serial primary key, note_id int references note);
    insert into note (deal_id, body) select case when i % 3 > 0 then 1 + i % 200 end, 'n' || i from generate_series(1, 300) i;
    insert into mark (note_id) select nullif(i % 301, 0) from generate_series(0, 600) i;
    analyze;
";

/// Rows without parents: a customer of the cohort, one of nobody's, and a deal in between are gone.
const ORPHANS: &str = "
    set session_replication_role = replica; set godwit.pass = '0:0';
    delete from account where id in (7, 95); delete from deal where id = 12; insert into contact (account_id, email) values (5000, 'x');
";

async fn selected(condition: &str, schema: &str) -> (Project, Session) {
    let project = Project::new(&format!("{CRM} {schema}"));
    project.done(None, Task::Prepare {}).await;
    let selection = Selection::Where(condition.into());
    project.done(Some("all"), Task::Select { selection }).await;
    let session = project.session(Side::Source).await;
    (project, session)
}

async fn scope_and_entry(session: &Session) -> (Scope, i32) {
    let scope = scope::resolve(&dataset(), &read_catalog(session).await.unwrap()).unwrap();
    let entry = session.number("ask", "select min(entry)::int8 from godwit.member where entry > 0").await.unwrap();
    (scope, i32::try_from(entry).unwrap())
}

/// How many rows of the cohort each table has, found in both ways; where `in_turn` is false the tables are asked for backwards.
async fn found_in_both_ways(session: &mut Session, in_turn: bool) -> BTreeMap<String, u64> {
    let (scope, entry) = scope_and_entry(session).await;
    let reading = snapshot::of(session).await.unwrap();
    let sifted = Origin::of_entry(&reading, &scope, entry).await.unwrap();
    assert!(matches!(sifted, Origin::Sifted { .. }));
    let folder = tempfile::tempdir().unwrap();
    let place = Place::Path(folder.path().to_str().unwrap().to_owned());
    let storage = Storage::open(&place, &Credentials::default()).unwrap();
    let mut sides = Sides { original: sifted, copy: Origin::Database(&reading) };
    let mut portions = Portion::of_entry(&scope, entry);
    if !in_turn {
        portions.reverse();
    }
    let mut found = BTreeMap::new();
    for portion in &portions {
        let mut kept = storage.writer("kept", 0).unwrap();
        let (sifted, joined) = sides.compare(portion, Some(&mut kept)).await.unwrap();
        assert!(sifted.agrees_with(&joined), "{}: {:?} and {:?}", portion.name(), sifted.total(), joined.total());
        kept.finish().await.unwrap();
        let paths = BTreeMap::from([(portion.name(), "kept".to_owned())]);
        let in_file = Origin::File { storage: &storage, paths }.sum(portion).await.unwrap();
        assert_eq!(in_file, joined.total(), "{}", portion.name());
        found.insert(portion.name(), joined.total().rows);
    }
    found
}

#[tokio::test]
async fn a_sieve_lets_exactly_the_rows_pass_that_the_joins_find() {
    let (project, mut session) = selected("customer.id <= 90", MORE).await;
    let whole = found_in_both_ways(&mut session, true).await;
    assert_eq!((whole["public.account"], whole["public.contact"], whole["public.note"]), (90, 270, 180));
    project.pair.psql(Side::Source, ORPHANS);
    let torn = found_in_both_ways(&mut session, true).await;
    // The customer is gone, the rows that name it are not; what hung on the deal is nobody's.
    assert_eq!((torn["public.account"], torn["public.contact"]), (89, 270));
    assert!(torn["public.line_item"] < whole["public.line_item"], "{torn:?}");
    assert_eq!(found_in_both_ways(&mut session, false).await, torn);
}

#[tokio::test]
async fn a_small_cohort_and_keys_far_apart_are_left_to_the_joins() {
    let far = format!("{MORE} insert into account (id, name) values ({}, 'far')", 1_u64 << 40);
    for (condition, schema) in [("customer.id <= 40", MORE), ("customer.id > 0", far.as_str())] {
        let (_project, mut session) = selected(condition, schema).await;
        let (scope, entry) = scope_and_entry(&session).await;
        let reading = snapshot::of(&mut session).await.unwrap();
        let origin = Origin::of_entry(&reading, &scope, entry).await.unwrap();
        assert!(matches!(origin, Origin::Database(_)), "{condition}");
    }
}
