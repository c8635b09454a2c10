//! What can go wrong in the controller, and how it is answered: by class, never by text.
//! Returned by every file of this room. Failure of a migration is not an error: that is `plan/`'s business.

use std::fmt;
use std::time::Duration;

use crate::api::condition::reason;
use crate::build;

/// A request to the API server, in the words of RBAC, so that a refusal names what is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    pub verb: &'static str,
    pub resource: &'static str,
    pub object: String,
}

impl Attempt {
    pub fn new(verb: &'static str, resource: &'static str, object: impl Into<String>) -> Self {
        Self { verb, resource, object: object.into() }
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.verb, self.resource, self.object)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("failed to {attempt}")]
    Request {
        attempt: Attempt,
        #[source]
        source: Box<kube::Error>,
    },
    #[error("failed to {attempt}: no answer within {} s", limit.as_secs())]
    NoAnswer { attempt: Attempt, limit: Duration },
    #[error("{0} does not have the shape that this version knows")]
    Malformed(Attempt, #[source] serde_json::Error),
    #[error(transparent)]
    Build(#[from] build::Error),
    #[error("failed to build job {job}: its migration is not there")]
    NoMigration { job: String },
    #[error("a pass over {object} panicked; this is a defect of the operator")]
    Panic { object: String },
    #[error("the lease {lease} was lost: {reason}")]
    LeaseLost { lease: String, reason: String },
    #[error("failed to set up the client of the API server")]
    Client(#[source] Box<kube::Error>),
    #[error("failed to set up the client of http and prometheus checks")]
    CheckClient(#[source] reqwest::Error),
    #[error("the task {task} of the operator ended on its own")]
    TaskEnded { task: &'static str },
}

/// How an error is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Try again with growing delays.
    Transient,
    /// Somebody else wrote: look again soon.
    Conflict,
    /// A person has to grant something.
    Denied,
    /// A person has to repair something: the object, or us.
    Bug,
}

impl Error {
    pub fn class(&self) -> Class {
        match self {
            Error::Request { source, .. } => class_of(source),
            Error::NoAnswer { .. }
            | Error::NoMigration { .. }
            | Error::LeaseLost { .. }
            | Error::Client(_)
            | Error::CheckClient(_)
            | Error::TaskEnded { .. } => Class::Transient,
            Error::Malformed(..) | Error::Build(_) | Error::Panic { .. } => Class::Bug,
        }
    }

    /// True when the object itself cannot be read, not one that it depends on.
    pub fn is_about(&self, resource: &str, object: &str) -> bool {
        matches!(self, Error::Malformed(attempt, _) if attempt.resource == resource && attempt.object == object)
    }

    /// A fixed word for metrics and events, and the reason of the conditions where a person has to act.
    pub fn reason(&self) -> &'static str {
        match (self, self.class()) {
            (Error::Panic { .. }, _) => reason::OPERATOR_DEFECT,
            (Error::Malformed(..) | Error::Build(_), _) => reason::INVALID_SPEC,
            (Error::NoAnswer { .. }, _) => "NoAnswer",
            (_, Class::Denied) => reason::PERMISSION_DENIED,
            (_, Class::Bug) => reason::REQUEST_REFUSED,
            (_, Class::Conflict) => "Conflict",
            (_, Class::Transient) => "RequestFailed",
        }
    }

    /// For people: the error and its causes, without the debug text of the client library.
    pub fn text(&self) -> String {
        match self {
            Error::Request { source, .. } => format!("{self}: {}", cause(source)),
            Error::Malformed(_, source) => format!("{self}: {source}"),
            other => other.to_string(),
        }
    }
}

fn cause(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

fn class_of(error: &kube::Error) -> Class {
    let kube::Error::Api(status) = error else {
        return Class::Transient;
    };
    match status.code {
        409 => Class::Conflict,
        // The namespace is going away: its objects are about to be marked for deletion, which the next pass sees.
        403 if is_namespace_terminating(error) => Class::Transient,
        403 => Class::Denied,
        400 | 405 | 413 | 415 | 422 => Class::Bug,
        _ => Class::Transient,
    }
}

/// A create was refused because the namespace is being terminated.
pub fn is_namespace_terminating(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else {
        return false;
    };
    let causes = status.details.as_ref().map(|details| &details.causes);
    status.code == 403 && causes.into_iter().flatten().any(|cause| cause.reason == "NamespaceTerminating")
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    fn refused(code: u16) -> Error {
        let status = Status::failure("no", "Reason").with_code(code);
        Error::Request {
            attempt: Attempt::new("create", "jobs", "shop/crm-copy-1"),
            source: Box::new(kube::Error::Api(status.boxed())),
        }
    }

    #[test]
    fn each_answer_of_the_server_has_its_class() {
        for (code, class) in [
            (409, Class::Conflict),
            (403, Class::Denied),
            (422, Class::Bug),
            (401, Class::Transient),
            (404, Class::Transient),
            (429, Class::Transient),
            (500, Class::Transient),
            (503, Class::Transient),
            (504, Class::Transient),
        ] {
            assert_eq!(refused(code).class(), class, "{code}");
        }
    }

    #[test]
    fn a_refusal_names_verb_and_resource() {
        assert_eq!(refused(403).text(), "failed to create jobs shop/crm-copy-1: no");
        assert_eq!(refused(403).reason(), "PermissionDenied");
    }
}
