//! What going back would cost, as both kinds show it: in `status.reversibility` and as the condition `RollbackAvailable`.
//! Used by `cohort_status.rs` and `migration_status.rs`, which know the class. Must not decide whether to go back.

use crate::api::condition::{kind, reason};
use crate::api::status::{ReversibilityClass, ReversibilityStatus};

use super::conditions::{Fact, Why};

/// Why there is no way back any more.
const CLOSED: &str = "Finalize has begun";

pub(super) fn status(class: ReversibilityClass) -> ReversibilityStatus {
    let blockers = if class == ReversibilityClass::Closed { vec![CLOSED.to_owned()] } else { Vec::new() };
    ReversibilityStatus { class, blockers }
}

/// The condition `RollbackAvailable`.
pub(super) fn available(class: ReversibilityClass) -> Fact {
    let (answer, reason, message) = match class {
        ReversibilityClass::Closed => ("False", reason::POINT_OF_NO_RETURN, CLOSED),
        ReversibilityClass::Lossless => {
            ("True", reason::NOTHING_MOVED, "The source owns every row; nothing would be lost")
        }
        ReversibilityClass::Lossy => (
            "True",
            reason::TARGET_WRITES_SET_ASIDE,
            "What the target wrote since the cutover would be exported and set aside",
        ),
    };
    Fact::new(kind::ROLLBACK_AVAILABLE, answer, Why::new(reason, message))
}
