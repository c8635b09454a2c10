//! The classes of corruption: what is broken, which checks must see it, and what the evidence must name.
//! Every change of every type of cell is a class of its own; the others follow here.

use std::collections::BTreeSet;

use super::cells::{BINARY, Cell, EMPTY, SCALE, TEXT, VALUE};
use super::lab::{Lab, Line};
use super::{Case, Random};

/// The checks of Validate, by the code of what they find.
pub const CODES: [&str; 9] = [
    "RowsDiffer",
    "OrphanRows",
    "DoubleRows",
    "CheckViolated",
    "RowsOfNobody",
    "SequenceBehind",
    "ConstraintMissing",
    "ConstraintNotValidated",
    "FenceDown",
];

type Make = Box<dyn Fn(&Lab, &mut Random) -> Case + Send + Sync>;

pub struct Class {
    /// The row of the documentation's table.
    pub group: &'static str,
    pub name: String,
    /// Only the one cohort's rows are concerned: every other cohort passes all the same.
    pub of_one_cohort: bool,
    pub make: Make,
}

pub fn classes() -> Vec<Class> {
    let mut classes = Vec::new();
    for (table, cells) in [("specimen", BINARY), ("oddity", TEXT)] {
        for cell in cells {
            classes.extend(cell.changes.iter().map(|(group, change)| of_cell(table, cell, group, change)));
        }
    }
    for (group, name, of_one_cohort, make) in others() {
        classes.push(Class { group, name: name.to_owned(), of_one_cohort, make });
    }
    classes
}

fn of_cell(table: &'static str, cell: &'static Cell, group: &'static str, change: &'static str) -> Class {
    let make = move |lab: &Lab, random: &mut Random| {
        let key = random.pick(if table == "specimen" { &lab.specimens } else { &lab.oddities }).clone();
        let change = of_column(change, cell.column);
        let breaks = format!("update {table} set {} = {change} where id = '{key}'", cell.column);
        differs(breaks, [line(table, &[&key])])
    };
    Class { group, name: format!("{} {change}", cell.column), of_one_cohort: true, make: Box::new(make) }
}

/// Puts the column in the place of the word `c`, outside of literals.
fn of_column(change: &str, column: &str) -> String {
    let bytes = change.as_bytes();
    let is_word = |at: Option<&u8>| at.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    let mut quoted = false;
    let mut text = String::new();
    for (at, letter) in change.char_indices() {
        quoted ^= letter == '\'';
        let alone =
            letter == 'c' && !is_word(at.checked_sub(1).and_then(|at| bytes.get(at))) && !is_word(bytes.get(at + 1));
        if alone && !quoted { text.push_str(column) } else { text.push(letter) }
    }
    text
}

pub fn line(table: &str, key: &[&str]) -> Line {
    (format!("public.{table}"), key.iter().map(ToString::to_string).collect())
}

/// Rows alone are concerned: the tables are those of the lines.
fn differs<const N: usize>(breaks: String, lines: [Line; N]) -> Case {
    seen(&["RowsDiffer"], breaks, lines.into())
}

