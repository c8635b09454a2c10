//! Tests of `partition.rs`.

use bytes::BufMut;

use super::*;
use crate::worker::postgres::model::{Column, ForeignKey, OwnedTable, TableKind};

#[test]
fn partitions_follow_the_size_of_the_data_within_bounds() {
    assert_eq!(partition_count(0), 1);
    assert_eq!(partition_count(17 << 20), 2);
    assert_eq!(partition_count(1 << 30), 64);
    assert_eq!(partition_count(1 << 50), 1024);
}

fn column(name: &str, type_name: &str) -> Column {
    Column {
        name: name.into(),
        type_name: type_name.into(),
        type_oid: 0,
        collation: None,
        not_null: false,
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

fn owned(name: &str, columns: &[(&str, &str)], format: RowFormat) -> OwnedTable {
    OwnedTable {
        table: Table {
            name: TableName::new("public", name),
            kind: TableKind::Ordinary,
            columns: columns.iter().map(|(name, type_name)| column(name, type_name)).collect(),
            primary_key: vec![columns[0].0.into()],
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
        },
        path: Vec::new(),
        format,
        root_key: "id".into(),
    }
}

fn child_of(parent: &OwnedTable, mut child: OwnedTable, column: &str, referenced: &str) -> OwnedTable {
    child.path = vec![ForeignKey {
        name: "fkey".into(),
        table: child.table.name.clone(),
        columns: vec![column.into()],
        referenced: parent.table.name.clone(),
        referenced_columns: vec![referenced.into()],
        operators: Vec::new(),
        match_full: false,
        validated: true,
        deferrable: false,
    }];
    child.path.extend(parent.path.iter().cloned());
    child
}

fn scope(owned: Vec<OwnedTable>) -> Scope {
    Scope {
        root: owned[0].table.name.clone(),
        root_key: "id".into(),
        root_key_type: "bigint".into(),
        owned,
        reference: Vec::new(),
        links: Vec::new(),
        reference_keys: Vec::new(),
        notes: Vec::new(),
    }
}

fn binary(fields: &[Option<&[u8]>]) -> Vec<u8> {
    let mut row = Vec::new();
    row.put_u16(u16::try_from(fields.len()).unwrap());
    for field in fields {
        match field {
            None => row.put_i32(-1),
            Some(bytes) => {
                row.put_i32(i32::try_from(bytes.len()).unwrap());
                row.put_slice(bytes);
            }
        }
    }
    row
}

/// account(id, code) <- deal(id, account_id) <- line(id, deal_id) in text; note(id, code) refers to the account's code.
fn crm() -> Scope {
    let account = owned("account", &[("id", "bigint"), ("code", "text")], RowFormat::Binary);
    let deal = child_of(
        &account,
        owned("deal", &[("id", "integer"), ("account_id", "bigint")], RowFormat::Binary),
        "account_id",
        "id",
    );
    let line = child_of(
        &deal,
        owned("line", &[("id", "bigint"), ("what", "text"), ("deal_id", "bigint")], RowFormat::Text),
        "deal_id",
        "id",
    );
    let note = child_of(
        &account,
        owned("note", &[("id", "bigint"), ("code", "character varying(9)")], RowFormat::Text),
        "code",
        "code",
    );
    scope(vec![account, deal, line, note])
}

#[test]
fn a_row_goes_where_its_customer_went_however_many_hops_away() {
    let mut router = Router::new(&Routed::of_scope(&crm()), "id", 64);
    for customer in 1_i64..=50 {
        let code = format!("c{customer}");
        let row = binary(&[Some(&customer.to_be_bytes()), Some(code.as_bytes())]);
        let partition = router.route(0, &row).unwrap();
        assert_eq!(partition, Key::Integer(customer).partition(64));
    }
    router.finish_table(0);
    for customer in 1_i64..=50 {
        let id = i32::try_from(customer).unwrap() + 1000;
        let row = binary(&[Some(&id.to_be_bytes()), Some(&customer.to_be_bytes())]);
        let partition = router.route(1, &row).unwrap();
        assert_eq!(partition, Key::Integer(customer).partition(64));
    }
    router.finish_table(1);
    for customer in 1_i64..=50 {
        let line = format!("{}\tx\\ty\t{}\n", customer * 7, customer + 1000);
        let note = format!("{customer}\tc{customer}\n");
        let expected = Key::Integer(customer).partition(64);
        assert_eq!(router.route(2, line.as_bytes()).unwrap(), expected);
        assert_eq!(router.route(3, note.as_bytes()).unwrap(), expected);
    }
}

#[test]
fn rows_that_reach_no_customer_have_a_partition_of_their_own_and_so_have_their_children() {
    let mut router = Router::new(&Routed::of_scope(&crm()), "id", 8);
    router.route(0, &binary(&[Some(&1_i64.to_be_bytes()), None])).unwrap();
    let mut deal = |id: i32, account: Option<i64>| {
        let account = account.map(i64::to_be_bytes);
        let row = binary(&[Some(&id.to_be_bytes()), account.as_ref().map(<[u8; 8]>::as_slice)]);
        router.route(1, &row).unwrap()
    };
    let unowned = 8;
    assert_ne!(deal(1, Some(1)), unowned);
    assert_eq!(deal(2, None), unowned);
    assert_eq!(deal(3, Some(99)), unowned);
    assert_eq!(router.route(2, b"1\tx\t3\n").unwrap(), unowned);
    assert_eq!(router.route(2, b"2\tx\t77\n").unwrap(), unowned);
    assert_eq!(router.route(3, b"2\t\\N\n").unwrap(), unowned);
}

#[test]
fn keys_that_cannot_be_compared_across_formats_are_read_as_text_on_both_sides() {
    let at = "timestamp with time zone";
    let account = owned("account", &[("id", at)], RowFormat::Binary);
    let deal = child_of(&account, owned("deal", &[("id", "bigint"), ("since", at)], RowFormat::Binary), "since", "id");
    let line = child_of(&account, owned("line", &[("id", "bigint"), ("since", at)], RowFormat::Text), "since", "id");
    let routed = Routed::of_scope(&scope(vec![account.clone(), deal.clone(), line]));
    assert!(routed.iter().all(|table| table.format == RowFormat::Text));
    let routed = Routed::of_scope(&scope(vec![account, deal]));
    assert!(routed.iter().all(|table| table.format == RowFormat::Binary));
}

#[test]
fn a_restore_finds_the_rows_of_its_customers_and_no_others() {
    let tables = Routed::of_scope(&crm());
    let stored: Vec<Routed> = serde_json::from_str(&serde_json::to_string(&tables).unwrap()).unwrap();
    assert_eq!(stored, tables);
    let wanted = KeyMap::from_iter([Key::Integer(2)]);
    let mut router = Router::only(&stored, "id", wanted);
    let mut account = |id: i64| {
        let row = binary(&[Some(&id.to_be_bytes()), None]);
        router.route(0, &row).unwrap()
    };
    assert_eq!([account(1), account(2), account(3)], [1, 0, 1]);
    let mut deal = |id: i32, account: i64| {
        let row = binary(&[Some(&id.to_be_bytes()), Some(&account.to_be_bytes())]);
        router.route(1, &row).unwrap()
    };
    assert_eq!([deal(10, 1), deal(20, 2), deal(40, 4)], [1, 0, 1]);
    assert_eq!(router.route(2, b"1\tx\t20\n").unwrap(), 0);
    assert_eq!(router.route(2, b"1\tx\t40\n").unwrap(), 1);
}

#[test]
fn a_row_too_short_for_its_key_is_an_error() {
    let mut router = Router::new(&Routed::of_scope(&crm()), "id", 4);
    assert!(router.route(0, &binary(&[])).is_err());
    assert!(router.route(0, b"").is_err());
    assert!(router.route(2, b"1\n").is_err());
}
