//! The same cases without a server: `validate_cel()` of the types and the rules of the committed definitions.
//! Also keeps that no rule is without a refused case.

use std::collections::BTreeSet;

use godwit::api::{Approval, Cohort, Migration};
use kube::core::cel::{ValidationErrors, Validator};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::case::{Answer, Case, merged};
use crate::schema::{schema_of, walk};
use crate::{approval, cohort, migration};

/// The object before (for a case of change) and after.
fn pair(valid: &Value, case: &Case) -> (Option<Value>, Value) {
    let old = case.stored.as_ref().map(|stored| merged(valid, stored));
    let new = merged(old.as_ref().unwrap_or(valid), &case.change);
    (old, new)
}

/// What the rules of the definition say, with the schema's defaults filled in as the server does.
fn by_definition(kind: &str, old: Option<&Value>, new: &Value) -> Result<(), ValidationErrors> {
    Validator::new().validate_with_defaults(&schema_of(kind), new, old)
}

fn compare(case: &Case, outcome: Result<(), ValidationErrors>) -> Result<(), String> {
    match (&case.answer, outcome) {
        (Answer::Accepted, Ok(())) | (Answer::Refused { by_rule: false, .. }, _) => Ok(()),
        (Answer::Accepted, Err(errors)) => Err(format!("refused: {errors}")),
        (Answer::Refused { .. }, Ok(())) => Err("accepted".into()),
        (Answer::Refused { message, .. }, Err(errors)) => {
            let told = errors.as_slice().iter().any(|error| error.message.contains(message));
            if told { Ok(()) } else { Err(format!("refused otherwise: {errors}")) }
        }
    }
}

fn assert_cases<T: DeserializeOwned>(
    valid: &Value,
    cases: &[Case],
    validate: impl Fn(&T, Option<&T>) -> Result<(), ValidationErrors>,
) {
    let mut wrong = Vec::new();
    let mut typed = 0;
    for case in cases {
        let (old, new) = pair(valid, case);
        let kind = valid["kind"].as_str().unwrap();
        if let Err(difference) = compare(case, by_definition(kind, old.as_ref(), &new)) {
            wrong.push(format!("- {}: {difference}", case.what));
        }
        // What is no object of the type at all never gets as far as its rules.
        let Ok(new) = serde_json::from_value::<T>(new) else { continue };
        let old = old.map(|old| serde_json::from_value::<T>(old).unwrap());
        typed += 1;
        if let Err(difference) = compare(case, validate(&new, old.as_ref())) {
            wrong.push(format!("- {}, typed: {difference}", case.what));
        }
    }
    assert!(typed > cases.len() / 2, "only {typed} of {} cases were typed", cases.len());
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

#[test]
fn a_migration_is_judged_without_a_server_as_with_one() {
    assert_cases::<Migration>(&migration::valid(), &migration::every_case(), |new, old| match old {
        Some(old) => new.validate_cel_update(old),
        None => new.validate_cel(),
    });
}

#[test]
fn a_cohort_is_judged_without_a_server_as_with_one() {
    assert_cases::<Cohort>(&cohort::valid(), &cohort::every_case(), |new, old| match old {
        Some(old) => new.validate_cel_update(old),
        None => new.validate_cel(),
    });
}

#[test]
fn an_approval_is_judged_without_a_server_as_with_one() {
    assert_cases::<Approval>(&approval::valid(), &approval::every_case(), |new, old| match old {
        Some(old) => new.validate_cel_update(old),
        None => new.validate_cel(),
    });
}

#[test]
fn every_rule_has_a_case_that_it_refuses_and_a_message_of_its_own() {
    let kinds = [
        (migration::valid(), [migration::every_case(), vec![migration::another_way_back()]].concat()),
        (cohort::valid(), cohort::every_case()),
        (approval::valid(), approval::every_case()),
    ];
    for (valid, cases) in kinds {
        let kind = valid["kind"].as_str().unwrap();
        let mut rules = BTreeSet::new();
        walk(&schema_of(kind), "", &mut |path, node| {
            for rule in node["x-kubernetes-validations"].as_array().into_iter().flatten() {
                assert!(
                    rule["messageExpression"].is_string(),
                    "{kind}{path}: a rule without messageExpression: {rule}"
                );
                rules.insert(rule["rule"].as_str().unwrap().to_owned());
            }
        });
        let mut broken = BTreeSet::new();
        for case in cases.iter().filter(|case| matches!(case.answer, Answer::Refused { by_rule: true, .. })) {
            let (old, new) = pair(&valid, case);
            let errors = by_definition(kind, old.as_ref(), &new).unwrap_err();
            assert_eq!(errors.len(), 1, "{}: one rule refuses it: {errors}", case.what);
            broken.insert(errors.into_vec().remove(0).rule);
        }
        assert_eq!(broken, rules, "{kind}: rules with a refused case, and all rules");
        assert!(!rules.is_empty());
    }
}

#[test]
fn a_merge_patch_takes_away_replaces_and_adds() {
    let base = json!({"a": {"b": 1, "c": 2}, "d": [1]});
    assert_eq!(merged(&base, &json!({"a": {"b": null, "e": 3}, "d": [2]})), json!({"a": {"c": 2, "e": 3}, "d": [2]}));
}
