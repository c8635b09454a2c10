//! What can go wrong inside a Job, and the exit code that each case deserves.
//! Used by every file of the room; `worker::run` turns an error into the report and the exit code.
//! Must not carry row values: PostgreSQL's DETAIL, and messages that quote an input, stop at [`Fault`].

use std::fmt;

use tokio_postgres::error::SqlState;

use super::postgres::row::RowError;
use super::postgres::sandbox::SandboxError;
use super::storage::StorageError;
use crate::contract::{Finding, Severity, exit};

/// What a database said, without what it said about rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// `None` when the failure is not an answer of the server: a broken connection, for example.
    pub sqlstate: Option<String>,
    text: String,
    /// `schema.table`, when the server named one.
    pub object: Option<String>,
    pub constraint: Option<String>,
}

/// Classes whose primary message names only schema objects, limits or the connection. The others (22 data exception, P0 raise)
/// quote values.
const SPEAKABLE_CLASSES: [&str; 16] =
    ["08", "0A", "23", "25", "28", "2B", "3D", "3F", "40", "42", "53", "54", "55", "57", "58", "GW"];

impl From<&tokio_postgres::Error> for Fault {
    fn from(error: &tokio_postgres::Error) -> Self {
        let Some(database) = error.as_db_error() else {
            return Self { sqlstate: None, text: spoken_chain(error), object: None, constraint: None };
        };
        let code = database.code().code().to_owned();
        let speakable = SPEAKABLE_CLASSES.iter().any(|class| code.starts_with(class));
        let text = if speakable {
            bounded(database.message())
        } else {
            "the server's message is withheld, because it may quote row values".to_owned()
        };
        Self {
            sqlstate: Some(code),
            text,
            object: match (database.schema(), database.table()) {
                (Some(schema), Some(table)) => Some(format!("{schema}.{table}")),
                _ => None,
            },
            constraint: database.constraint().map(ToOwned::to_owned),
        }
    }
}

impl From<tokio_postgres::Error> for Fault {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::from(&error)
    }
}

impl Fault {
    /// A fault that no server reported, such as a value of an unexpected shape.
    pub fn new(text: impl Into<String>) -> Self {
        Self { sqlstate: None, text: text.into(), object: None, constraint: None }
    }

    pub fn is(&self, state: &SqlState) -> bool {
        self.sqlstate.as_deref() == Some(state.code())
    }

    /// The server does not let this user in.
    fn is_login(&self) -> bool {
        self.sqlstate.as_deref().is_some_and(|state| state.starts_with("28"))
    }

    /// Whether the server's message is about Godwit's own schema; the name stands in it in every language.
    fn names_ledger(&self) -> bool {
        self.text.contains("godwit.") || self.text.contains("\"godwit\"")
    }

