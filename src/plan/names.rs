//! Job names: a function of the owner's uid, the step and the attempt, used once in the life of a cluster.
//! Used by decisions and tests. Must stay deterministic: a crash between record and create is healed by the same name.

use sha2::{Digest, Sha256};

/// Longest name of a Job, so that its pods' names and labels fit as well.
const MAX: usize = 63;

/// `<owner>-<step>-<attempt>-<hash>`: readable in front, unique by the hash over uid, step and attempt.
pub fn job_name(owner_uid: &str, owner_name: &str, step: &str, attempt: i64) -> String {
    let step = step.to_ascii_lowercase();
    let digest = Sha256::digest(format!("{owner_uid}/{step}/{attempt}"));
    let hash: String = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    let tail = format!("-{}-{attempt}-{hash}", step.get(..step.len().min(30)).unwrap_or(&step));
    let room = MAX.saturating_sub(tail.len());
    let head: String = owner_name.chars().take(room).collect();
    format!("{}{tail}", head.trim_end_matches(['-', '.']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_owner_still_fits_a_label() {
        let name = job_name("0f7c", &"n".repeat(50), "VerifyBackup", 123_456);
        assert!(name.len() <= MAX, "{name}");
        assert!(name.contains("-verifybackup-123456-"));
    }

    #[test]
    fn another_uid_step_or_attempt_is_another_name() {
        let name = job_name("uid-1", "canary", "Copy", 1);
        assert_ne!(name, job_name("uid-2", "canary", "Copy", 1));
        assert_ne!(name, job_name("uid-1", "canary", "Validate", 1));
        assert_ne!(name, job_name("uid-1", "canary", "Copy", 2));
        assert_eq!(name, job_name("uid-1", "canary", "Copy", 1));
    }
}
