//! The public contract with users: kinds, conditions, reasons, labels and annotations of `godwit.dev/v1alpha1`.
//! Read by every room of the operator. Must not know a client, a clock or any other room.

pub mod approval;
pub mod backup;
pub mod check;
pub mod cohort;
pub mod condition;
pub mod crd;
pub mod dataset;
pub mod duration;
pub mod migration;
pub mod names;
pub mod pattern;
pub mod phase;
pub mod status;

pub use approval::{Approval, ApprovalSpec, Decision};
pub use check::{Check, Gate, Trigger};
pub use cohort::{Cohort, CohortSpec, CohortStatus};
pub use duration::DurationString;
pub use migration::{Migration, MigrationSpec, MigrationStatus};
