//! Settings that a database or a role brings along: limits that would end a long step, and spellings that would change rows.

use godwit::contract::Side;

use crate::base::rooted;
use crate::journey::Journey;

/// Shorter than the slow check below takes for one row.
const LIMITS: &[&str] = &[
    "statement_timeout = '400ms'",
    "idle_in_transaction_session_timeout = '400ms'",
    "idle_session_timeout = '400ms'",
    "lock_timeout = '20ms'",
];

const SPELLINGS: &[&str] = &[
    "datestyle = 'German, DMY'",
    "timezone = 'Asia/Kathmandu'",
    "intervalstyle = 'sql_standard'",
    "extra_float_digits = -15",
    "bytea_output = 'escape'",
    "search_path = 'elsewhere'",
    "standard_conforming_strings = off",
    "xmloption = 'document'",
    "row_security = on",
    "quote_all_identifiers = on",
    "default_transaction_isolation = 'serializable'",
    "default_transaction_read_only = on",
    "default_transaction_deferrable = on",
    "plpgsql.variable_conflict = 'use_column'",
    "client_encoding = 'LATIN1'",
    "synchronous_commit = off",
    "jit = on",
];

/// The check takes its time, so that the target works longer than any limit while the source waits.
const SCHEMA: &str = "
    create function slow(int) returns boolean language plpgsql as 'begin perform pg_catalog.pg_sleep(0.5); return true; end';
    create table customer (id int primary key, v_customer int, born timestamptz, took interval, rate real, amount float8, raw bytea, doc xml, body text);
    create table item (id bigserial primary key, customer int not null references customer, v_entry text);
    insert into customer select i, i, '2024-02-03 04:05:06.789+00', '-1 day 02:03:04', 0.1, 1 / 3.0, decode('005cff', 'hex'), 'no <b>document</b>', E'a\\\\b' from generate_series(1, 4) i;
    insert into item (customer, v_entry) select 1 + i % 4, 'ü' from generate_series(1, 8) i;
    alter table customer add check (slow(id)) not valid;
";

/// The worker goes as a role that the settings are made for; the test's own statements do not.
async fn moves_under(sides: &[Side], settings: &[&str]) {
    let mut journey = Journey::new(SCHEMA, rooted("public.customer", "id", &[]));
    let pair = &mut journey.project.pair;
    let database = pair.database.clone();
    let role = format!("odd_{database}");
    for side in [Side::Source, Side::Target] {
        pair.psql(side, &format!("create role {role} superuser login"));
    }
    for side in sides {
        for (at, setting) in settings.iter().enumerate() {
            let whose =
                if at % 2 == 0 { format!("role {role}") } else { format!("role {role} in database {database}") };
            pair.psql(*side, &format!("alter {whose} set {setting}"));
        }
    }
    pair.source_uri = pair.servers.source.uri_as(&role, &database);
    pair.target_uri = pair.servers.target.uri_as(&role, &database);
    let lives = "update item set v_entry = v_entry || 'x' where customer = 4";
    journey.there_and_back(&[("ConstraintNotValidated", "public.customer")], lives).await;
}

#[tokio::test]
async fn a_limit_that_a_role_or_a_database_sets_ends_no_step() {
    moves_under(&[Side::Source, Side::Target], LIMITS).await;
}

#[tokio::test]
async fn how_one_side_likes_its_dates_and_numbers_changes_no_row() {
    moves_under(&[Side::Source], SPELLINGS).await;
}

#[tokio::test]
async fn how_the_other_side_likes_its_dates_and_numbers_changes_no_row() {
    moves_under(&[Side::Target], SPELLINGS).await;
}
