//! What Godwit promises, held against the facts of a demo. Pure.
//! Called by `demo/`. Must say of each promise what was seen, kept or broken.

use std::collections::BTreeMap;

use serde::Serialize;

use super::facts::{CohortFacts, Facts};
use super::{Story, UNLUCKY};
use crate::history::Classes;

#[derive(Debug, Serialize)]
pub struct Promise {
    pub text: &'static str,
    pub kept: bool,
    /// What was seen.
    pub seen: String,
}

pub fn judge(story: Story, facts: &Facts) -> Vec<Promise> {
    let mut promises =
        vec![promise("The backup was restored and compared before a row moved", facts.backup_verified, backup(facts))];
    promises.extend(match story {
        Story::Forward => vec![everybody_moved(facts), each_check_passed(facts)],
        Story::Rollback => vec![went_back_by_itself(facts), others_stayed(facts), set_aside_is_named(facts)],
    });
    promises.extend([writes_are_there(facts), users_saw_no_error(facts), no_mail_from_copies(facts)]);
    promises
}

fn promise(text: &'static str, kept: bool, seen: String) -> Promise {
    Promise { text, kept, seen }
}

fn backup(facts: &Facts) -> String {
    facts.backup_rows.map_or_else(|| "no rows reported".to_owned(), |rows| format!("{rows} rows"))
}

fn everybody_moved(facts: &Facts) -> Promise {
    let moved = |cohort: &&CohortFacts| cohort.outcome == "Completed" && cohort.owner == "Target";
    let done = facts.cohorts.iter().filter(moved).count();
    let all = facts.cohorts.len();
    promise(
        "Every customer is on the new CRM and the migration is finalised",
        facts.succeeded && done == all && all > 0,
        format!("{done} of {all} cohorts, migration {}", facts.phase),
    )
}

fn each_check_passed(facts: &Facts) -> Promise {
    let verdicts: Vec<&String> = facts.cohorts.iter().flat_map(|cohort| cohort.checks.values()).collect();
    let passed = verdicts.iter().filter(|verdict| **verdict == "Pass").count();
    promise(
        "Every check passed for every cohort",
        passed == verdicts.len() && passed > 0,
        format!("{passed} of {} verdicts are Pass", verdicts.len()),
    )
}

fn went_back_by_itself(facts: &Facts) -> Promise {
    let cause = facts.cohort(UNLUCKY).and_then(|cohort| cohort.rollback_cause.clone()).unwrap_or_default();
    let back = facts.cohort(UNLUCKY).is_some_and(|cohort| cohort.outcome == "RolledBack" && cohort.owner == "Source");
    promise(
        "The cohort whose links broke is on the old CRM again, by the trigger and nobody's hand",
        back && cause.starts_with("trigger on check links"),
        cause,
    )
}

fn others_stayed(facts: &Facts) -> Promise {
    let canary = facts.cohort("canary").is_some_and(|cohort| cohort.owner == "Target" && cohort.outcome == "Completed");
    let rest = facts.cohort("rest").is_some_and(|cohort| cohort.owner != "Target" && cohort.pause_millis.is_none());
    promise(
        "No other cohort was touched: the first stayed on the new CRM, the last did not start",
        canary && rest,
        facts.cohorts.iter().map(|cohort| format!("{} {}", cohort.name, cohort.phase)).collect::<Vec<_>>().join(", "),
    )
}

/// Three witnesses: the users' record, the exported files, and Godwit's own count.
fn set_aside_is_named(facts: &Facts) -> Promise {
    let empty = BTreeMap::new();
    let recorded = without_zeros(facts.findings.set_aside.get(UNLUCKY).unwrap_or(&empty));
    let exported = without_zeros(&facts.findings.exported);
    let sum = |pick: fn(&Classes) -> u64| recorded.values().map(pick).sum::<u64>();
    let own = facts.cohort(UNLUCKY).map(|cohort| &cohort.set_aside);
    let counted = |name: &str| own.and_then(|own| own.get(name)).and_then(|count| u64::try_from(*count).ok());
    let agree = counted("setAsideInserted") == Some(sum(|c| c.insert))
        && counted("setAsideUpdated") == Some(sum(|c| c.update))
        && counted("setAsideDeleted") == Some(sum(|c| c.delete));
    let only_this = facts.findings.set_aside.keys().all(|cohort| cohort == UNLUCKY);
    promise(
        "What the returned cohort had written on the new CRM is exported and counted, row for row as the users' record has it",
        !recorded.is_empty() && recorded == exported && agree && only_this,
        format!(
            "{} inserted, {} updated, {} deleted in {} files",
            sum(|c| c.insert),
            sum(|c| c.update),
            sum(|c| c.delete),
            facts.findings.exported_files
        ),
    )
}

fn without_zeros(tables: &BTreeMap<String, Classes>) -> BTreeMap<String, Classes> {
    tables.iter().filter(|(_, classes)| **classes != Classes::default()).map(|(t, c)| (t.clone(), *c)).collect()
}

fn writes_are_there(facts: &Facts) -> Promise {
    let found = &facts.findings;
    let accounted = found.found + found.in_doubt + found.set_aside_writes;
    let mut seen = vec![format!("{} confirmed, {} found again", found.confirmed, found.found)];
    if found.set_aside_writes > 0 {
        seen.push(format!("{} set aside with the returned cohort", found.set_aside_writes));
    }
    if found.in_doubt > 0 {
        seen.push(format!("{} in doubt after a lost answer", found.in_doubt));
    }
    if found.lost > 0 {
        seen.push(format!("{} LOST: {}", found.lost, found.lost_rows.join(", ")));
    }
    promise(
        "Every write that a database confirmed is on the side that owns its customer",
        found.confirmed > 0 && found.lost == 0 && accounted == found.confirmed,
        seen.join(", "),
    )
}

