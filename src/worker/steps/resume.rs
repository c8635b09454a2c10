//! Begins a step anew when a database connection was lost in it.
//! Called by the steps that write rows; each of them is built so that beginning anew continues.
//! Must not repeat anything else: an answer of a database is an answer.

use std::time::Duration;

use crate::contract::Report;
use crate::worker::Error;
use crate::worker::Job;

/// Long enough for a server to restart or a standby to be promoted; then the Job's next attempt goes on.
const WAITS: [Duration; 4] =
    [Duration::from_millis(100), Duration::from_secs(1), Duration::from_secs(3), Duration::from_secs(8)];

/// Runs `step` until it comes to an answer.
///
/// This is also how a COMMIT without an answer is resolved: the new run opens new sessions and takes the token, which waits for the
/// old transaction's row lock, and only then reads the checkpoints that committed with the data, or did not.
pub async fn run<S>(job: &Job, step: S) -> Result<Report, Error>
where
    S: AsyncFn(&Job) -> Result<Report, Error>,
{
    let mut waits = WAITS.into_iter();
    loop {
        match step(job).await {
            Err(error) if error.is_connection_lost() => {
                let Some(wait) = waits.next() else {
                    return Err(error);
                };
                tracing::warn!(fault = %error, "a connection was lost; the step begins anew");
                tokio::time::sleep(wait).await;
            }
            outcome => return outcome,
        }
    }
}
