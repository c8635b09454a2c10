//! Whether the target's tables can take the source's rows as they are.
//! Used by Assess and Prepare. Pure.
//! Must not excuse a difference that PostgreSQL would swallow: another type of the same width, a narrower modifier.

use super::model::{Catalog, Column, ForeignKey, Scope, Table};
use crate::contract::{Finding, Severity};

/// What stands between the source's scope and the tables that the target has already; tables that it lacks are no finding.
pub fn findings(scope: &Scope, target: &Catalog) -> Vec<Finding> {
    let mut findings = Vec::new();
    for table in scope.tables() {
        if let Some(existing) = target.tables.get(&table.name) {
            compare(table, existing, &mut findings);
        }
    }
    foreign_keys(scope, target, &mut findings);
    findings.sort_by_key(|finding| finding.severity);
    findings
}

/// Whether the rows of both sides can be read alike in spite of the findings: what is missing beside the columns does not matter.
pub fn rows_comparable(findings: &[Finding]) -> bool {
    const BESIDE: [&str; 3] = ["ForeignKeyMissingOnTarget", "UniqueMissingOnTarget", "GeneratedColumnDiffers"];
    let blocks = |finding: &&Finding| finding.severity == Severity::Blocker;
    findings.iter().filter(blocks).all(|finding| BESIDE.contains(&finding.code.as_str()))
}

fn compare(source: &Table, target: &Table, findings: &mut Vec<Finding>) {
    let table = source.name.to_string();
    let mut note = |severity: Severity, code: &str, object: String, message: String| {
        findings.push(Finding { severity, code: code.to_owned(), object, message });
    };
    for column in source.copied_columns() {
        let object = format!("{table}.{}", column.name);
        match target.column(&column.name) {
            None => note(
                Severity::Blocker,
                "ColumnMissing",
                object,
                "The target's table lacks this column; add it with the source's type.".into(),
            ),
            Some(other) => {
                for (code, message) in column_differences(column, other) {
                    note(Severity::Blocker, code, object.clone(), message);
                }
            }
        }
    }
    for column in source.columns.iter().filter(|column| column.generated) {
        let same = target.column(&column.name).is_some_and(|other| {
            other.type_name == column.type_name && other.generated && other.expression == column.expression
        });
        if !same {
            note(
                Severity::Blocker,
                "GeneratedColumnDiffers",
                format!("{table}.{}", column.name),
                "The source computes this column and it is not copied, so the target must compute it by the same expression; make them equal."
                    .into(),
            );
        }
    }
    for column in &target.columns {
        let needed = column.not_null && !column.has_default && !column.generated;
        if source.column(&column.name).is_none() && needed {
            note(
                Severity::Blocker,
                "ColumnNeedsValue",
                format!("{table}.{}", column.name),
                "The target's column is not null and has no default, and the source has no such column; give it a default.".into(),
            );
        }
    }
    keys(source, target, &mut note);
}

/// Primary key and unique constraints.
fn keys(source: &Table, target: &Table, note: &mut impl FnMut(Severity, &str, String, String)) {
    let table = source.name.to_string();
    if source.primary_key != target.primary_key {
        note(
            Severity::Blocker,
            "PrimaryKeyDiffers",
            table.clone(),
            "The target's primary key is another one than the source's; make them equal.".into(),
        );
    }
    for unique in &source.uniques {
        if !target.uniques.iter().any(|other| other.columns == unique.columns) {
            note(
                Severity::Blocker,
                "UniqueMissingOnTarget",
                table.clone(),
                format!("The target does not keep {}, and Validate would refuse it; create it there.", unique.name),
            );
        }
    }
    for unique in &target.uniques {
        if !source.uniques.iter().any(|other| other.columns == unique.columns) {
            note(
                Severity::Warning,
                "UniqueOnlyOnTarget",
                table.clone(),
                format!(
                    "The target's unique index {} has no counterpart on the source, whose rows may violate it.",
                    unique.name
                ),
            );
        }
    }
}

fn column_differences(source: &Column, target: &Column) -> Vec<(&'static str, String)> {
    let mut differences = Vec::new();
    if source.type_name != target.type_name {
        differences.push((
            "ColumnTypeDiffers",
            format!("The source's type is {}, the target's {}; make them equal.", source.type_name, target.type_name),
        ));
    }
    if target.generated {
        differences.push((
            "ColumnGeneratedOnTarget",
            "The target computes this column, the source stores it; make it a plain column.".into(),
        ));
    }
    if target.not_null && !source.not_null {
        differences.push((
            "ColumnStricterOnTarget",
            "The target's column is not null, the source's may be null; make them equal.".into(),
        ));
    }
    if source.collation != target.collation {
        differences.push(("ColumnCollationDiffers", "The collations differ; make them equal.".into()));
    }
    differences
}

/// A foreign key that only the target has can refuse the source's rows; one that only the source has is no longer kept after the move.
fn foreign_keys(scope: &Scope, target: &Catalog, findings: &mut Vec<Finding>) {
    let same = |one: &ForeignKey, other: &ForeignKey| {
        one.table == other.table
            && one.columns == other.columns
            && one.referenced == other.referenced
            && one.referenced_columns == other.referenced_columns
    };
    let paths = scope.owned.iter().filter_map(|owned| owned.path.first());
    let of_source: Vec<&ForeignKey> = paths.chain(&scope.links).chain(&scope.reference_keys).collect();
    for key in of_source.iter().filter(|key| target.tables.contains_key(&key.table)) {
        if !target.foreign_keys.iter().any(|other| same(key, other)) {
            findings.push(Finding {
                severity: Severity::Blocker,
                code: "ForeignKeyMissingOnTarget".into(),
                object: key.table.to_string(),
                message: format!(
                    "The target does not keep {}, and Validate would refuse it; create it there.",
                    key.name
                ),
            });
        }
    }
    for key in target.foreign_keys.iter().filter(|key| scope.contains(&key.table)) {
        if !of_source.iter().any(|other| same(key, other)) {
            findings.push(Finding {
                severity: Severity::Warning,
                code: "ForeignKeyOnlyOnTarget".into(),
                object: key.table.to_string(),
                message: format!(
                    "The target's foreign key {} has no counterpart on the source, whose rows may violate it.",
                    key.name
                ),
            });
        }
    }
}
