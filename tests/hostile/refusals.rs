//! What Godwit cannot move yet is refused by Assess: by name, with the remedy, before anything is written.
//! Each trap stands alone in a database of its own; nothing else may be refused there.

use std::collections::BTreeSet;

use godwit::contract::{KeyStrategy, Severity, Side};

use crate::base::rooted;
use crate::journey::Journey;
use crate::oracle;

struct Trap {
    name: &'static str,
    source: &'static str,
    target: &'static str,
    /// Finding, object, a word of the remedy.
    blockers: &'static [(&'static str, &'static str, &'static str)],
    warnings: &'static [(&'static str, &'static str, &'static str)],
}

impl Trap {
    const NONE: Self = Self { name: "", source: "", target: "", blockers: &[], warnings: &[] };
}

const ROOT: &str = "create table customer (id int primary key); insert into customer values (1), (2);";

const TRAPS: &[Trap] = &[
    Trap {
        name: "a table without a primary key, though its columns are unique",
        source: "create table item (id int not null unique, customer int references customer); create table log (customer int not null references customer)",
        blockers: &[("PrimaryKeyMissing", "public.item", "declare one"), ("PrimaryKeyMissing", "public.log", "declare one")],
        ..Trap::NONE
    },
    Trap {
        name: "inheritance, parent and child",
        source: "create table item (id int primary key, customer int references customer); create table special (extra text) inherits (item)",
        blockers: &[("InheritanceUnsupported", "public.item", "partitioning")],
        ..Trap::NONE
    },
    Trap {
        name: "a schema with a dot",
        source: "create schema \"a.b\"; create table \"a.b\".item (id int primary key, customer int references customer)",
        blockers: &[("SchemaNameUnsupported", "a.b.item", "rename")],
        ..Trap::NONE
    },
    Trap {
        name: "large objects in a column of type oid",
        source: "create table item (id int primary key, customer int not null references customer, content oid, other oid);
            insert into item values (1, 1, lo_from_bytea(0, 'x'), 99), (2, 2, null, null)",
        blockers: &[("LargeObjectColumn", "public.item", "content")],
        warnings: &[("LargeObjects", "source", "move it yourself")],
        ..Trap::NONE
    },
    Trap {
        name: "an exclusion constraint that waits for the commit: nothing enforces it while rows land",
        source: "create table item (id int primary key, customer int not null references customer, at int4range, exclude using gist (at with &&) deferrable)",
        blockers: &[("ExclusionDeferrable", "public.item", "not deferrable")],
        ..Trap::NONE
    },
    Trap {
        name: "another kind of relation under the table's name",
        source: "create table item (id serial primary key, customer int not null references customer); create index item_customer on item (customer)",
        target: "create view item as select 1 as id; create table item_customer (x int); create sequence item_pkey",
        blockers: &[
            ("NameTaken", "public.item", "view"),
            ("NameTaken", "public.item_customer", "rename"),
            ("NameTaken", "public.item_pkey", "rename"),
        ],
        ..Trap::NONE
    },
    Trap {
        name: "a sequence of another name on the target",
        source: "create table item (id serial primary key, customer int not null references customer)",
        target: "create table customer (id int primary key); create sequence numbers; create table item (id int primary key default nextval('numbers'), customer int not null references customer)",
        blockers: &[("SequenceMissing", "public.item_id_seq", "numbers")],
        ..Trap::NONE
    },
    Trap {
        name: "types of one name and two meanings",
        source: "create type pair as (a int, b int); create domain small as int check (value < 10); create type span as range (subtype = int8);
            create table item (id int primary key, customer int not null references customer, p pair, s small, r span)",
        target: "create type pair as (b int, a int); create domain small as int check (value < 11); create type span as range (subtype = int4)",
        blockers: &[("TypeDiffers", "public.pair", "equal"), ("TypeDiffers", "public.small", "equal"), ("TypeDiffers", "public.span", "equal")],
        ..Trap::NONE
    },
    Trap {
        name: "columns that a copy would fill with nonsense, round or leave empty",
        source: "create table item (id int primary key, customer int not null references customer, a bigint, b numeric(12,4), c timestamptz, d real, e text, f int, g int generated always as (f * 2) stored, h int generated always as (f + 1) stored)",
        target: "create table customer (id int primary key);
            create table item (id int primary key, customer int not null references customer, a timestamptz, b numeric(12,2), c timestamptz(0), d int, e varchar(3), f int not null, g int, h int generated always as (f + 2) stored)",
        blockers: &[
            ("ColumnTypeDiffers", "public.item.a", "equal"),
            ("ColumnTypeDiffers", "public.item.b", "equal"),
            ("ColumnTypeDiffers", "public.item.c", "equal"),
            ("ColumnTypeDiffers", "public.item.d", "equal"),
            ("ColumnTypeDiffers", "public.item.e", "equal"),
            ("ColumnStricterOnTarget", "public.item.f", "equal"),
            ("GeneratedColumnDiffers", "public.item.g", "same expression"),
            ("GeneratedColumnDiffers", "public.item.h", "same expression"),
        ],
        ..Trap::NONE
    },
    Trap {
        name: "rows that break a check which was never validated",
        source: "create table item (id int primary key, customer int not null references customer, n int); insert into item values (1, 1, -5), (2, 1, 5);
            alter table item add constraint positive check (n > 0) not valid",
        blockers: &[("CheckViolated", "public.item", "positive")],
        warnings: &[("ConstraintNotValidated", "public.item", "positive")],
        ..Trap::NONE
    },
    Trap {
        name: "rows of the target that have the keys of the source's, by a key of two columns that ignores case",
        source: "create extension citext; create table item (customer int references customer, code citext, n citext unique, primary key (customer, code)); insert into item values (1, 'ABC', 'x'), (2, 'D', 'Y')",
        target: "create extension citext; create table customer (id int primary key); create table item (customer int references customer, code citext, n citext unique, primary key (customer, code));
            insert into customer values (1), (9); insert into item values (1, 'abc', 'other'), (9, 'd', 'y')",
        blockers: &[("KeyCollision", "public.customer", "1 rows"), ("KeyCollision", "public.item", "1 rows"), ("UniqueCollision", "public.item", "1 rows")],
        ..Trap::NONE
    },
];

