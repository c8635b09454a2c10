//! The rules of `scope`, on small catalogues built by hand.

use super::*;
use crate::contract::OwnerPath;
use crate::worker::postgres::model::{Column, TableKind};

fn column(name: &str) -> Column {
    Column {
        name: name.into(),
        type_name: "bigint".into(),
        type_oid: 20,
        collation: None,
        not_null: true,
        generated: false,
        identity: None,
        binary_safe: true,
        has_default: false,
        large_object: false,
        object_id: false,
        number: true,
        expression: None,
        equality: None,
        insensitive: false,
    }
}

fn table(name: &str) -> Table {
    Table {
        name: TableName::new("public", name),
        kind: TableKind::Ordinary,
        columns: vec![column("id")],
        primary_key: vec!["id".into()],
        primary_key_deferrable: false,
        uniques: Vec::new(),
        estimated_rows: 0,
        bytes: 0,
        unlogged: false,
        row_security: false,
        has_rules: false,
        inherits: false,
        partitions: Vec::new(),
        owned_by_us: true,
        checks: Vec::new(),
        deferrable_exclusions: Vec::new(),
    }
}

/// `("contact", "account_id", "account")`: a foreign key by that column to the other table's `id`.
fn catalog(tables: &[&str], keys: &[(&str, &str, &str)]) -> Catalog {
    Catalog {
        tables: tables.iter().map(|name| (TableName::new("public", *name), table(name))).collect(),
        foreign_keys: keys
            .iter()
            .map(|(from, by, to)| ForeignKey {
                name: format!("{from}_{by}_fkey"),
                table: TableName::new("public", *from),
                columns: vec![(*by).into()],
                referenced: TableName::new("public", *to),
                referenced_columns: vec!["id".into()],
                operators: Vec::new(),
                match_full: false,
                validated: true,
                deferrable: false,
            })
            .collect(),
        ..Catalog::default()
    }
}

fn dataset() -> Dataset {
    Dataset { root_table: "public.account".into(), root_key: "id".into(), ..Dataset::default() }
}

fn names(scope: &Scope) -> Vec<String> {
    scope.owned.iter().map(|owned| owned.table.name.name.clone()).collect()
}

fn codes(result: Result<Scope, Vec<Finding>>) -> Vec<(String, String)> {
    result.unwrap_err().into_iter().map(|finding| (finding.code, finding.object)).collect()
}

fn crm() -> Catalog {
    catalog(
        &["account", "contact", "deal", "deal_contact", "currency", "region", "stray"],
        &[
            ("account", "parent_id", "account"),
            ("contact", "account_id", "account"),
            ("deal", "account_id", "account"),
            ("deal", "currency_id", "currency"),
            ("deal_contact", "deal_id", "deal"),
            ("deal_contact", "contact_id", "contact"),
            ("currency", "region_id", "region"),
        ],
    )
}

#[test]
fn tables_that_reach_the_root_are_owned_and_what_they_reference_is_shared() {
    let mut dataset = dataset();
    dataset.owners = vec![OwnerPath { table: "public.deal_contact".into(), via: vec!["deal_id".into()] }];
    let scope = resolve(&dataset, &crm()).unwrap();
    assert_eq!(names(&scope), ["account", "contact", "deal", "deal_contact"]);
    let shared: Vec<_> = scope.reference.iter().map(|r| &r.table.name.name).collect();
    assert_eq!(shared, ["region", "currency"]);
    let links: Vec<_> = scope.links.iter().map(|key| &key.name).collect();
    assert_eq!(links, ["account_parent_id_fkey", "deal_contact_contact_id_fkey"]);
    let path: Vec<_> = scope.owned[3].path.iter().map(|key| &key.name).collect();
    assert_eq!(path, ["deal_contact_deal_id_fkey", "deal_account_id_fkey"]);
    assert!(scope.notes.iter().any(|note| note.object == "public.stray"));
}

#[test]
fn two_equally_short_ways_to_a_customer_are_a_finding_that_names_them() {
    let findings = resolve(&dataset(), &crm()).unwrap_err();
    assert_eq!(findings[0].code, "OwnerAmbiguous");
    assert_eq!(findings[0].object, "public.deal_contact");
    assert!(findings[0].message.contains("deal_id, contact_id"));
    assert!(findings[0].message.contains("dataset.owners"));
}

