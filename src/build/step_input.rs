//! What a Job is told: the Migration's spec in the words of the contract.
//! Used by `pod.rs`. Must translate every field that a worker acts upon, and no secret.

use serde::Serialize;

use super::Error;
use crate::api::MigrationSpec;
use crate::api::migration::KeyStrategy;
use crate::contract::{
    CheckInput, Dataset, KeyStrategy as ContractKeys, OwnerPath, S3Storage, STORAGE_MOUNT, StepInput, Storage, Task,
    VERSION,
};
use crate::plan::decision::{JobRequest, Work};

/// Linux takes no environment variable above 128 KiB, its name included: the container would never start.
pub const MAX_INPUT: usize = 128 * 1024 - 64;

/// The text of `GODWIT_STEP`.
pub fn step_input_json(request: &JobRequest, spec: &MigrationSpec) -> Result<String, Error> {
    match &request.work {
        Work::Worker(task) => to_json(request, &build_step_input(request, spec, task.clone())?),
        Work::Container { check } => to_json(request, &build_check_input(request, check)),
    }
}

/// The input of Godwit's own worker.
pub fn build_step_input(request: &JobRequest, spec: &MigrationSpec, task: Task) -> Result<StepInput, Error> {
    Ok(StepInput {
        v: VERSION,
        migration: request.migration.clone(),
        cohort: request.cohort.clone(),
        attempt: request.attempt,
        epoch: request.epoch,
        dataset: dataset(spec),
        storage: storage(request, spec)?,
        task,
    })
}

fn build_check_input(request: &JobRequest, check: &str) -> CheckInput {
    CheckInput {
        v: VERSION,
        migration: request.migration.clone(),
        cohort: request.cohort.clone(),
        attempt: request.attempt,
        epoch: request.epoch,
        check: check.to_owned(),
    }
}

fn to_json<T: Serialize>(request: &JobRequest, input: &T) -> Result<String, Error> {
    let text = serde_json::to_string(input).map_err(|_| Error::Input { job: request.name.clone() })?;
    if text.len() > MAX_INPUT {
        return Err(Error::InputTooLarge { job: request.name.clone(), bytes: text.len(), most: MAX_INPUT });
    }
    Ok(text)
}

fn dataset(spec: &MigrationSpec) -> Dataset {
    let dataset = &spec.dataset;
    Dataset {
        root_table: dataset.root.table.clone(),
        root_key: dataset.root.key.clone(),
        include: dataset.include.clone(),
        exclude: dataset.exclude.clone(),
        reference: dataset.reference.clone(),
        owners: dataset
            .owners
            .iter()
            .map(|owner| OwnerPath { table: owner.table.clone(), via: owner.via.clone() })
            .collect(),
        keys: match dataset.keys.strategy {
            KeyStrategy::Gap => ContractKeys::Gap,
            KeyStrategy::Parity => ContractKeys::Parity,
            KeyStrategy::None => ContractKeys::None,
        },
    }
}

fn storage(request: &JobRequest, spec: &MigrationSpec) -> Result<Storage, Error> {
    let storage = &spec.backup.storage;
    match (&storage.persistent_volume_claim, &storage.s3) {
        (Some(_), _) => Ok(Storage::Path(STORAGE_MOUNT.to_owned())),
        (None, Some(s3)) => Ok(Storage::S3(S3Storage {
            bucket: s3.bucket.clone(),
            prefix: s3.prefix.clone().unwrap_or_default(),
            endpoint: s3.endpoint.clone(),
            region: s3.region.clone(),
        })),
        (None, None) => Err(Error::NoStorage { job: request.name.clone() }),
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures;
    use super::*;

    #[test]
    fn the_input_carries_the_dataset_the_attempt_and_the_task_as_they_were_asked_for() {
        let request = fixtures::cohort_request(Task::Copy {});
        let text = step_input_json(&request, &fixtures::spec()).unwrap();
        let input: StepInput = serde_json::from_str(&text).unwrap();
        assert_eq!(input.dataset.root_table, "sales.account");
        assert_eq!(input.dataset.root_key, "account_id");
        assert_eq!(input.dataset.include, ["sales.*"]);
        assert_eq!(input.dataset.exclude, ["sales.log"]);
        assert_eq!(input.dataset.reference, ["sales.currency"]);
        assert_eq!(input.dataset.owners[0].via, ["deal_id"]);
        assert_eq!(input.dataset.keys, ContractKeys::Parity);
        assert_eq!(input.storage, Storage::Path(STORAGE_MOUNT.into()));
        assert_eq!((input.attempt, input.epoch), (3, 5));
        assert_eq!(input.task, Task::Copy {});
        assert_eq!(input.cohort.unwrap().name, "canary");
    }

    #[test]
    fn an_input_that_no_process_could_be_started_with_is_refused_with_the_fields_to_shorten() {
        let mut spec = fixtures::spec();
        spec.dataset.include = (0..256).map(|number| format!("sales.{number:0>120}")).collect();
        assert!(step_input_json(&fixtures::request(Task::Assess {}), &spec).is_ok());
        spec.dataset.exclude = spec.dataset.include.clone();
        spec.dataset.reference = spec.dataset.include.clone();
        for number in 0..60 {
            let mut owner = spec.dataset.owners[0].clone();
            owner.table = format!("sales.{number:0>1000}");
            spec.dataset.owners.push(owner);
        }
        let refused = step_input_json(&fixtures::request(Task::Assess {}), &spec).unwrap_err().to_string();
        assert!(refused.contains("spec.dataset") && refused.contains("crm-step-3"), "{refused}");
    }

    #[test]
    fn a_bucket_is_passed_without_its_credentials() {
        let text = step_input_json(&fixtures::request(Task::Assess {}), &fixtures::spec_on_s3()).unwrap();
        let input: StepInput = serde_json::from_str(&text).unwrap();
        assert_eq!(
            input.storage,
            Storage::S3(S3Storage {
                bucket: "crm-backup".into(),
                prefix: "2026".into(),
                endpoint: Some("https://s3.shop".into()),
                region: None,
            })
        );
        assert!(!text.contains("s3-keys"));
    }

    #[test]
    fn a_spec_without_storage_is_an_error_that_names_the_field() {
        let mut spec = fixtures::spec();
        spec.backup.storage.persistent_volume_claim = None;
        let error = step_input_json(&fixtures::request(Task::Assess {}), &spec).unwrap_err();
        assert!(error.to_string().contains("spec.backup.storage"));
    }
}