fn seen(codes: &[&'static str], breaks: String, lines: BTreeSet<Line>) -> Case {
    let known = ["public.customer", "public.specimen", "public.oddity", "public.pairing", "public.leaf"];
    let tables = known.into_iter().filter(|table| lines.iter().any(|(name, _)| name == table)).collect();
    Case { breaks, repairs: String::new(), codes: codes.iter().copied().collect(), tables, lines }
}

/// No row is wrong: the table alone is named.
fn of_table(codes: &[&'static str], table: &'static str, breaks: &str, repairs: &str) -> Case {
    Case {
        breaks: breaks.into(),
        repairs: repairs.into(),
        codes: codes.iter().copied().collect(),
        tables: [table].into(),
        lines: BTreeSet::new(),
    }
}

const NEIGHBOUR: &str = "value moved to a neighbour's row, rows or columns exchanged";
const MISSING: &str = "row missing";
const DOUBLED: &str = "row doubled (same key)";
const FOREIGN: &str = "row that the source does not have";
const NOBODY: &str = "customer that is nobody's";
const REKEYED: &str = "row under another key";
const MOVED: &str = "row that hangs on another customer or parent";
const JUNCTION: &str = "orphan junction row, orphan child";
const ALIKE: &str = "reference to a shared row that is gone (rows alike on both sides)";
const FORGED_KEY: &str = "foreign key marked valid over a violation";
const FORGED_CHECK: &str = "check constraint marked valid over a violation";
const BEHIND: &str = "sequence behind (serial, identity, shared by tables, of text keys)";
const ABSENT: &str = "constraint absent";
const UNVALIDATED: &str = "constraint not validated";
const OFF: &str = "constraint triggers disabled, index invalid";
const FENCE: &str = "fence removed or switched off";

type Other = (&'static str, &'static str, bool, Make);

fn others() -> Vec<Other> {
    let mut all = of_rows();
    all.extend(of_whole_rows());
    all.extend(of_references());
    all.extend(of_catalogue());
    all
}

fn other(
    group: &'static str,
    name: &'static str,
    make: impl Fn(&Lab, &mut Random) -> Case + Send + Sync + 'static,
) -> Other {
    (group, name, true, Box::new(make))
}

fn wide(
    group: &'static str,
    name: &'static str,
    make: impl Fn(&Lab, &mut Random) -> Case + Send + Sync + 'static,
) -> Other {
    (group, name, false, Box::new(make))
}

/// Two different keys.
fn two(random: &mut Random, keys: &[String]) -> (String, String) {
    let one = random.below(keys.len());
    let other = (one + 1 + random.below(keys.len() - 1)) % keys.len();
    (keys[one].clone(), keys[other].clone())
}

fn codes(lab: &Lab) -> Vec<String> {
    lab.leaves.iter().map(|leaf| leaf.0.clone()).collect()
}

fn of_rows() -> Vec<Other> {
    vec![
        other(NEIGHBOUR, "a leaf has its neighbour's body", |lab, random| {
            let (one, two) = two(random, &codes(lab));
            differs(
                format!(
                    "update leaf set body = (select n.body from leaf n where n.code = '{two}') where code = '{one}'"
                ),
                [line("leaf", &[&one])],
            )
        }),
        other(NEIGHBOUR, "two leaves have each other's bodies", |lab, random| {
            let (one, two) = two(random, &codes(lab));
            let breaks = format!(
                "update leaf set body = n.body from keep_leaf n where (leaf.code, n.code) in (('{one}', '{two}'), ('{two}', '{one}'))"
            );
            differs(breaks, [line("leaf", &[&one]), line("leaf", &[&two])])
        }),
        other(NEIGHBOUR, "a cent moves from one specimen to another", |lab, random| {
            let (one, two) = two(random, &lab.specimens);
            let breaks = format!(
                "update specimen set some_money = some_money + case id when {one} then '0.01'::money else '-0.01' end where id in ({one}, {two})"
            );
            differs(breaks, [line("specimen", &[&one]), line("specimen", &[&two])])
        }),
        other(NEIGHBOUR, "two columns of a row are exchanged", |lab, random| {
            let key = random.pick(&lab.specimens).clone();
            let columns = random.pick(&[
                ("a_double", "a_third"),
                ("empty_text", "null_text"),
                ("a_text", "empty_text"),
                ("an_interval", "a_month"),
            ]);
            differs(
                format!("update specimen set {0} = {1}, {1} = {0} where id = {key}", columns.0, columns.1),
                [line("specimen", &[&key])],
            )
        }),
        other(VALUE, "the root table's own text", |lab, random| {
            let key = random.pick(&lab.customers).clone();
            differs(format!("update customer set name = name || '.' where id = {key}"), [line("customer", &[&key])])
        }),
        other(EMPTY, "the root table's own text", |lab, random| {
            let key = random.pick(&lab.customers).clone();
            differs(
                format!("update customer set note = case when note is null then '' end where id = {key}"),
                [line("customer", &[&key])],
            )
        }),
        other(SCALE, "in a junction", |lab, random| {
            let (one, two) = random.pick(&lab.pairings).clone();
            differs(
                format!("update pairing set weight = trim_scale(weight) where (specimen, oddity) = ({one}, '{two}')"),
                [line("pairing", &[&one, &two])],
            )
        }),
    ]
}

/// What a specimen takes along: its leaves and its pairings.
fn with_children(lab: &Lab, specimen: &str) -> BTreeSet<Line> {
    let leaves = lab.leaves.iter().filter(|leaf| leaf.1 == *specimen).map(|leaf| line("leaf", &[&leaf.0]));
    let pairings = lab
        .pairings
        .iter()
        .filter(|pairing| pairing.0 == *specimen)
        .map(|pairing| line("pairing", &[&pairing.0, &pairing.1]));
    leaves.chain(pairings).chain([line("specimen", &[specimen])]).collect()
}

#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn of_whole_rows() -> Vec<Other> {
    vec![
        other(MISSING, "a leaf", |lab, random| {
            let key = random.pick(&codes(lab)).clone();
            differs(format!("delete from leaf where code = '{key}'"), [line("leaf", &[&key])])
        }),
        other(MISSING, "a junction row", |lab, random| {
            let (one, two) = random.pick(&lab.pairings).clone();
            differs(
                format!("delete from pairing where (specimen, oddity) = ({one}, '{two}')"),
                [line("pairing", &[&one, &two])],
            )
        }),
        other(MISSING, "every leaf of the cohort", |lab, _| {
            let lines: BTreeSet<Line> = codes(lab).iter().map(|code| line("leaf", &[code])).collect();
            seen(&["RowsDiffer"], format!("delete from leaf where code in ('{}')", codes(lab).join("', '")), lines)
        }),
        other(MISSING, "a leaf, and another one under a key of its own in its place", |lab, random| {
            let key = random.pick(&codes(lab)).clone();
            let new = format!("leaf-9{:08}", random.below(100_000_000));
            let breaks = format!(
                "insert into leaf select '{new}', specimen, body, currency, place + 100 from leaf where code = '{key}'; delete from leaf where code = '{key}'"
            );
            differs(breaks, [line("leaf", &[&key]), line("leaf", &[&new])])
        }),
        other(DOUBLED, "a leaf under a primary key that the server did not enforce", |lab, random| {
            let key = random.pick(&codes(lab)).clone();
            seen(
                &["RowsDiffer", "DoubleRows"],
                format!("insert into leaf select * from leaf where code = '{key}'"),
                [line("leaf", &[&key])].into(),
            )
        }),
        other(DOUBLED, "a leaf's place under a unique constraint that the server did not enforce", |lab, random| {
            let leaf = random.pick(&lab.leaves).clone();
            let twin = lab.leaves.iter().find(|other| other.1 == leaf.1 && other.0 != leaf.0).unwrap();
            let breaks = format!(
                "update leaf set place = (select n.place from leaf n where n.code = '{}') where code = '{}'",
                twin.0, leaf.0
            );
            seen(&["RowsDiffer", "DoubleRows"], breaks, [line("leaf", &[&leaf.0]), line("leaf", &[&twin.0])].into())
        }),
        other(FOREIGN, "a leaf more", |lab, random| {
            let (specimen, new) =
                (random.pick(&lab.specimens).clone(), format!("leaf-8{:08}", random.below(100_000_000)));
            differs(
                format!("insert into leaf values ('{new}', {specimen}, 'foreign', null, null)"),
                [line("leaf", &[&new])],
            )
        }),
        other(FOREIGN, "an oddity more", |lab, random| {
            let customer = random.pick(&lab.customers).clone();
            let new = format!("{:08x}-0000-4000-8000-000000000000", random.below(1 << 32));
            differs(
                format!("insert into oddity (id, customer, serial) values ('{new}', {customer}, 5)"),
                [line("oddity", &[&new])],
            )
        }),
        wide(NOBODY, "a customer more", |_, random| {
            let new = (7_350_000_000 + random.below(1_000_000)).to_string();
            let breaks = format!("insert into customer overriding system value values ({new}, 'nobody''s', null, 9)");
            seen(&["RowsOfNobody"], breaks, [line("customer", &[&new])].into())
        }),
        other(REKEYED, "a leaf", |lab, random| {
            let (key, new) = (random.pick(&codes(lab)).clone(), format!("leaf-7{:08}", random.below(100_000_000)));
            differs(
                format!("update leaf set code = '{new}' where code = '{key}'"),
                [line("leaf", &[&key]), line("leaf", &[&new])],
            )
        }),
        other(REKEYED, "two leaves have each other's keys", |lab, random| {
            let (one, two) = two(random, &codes(lab));
            let breaks = format!(
                "update leaf set code = case code when '{one}' then '{two}' else '{one}' end where code in ('{one}', '{two}')"
            );
            differs(breaks, [line("leaf", &[&one]), line("leaf", &[&two])])
        }),
        wide(MOVED, "an oddity to another cohort's customer", |lab, random| {
            let key = random.pick(&lab.oddities).clone();
            differs(
                format!("update oddity set customer = {} where id = '{key}'", lab.stranger),
                [line("oddity", &[&key])],
            )
        }),
        other(MOVED, "a specimen to another customer of the cohort", |lab, random| {
            let key = random.pick(&lab.specimens).clone();
            let breaks = format!(
                "update specimen set customer = (select min(c.id) from customer c where c.id <> specimen.customer and c.rank <= 3) where id = {key}"
            );
            differs(breaks, [line("specimen", &[&key])])
        }),
        other(MOVED, "a leaf to another specimen", |lab, random| {
            let leaf = random.pick(&lab.leaves).clone();
            let other = lab.specimens.iter().find(|specimen| **specimen != leaf.1).unwrap();
            differs(
                format!("update leaf set specimen = {other}, place = place + 10 where code = '{}'", leaf.0),
                [line("leaf", &[&leaf.0])],
            )
        }),
    ]
}

#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn of_references() -> Vec<Other> {
    vec![
        wide(JUNCTION, "an oddity gone, its pairings left", |lab, random| {
            let key = random.pick(&lab.oddities).clone();
            let mut lines: BTreeSet<Line> = lab
                .pairings
                .iter()
                .filter(|pairing| pairing.1 == key)
                .map(|it| line("pairing", &[&it.0, &it.1]))
                .collect();
            lines.insert(line("oddity", &[&key]));
            seen(&["RowsDiffer", "OrphanRows"], format!("delete from oddity where id = '{key}'"), lines)
        }),
        wide(JUNCTION, "a specimen gone, its children left", |lab, random| {
            let key = random.pick(&lab.specimens).clone();
            seen(
                &["RowsDiffer", "OrphanRows"],
                format!("delete from specimen where id = {key}"),
                with_children(lab, &key),
            )
        }),
        wide(JUNCTION, "a pairing with an oddity that never was", |lab, random| {
            let specimen = random.pick(&lab.specimens).clone();
            let new = format!("{:08x}-1111-4111-8111-111111111111", random.below(1 << 32));
            let breaks = format!("insert into pairing values ({specimen}, '{new}', 7, 'forged', 1)");
            seen(&["RowsDiffer", "OrphanRows"], breaks, [line("pairing", &[&specimen, &new])].into())
        }),
        wide(JUNCTION, "a pairing with a specimen that never was, so that it is nobody's", |lab, random| {
            let (oddity, new) =
                (random.pick(&lab.oddities).clone(), (8_650_000_000 + random.below(1_000_000)).to_string());
            let breaks = format!("insert into pairing values ({new}, '{oddity}', 7, 'forged', 1)");
            seen(&["OrphanRows"], breaks, [line("pairing", &[&new, &oddity])].into())
        }),
        wide(JUNCTION, "a leaf on a specimen that never was", |_, random| {
            let new = format!("leaf-6{:08}", random.below(100_000_000));
            seen(
                &["OrphanRows"],
                format!("insert into leaf values ('{new}', 8660000000, 'orphan', null, 1)"),
                [line("leaf", &[&new])].into(),
            )
        }),
        wide(ALIKE, "a currency", |lab, random| {
            let leaf = random.pick(&lab.leaves).clone();
            let mut case = seen(
                &["OrphanRows"],
                format!("delete from currency where code = '{}'", leaf.2),
                [line("leaf", &[&leaf.0])].into(),
            );
            case.repairs = format!("insert into currency select * from keep_currency where code = '{}'", leaf.2);
            case
        }),
        wide(FORGED_KEY, "over a currency that is gone", |lab, random| {
            let leaf = random.pick(&lab.leaves).clone();
            let breaks = format!(
                "alter table leaf drop constraint leaf_currency_fkey; delete from currency where code = '{}';
                 alter table leaf add constraint leaf_currency_fkey foreign key (currency) references currency not valid; {FORGE}",
                leaf.2
            );
            let mut case =
                seen(&["OrphanRows"], breaks.replace("NAME", "leaf_currency_fkey"), [line("leaf", &[&leaf.0])].into());
            case.repairs = format!("insert into currency select * from keep_currency where code = '{}'", leaf.2);
            case
        }),
        wide(FORGED_KEY, "over a currency that never was", |lab, random| {
            let leaf = random.pick(&lab.leaves).clone();
            let breaks = format!(
                "alter table leaf drop constraint leaf_currency_fkey; update leaf set currency = 'never' where code = '{}';
                 alter table leaf add constraint leaf_currency_fkey foreign key (currency) references currency not valid; {FORGE}",
                leaf.0
            );
            seen(
                &["RowsDiffer", "OrphanRows"],
                breaks.replace("NAME", "leaf_currency_fkey"),
                [line("leaf", &[&leaf.0])].into(),
            )
        }),
        wide(FORGED_KEY, "that only the target has", |lab, random| {
            let leaf = random.pick(&lab.leaves).clone();
            let breaks = format!(
                "create table other_currency as select * from currency where code <> '{}'; alter table other_currency add primary key (code);
                 alter table leaf add constraint forged foreign key (currency) references other_currency not valid; {FORGE}",
                leaf.2
            );
            let mut case = seen(&["OrphanRows"], breaks.replace("NAME", "forged"), [line("leaf", &[&leaf.0])].into());
            case.repairs = "drop table other_currency cascade".into();
            case
        }),
        wide(FORGED_CHECK, "that one row breaks", |lab, random| {
            let key = random.pick(&codes(lab)).clone();
            let breaks = format!("alter table leaf add constraint forged check (code <> '{key}') not valid; {FORGE}");
            let mut case = seen(&["CheckViolated"], breaks.replace("NAME", "forged"), [line("leaf", &[&key])].into());
            case.repairs = "alter table leaf drop constraint forged".into();
            case
        }),
    ]
}

