//! Whole migrations decided in memory: golden traces, invariants after every step, seeded random order.
//! No cluster and no database: the world below folds decisions back into its own state.

mod invariants;
mod traces;
mod world;
