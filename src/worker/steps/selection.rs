//! Which customers a selection means, and how their groups become chunks.
//! Used by `select` alone, which records the answer. Users' SQL runs on the source, read-only and with a time limit.
//! Must give the same answer for the same rows, and must take whole groups.

use tokio_postgres::{IsolationLevel, Transaction};

use super::reporting::{blocker, signed};
use crate::contract::{Finding, Selection, Side, code, exit};
use crate::worker::postgres::group::{Customers, Groups, each_row, read_customers, read_links, spread};
use crate::worker::postgres::identifier::quote_identifier;
use crate::worker::postgres::model::{Scope, entry};
use crate::worker::{Error, Job};

/// A chunk is one transaction on the target.
const CHUNK_BYTES: u64 = 64 << 20;
/// How long a user's query may run.
const QUERY_TIMEOUT: &str = "10min";
/// Entry of a customer that no ledger knows yet.
const FREE: i32 = entry::UNASSIGNED;

pub struct Selecting<'a> {
    pub job: &'a Job,
    pub scope: &'a Scope,
    pub selection: &'a Selection,
}

/// The chosen customers, chunk by chunk, groups unbroken.
pub struct Choice {
    pub customers: Customers,
    pub members: Vec<Member>,
    pub groups: i64,
    pub taken_along: i64,
    pub elsewhere: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Place in [`Customers`].
    pub customer: usize,
    pub group: i64,
    pub chunk: i32,
}

/// A group with what decides its place in the queue.
struct Candidate {
    risk: f64,
    spread: u64,
    customers: Vec<u32>,
}

/// Reads the source in one snapshot and chooses among customers that no cohort has.
pub async fn choose(selecting: &Selecting<'_>, ledger: &Transaction<'_>) -> Result<Choice, Error> {
    let scope = selecting.scope;
    let mut source = selecting.job.reader(Side::Source).await?;
    let snapshot = source
        .build_transaction()
        .isolation_level(IsolationLevel::RepeatableRead)
        .read_only(true)
        .start()
        .await
        .map_err(Error::database("take a snapshot of the source"))?;
    snapshot
        .batch_execute(&format!("set local statement_timeout = '{QUERY_TIMEOUT}'"))
        .await
        .map_err(Error::database("limit the selection's time"))?;
    let risk_by = match selecting.selection {
        Selection::Percent { risk_by, .. } => risk_by.as_deref(),
        _ => None,
    };
    let customers = read_customers(&snapshot, scope, risk_by).await?;
    let mut groups = read_links(&snapshot, scope, &customers).await?;
    let entries = assigned(ledger, &customers).await?;
    let wanted = match selecting.selection {
        Selection::Percent { percent, .. } => {
            let queue = candidates(&customers, &mut groups, &entries);
            let chosen = take_share(queue, customers.len(), *percent);
            return finish(selecting, customers, (chosen, 0, 0));
        }
        Selection::Remainder {} => (0..customers.len()).filter(|at| entries[*at] == FREE).collect(),
        Selection::Where(condition) => {
            let key = quote_identifier(&scope.root_key);
            let select = format!(
                "select customer.{key}::pg_catalog.text from {} as customer where (\n{condition}\n)",
                scope.root.sql()
            );
            named(&snapshot, &select, &customers).await?
        }
        Selection::KeysFrom(query) => {
            let select =
                format!("select named.key::{}::pg_catalog.text from (\n{query}\n) as named(key)", scope.root_key_type);
            let named = named(&snapshot, &select, &customers).await?;
            refuse_overlap(selecting, &named, &entries)?;
            named
        }
    };
    let elsewhere = wanted.iter().filter(|at| entries[**at] != FREE).count();
    let (chosen, along) = with_groups(&customers, &mut groups, (&wanted, &entries));
    finish(selecting, customers, (chosen, along, signed(elsewhere)))
}

