//! Databases of other encodings than UTF-8 and than each other.

use godwit::contract::Side;

use crate::base::rooted;
use crate::job::Project;
use crate::journey::Journey;

const SCHEMA: &str = "create table customer (id int primary key, name text);
    create table U&\"Stra\\00DFe\" (id text primary key, customer int not null references customer, note text);
    insert into customer select i, chr(228) || i from generate_series(1, 6) i;
    insert into U&\"Stra\\00DFe\" select U&'gr\\00F6\\00DFe ' || i, 1 + i % 6, repeat(chr(233), 100) from generate_series(1, 12) i;";

/// A migration between databases with these encodings.
fn between(source: &str, target: &str, schema: &str) -> Journey {
    let mut project = Project::with("", rooted("public.customer", "id", &[]));
    let pair = &mut project.pair;
    let database = format!("{}_e", pair.database);
    for (side, encoding) in [(Side::Source, source), (Side::Target, target)] {
        let create = format!("create database {database} encoding '{encoding}' locale 'C' template template0");
        pair.server(side).psql("postgres", &create);
    }
    pair.source_uri = pair.servers.source.uri(&database);
    pair.target_uri = pair.servers.target.uri(&database);
    pair.database = database;
    pair.psql(Side::Source, schema);
    Journey::of(project)
}

#[tokio::test]
async fn rows_of_another_encoding_arrive_as_the_same_characters() {
    for (source, target) in [("LATIN1", "UTF8"), ("UTF8", "LATIN9")] {
        let journey = between(source, target, SCHEMA);
        let expected: &[(&str, &str)] = if source == "UTF8" { &[("EncodingNarrower", "target")] } else { &[] };
        journey.there_and_back(expected, "update U&\"Stra\\00DFe\" set note = U&'\\00FF' where customer = 6").await;
    }
}

/// A server that does not know its own encoding hands out bytes that mean nothing to the other one.
#[tokio::test]
async fn a_source_without_an_encoding_is_refused_with_the_remedy() {
    let journey = between(
        "SQL_ASCII",
        "UTF8",
        "create table customer (id int primary key, name text); insert into customer values (1, E'\\xff')",
    );
    let found = journey.findings().await;
    let named = found.iter().find(|finding| finding.code == "EncodingUnknown").unwrap_or_else(|| panic!("{found:?}"));
    assert_eq!(named.object, "source");
    assert!(named.message.contains("SQL_ASCII") && named.message.contains("dump"), "{}", named.message);
}
