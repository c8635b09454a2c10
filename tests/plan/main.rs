//! Whole migrations decided in memory: golden traces, invariants after every step, seeded random order.
//! No cluster and no database: the world below folds decisions back into its own state.

#![allow(clippy::unwrap_used, reason = "a test ends where an expectation is broken")]

mod bad_input;
mod deletions;
mod holds;
mod invariants;
mod strays;
mod traces;
mod world;
