//! Customers and the groups that links join them to: what can only move together.
//! Used by Assess (sizes) and Select (whole groups). The search itself is pure; reading is by COPY, a few bytes a customer.
//! Must not split a group, and must depend on nothing but the rows: the same rows give the same groups in the same order.

use futures::TryStreamExt;
use tokio_postgres::Transaction;
use xxhash_rust::xxh3::xxh3_64;

use super::framing::Framing;
use super::identifier::quote_identifier;
use super::model::{ForeignKey, Scope};
use super::row::{RowFormat, fields};
use crate::worker::error::Error;

/// Every customer, by its key as text, in the order of the keys' bytes.
#[derive(Debug, Default)]
pub struct Customers {
    keys: Vec<u8>,
    ends: Vec<usize>,
    /// Lower moves earlier; empty where no one asked.
    pub risks: Vec<f64>,
}

impl Customers {
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    pub fn key(&self, at: usize) -> &[u8] {
        let start = if at == 0 { 0 } else { self.ends[at - 1] };
        &self.keys[start..self.ends[at]]
    }

    /// The place of a key, if it is a customer's.
    pub fn find(&self, key: &[u8]) -> Option<usize> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = usize::midpoint(low, high);
            match self.key(middle).cmp(key) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Equal => return Some(middle),
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        None
    }

    fn push(&mut self, key: &[u8]) {
        self.keys.extend_from_slice(key);
        self.ends.push(self.keys.len());
    }
}

/// Disjoint sets of customers.
#[derive(Debug)]
pub struct Groups {
    parents: Vec<u32>,
}

impl Groups {
    pub fn new(customers: usize) -> Self {
        Self { parents: (0..u32::try_from(customers).unwrap_or(u32::MAX)).collect() }
    }

    pub fn join(&mut self, one: usize, other: usize) {
        let (one, other) = (self.root(one), self.root(other));
        // The smaller place is the root: the group's name does not depend on the order of links.
        let (low, high) = (one.min(other), one.max(other));
        self.parents[high] = self.parents[low];
    }

    /// The first customer of the group.
    pub fn root(&mut self, mut at: usize) -> usize {
        while self.parents[at] as usize != at {
            let parent = self.parents[at] as usize;
            self.parents[at] = self.parents[parent];
            at = self.parents[at] as usize;
        }
        at
    }

    /// All groups, each with its customers in order, in the order of their first customers.
    pub fn collect(&mut self) -> Vec<Vec<u32>> {
        let count = self.parents.len();
        let mut place = vec![u32::MAX; count];
        let mut groups: Vec<Vec<u32>> = Vec::new();
        for at in 0..count {
            let root = self.root(at);
            if place[root] == u32::MAX {
                place[root] = u32::try_from(groups.len()).unwrap_or(u32::MAX);
                groups.push(Vec::new());
            }
            groups[place[root] as usize].push(u32::try_from(at).unwrap_or(u32::MAX));
        }
        groups
    }
}

/// A number that spreads customers evenly and never changes: so the first cohort is not simply the oldest customers.
pub fn spread(key: &[u8]) -> u64 {
    xxh3_64(key)
}

/// Reads all customers, with their risk if an expression over `customer` is given.
pub async fn read_customers(
    transaction: &Transaction<'_>,
    scope: &Scope,
    risk_by: Option<&str>,
) -> Result<Customers, Error> {
    let risk = risk_by.map_or_else(
        || "0".to_owned(),
        |expression| format!("coalesce(({expression}\n)::pg_catalog.float8, 'infinity')"),
    );
    let key = quote_identifier(&scope.root_key);
    let select = format!(
        "select customer.{key}::pg_catalog.text, {risk} from {} as customer order by customer.{key}::pg_catalog.text collate \"C\"",
        scope.root.sql()
    );
    let mut customers = Customers::default();
    each_row(transaction, &select, 2, |row| {
        customers.push(row[0]);
        if risk_by.is_some() {
            let risk = std::str::from_utf8(row[1]).ok().and_then(|text| text.parse().ok());
            customers.risks.push(risk.unwrap_or(f64::INFINITY));
        }
    })
    .await?;
    Ok(customers)
}

