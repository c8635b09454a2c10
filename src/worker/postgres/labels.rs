//! Labels of enums that exist on both sides: one that the target lacks cannot land.
//! Used by Assess. Must not create or rename labels.

use std::collections::BTreeMap;

use super::session::Session;
use crate::contract::{Finding, Severity};
use crate::worker::error::Error;

pub async fn findings(source: &Session, target: &Session) -> Result<Vec<Finding>, Error> {
    let here = read(source).await?;
    let there = read(target).await?;
    let lacking = here.iter().filter_map(|(name, labels)| {
        let others = there.get(name)?;
        let missing = labels.iter().filter(|label| !others.contains(label)).count();
        (missing > 0).then(|| Finding {
            severity: Severity::Blocker,
            code: "EnumLabelMissing".into(),
            object: name.clone(),
            message: format!(
                "The target's type lacks {missing} labels that the source's has; add them with ALTER TYPE … ADD VALUE."
            ),
        })
    });
    Ok(lacking.collect())
}

async fn read(session: &Session) -> Result<BTreeMap<String, Vec<String>>, Error> {
    session
        .query(
            "select pg_catalog.format_type(e.enumtypid, null), pg_catalog.array_agg(e.enumlabel::text) from pg_catalog.pg_enum e group by 1",
            &[],
        )
        .await
        .map(|rows| rows.iter().map(|row| (row.get(0), row.get(1))).collect())
        .map_err(Error::database("read the labels of enums"))
}