fn finish(
    selecting: &Selecting<'_>,
    customers: Customers,
    (chosen, taken_along, elsewhere): (Vec<Candidate>, i64, i64),
) -> Result<Choice, Error> {
    let remainder = matches!(selecting.selection, Selection::Remainder {});
    if chosen.is_empty() && !remainder {
        return Err(refusal(
            selecting,
            code::SELECTION_EMPTY,
            "No customer is left that this selection means; correct spec.select, or remove the cohort.".into(),
        ));
    }
    let owned: u64 = selecting.scope.owned.iter().map(|owned| owned.table.bytes).sum();
    let each = owned / (customers.len().max(1) as u64);
    Ok(Choice { groups: signed(chosen.len()), members: chunks(&chosen, each), customers, taken_along, elsewhere })
}

/// Whole groups, in the order given, until a chunk is full.
fn chunks(groups: &[Candidate], bytes_each: u64) -> Vec<Member> {
    let mut members = Vec::new();
    let (mut chunk, mut filled) = (0, 0);
    for (number, group) in groups.iter().enumerate() {
        let size = bytes_each.saturating_mul(group.customers.len() as u64);
        if filled > 0 && filled + size > CHUNK_BYTES {
            chunk += 1;
            filled = 0;
        }
        filled += size;
        members.extend(group.customers.iter().map(|customer| Member {
            customer: *customer as usize,
            group: signed(number),
            chunk,
        }));
    }
    members
}

/// The entry of each customer in the ledger.
async fn assigned(ledger: &Transaction<'_>, customers: &Customers) -> Result<Vec<i32>, Error> {
    let mut entries = vec![FREE; customers.len()];
    let select = "select customer::pg_catalog.text, entry from godwit.member";
    each_row(ledger, select, 2, |row| {
        let entry = std::str::from_utf8(row[1]).ok().and_then(|text| text.parse().ok());
        if let (Some(at), Some(entry)) = (customers.find(row[0]), entry) {
            entries[at] = entry;
        }
    })
    .await?;
    Ok(entries)
}

/// The customers that a query names. A key that is no customer's is a mistake of the query.
async fn named(snapshot: &Transaction<'_>, select: &str, customers: &Customers) -> Result<Vec<usize>, Error> {
    let mut named = Vec::new();
    let mut unknown = 0_u64;
    each_row(snapshot, select, 1, |row| match customers.find(row[0]) {
        Some(at) => named.push(at),
        None => unknown += 1,
    })
    .await?;
    if unknown > 0 {
        return Err(Error::refused(
            exit::DATA_DIFFERS,
            blocker(
                code::KEYS_UNKNOWN,
                "spec.select.keysFrom",
                format!("{unknown} of the named keys belong to no customer; correct the query."),
            ),
        ));
    }
    named.sort_unstable();
    named.dedup();
    Ok(named)
}

/// Who names customers one by one must not name another cohort's.
fn refuse_overlap(selecting: &Selecting<'_>, named: &[usize], entries: &[i32]) -> Result<(), Error> {
    let taken = named.iter().filter(|at| entries[**at] != FREE).count();
    if taken == 0 {
        return Ok(());
    }
    let message = format!(
        "{taken} of the named customers are in another cohort, or were the target's own; leave them out of the query."
    );
    Err(refusal(selecting, code::COHORT_OVERLAP, message))
}

fn refusal(selecting: &Selecting<'_>, code: &str, message: String) -> Error {
    let object = selecting.job.cohort().map_or_else(|_| String::new(), |cohort| cohort.name.clone());
    let finding: Finding = blocker(code, &object, message);
    Error::refused(exit::DATA_DIFFERS, finding)
}

