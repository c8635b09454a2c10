//! What should happen next: pure, total functions of what was observed and of the time that is passed in.
//! Called by `controller/`. Must not know a client, tokio, a clock, the environment, or Kubernetes workload objects.

pub mod decision;
pub mod observed;
