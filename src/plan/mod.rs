//! What should happen next: pure, total functions of what was observed and of the time that is passed in.
//! Called by `controller/`. Must not know a client, tokio, a clock, the environment, or Kubernetes workload objects.

pub mod admission;
pub mod approval;
pub mod attempt;
pub mod check;
pub mod cohort;
mod cohort_leave;
mod cohort_outcome;
mod cohort_status;
mod cohort_wishes;
pub mod command;
pub mod conditions;
pub mod decision;
pub mod digest;
pub mod hold;
pub mod migration;
mod migration_move;
mod migration_outcome;
mod migration_status;
pub mod names;
pub mod observed;
mod pass;
pub mod record;
pub mod retreat;
mod reversibility;
pub mod revert;
pub mod routes;
pub mod step;
mod strays;
pub mod task;
pub mod trigger;
pub mod verdict;
