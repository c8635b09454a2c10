//! The Migration and its Cohorts as one look shows them, and what the demo wants to know of it. Pure.
//! Made by `cluster.rs`. Must decide by conditions where there is one; phases are for people.

use godwit::api::{Cohort, Migration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;

use super::Story;

pub struct View {
    pub migration: Migration,
    /// In the order of their waves.
    pub cohorts: Vec<Cohort>,
}

impl View {
    pub fn succeeded(&self) -> bool {
        holds(conditions(&self.migration), "Succeeded", "True")
    }

    pub fn cohort(&self, name: &str) -> Option<&Cohort> {
        self.cohorts.iter().find(|cohort| cohort.name_any() == name)
    }

    pub fn went_back(&self, name: &str) -> bool {
        self.cohort(name).is_some_and(|cohort| {
            reason(cohort_conditions(cohort), "Succeeded") == Some("RolledBack")
                && holds(cohort_conditions(cohort), "Succeeded", "False")
        })
    }

    pub fn soaks(&self, name: &str) -> bool {
        self.cohort(name).is_some_and(|cohort| reason(cohort_conditions(cohort), "Progressing") == Some("Soaking"))
    }

    /// The plan that a person is asked to approve.
    pub fn digest_to_approve(&self) -> Option<String> {
        let waits = reason(conditions(&self.migration), "Progressing") == Some("ApprovalRequired");
        let plan = self.migration.status.as_ref()?.plan.as_ref()?;
        waits.then(|| plan.digest.clone())
    }

    /// Why nothing will go on by itself, in a story in which it should.
    pub fn trouble(&self, story: Story) -> Option<String> {
        let cohorts = self.cohorts.iter().filter_map(|cohort| {
            let stalled = find(cohort_conditions(cohort), "Stalled").filter(|c| c.status == "True")?;
            let expected = story == Story::Rollback && stalled.reason == "RolledBack";
            (!expected).then(|| format!("Cohort {}: {}: {}", cohort.name_any(), stalled.reason, stalled.message))
        });
        let migration = find(conditions(&self.migration), "Stalled")
            .filter(|c| c.status == "True" && c.reason != "CohortNeedsAttention")
            .map(|c| format!("Migration crm: {}: {}", c.reason, c.message));
        cohorts.chain(migration).next()
    }

    /// Where Godwit says that it exported what cohorts had written when they went back.
    pub fn set_aside_manifests(&self) -> Vec<String> {
        self.cohorts
            .iter()
            .filter_map(|cohort| cohort.status.as_ref())
            .flat_map(|status| &status.evidence)
            .filter(|evidence| evidence.name == "Return")
            .filter_map(|evidence| evidence.uri.clone())
            .collect()
    }
}

pub fn conditions(migration: &Migration) -> &[Condition] {
    migration.status.as_ref().map_or(&[], |status| &status.conditions)
}

pub fn cohort_conditions(cohort: &Cohort) -> &[Condition] {
    cohort.status.as_ref().map_or(&[], |status| &status.conditions)
}

pub fn find<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == kind)
}

fn holds(conditions: &[Condition], kind: &str, status: &str) -> bool {
    find(conditions, kind).is_some_and(|condition| condition.status == status)
}

fn reason<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a str> {
    find(conditions, kind).map(|condition| condition.reason.as_str())
}
