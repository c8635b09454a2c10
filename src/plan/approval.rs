//! Approvals: whether the people who must agree have agreed to exactly this digest.
//! Used by both decisions. Must not count an approval of anything else.

use std::collections::BTreeSet;

use crate::api::approval::{ApprovalSpec, ApprovedStep, Decision, SubjectKind};
use crate::api::condition::reason;
use crate::api::migration::RequiredApproval;

use super::conditions::Why;

/// What is to be approved.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    pub kind: SubjectKind,
    pub name: &'a str,
    pub before: ApprovedStep,
    pub digest: &'a str,
}

/// Why the step must wait; `None` when it may go on.
pub fn missing(required: &[RequiredApproval], given: &[ApprovalSpec], question: Question<'_>) -> Option<Why> {
    let rule = required.iter().find(|rule| rule.before == question.before && rule.required > 0)?;
    let answers = given.iter().filter(|approval| {
        approval.subject.kind == question.kind
            && approval.subject.name == question.name
            && approval.before == question.before
    });
    let mut approvers = BTreeSet::new();
    let mut other_digests = 0;
    for answer in answers {
        if answer.digest != question.digest {
            other_digests += 1;
        } else if answer.decision == Decision::Reject {
            let message = format!("{} rejected this step; delete that Approval, or roll back", answer.by);
            return Some(Why::new(reason::APPROVAL_REJECTED, message));
        } else {
            approvers.insert(answer.by.as_str());
        }
    }
    let wanted = rule.required as usize;
    if approvers.len() >= wanted {
        return None;
    }
    let stale = if other_digests > 0 {
        format!("; {other_digests} approve another digest and do not count")
    } else {
        String::new()
    };
    let message = format!(
        "Waiting for {} of {wanted} approvals before {:?} with digest {}{stale}",
        wanted - approvers.len(),
        question.before,
        question.digest
    );
    Some(Why::new(reason::APPROVAL_REQUIRED, message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::approval::Subject;

    fn approval(by: &str, digest: &str, decision: Decision) -> ApprovalSpec {
        ApprovalSpec {
            subject: Subject { kind: SubjectKind::Cohort, name: "canary".into() },
            before: ApprovedStep::Cutover,
            digest: digest.into(),
            decision,
            by: by.into(),
            comment: None,
        }
    }

    fn ask(given: &[ApprovalSpec]) -> Option<Why> {
        let rule = RequiredApproval { before: ApprovedStep::Cutover, required: 2 };
        let question =
            Question { kind: SubjectKind::Cohort, name: "canary", before: ApprovedStep::Cutover, digest: "sha256:now" };
        missing(&[rule], given, question)
    }

    #[test]
    fn one_person_counts_once_however_often_they_approve() {
        let twice =
            [approval("alice", "sha256:now", Decision::Approve), approval("alice", "sha256:now", Decision::Approve)];
        assert_eq!(ask(&twice).unwrap().reason, reason::APPROVAL_REQUIRED);
        let two =
            [approval("alice", "sha256:now", Decision::Approve), approval("bob", "sha256:now", Decision::Approve)];
        assert_eq!(ask(&two), None);
    }

    #[test]
    fn an_approval_of_another_digest_does_not_count_and_is_mentioned() {
        let given =
            [approval("alice", "sha256:now", Decision::Approve), approval("bob", "sha256:old", Decision::Approve)];
        assert!(ask(&given).unwrap().message.contains("1 approve another digest"));
    }

    #[test]
    fn a_rejection_holds_whatever_else_was_approved() {
        let given = [
            approval("alice", "sha256:now", Decision::Approve),
            approval("bob", "sha256:now", Decision::Approve),
            approval("carol", "sha256:now", Decision::Reject),
        ];
        assert_eq!(ask(&given).unwrap().reason, reason::APPROVAL_REJECTED);
    }

    #[test]
    fn nothing_is_waited_for_where_nobody_must_approve() {
        let question =
            Question { kind: SubjectKind::Cohort, name: "canary", before: ApprovedStep::Cutover, digest: "sha256:now" };
        assert_eq!(missing(&[], &[], question), None);
    }
}