    fn exit_code(&self) -> i32 {
        let Some(state) = self.sqlstate.as_deref() else {
            return exit::TRY_AGAIN;
        };
        match state {
            // Whether there is a ledger is asked first; one that goes meanwhile was dropped by another worker of the same migration.
            "42P01" | "3F000" if self.names_ledger() => exit::TRY_AGAIN,
            "42501" => exit::NOT_PERMITTED,
            "3D000" | "3F000" => exit::MISCONFIGURED,
            "42P01" => exit::INPUT_MISSING,
            _ => match state.get(..2).unwrap_or_default() {
                "22" | "23" | "2B" => exit::DATA_DIFFERS,
                "28" => exit::NOT_PERMITTED,
                "42" | "0A" => exit::MISCONFIGURED,
                _ => exit::TRY_AGAIN,
            },
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)?;
        if let Some(state) = &self.sqlstate {
            write!(formatter, " (SQLSTATE {state})")?;
        }
        if let Some(object) = &self.object {
            write!(formatter, " on {object}")?;
        }
        if let Some(constraint) = &self.constraint {
            write!(formatter, " by constraint {constraint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Fault {}

/// A client-side failure and its causes in one line; they speak of sockets and protocol, not of rows.
fn spoken_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    bounded(&text)
}

fn bounded(text: &str) -> String {
    text.lines().next().unwrap_or_default().chars().take(300).collect()
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the step's input is unusable: {reason}")]
    Input { reason: String },
    #[error("the connection URI of the {side} cannot be used: {reason}")]
    Uri { side: &'static str, reason: String },
    #[error("the {side} database cannot be reached by TLS as its URI asks: {reason}")]
    Tls { side: &'static str, reason: String },
    #[error("failed to connect to the {side} database")]
    Connect {
        side: &'static str,
        #[source]
        source: Fault,
    },
    #[error("the {side} connection goes through a proxy that pools transactions; name the database server itself")]
    Pooled { side: &'static str },
    #[error("the {side} database runs PostgreSQL {version}; 13 or newer is needed")]
    ServerTooOld { side: &'static str, version: i32 },
    #[error("failed to {attempted}")]
    Database {
        attempted: String,
        #[source]
        source: Fault,
    },
    #[error("a newer attempt works on {subject}")]
    NewerAttempt { subject: String },
    #[error("the lock on {what} was not granted in time")]
    LockNotGranted { what: String },
    #[error("the ledger of the {side} belongs to another migration, {owner}")]
    ForeignLedger { side: &'static str, owner: String },
    #[error("the {side} has no ledger; Prepare comes first")]
    LedgerMissing { side: &'static str },
    #[error("entry {entry} was expected at epoch {expected}, but is at {found}")]
    EpochMoved { entry: i32, expected: i64, found: i64 },
    #[error("the ledger does not know {what}")]
    NotInLedger { what: String },
    /// The step came to an answer, and the answer is no.
    #[error("{}", first_message(findings))]
    Refused { exit: i32, findings: Vec<Finding> },
    #[error("failed to run {program}: {reason}")]
    Program { program: String, reason: String },
    #[error("failed to {attempted}")]
    File {
        attempted: String,
        #[source]
        source: std::io::Error,
    },
    #[error("failed to use the storage")]
    Storage {
        #[from]
        source: StorageError,
    },
    #[error("failed to provide the sandbox database")]
    Sandbox {
        #[from]
        source: SandboxError,
    },
    #[error("failed to read COPY data")]
    Rows {
        #[from]
        source: RowError,
    },
    #[error("{table} took {landed} rows of {sent}")]
    RowsLost { table: String, sent: u64, landed: u64 },
    /// The rows read back are not the rows that were sent.
    #[error(
        "the rows of {table} are not the rows that were sent: somebody else wrote them, or the database changed them; Validate lists their keys"
    )]
    CopyDiffers { table: String },
    /// A step may not end well without it.
    #[error("{what} is not in force as it was before the copy")]
    NotInForce { what: String },
    #[error("failed to encode or decode {what}")]
    Json {
        what: &'static str,
        #[source]
        source: serde_json::Error,
    },
}

impl Error {
    /// For `map_err`: names the attempt and drops what the server said about rows.
    pub fn database(attempted: impl Into<String>) -> impl FnOnce(tokio_postgres::Error) -> Self {
        let attempted = attempted.into();
        move |error| Self::Database { attempted, source: Fault::from(error) }
    }

    /// One finding that ends the step.
    pub fn refused(exit: i32, finding: Finding) -> Self {
        Self::Refused { exit, findings: vec![finding] }
    }

    pub fn exit_code(&self) -> i32 {
        match self {
            Self::Input { .. }
            | Self::Uri { .. }
            | Self::Tls { .. }
            | Self::Pooled { .. }
            | Self::ServerTooOld { .. } => exit::MISCONFIGURED,
            Self::Connect { source, .. } | Self::Database { source, .. } => source.exit_code(),
            Self::ForeignLedger { .. } | Self::CopyDiffers { .. } | Self::NotInForce { .. } => exit::DATA_DIFFERS,
            Self::Storage { source } if source.is_not_permitted() => exit::NOT_PERMITTED,
            Self::Storage { source } if source.is_misconfigured() => exit::MISCONFIGURED,
            Self::Sandbox { source } if source.is_misconfigured() => exit::MISCONFIGURED,
            Self::LedgerMissing { .. }
            | Self::NotInLedger { .. }
            | Self::Storage { source: StorageError::Missing { .. } } => exit::INPUT_MISSING,
            Self::Refused { exit, .. } => *exit,
            // The program's words are English: it runs without a locale.
            Self::Program { reason, .. } if reason.contains("permission denied") => exit::NOT_PERMITTED,
            Self::NewerAttempt { .. }
            | Self::EpochMoved { .. }
            | Self::LockNotGranted { .. }
            | Self::Program { .. }
            | Self::File { .. }
            | Self::Storage { .. }
            | Self::Sandbox { .. }
            | Self::Rows { .. }
            | Self::RowsLost { .. }
            | Self::Json { .. } => exit::TRY_AGAIN,
        }
    }

    /// The connection broke, or the server ended it: what it was doing may or may not have happened.
    pub fn is_connection_lost(&self) -> bool {
        let (Self::Connect { source, .. } | Self::Database { source, .. }) = self else {
            return false;
        };
        match source.sqlstate.as_deref() {
            None => true,
            Some(state) => state.starts_with("08") || state.starts_with("57P"),
        }
    }

    /// The stable name of the case, as a finding's code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Input { .. } => "InputUnusable",
            Self::Uri { .. } => "UriUnusable",
            Self::Tls { .. } => "TlsFailed",
            Self::Connect { source, .. } if source.is_login() => "LoginRefused",
            Self::Connect { .. } => "ConnectionFailed",
            Self::Pooled { .. } => "PoolingProxy",
            Self::ServerTooOld { .. } => "ServerTooOld",
            Self::Database { .. } => "DatabaseFailed",
            Self::NewerAttempt { .. } => "NewerAttempt",
            Self::EpochMoved { .. } => "EpochMoved",
            Self::LockNotGranted { .. } => "LockNotGranted",
            Self::ForeignLedger { .. } => "ForeignLedger",
            Self::LedgerMissing { .. } => "LedgerMissing",
            Self::NotInLedger { .. } => "NotInLedger",
            Self::Refused { .. } => "Refused",
            Self::Program { .. } => "ProgramFailed",
            Self::File { .. } => "FileFailed",
            Self::Storage { .. } => "StorageFailed",
            Self::Sandbox { .. } => "SandboxFailed",
            Self::Rows { .. } => "RowsUnreadable",
            Self::RowsLost { .. } => "RowsLost",
            Self::CopyDiffers { .. } => "CopyDiffers",
            Self::NotInForce { .. } => "NotInForce",
            Self::Json { .. } => "JsonFailed",
        }
    }

    /// What the report says about it.
    pub fn findings(&self) -> Vec<Finding> {
        if let Self::Refused { findings, .. } = self {
            return findings.clone();
        }
        let object = match self {
            Self::Database { source, .. } => source.object.clone().unwrap_or_default(),
            Self::Uri { side, .. }
            | Self::Tls { side, .. }
            | Self::Connect { side, .. }
            | Self::Pooled { side }
            | Self::ServerTooOld { side, .. }
            | Self::LedgerMissing { side }
            | Self::ForeignLedger { side, .. } => (*side).to_owned(),
            _ => String::new(),
        };
        let remedy = self.remedy().map_or_else(String::new, |remedy| format!("; {remedy}"));
        vec![Finding {
            severity: Severity::Blocker,
            code: self.code().to_owned(),
            object,
            message: format!("{}{remedy}", spoken_chain_unbounded(self)),
        }]
    }

    /// What a person does about it, where the error itself does not say.
    fn remedy(&self) -> Option<&'static str> {
        match self {
            Self::Uri { .. } => Some("correct the URI in its Secret"),
            Self::Connect { source, .. } => Some(match source.sqlstate.as_deref() {
                Some("28P01") => "correct user and password of the URI in its Secret",
                Some("28000") => {
                    "let the server admit this user from the cluster (pg_hba.conf), and ask for TLS by sslmode=require where it demands that"
                }
                Some("3D000") => "correct the database's name in the URI in its Secret",
                Some("53300") => "raise the server's max_connections, or let others use fewer",
                _ => {
                    "check host and port of the URI in its Secret, and that the server runs and may be reached from the cluster"
                }
            }),
            Self::ForeignLedger { .. } => Some(
                "finish or delete that one first; if it is gone for good, drop schema godwit with cascade in both databases",
            ),
            _ => None,
        }
    }
}

/// The whole chain, for reports and logs; every part of it is free of row values by construction.
pub fn spoken_chain_unbounded(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

fn first_message(findings: &[Finding]) -> String {
    findings.first().map_or_else(
        || "the step refused its input".to_owned(),
        |finding| format!("{}: {}", finding.object, finding.message),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(state: &str) -> Fault {
        Fault { sqlstate: Some(state.into()), text: "text".into(), object: None, constraint: None }
    }

    #[test]
    fn what_a_retry_can_heal_is_tried_again_and_the_rest_is_not() {
        for (state, expected) in [
            ("40001", exit::TRY_AGAIN),
            ("40P01", exit::TRY_AGAIN),
            ("55P03", exit::TRY_AGAIN),
            ("57P01", exit::TRY_AGAIN),
            ("GW001", exit::TRY_AGAIN),
            ("GW004", exit::TRY_AGAIN),
            ("23503", exit::DATA_DIFFERS),
            ("22P02", exit::DATA_DIFFERS),
            ("42501", exit::NOT_PERMITTED),
            ("28P01", exit::NOT_PERMITTED),
            ("3D000", exit::MISCONFIGURED),
            ("42601", exit::MISCONFIGURED),
            ("42P01", exit::INPUT_MISSING),
        ] {
            assert_eq!(fault(state).exit_code(), expected, "{state}");
        }
        let gone = Fault { text: "relation \"godwit.report\" does not exist".into(), ..fault("42P01") };
        assert_eq!(gone.exit_code(), exit::TRY_AGAIN);
        assert_eq!(Fault::new("connection closed").exit_code(), exit::TRY_AGAIN);
    }
}
