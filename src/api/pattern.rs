//! Patterns of names that more than one field uses.
//! Referred to by the field attributes of the kinds. Must stay within what Kubernetes' own validation accepts (RE2).

/// A name of ours: a DNS label, because it becomes part of labels, file names and Job names.
pub const LABEL: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";
/// Name of a Kubernetes object: a DNS subdomain.
pub const OBJECT_NAME: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
/// A table as `schema.table`.
pub const TABLE: &str = r"^[^.]+\..+$";
/// An HTTP URL without user and password, which would end up in logs and status.
pub const URL: &str = r"^https?://[^\s@]+$";
