//! Finalize: the target owns everything; fences and ledger go, sequences are joined, the ledger's story is kept as a file.
//! The last step of a migration, after its approval. From here on there is no way back.
//! Must not end a migration that still has a customer on the source.

use std::time::Instant;

use super::ending;
use super::reporting::{blocker, milliseconds, signed};
use crate::contract::{Report, ReportResult, code, exit};
use crate::worker::postgres::model::entry;
use crate::worker::postgres::session::Session;
use crate::worker::{Error, Job};

pub async fn run(job: &Job) -> Result<Report, Error> {
    let started = Instant::now();
    let migration = &job.input.migration;
    let mut source = job.source().await?;
    let mut target = job.target().await?;
    let source_has = ending::has_ledger(&source, migration).await?;
    let target_has = ending::has_ledger(&target, migration).await?;
    let last_word = if source_has { None } else { ending::last_word(job).await? };
    // The source is left first: without its ledger an earlier attempt came that far, and what it had to tell is told again.
    let (mut report, is_told) = last_word.map_or((Report::new(ReportResult::Pass), false), |report| (report, true));
    if target_has {
        refuse_unfinished(&target).await?;
        ending::take_over(&target, job.subject(), job.input.attempt).await?;
        if source_has {
            ending::take_over(&source, job.subject(), job.input.attempt).await?;
        }
    }
    if target_has && !is_told {
        let of_source = source_has.then_some(&source);
        ending::store_archive(job, (of_source, &target), &mut report).await?;
    }
    let joined =
        ending::join_sequences(source_has.then_some(&mut source), target_has.then_some(&mut target), job.subject())
            .await?;
    if !is_told {
        report.counts.insert("sequencesJoined".into(), signed(joined));
        report.timings.insert("finalize".into(), milliseconds(started));
        if target_has {
            ending::store_last_word(job, &report).await?;
        }
    }
    // While the target still has its ledger, the next attempt knows that there is something left to do.
    for session in [&mut source, &mut target] {
        ending::leave(session).await?;
        job.progress.advance(1);
    }
    Ok(report)
}

/// The two shared entries and every cohort that has customers must be the target's; a cohort that was given back has none.
async fn refuse_unfinished(target: &Session) -> Result<(), Error> {
    let others: Vec<String> = target
        .query(
            "select o.name from godwit.ownership o where o.owner <> 'Target' and o.entry <> $1 \
             and (o.entry < $2 or exists (select from godwit.member m where m.entry = o.entry)) order by o.entry",
            &[&entry::NATIVE, &entry::FIRST_COHORT],
        )
        .await
        .map(|rows| rows.iter().map(|row| row.get(0)).collect())
        .map_err(Error::database("read what the source still owns"))?;
    if others.is_empty() {
        return Ok(());
    }
    Err(Error::refused(
        exit::DATA_DIFFERS,
        blocker(
            code::STILL_ON_SOURCE,
            &others.join(", "),
            "The target does not own these entries of the ledger; move their customers first.",
        ),
    ))
}