fn users_saw_no_error(facts: &Facts) -> Promise {
    let request = |name: &str| facts.findings.requests.get(name).copied();
    promise(
        "No user met an error or a customer who was nowhere",
        request("errors") == Some(0) && request("missing") == Some(0),
        format!(
            "{} reads, {} writes, {} errors, {} missing",
            request("reads").unwrap_or(-1),
            request("writes").unwrap_or(-1),
            request("errors").unwrap_or(-1),
            request("missing").unwrap_or(-1)
        ),
    )
}

fn no_mail_from_copies(facts: &Facts) -> Promise {
    let mails = &facts.findings.mails;
    let seen: Vec<String> = mails
        .iter()
        .map(|(side, mails)| format!("{side}: {} mails for {} new contacts", mails.queued, mails.expected))
        .collect();
    promise(
        "No mail was sent because a contact was copied",
        mails.len() == 2 && mails.values().all(|mails| mails.queued == mails.expected),
        seen.join(", "),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::{Findings, Mails};

    fn findings() -> Findings {
        let mails = |queued| Mails { queued, expected: queued };
        Findings {
            confirmed: 10,
            found: 10,
            mails: [("Source".to_owned(), mails(3)), ("Target".to_owned(), mails(4))].into(),
            requests: ["reads", "writes", "errors", "missing"].map(|name| (name.to_owned(), 0)).into(),
            ..Findings::default()
        }
    }

    fn cohort(name: &str, outcome: &str, owner: &str) -> CohortFacts {
        CohortFacts {
            name: name.to_owned(),
            outcome: outcome.to_owned(),
            owner: owner.to_owned(),
            checks: [("links".to_owned(), "Pass".to_owned())].into(),
            ..CohortFacts::default()
        }
    }

    fn forward() -> Facts {
        let cohorts = ["canary", "early", "rest"].map(|name| cohort(name, "Completed", "Target")).into();
        Facts { succeeded: true, backup_verified: true, cohorts, findings: findings(), ..Facts::default() }
    }

    fn rollback() -> Facts {
        let mut early = cohort("early", "RolledBack", "Source");
        early.rollback_cause = Some("trigger on check links (DataLoss): 3".to_owned());
        early.set_aside = [("setAsideInserted", 2), ("setAsideUpdated", 1), ("setAsideDeleted", 5)]
            .map(|(name, count)| (name.to_owned(), count))
            .into();
        let tables: BTreeMap<String, Classes> = [
            ("note".to_owned(), Classes { insert: 2, update: 0, delete: 0 }),
            ("deal".to_owned(), Classes { insert: 0, update: 1, delete: 0 }),
            ("deal_contact".to_owned(), Classes { insert: 0, update: 0, delete: 5 }),
        ]
        .into();
        let mut facts = forward();
        facts.cohorts = vec![cohort("canary", "Completed", "Target"), early, cohort("rest", "", "Source")];
        facts.findings.exported.clone_from(&tables);
        facts.findings.set_aside = [("early".to_owned(), tables)].into();
        facts.findings.found = 2;
        facts.findings.set_aside_writes = 8;
        facts
    }

    fn broken(story: Story, facts: &Facts) -> Vec<&'static str> {
        judge(story, facts).iter().filter(|promise| !promise.kept).map(|promise| promise.text).collect()
    }

    #[test]
    fn when_all_is_well_every_promise_is_kept() {
        assert_eq!(broken(Story::Forward, &forward()), Vec::<&str>::new());
        assert_eq!(broken(Story::Rollback, &rollback()), Vec::<&str>::new());
    }

    #[test]
    fn each_thing_that_goes_wrong_breaks_one_promise() {
        let changes: [fn(&mut Facts); 8] = [
            |facts| facts.backup_verified = false,
            |facts| facts.succeeded = false,
            |facts| facts.cohorts[1].owner = "Source".to_owned(),
            |facts| facts.cohorts[0].checks = [("links".to_owned(), "Inconclusive".to_owned())].into(),
            |facts| facts.findings.lost = 1,
            |facts| facts.findings.found = 9,
            |facts| _ = facts.findings.requests.insert("missing".to_owned(), 1),
            |facts| facts.findings.mails.values_mut().for_each(|mails| mails.queued += 1),
        ];
        for (index, change) in changes.iter().enumerate() {
            let mut facts = forward();
            change(&mut facts);
            assert_eq!(broken(Story::Forward, &facts).len(), 1, "change {index}");
        }
    }

    #[test]
    fn a_way_back_that_is_counted_wrongly_or_touches_others_breaks_a_promise() {
        let changes: [fn(&mut Facts); 6] = [
            |facts| facts.cohorts[1].rollback_cause = Some("rollback requested at noon".to_owned()),
            |facts| facts.cohorts[0].owner = "Source".to_owned(),
            |facts| facts.cohorts[2].pause_millis = Some(1),
            |facts| _ = facts.cohorts[1].set_aside.insert("setAsideDeleted".to_owned(), 4),
            |facts| _ = facts.findings.exported.remove("deal"),
            |facts| _ = facts.findings.set_aside.insert("canary".to_owned(), BTreeMap::new()),
        ];
        for (index, change) in changes.iter().enumerate() {
            let mut facts = rollback();
            change(&mut facts);
            assert_eq!(broken(Story::Rollback, &facts).len(), 1, "change {index}");
        }
    }
}