#[test]
fn a_direct_way_is_preferred_to_a_longer_one_and_the_longer_one_becomes_a_link() {
    let catalog = catalog(
        &["account", "deal", "note"],
        &[("deal", "account_id", "account"), ("note", "account_id", "account"), ("note", "deal_id", "deal")],
    );
    let scope = resolve(&dataset(), &catalog).unwrap();
    assert_eq!(scope.owned_table(&TableName::new("public", "note")).unwrap().path.len(), 1);
    assert_eq!(scope.links[0].name, "note_deal_id_fkey");
}

#[test]
fn cycles_of_foreign_keys_end() {
    let catalog = catalog(
        &["account", "team", "person"],
        &[
            ("team", "account_id", "account"),
            ("team", "lead_id", "person"),
            ("person", "team_id", "team"),
            ("account", "owner_id", "person"),
        ],
    );
    let scope = resolve(&dataset(), &catalog).unwrap();
    assert_eq!(names(&scope), ["account", "team", "person"]);
    assert_eq!(scope.links.len(), 2);
}

#[test]
fn owners_that_lead_in_a_circle_are_a_finding() {
    let catalog =
        catalog(&["account", "a", "b"], &[("a", "b_id", "b"), ("b", "a_id", "a"), ("a", "account_id", "account")]);
    let mut dataset = dataset();
    for (table, via) in [("public.a", "b_id"), ("public.b", "a_id")] {
        dataset.owners.push(OwnerPath { table: table.into(), via: vec![via.into()] });
    }
    let codes = codes(resolve(&dataset, &catalog));
    assert!(codes.contains(&("OwnerPathEndless".into(), "public.a".into())));
    assert!(codes.contains(&("OwnerPathEndless".into(), "public.b".into())));
}

#[test]
fn a_table_outside_that_the_dataset_needs_is_a_finding() {
    let mut dataset = dataset();
    dataset.include = vec!["public.deal*".into(), "public.contact".into()];
    dataset.exclude = vec!["public.deal_contact".into()];
    assert_eq!(codes(resolve(&dataset, &crm())), [("ReferencedTableOutside".to_owned(), "public.deal".to_owned())]);
    dataset.reference = vec!["public.currency".into(), "public.region".into()];
    let scope = resolve(&dataset, &crm()).unwrap();
    assert_eq!(names(&scope), ["account", "contact", "deal"]);
    assert!(scope.notes.iter().any(|note| { note.code == "TableStaysBehind" && note.object == "public.deal_contact" }));
}

#[test]
fn a_shared_table_that_leads_to_a_customer_is_a_finding() {
    let mut dataset = dataset();
    dataset.exclude = vec!["public.deal_contact".into()];
    dataset.reference = vec!["public.contact".into()];
    assert_eq!(
        codes(resolve(&dataset, &crm())),
        [("ReferenceReachesCustomer".to_owned(), "public.contact".to_owned())]
    );
}

#[test]
fn a_table_without_primary_key_and_a_root_key_that_is_not_unique_are_findings() {
    let mut catalog = catalog(&["account", "log"], &[("log", "account_id", "account")]);
    for table in catalog.tables.values_mut() {
        table.primary_key.clear();
    }
    assert_eq!(
        codes(resolve(&dataset(), &catalog)),
        [
            ("RootKeyNotUnique".to_owned(), "public.account".to_owned()),
            ("PrimaryKeyMissing".to_owned(), "public.account".to_owned()),
            ("PrimaryKeyMissing".to_owned(), "public.log".to_owned()),
        ]
    );
}

#[test]
fn names_that_match_nothing_are_findings() {
    let mut dataset = dataset();
    dataset.exclude = vec!["public.deal_contact".into()];
    dataset.include = vec!["sales.*".into()];
    dataset.reference = vec!["public.nothing".into()];
    dataset.owners = vec![OwnerPath { table: "public.deal".into(), via: vec!["nothing".into()] }];
    let codes: Vec<_> = codes(resolve(&dataset, &crm())).into_iter().map(|(code, _)| code).collect();
    assert!(codes.contains(&"IncludeMatchesNothing".to_owned()));
    assert!(codes.contains(&"ReferenceTableMissing".to_owned()));
    assert!(codes.contains(&"OwnerKeyMissing".to_owned()));
}

#[test]
fn a_star_stands_for_any_characters() {
    for (pattern, text, expected) in [
        ("public.*", "public.account", true),
        ("public.*", "private.account", false),
        ("*.deal*", "sales.deal_contact", true),
        ("public.d*t", "public.deal_contact", true),
        ("public.d*x", "public.deal_contact", false),
        ("*", "öffentlich.Straße", true),
        ("public.deal", "public.deal_contact", false),
    ] {
        assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
    }
}
