//! Where a backup lies in storage, and when it counts: the manifest comes last, once, and only over files that are all there.
//! Used by Backup alone. Must not remove a file of a backup that is complete.

use std::collections::{BTreeMap, BTreeSet};

use crate::contract::{Identity, StepInput};
use crate::worker::error::{Error, spoken_chain_unbounded};
use crate::worker::postgres::identifier::TableName;
use crate::worker::postgres::manifest::Manifest;
use crate::worker::storage::{Storage, StorageError, Stored};

/// `backup/<migration uid>/<attempt>/<run>/…`; the manifest beside the run that made it.
pub struct Place {
    pub storage: Storage,
    migration: Identity,
    attempt: i64,
    /// Keeps two pods that run the same attempt apart.
    run_folder: String,
}

impl Place {
    pub fn new(storage: Storage, input: &StepInput, run: &str) -> Self {
        Self {
            storage,
            migration: input.migration.clone(),
            attempt: input.attempt,
            run_folder: format!("{}/{}/{run}", migration_folder(&input.migration), input.attempt),
        }
    }

    /// The path of a file of this run.
    pub fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.run_folder)
    }

    /// Makes the backup count. Of two runs of one attempt the first to come here has made it; the other reports it too.
    pub async fn publish(&self, manifest: Manifest) -> Result<(Manifest, String), Error> {
        let path = manifest_path(&self.migration, self.attempt);
        if let Some(found) = Manifest::find(&self.storage, &path).await? {
            return Ok(found);
        }
        self.prove_complete(&manifest).await?;
        match self.storage.put_new_bytes(&path, manifest.to_json()?).await {
            Ok(stored) => Ok((manifest, stored.digest)),
            Err(StorageError::Exists { .. }) => {
                let found = Manifest::find(&self.storage, &path).await?;
                found.ok_or_else(|| StorageError::Missing { path }.into())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// A later attempt may have removed files of this run as leftovers, if it believed this one dead.
    async fn prove_complete(&self, manifest: &Manifest) -> Result<(), Error> {
        let listed = self.storage.list(&self.run_folder).await?;
        let present: BTreeMap<String, u64> = listed.into_iter().collect();
        let is_there = |file: &Stored| present.get(&file.path) == Some(&file.bytes);
        if manifest.files().all(is_there) {
            return Ok(());
        }
        Err(Error::NewerAttempt { subject: format!("the backup of {}", self.migration.name) })
    }

    /// Removes files of runs that never became a backup: of earlier attempts, and of this one beside the published run.
    pub async fn remove_leftovers(&self, published: &Manifest) {
        if let Err(error) = self.try_remove_leftovers(published).await {
            // They cost space and nothing else; the next backup tries again.
            let error = spoken_chain_unbounded(&error);
            tracing::warn!(error, "files of unfinished backups stay in storage");
        }
    }

    async fn try_remove_leftovers(&self, published: &Manifest) -> Result<(), Error> {
        let root = format!("{}/", migration_folder(&self.migration));
        let files = self.storage.list(&root).await?;
        // `<attempt>/<run>` of a file; of a manifest there is no run.
        let run_of = |path: &str| -> Option<(i64, String)> {
            let mut parts = path.strip_prefix(&root)?.split('/');
            let (attempt, run) = (parts.next()?, parts.next()?);
            parts.next()?;
            Some((attempt.parse().ok()?, format!("{root}{attempt}/{run}")))
        };
        let complete: BTreeSet<i64> = files
            .iter()
            .filter_map(|(path, _)| path.strip_prefix(&root)?.strip_suffix("/manifest.json")?.parse().ok())
            .collect();
        let kept: BTreeSet<(i64, String)> = published.files().filter_map(|file| run_of(&file.path)).collect();
        let runs: BTreeSet<(i64, String)> = files.iter().filter_map(|(path, _)| run_of(path)).collect();
        for (attempt, folder) in runs.difference(&kept) {
            if *attempt == self.attempt || (*attempt < self.attempt && !complete.contains(attempt)) {
                self.storage.delete_folder(folder).await?;
            }
        }
        Ok(())
    }
}

fn migration_folder(migration: &Identity) -> String {
    format!("backup/{}", migration.uid)
}

/// Where the manifest of an attempt is.
pub fn manifest_path(migration: &Identity, attempt: i64) -> String {
    format!("{}/{attempt}/manifest.json", migration_folder(migration))
}

/// The last part of an owned table is that of rows without a customer.
pub fn part_name(partition: u16, parts: u16) -> String {
    match (partition, parts) {
        (_, 1) => "whole".into(),
        (last, parts) if last + 1 == parts => "unowned".into(),
        (partition, _) => format!("{partition:04}"),
    }
}

/// `schema.table`, readable and safe as the name of a folder; other names get a suffix that tells them apart.
pub fn table_folder(name: &TableName) -> String {
    let plain = |text: &str| text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'));
    if plain(&name.schema) && plain(&name.name) {
        return name.to_string();
    }
    let readable: String = name
        .to_string()
        .chars()
        .map(|letter| if letter.is_ascii_alphanumeric() || letter == '.' { letter } else { '_' })
        .take(100)
        .collect();
    let exact = [name.schema.as_bytes(), b"\0", name.name.as_bytes()].concat();
    format!("{readable}-{:016x}", xxhash_rust::xxh3::xxh3_64(&exact))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tables_folder_is_readable_safe_and_its_own() {
        let folder = |schema: &str, table: &str| table_folder(&TableName::new(schema, table));
        assert_eq!(folder("public", "deal_contact"), "public.deal_contact");
        let names = [
            folder("a.b", "c"),
            folder("a", "b.c"),
            folder("a", "B.c"),
            folder("a", "../../etc"),
            folder("a", &"ü".repeat(31)),
        ];
        for (at, name) in names.iter().enumerate() {
            assert!(name.len() < 130 && !name.contains('/'), "{name}");
            assert!(!names[..at].contains(name));
        }
    }

    #[test]
    fn the_partition_of_rows_without_a_customer_is_told_by_its_name() {
        assert_eq!(part_name(0, 1), "whole");
        assert_eq!(part_name(0, 2), "0000");
        assert_eq!(part_name(1, 2), "unowned");
        assert_eq!(part_name(1023, 1025), "1023");
    }
}
