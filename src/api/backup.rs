//! Where a Migration keeps its backup and evidence, and what is backed up beside the data.
//! Part of `MigrationSpec`. Must hold no credentials: Secrets are named.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::duration::DurationString;
use super::pattern;

/// Where the backup and all evidence are stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("duration(self.maxAge) >= duration('1m') && duration(self.maxAge) <= duration('8760h')")
    .message(Message::Expression("'maxAge must lie between 1m and 8760h (a year), not ' + self.maxAge".into())).field_path(".maxAge"))]
pub struct Backup {
    /// A volume or an S3 bucket; exactly one.
    pub storage: Storage,
    /// Configuration that is backed up beside the data.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub include: Vec<BackupInclude>,
    /// A cohort starts only while the verified backup is younger than this; an older one is taken and verified anew. Default 24h.
    #[serde(default = "default_max_age")]
    pub max_age: DurationString,
}

fn default_max_age() -> DurationString {
    "24h".into()
}

/// A volume or an S3 bucket; exactly one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.persistentVolumeClaim) != has(self.s3)")
    .message(Message::Expression("'storage needs exactly one of persistentVolumeClaim, s3'".into())))]
pub struct Storage {
    /// A volume claim in the same namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistent_volume_claim: Option<ClaimStorage>,
    /// A bucket behind any S3 API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub s3: Option<S3Storage>,
}

/// A volume claim in the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClaimStorage {
    /// Name of the claim; it must be mountable by the Jobs' pods.
    #[schemars(length(min = 1, max = 253), regex(pattern = pattern::OBJECT_NAME))]
    pub claim_name: String,
}

/// A bucket behind any S3 API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct S3Storage {
    /// Name of the bucket.
    #[schemars(length(min = 1, max = 255))]
    pub bucket: String,
    /// Path within the bucket. Default: its root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub prefix: Option<String>,
    /// URL of the service; default: AWS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512), regex(pattern = pattern::URL))]
    pub endpoint: Option<String>,
    /// Region. Default: us-east-1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub region: Option<String>,
    /// Name of a Secret in the same namespace with keys `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`.
    #[schemars(length(min = 1, max = 253), regex(pattern = pattern::OBJECT_NAME))]
    pub credentials_secret_name: String,
}

/// Configuration that is backed up beside the data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupInclude {
    /// Name in the backup.
    #[schemars(length(min = 1, max = 40), regex(pattern = pattern::LABEL))]
    pub name: String,
    /// A ConfigMap in the same namespace; every key becomes a file.
    pub config_map_ref: ConfigMapRef,
}

/// A ConfigMap in the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct ConfigMapRef {
    /// Its name.
    #[schemars(length(min = 1, max = 253), regex(pattern = pattern::OBJECT_NAME))]
    pub name: String,
}