const FORGE: &str = "update pg_catalog.pg_constraint set convalidated = true where conname = 'NAME'";

/// Far above every key.
const AHEAD: &str = "900000000000";

fn behind(name: &'static str, table: &'static str, sequence: &'static str, value: &'static str) -> Other {
    wide(BEHIND, name, move |_, _| {
        let breaks = format!("select setval({sequence}, {value})");
        of_table(&["SequenceBehind"], table, &breaks, &format!("select setval({sequence}, {AHEAD})"))
    })
}

/// All triggers of the fence of leaves.
fn fence(lab: &Lab, what: &str) -> String {
    lab.fence.iter().map(|name| format!("alter table leaf {what} trigger \"{name}\";")).collect()
}

fn of_catalogue() -> Vec<Other> {
    let foreign_key = "alter table leaf add constraint leaf_currency_fkey foreign key (currency) references currency";
    vec![
        behind("a serial", "public.specimen", "'specimen_id_seq'", "8640000003"),
        behind("an identity", "public.customer", "pg_get_serial_sequence('customer', 'id')", "1"),
        behind(
            "that two tables draw from, one of them further",
            "public.pairing",
            "'shared_serial'",
            "(select max(serial) from oddity)",
        ),
        behind("that text keys are made of", "public.leaf", "'leaf_code'", "3"),
        wide(ABSENT, "a foreign key", move |_, _| {
            of_table(
                &["ConstraintMissing"],
                "public.leaf",
                "alter table leaf drop constraint leaf_currency_fkey",
                foreign_key,
            )
        }),
        wide(ABSENT, "a unique constraint", |_, _| {
            let repairs = "alter table leaf add unique (specimen, place) deferrable initially deferred";
            of_table(
                &["ConstraintMissing"],
                "public.leaf",
                "alter table leaf drop constraint leaf_specimen_place_key",
                repairs,
            )
        }),
        wide(UNVALIDATED, "a foreign key", move |_, _| {
            let breaks = format!("alter table leaf drop constraint leaf_currency_fkey; {foreign_key} not valid");
            of_table(
                &["ConstraintNotValidated"],
                "public.leaf",
                &breaks,
                "alter table leaf validate constraint leaf_currency_fkey",
            )
        }),
        wide(UNVALIDATED, "a check", |_, _| {
            let breaks = "alter table leaf drop constraint short; alter table leaf add constraint short check (length(body) < 1000) not valid";
            of_table(&["ConstraintNotValidated"], "public.leaf", breaks, "alter table leaf validate constraint short")
        }),
        wide(OFF, "the triggers of a foreign key", |lab, _| {
            let repairs = format!("alter table leaf enable trigger all; {}", fence(lab, "enable always"));
            of_table(&["TriggerDisabled", "FenceDown"], "public.leaf", "alter table leaf disable trigger all", &repairs)
        }),
        wide(OFF, "an index", |_, _| {
            let set = |valid| {
                format!("update pg_catalog.pg_index set indisvalid = {valid} where indexrelid = 'leaf_body'::regclass")
            };
            of_table(&["IndexInvalid"], "public.leaf", &set(false), &set(true))
        }),
        wide(FENCE, "switched off", |lab, _| {
            let repairs = fence(lab, "enable always");
            of_table(&["FenceDown"], "public.leaf", "alter table leaf disable trigger user", &repairs)
        }),
        wide(FENCE, "one of its triggers as an ordinary one", |lab, random| {
            let breaks = format!("alter table leaf enable trigger \"{}\"", random.pick(&lab.fence));
            of_table(&["FenceDown"], "public.leaf", &breaks, &fence(lab, "enable always"))
        }),
    ]
}
