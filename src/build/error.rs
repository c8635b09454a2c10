//! Why an object cannot be built: the schema refuses such specs, but a stored object may be older than its schema.
//! Returned by every builder; shown by `controller/` on the object concerned.

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    #[error("failed to build job {job}: spec.engine names no engine")]
    NoEngine { job: String },
    #[error("failed to build job {job}: spec.backup.storage names neither persistentVolumeClaim nor s3")]
    NoStorage { job: String },
    #[error("failed to build job {job}: spec.checks has no check {check} with a job source")]
    NoCheck { job: String, check: String },
    #[error(
        "failed to build job {job}: its input has {bytes} bytes and a process takes {most}; shorten spec.dataset or spec.validation.checks"
    )]
    InputTooLarge { job: String, bytes: usize, most: usize },
    #[error("failed to build job {job}: its input cannot be written as JSON")]
    Input { job: String },
}
