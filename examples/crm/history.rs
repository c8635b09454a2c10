//! What must be found in the databases, from the record of writes alone. Pure.
//! Called by `verify.rs`. Must not look at a database: the record is the witness, the databases are what is examined.

use std::collections::{BTreeMap, BTreeSet};

use godwit::contract::Side;
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Insert,
    Update,
    Delete,
}

impl Operation {
    pub fn name(self) -> &'static str {
        match self {
            Self::Insert => "insert",
            Self::Update => "update",
            Self::Delete => "delete",
        }
    }

    pub fn named(name: &str) -> anyhow::Result<Self> {
        match name {
            "insert" => Ok(Self::Insert),
            "update" => Ok(Self::Update),
            "delete" => Ok(Self::Delete),
            other => anyhow::bail!("{other:?} is no operation"),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RowKey {
    pub table: String,
    pub key: String,
}

/// One line of the record.
#[derive(Clone, Debug)]
pub struct Event {
    pub number: i64,
    pub intent: Option<i64>,
    pub side: Side,
    pub account: Option<i32>,
    pub cohort: String,
    pub kind: Kind,
}

#[derive(Clone, Debug)]
pub enum Kind {
    Intent,
    Refused,
    Confirmed { operation: Operation, row: RowKey, hash: Option<String> },
}

/// What a row must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// It was there before the record began, and no write of it counts: it must still be there.
    There,
    /// It must be there with this hash.
    Row(String),
    /// It must not be there.
    Gone,
}

/// What must be found on the side that owns the row's customer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    pub account: i32,
    pub cohort: String,
    pub content: Content,
    /// Confirmed writes that this content stands for: the last one, and those it came after.
    pub writes: u64,
}

/// Rows by what happened to them between the cutover and the way back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Classes {
    pub insert: u64,
    pub update: u64,
    pub delete: u64,
}

#[derive(Debug, Default)]
pub struct Replay {
    pub rows: BTreeMap<RowKey, Expected>,
    /// Per cohort and table: rows whose state on the target was set aside by going back.
    pub set_aside: BTreeMap<String, BTreeMap<String, Classes>>,
    /// Confirmed writes that led to those rows.
    pub writes_set_aside: u64,
    pub confirmed: u64,
    /// Customers with a write whose answer was lost, so that their rows may be either way.
    pub in_doubt: BTreeSet<i32>,
}

#[derive(Debug)]
struct Row {
    content: Content,
    cohort: String,
    writes: u64,
    /// What the row was when its customer last left the source, and the writes on the target since.
    at_cutover: Option<(Content, u64)>,
}

/// Goes through the record in order. A customer whose writes went to the target and who is owned by the source
/// afterwards came back, and what was written on the target in between does not count any more.
pub fn replay(events: &[Event], owner_of: impl Fn(i32) -> Side) -> Replay {
    let mut replay = Replay { in_doubt: accounts_in_doubt(events), ..Replay::default() };
    let mut accounts: BTreeMap<i32, BTreeMap<RowKey, Row>> = BTreeMap::new();
    for event in events {
        let (Kind::Confirmed { operation, row, hash }, Some(account)) = (&event.kind, event.account) else {
            continue;
        };
        replay.confirmed += 1;
        let rows = accounts.entry(account).or_default();
        if event.side == Side::Source {
            come_back(rows, &mut replay);
        }
        let known = rows.entry(row.clone()).or_insert_with(|| Row {
            content: match operation {
                Operation::Insert => Content::Gone,
                Operation::Update | Operation::Delete => Content::There,
            },
            cohort: event.cohort.clone(),
            writes: 0,
            at_cutover: None,
        });
        if event.side == Side::Target {
            let (_, since) = known.at_cutover.get_or_insert((known.content.clone(), 0));
            *since += 1;
        }
        known.content = hash.clone().map_or(Content::Gone, Content::Row);
        known.cohort.clone_from(&event.cohort);
        known.writes += 1;
    }
    for (account, mut rows) in accounts {
        if owner_of(account) == Side::Source {
            come_back(&mut rows, &mut replay);
        }
        replay.rows.extend(rows.into_iter().map(|(key, row)| {
            let expected = Expected { account, cohort: row.cohort, content: row.content, writes: row.writes };
            (key, expected)
        }));
    }
    replay
}

fn come_back(rows: &mut BTreeMap<RowKey, Row>, replay: &mut Replay) {
    for (key, row) in rows.iter_mut() {
        let Some((before, since)) = row.at_cutover.take() else {
            continue;
        };
        let tables = replay.set_aside.entry(row.cohort.clone()).or_default();
        let classes = tables.entry(key.table.clone()).or_default();
        match (&before, &row.content) {
            (Content::Gone, Content::Gone) => {}
            (Content::Gone, _) => classes.insert += 1,
            (_, Content::Gone) => classes.delete += 1,
            (before, after) if before == after => {}
            _ => classes.update += 1,
        }
        replay.writes_set_aside += since;
        row.writes -= since;
        row.content = before;
    }
}

