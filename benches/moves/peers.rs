//! What people use today, with its best settings: pipes of psql, pgcopydb, pg_dump with pg_restore, and the SQL that pgcopydb's
//! compare and data-diff send. Used by the metrics as denominators. Must do the same work as we do, no less.

use std::path::Path;
use std::time::Duration;

use crate::rig::{psql, shell};

/// `copy … to stdout` piped into `copy … from stdin`.
pub fn pipe((source, query): (&str, &str), (target, table): (&str, &str), format: &str) -> String {
    format!(
        "{} | {}",
        psql(source, &format!("copy ({query}) to stdout (format {format})")),
        psql(target, &format!("copy {table} from stdin (format {format})"))
    )
}

/// The whole database, with keys, indexes, foreign keys; pgcopydb analyses itself.
pub fn pgcopydb(source: &str, target: &str, folder: &Path) -> Duration {
    let _ = std::fs::remove_dir_all(folder);
    shell(&format!(
        "pgcopydb clone --source '{source}' --target '{target}' --table-jobs 2 --index-jobs 2 --no-owner --no-acl --dir '{}'",
        folder.display()
    ))
}

pub fn pgcopydb_version() -> Option<String> {
    let line = crate::rig::line_of("pgcopydb --version 2>/dev/null");
    (!line.is_empty()).then_some(line)
}

/// The same by a dump in parallel, uncompressed, and a restore in parallel; analysed, as a target must be.
pub fn dump_and_restore(source: &str, target: &str, folder: &Path) -> Duration {
    let _ = std::fs::remove_dir_all(folder);
    let folder = folder.display();
    let took = shell(&format!(
        "pg_dump -Fd -j2 -Z0 --no-owner --no-acl -f '{folder}' -d '{source}'; \
         pg_restore -j2 --no-owner --no-acl -d '{target}' '{folder}'; vacuumdb -q --analyze-only -j2 -d '{target}'"
    ));
    shell(&format!("rm -rf '{folder}'"));
    took
}

/// Two statements, one a side, at the same time; their answers must be the same.
pub fn on_both_sides(source: &str, target: &str, sql: &str) -> Duration {
    shell(&format!(
        "{} > /tmp/godwit-bench-$$-a & a=$!; {} > /tmp/godwit-bench-$$-b; wait $a; \
         cmp /tmp/godwit-bench-$$-a /tmp/godwit-bench-$$-b; rm /tmp/godwit-bench-$$-?",
        psql(source, sql),
        psql(target, sql)
    ))
}

/// `pgcopydb compare data`: a 32-bit hash of each row as text, summed.
pub fn pgcopydb_compare(columns: &[&str], table: &str) -> String {
    format!("select count(1), sum(hashtext(({})::text)::bigint) from only {table}", columns.join(", "))
}

/// data-diff: 60 bits of the md5 of each row's columns as text, summed.
pub fn data_diff(columns: &[&str], table: &str) -> String {
    let texts: Vec<String> = columns.iter().map(|column| format!("coalesce({column}::varchar, '<null>')")).collect();
    format!(
        "select count(*), sum(('x' || substring(md5(concat({})), 18))::bit(60)::bigint) from {table}",
        texts.join(", '|', ")
    )
}

/// The fastest that a server has: 64 bits of each row, summed as two halves.
pub fn own_sums(table: &str) -> String {
    format!(
        "select count(*), sum(h >> 32), sum(h & 4294967295) from (select hash_record_extended(t, 0) as h from {table} t) sums"
    )
}

/// Both tables pulled in the order of their keys and merged line by line to their ends, as VDiff does; one row must differ.
pub fn ordered_pull(source: &str, target: &str, table: &str) -> Duration {
    let copy = format!("copy (select * from {table} order by id) to stdout");
    let (one, other) = (psql(source, &copy), psql(target, &copy));
    shell(&format!("test $(LC_ALL=C comm --nocheck-order -3 <({one}) <({other}) | wc -l) -eq 2"))
}
