//! What Godwit exported when a cohort went back: the manifest in the backup storage and the files it names.
//! Read by `verify.rs`, which compares it with the record. Must check each file's digest: a count without its rows is worthless.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::history::Classes;

#[derive(Args)]
pub struct SetAsideOptions {
    /// Where the backup storage is mounted.
    #[arg(long, default_value = "/backup")]
    storage: PathBuf,
    /// The manifest below it, as the cohort's status names it; may be given several times.
    #[arg(long = "set-aside", value_parser = below_storage)]
    manifests: Vec<String>,
}

fn below_storage(text: &str) -> Result<String, String> {
    let plain = Path::new(text).components().all(|part| matches!(part, std::path::Component::Normal(_)));
    if plain { Ok(text.to_owned()) } else { Err("must be a path below the storage".to_owned()) }
}

#[derive(Deserialize)]
struct Manifest {
    tables: Vec<Table>,
}

#[derive(Deserialize)]
struct Table {
    #[serde(rename = "table")]
    name: String,
    inserted: u64,
    updated: u64,
    deleted: u64,
    files: BTreeMap<String, File>,
}

#[derive(Deserialize)]
struct File {
    path: String,
    bytes: u64,
    digest: String,
}

/// Rows exported, per table without its schema, and the files they are in.
#[derive(Debug, Default)]
pub struct Exported {
    pub tables: BTreeMap<String, Classes>,
    pub files: u64,
    pub bytes: u64,
}

pub async fn read(options: &SetAsideOptions) -> anyhow::Result<Exported> {
    let mut exported = Exported::default();
    for path in &options.manifests {
        let text =
            tokio::fs::read(options.storage.join(path)).await.with_context(|| format!("failed to read {path}"))?;
        let manifest: Manifest =
            serde_json::from_slice(&text).with_context(|| format!("failed to understand {path}"))?;
        for table in manifest.tables {
            exported.add(&options.storage, &table).await?;
        }
    }
    Ok(exported)
}

impl Exported {
    async fn add(&mut self, storage: &Path, table: &Table) -> anyhow::Result<()> {
        let name = table.name.strip_prefix("public.").unwrap_or(&table.name);
        let classes = self.tables.entry(name.to_owned()).or_default();
        classes.insert += table.inserted;
        classes.update += table.updated;
        classes.delete += table.deleted;
        for file in table.files.values() {
            let path = &file.path;
            let content =
                tokio::fs::read(storage.join(path)).await.with_context(|| format!("failed to read {path}"))?;
            let digest: String = Sha256::digest(&content).iter().map(|byte| format!("{byte:02x}")).collect();
            anyhow::ensure!(
                file.digest == format!("sha256:{digest}"),
                "{path} is not the file that the manifest names"
            );
            self.files += 1;
            self.bytes += file.bytes;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(storage: &Path) -> SetAsideOptions {
        SetAsideOptions { storage: storage.to_owned(), manifests: vec!["a/manifest.json".to_owned()] }
    }

    fn store(folder: &Path, content: &str) {
        std::fs::create_dir_all(folder.join("a")).unwrap();
        std::fs::write(folder.join("a/0.inserted.copy"), content).unwrap();
        let manifest = r#"{"v":1,"tables":[{"table":"public.note","inserted":2,"updated":0,"deleted":3,"files":{
            "inserted":{"path":"a/0.inserted.copy","bytes":4,
            "digest":"sha256:DIGEST"}}}]}"#;
        let digest: String = Sha256::digest("rows").iter().map(|byte| format!("{byte:02x}")).collect();
        let manifest = manifest.replace("DIGEST", &digest);
        std::fs::write(folder.join("a/manifest.json"), manifest).unwrap();
    }

    #[tokio::test]
    async fn exported_rows_are_counted_by_table_and_class() {
        let folder = tempfile::tempdir().unwrap();
        store(folder.path(), "rows");
        let exported = read(&options(folder.path())).await.unwrap();
        assert_eq!(exported.tables["note"], Classes { insert: 2, update: 0, delete: 3 });
        assert_eq!((exported.files, exported.bytes), (1, 4));
    }

    #[tokio::test]
    async fn a_file_that_is_not_the_one_that_was_digested_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        store(folder.path(), "r0ws");
        assert!(read(&options(folder.path())).await.is_err());
    }
}