/// Customers with an intent that was neither confirmed nor refused.
fn accounts_in_doubt(events: &[Event]) -> BTreeSet<i32> {
    let answered: BTreeSet<i64> = events.iter().filter_map(|event| event.intent).collect();
    events
        .iter()
        .filter(|event| matches!(event.kind, Kind::Intent) && !answered.contains(&event.number))
        .filter_map(|event| event.account)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Builds a record line by line; every write has an intent.
    #[derive(Default)]
    struct Lines(Vec<Event>);

    impl Lines {
        fn push(&mut self, side: Side, account: i32, intent: Option<i64>, kind: Kind) -> i64 {
            let number = 100 + i64::try_from(self.0.len()).unwrap();
            let cohort = "early".to_owned();
            let event = Event { number, intent, side, account: Some(account), cohort, kind };
            self.0.push(event);
            number
        }

        fn write(mut self, side: Side, account: i32, operation: Operation, (key, hash): (&str, &str)) -> Self {
            let intent = self.push(side, account, None, Kind::Intent);
            let hash = (operation != Operation::Delete).then(|| hash.to_owned());
            let kind = Kind::Confirmed { operation, row: deal(key), hash };
            self.push(side, account, Some(intent), kind);
            self
        }

        fn replay(&self, owner: Side) -> Replay {
            replay(&self.0, |_| owner)
        }
    }

    fn deal(key: &str) -> RowKey {
        RowKey { table: "deal".to_owned(), key: key.to_owned() }
    }

    fn row(hash: &str) -> Content {
        Content::Row(hash.to_owned())
    }

    fn classes(insert: u64, update: u64, delete: u64) -> Classes {
        Classes { insert, update, delete }
    }

    #[test]
    fn the_last_confirmed_write_stands_for_those_before_it() {
        let lines = Lines::default()
            .write(Side::Source, 7, Operation::Insert, ("1", "a"))
            .write(Side::Source, 7, Operation::Update, ("1", "b"))
            .write(Side::Target, 7, Operation::Update, ("1", "c"));
        let replay = lines.replay(Side::Target);
        assert_eq!(replay.rows[&deal("1")].content, row("c"));
        assert_eq!(replay.rows[&deal("1")].writes, 3);
        assert_eq!(replay.confirmed, 3);
        assert!(replay.set_aside.is_empty());
    }

    #[test]
    fn a_customer_that_came_back_is_as_at_cutover_and_the_rest_is_set_aside_by_class() {
        let lines = Lines::default()
            .write(Side::Source, 7, Operation::Insert, ("1", "a"))
            .write(Side::Target, 7, Operation::Update, ("1", "b"))
            .write(Side::Target, 7, Operation::Update, ("1", "c"))
            .write(Side::Target, 7, Operation::Insert, ("2", "d"))
            .write(Side::Target, 7, Operation::Delete, ("3", ""))
            .write(Side::Target, 7, Operation::Update, ("4", "e"));
        let replay = lines.replay(Side::Source);
        assert_eq!(replay.rows[&deal("1")].content, row("a"));
        assert_eq!(replay.rows[&deal("1")].writes, 1);
        assert_eq!(replay.rows[&deal("2")].content, Content::Gone);
        assert_eq!(replay.rows[&deal("3")].content, Content::There);
        assert_eq!(replay.rows[&deal("4")].content, Content::There);
        assert_eq!(replay.set_aside["early"]["deal"], classes(1, 2, 1));
        assert_eq!(replay.writes_set_aside, 5);
    }

    #[test]
    fn a_row_that_lived_only_on_the_target_is_not_set_aside_once_it_is_gone() {
        let lines = Lines::default().write(Side::Target, 7, Operation::Insert, ("1", "a")).write(
            Side::Target,
            7,
            Operation::Delete,
            ("1", ""),
        );
        let replay = lines.replay(Side::Source);
        assert_eq!(replay.set_aside["early"]["deal"], classes(0, 0, 0));
    }

    #[test]
    fn writes_after_the_way_back_start_from_the_state_at_cutover() {
        let lines = Lines::default()
            .write(Side::Source, 7, Operation::Insert, ("1", "a"))
            .write(Side::Target, 7, Operation::Delete, ("1", ""))
            .write(Side::Source, 7, Operation::Update, ("1", "b"));
        let replay = lines.replay(Side::Source);
        assert_eq!(replay.rows[&deal("1")].content, row("b"));
        assert_eq!(replay.rows[&deal("1")].writes, 2);
        assert_eq!(replay.set_aside["early"]["deal"], classes(0, 0, 1));
    }

    #[test]
    fn one_customers_way_back_changes_nothing_for_another() {
        let lines = Lines::default().write(Side::Target, 7, Operation::Insert, ("1", "a")).write(
            Side::Target,
            8,
            Operation::Insert,
            ("2", "b"),
        );
        let replay = replay(&lines.0, |account| if account == 7 { Side::Source } else { Side::Target });
        assert_eq!(replay.rows[&deal("1")].content, Content::Gone);
        assert_eq!(replay.rows[&deal("2")].content, row("b"));
    }

    #[test]
    fn an_intent_without_an_answer_puts_its_customer_in_doubt_and_a_refused_one_does_not() {
        let mut lines = Lines::default();
        lines.push(Side::Source, 7, None, Kind::Intent);
        let refused = lines.push(Side::Source, 8, None, Kind::Intent);
        lines.push(Side::Source, 8, Some(refused), Kind::Refused);
        let lines = lines.write(Side::Source, 9, Operation::Insert, ("1", "a"));
        assert_eq!(lines.replay(Side::Source).in_doubt, BTreeSet::from([7]));
    }
}
