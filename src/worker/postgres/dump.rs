//! The schema of a whole database as SQL, at a snapshot, and what of it a restore must have in force.
//! Used by Backup to write it, by VerifyBackup to restore it and to look at the result.
//! Must not take Godwit's own ledger and fences along: restored elsewhere they would refuse writes for ever.

use std::path::Path;
use std::process::Stdio;

use tokio::io::AsyncWriteExt;
use tokio_postgres::GenericClient;

use super::fence_sql::TRIGGERS;
use super::manifest::SchemaFact;
use super::programs::{self, failed, output, program};
use crate::worker::error::Error;

/// Error lines kept from a restore.
const MAX_LINES: usize = 20;

/// The two parts of a schema around the data.
#[derive(Debug)]
pub struct Dump {
    pub pre_data: Vec<u8>,
    pub post_data: Vec<u8>,
}

/// Dumps everything but data, Godwit's schema and its triggers, with owners and grants.
pub async fn whole_schema(uri: &str, snapshot: &str, scratch: &Path) -> Result<Dump, Error> {
    let folder = Scratch::create(scratch)?;
    let (archive, list) = (folder.0.join("schema.dump"), folder.0.join("schema.list"));
    let mut dump = programs::pg_dump(uri)?;
    dump.args(["--format=custom", "--exclude-schema=godwit"]).arg(format!("--snapshot={snapshot}"));
    dump.arg("--file").arg(&archive);
    output(dump, "pg_dump").await?;
    let mut contents = program("pg_restore")?;
    contents.arg("--list").arg(&archive);
    let contents = output(contents, "pg_restore").await?;
    std::fs::write(&list, without_fences(&contents)).map_err(scratch_error)?;
    let section = async |name: &str| {
        let mut restore = program("pg_restore")?;
        restore.arg(format!("--section={name}")).arg("--use-list").arg(&list).args(["--file", "-"]).arg(&archive);
        output(restore, "pg_restore").await
    };
    Ok(Dump { pre_data: section("pre-data").await?, post_data: section("post-data").await? })
}

/// The archive's table of contents without the fence's triggers.
fn without_fences(contents: &[u8]) -> Vec<u8> {
    contents
        .split_inclusive(|byte| *byte == b'\n')
        .filter(|line| {
            let line = String::from_utf8_lossy(line);
            let ours = TRIGGERS.iter().any(|trigger| line.contains(&format!(" {trigger} ")));
            !(ours && line.contains(" TRIGGER "))
        })
        .flatten()
        .copied()
        .collect()
}

/// Runs SQL through psql to its end; returns the errors, without what they say about rows.
pub async fn apply(uri: &str, sql: &[u8]) -> Result<Vec<String>, Error> {
    let mut child = program("psql")?
        .args(["-X", "-q", "-v", "ON_ERROR_STOP=0", "-v", "VERBOSITY=terse"])
        .args(["-f", "-", "-d"])
        .arg(uri)
        .env("PGCLIENTENCODING", "UTF8")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed("psql"))?;
    let input = child.stdin.take();
    let feeding = async {
        if let Some(mut input) = input {
            input.write_all(sql).await?;
            input.shutdown().await?;
        }
        Ok::<_, std::io::Error>(())
    };
    let (written, output) = tokio::join!(feeding, child.wait_with_output());
    written.map_err(failed("psql"))?;
    let output = output.map_err(failed("psql"))?;
    if !output.status.success() {
        return Err(failed("psql")(format!("it ended with {}", output.status)));
    }
    Ok(String::from_utf8_lossy(&output.stderr)
        .lines()
        .filter_map(|line| Some(line.split_once("ERROR:")?.1.trim().to_owned()))
        .take(MAX_LINES)
        .collect())
}

/// Constraints, indexes and triggers of all tables but Godwit's, as the server describes them. The copies of a foreign key that the
/// server makes for partitions are named anew with each restore, and stand or fall with the key itself.
pub async fn facts(client: &impl GenericClient) -> Result<Vec<SchemaFact>, Error> {
    let fences = TRIGGERS.map(ToOwned::to_owned).to_vec();
    let sql = "
        select n.nspname::text, c.relname::text, f.kind, f.name, f.in_force, f.definition
        from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
        cross join lateral (
          select 'constraint' as kind, o.conname::text as name, o.convalidated as in_force,
              pg_catalog.pg_get_constraintdef(o.oid) as definition
            from pg_catalog.pg_constraint o where o.conrelid = c.oid and o.contype <> 't'
              and not (o.contype = 'f' and o.conparentid <> 0)
          union all
          select 'index', i.relname::text, x.indisvalid and x.indisready, pg_catalog.pg_get_indexdef(x.indexrelid)
            from pg_catalog.pg_index x join pg_catalog.pg_class i on i.oid = x.indexrelid where x.indrelid = c.oid
          union all
          select 'trigger', t.tgname::text, t.tgenabled <> 'D', pg_catalog.pg_get_triggerdef(t.oid)
            from pg_catalog.pg_trigger t where t.tgrelid = c.oid and not t.tgisinternal and not t.tgname = any ($1)
        ) f
        where c.relkind in ('r', 'p') and n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'godwit')
        order by 1, 2, 3, 4";
    let rows =
        client.query(sql, &[&fences]).await.map_err(Error::database("read constraints, indexes and triggers"))?;
    Ok(rows
        .iter()
        .map(|row| SchemaFact {
            schema: row.get(0),
            table: row.get(1),
            kind: row.get(2),
            name: row.get(3),
            in_force: row.get(4),
            definition: row.get(5),
        })
        .collect())
}

fn scratch_error(source: std::io::Error) -> Error {
    Error::File { attempted: "write the schema to the scratch folder".into(), source }
}

/// A folder of our own, gone when dropped.
struct Scratch(std::path::PathBuf);

impl Scratch {
    fn create(scratch: &Path) -> Result<Self, Error> {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = scratch.join(format!("dump-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).map_err(scratch_error)?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_fences_triggers_leave_the_table_of_contents() {
        let contents = b"; Archive\n\
            3370; 2620 16401 TRIGGER public account ~godwit_fence_row postgres\n\
            3371; 2620 16402 TRIGGER public account audit postgres\n\
            3372; 1259 16403 TABLE public ~godwit_fence_row postgres\n";
        let kept = String::from_utf8(without_fences(contents)).unwrap();
        assert!(kept.contains("audit") && kept.contains("TABLE"));
        assert!(!kept.contains("account ~godwit"));
    }
}