/// Groups of free customers, smallest and least risky first; among equals evenly spread.
fn candidates(customers: &Customers, groups: &mut Groups, entries: &[i32]) -> Vec<Candidate> {
    let mut candidates: Vec<Candidate> = groups
        .collect()
        .into_iter()
        .map(|group| free_of(customers, group, entries))
        .filter(|candidate| !candidate.customers.is_empty())
        .collect();
    candidates.sort_by(|one, other| {
        one.risk
            .total_cmp(&other.risk)
            .then(one.customers.len().cmp(&other.customers.len()))
            .then(one.spread.cmp(&other.spread))
    });
    candidates
}

fn free_of(customers: &Customers, group: Vec<u32>, entries: &[i32]) -> Candidate {
    let free: Vec<u32> = group.into_iter().filter(|at| entries[*at as usize] == FREE).collect();
    let risk = free
        .iter()
        .filter_map(|at| customers.risks.get(*at as usize))
        .fold(f64::NEG_INFINITY, |worst, risk| worst.max(*risk));
    Candidate { risk, spread: free.first().map_or(0, |at| spread(customers.key(*at as usize))), customers: free }
}

/// Takes groups from the front of the queue until the share of all customers is reached; a group that would overshoot it by more
/// than a tenth is passed over, unless nothing was taken yet.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a share of a number of customers"
)]
fn take_share(queue: Vec<Candidate>, all: usize, percent: f64) -> Vec<Candidate> {
    let wanted = ((all as f64 * percent / 100.0).round() as usize).max(1);
    let most = wanted + wanted / 10;
    let mut chosen: Vec<Candidate> = Vec::new();
    let mut taken = 0;
    for candidate in queue {
        if taken >= wanted {
            break;
        }
        if taken > 0 && taken + candidate.customers.len() > most {
            continue;
        }
        taken += candidate.customers.len();
        chosen.push(candidate);
    }
    chosen
}

/// The free customers of every group that a wanted customer is in, and how many of them no one named.
fn with_groups(
    customers: &Customers,
    groups: &mut Groups,
    (wanted, entries): (&[usize], &[i32]),
) -> (Vec<Candidate>, i64) {
    let mut is_wanted = vec![false; customers.len()];
    for at in wanted.iter().filter(|at| entries[**at] == FREE) {
        is_wanted[*at] = true;
    }
    let chosen: Vec<Candidate> = groups
        .collect()
        .into_iter()
        .filter(|group| group.iter().any(|at| is_wanted[*at as usize]))
        .map(|group| free_of(customers, group, entries))
        .collect();
    let all: usize = chosen.iter().map(|group| group.customers.len()).sum();
    let named = is_wanted.iter().filter(|wanted| **wanted).count();
    (chosen, signed(all - named))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(sizes: &[usize]) -> Vec<Candidate> {
        sizes.iter().map(|size| Candidate { risk: 0.0, spread: 0, customers: vec![0; *size] }).collect()
    }

    fn taken(sizes: &[usize], all: usize, percent: f64) -> usize {
        take_share(queue(sizes), all, percent).iter().map(|group| group.customers.len()).sum()
    }

    #[test]
    fn a_share_is_taken_in_whole_groups_and_hardly_overshot() {
        assert_eq!(taken(&[1; 100], 100, 20.0), 20);
        assert_eq!(taken(&[1, 1, 1, 50], 100, 10.0), 3);
        assert_eq!(taken(&[1; 1000], 1000, 0.01), 1);
        assert_eq!(taken(&[60, 60], 120, 1.0), 60);
        assert_eq!(taken(&[1, 1], 2, 100.0), 2);
    }

    #[test]
    fn a_chunk_holds_whole_groups() {
        let members = chunks(&queue(&[3, 3, 40, 1]), 8 << 20);
        let chunk_of = |group| {
            let mut chunks: Vec<i32> =
                members.iter().filter(|member| member.group == group).map(|member| member.chunk).collect();
            chunks.dedup();
            chunks
        };
        assert_eq!([chunk_of(0), chunk_of(1), chunk_of(2), chunk_of(3)], [vec![0], vec![0], vec![1], vec![2]]);
    }
}
