//! Logs: JSON for machines, text for people, on standard error.
//! Installed once by `cli`. Must not read the environment: the filter is passed in.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{Directive, ParseError};
use tracing_subscriber::util::SubscriberInitExt;

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    Json,
    Text,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("failed to understand the log filter {filter:?}")]
    Filter {
        filter: String,
        #[source]
        source: ParseError,
    },
    #[error("failed to install the log")]
    Install(#[source] tracing_subscriber::util::TryInitError),
}

/// Below a warning the driver logs what servers tell of rows, and the parameters of statements: a row's value must not come into a log.
const DRIVER: &str = "tokio_postgres=warn";

/// Sends logs of the given filter, such as `info,godwit=debug`, to standard error: standard output is for data.
pub fn install(format: LogFormat, filter: &str) -> Result<(), Error> {
    let unusable = |source| Error::Filter { filter: filter.to_owned(), source };
    let driver = DRIVER.parse::<Directive>().map_err(unusable)?;
    let filter = EnvFilter::try_new(filter).map_err(unusable)?.add_directive(driver);
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Json => log.json().flatten_event(true).finish().try_init(),
        LogFormat::Text => log.finish().try_init(),
    }
    .map_err(Error::Install)
}