/// Joins the customers of each pair of linked rows.
pub async fn read_links(transaction: &Transaction<'_>, scope: &Scope, customers: &Customers) -> Result<Groups, Error> {
    let mut groups = Groups::new(customers.len());
    for link in &scope.links {
        let Some(select) = select_pairs(scope, link) else {
            continue;
        };
        each_row(transaction, &select, 2, |row| {
            // A customer born after the snapshot's list cannot be in it: both come from one snapshot.
            if let (Some(one), Some(other)) = (customers.find(row[0]), customers.find(row[1])) {
                groups.join(one, other);
            }
        })
        .await?;
    }
    Ok(groups)
}

/// Which links hold one group together: by constraint, the pairs of its customers that it joins, most first.
pub async fn links_within(
    transaction: &Transaction<'_>,
    (scope, customers): (&Scope, &Customers),
    groups: &mut Groups,
    root: usize,
) -> Result<Vec<(String, u64)>, Error> {
    let mut found = Vec::new();
    for link in &scope.links {
        let Some(select) = select_pairs(scope, link) else {
            continue;
        };
        let mut pairs = 0;
        each_row(transaction, &select, 2, |row| {
            let at = customers.find(row[0]);
            pairs += u64::from(at.is_some_and(|at| groups.root(at) == root));
        })
        .await?;
        if pairs > 0 {
            found.push((format!("{} of {}", link.name, link.table), pairs));
        }
    }
    found.sort_by_key(|(_, pairs)| std::cmp::Reverse(*pairs));
    Ok(found)
}

/// Pairs of different customers that a link joins.
fn select_pairs(scope: &Scope, link: &ForeignKey) -> Option<String> {
    let child = scope.owned_table(&link.table)?.customer_join("c", "cp");
    let parent = scope.owned_table(&link.referenced)?.customer_join("r", "rp");
    Some(format!(
        "select distinct {one}::pg_catalog.text, {other}::pg_catalog.text from {} as c join {} as r on {}{}{} where {one} <> {other}",
        link.table.sql(),
        link.referenced.sql(),
        link.condition("c", "r"),
        child.joins,
        parent.joins,
        one = child.customer,
        other = parent.customer,
    ))
}

/// Streams a query's rows as text fields; a NULL is an empty field.
pub async fn each_row(
    transaction: &Transaction<'_>,
    select: &str,
    columns: usize,
    mut see: impl FnMut(&[&[u8]]),
) -> Result<(), Error> {
    let failed = || Error::database("read customers");
    let pieces = transaction.copy_out(&format!("copy ({select}\n) to stdout (format text)")).await.map_err(failed())?;
    let mut pieces = std::pin::pin!(pieces);
    let mut framing = Framing::new(RowFormat::Text, columns);
    while let Some(piece) = pieces.try_next().await.map_err(failed())? {
        framing.feed(piece);
        while let Some(row) = framing.next_row().map_err(|source| Error::Rows { source })? {
            let found: Result<Vec<_>, _> = fields(&row, RowFormat::Text).collect();
            let found = found.map_err(|source| Error::Rows { source })?;
            let found: Vec<&[u8]> = found.iter().map(|field| field.as_deref().unwrap_or_default()).collect();
            see(&found);
        }
    }
    framing.finish().map_err(|source| Error::Rows { source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_named_by_their_first_customer_whatever_the_order_of_links() {
        let links = [(4, 2), (2, 7), (5, 6), (7, 4)];
        for turned in [false, true] {
            let mut groups = Groups::new(8);
            let mut links = links.to_vec();
            if turned {
                links.reverse();
            }
            for (one, other) in links {
                groups.join(one, other);
            }
            assert_eq!(groups.collect(), [vec![0], vec![1], vec![2, 4, 7], vec![3], vec![5, 6]]);
        }
    }

    #[test]
    fn a_key_is_found_by_its_bytes() {
        let mut customers = Customers::default();
        for key in ["1", "10", "2", "ü"] {
            customers.push(key.as_bytes());
        }
        assert_eq!(customers.find(b"10"), Some(1));
        assert_eq!(customers.find("ü".as_bytes()), Some(3));
        assert_eq!(customers.find(b"3"), None);
        assert_eq!(customers.find(b""), None);
    }
}