/// Blockers or warnings as (code, object), with the whole of what was found for the message.
fn check(trap: &str, found: &[godwit::contract::Finding], severity: Severity, expected: &[(&str, &str, &str)]) {
    let of_severity: BTreeSet<_> = found
        .iter()
        .filter(|finding| finding.severity == severity)
        .map(|finding| (finding.code.as_str(), finding.object.as_str()))
        .collect();
    let wanted: BTreeSet<_> = expected.iter().map(|(code, object, _)| (*code, *object)).collect();
    assert_eq!(of_severity, wanted, "{trap}: {found:#?}");
    for (code, object, remedy) in expected {
        let message = found.iter().find(|finding| finding.code == *code && finding.object == *object).unwrap();
        assert!(message.message.contains(remedy), "{trap}: {message:?} does not say {remedy}");
    }
}

async fn assess(trap: &Trap, root: &str, keys: KeyStrategy) {
    let mut dataset = rooted("public.customer", "id", &[]);
    dataset.keys = keys;
    let journey = Journey::new(&format!("{root} {}", trap.source), dataset);
    journey.target(trap.target);
    let before = journey.rows(Side::Target).await;
    let found = journey.findings().await;
    check(trap.name, &found, Severity::Blocker, trap.blockers);
    check(trap.name, &found, Severity::Warning, trap.warnings);
    oracle::assert_same(&journey.rows(Side::Target).await, &before, trap.name);
}

#[tokio::test]
async fn each_trap_is_named_with_its_remedy_and_nothing_else_is() {
    for trap in TRAPS {
        assess(trap, ROOT, KeyStrategy::Gap).await;
    }
}

#[tokio::test]
async fn foreign_keys_of_single_partitions_are_named() {
    let trap = Trap {
        name: "a foreign key of one partition, and one to a partition",
        source: "create table other (id int primary key, customer int not null references customer);
            create table item (id int, customer int not null references customer, other int, primary key (id)) partition by range (id);
            create table item_1 partition of item for values from (0) to (100);
            alter table item_1 add constraint only_here foreign key (other) references other;
            create table mark (id int primary key, item int not null references item_1)",
        blockers: &[("PartitionForeignKey", "public.item", "only_here"), ("PartitionForeignKey", "public.mark", "public.item_1")],
        ..Trap::NONE
    };
    assess(&trap, ROOT, KeyStrategy::Gap).await;
}

#[tokio::test]
async fn a_customers_key_must_look_the_same_whenever_it_is_equal() {
    let insensitive = "create collation ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false); create table customer (id text collate ci primary key)";
    for (root, code) in [
        ("create table customer (id float8 primary key)", "RootKeyType"),
        ("create table customer (id numeric primary key)", "RootKeyType"),
        ("create table customer (id interval primary key)", "RootKeyType"),
        ("create table customer (id jsonb primary key)", "RootKeyType"),
        (insensitive, "RootKeyCollation"),
    ] {
        let journey = Journey::new(root, rooted("public.customer", "id", &[]));
        let found = journey.findings().await;
        let blockers: Vec<_> = found.iter().filter(|finding| finding.severity == Severity::Blocker).collect();
        assert!(blockers.iter().any(|it| it.code == code && it.object == "public.customer"), "{root}: {found:?}");
    }
}
