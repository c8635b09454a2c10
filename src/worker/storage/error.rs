//! What can go wrong with a file of the storage, and whether a retry can help.
//! Made by the storage and its files, answered by `worker::error`. Shown to users: must hold paths below the storage root, no content.

/// What went wrong with a file. Shown to users: holds paths below the storage root, no content.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    #[error("failed to open the storage folder {folder}")]
    OpenFolder {
        folder: String,
        #[source]
        source: object_store::Error,
    },
    #[error("failed to open the storage bucket {bucket}")]
    OpenBucket {
        bucket: String,
        #[source]
        source: object_store::Error,
    },
    #[error("failed to write {path} to storage")]
    Write {
        path: String,
        #[source]
        source: object_store::Error,
    },
    #[error("failed to read the data that was to be written to {path}")]
    Feed {
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("failed to read {path} from storage")]
    Read {
        path: String,
        #[source]
        source: object_store::Error,
    },
    #[error("failed to list {path} in storage")]
    List {
        path: String,
        #[source]
        source: object_store::Error,
    },
    #[error("failed to delete {path} from storage")]
    Delete {
        path: String,
        #[source]
        source: object_store::Error,
    },
    #[error("{path} is not in storage")]
    Missing { path: String },
    #[error("{path} is in storage already")]
    Exists { path: String },
    #[error("{path} has {bytes} bytes, more than the {limit} that it may have")]
    TooLarge { path: String, bytes: u64, limit: u64 },
    #[error("{path} is no usable path")]
    Path { path: String },
}

impl StorageError {
    /// The storage refused permission: a retry is pointless.
    pub fn is_not_permitted(&self) -> bool {
        let (Self::OpenFolder { source, .. }
        | Self::OpenBucket { source, .. }
        | Self::Write { source, .. }
        | Self::Read { source, .. }
        | Self::List { source, .. }
        | Self::Delete { source, .. }) = self
        else {
            return false;
        };
        match source {
            object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => true,
            other => io_kind(other) == Some(std::io::ErrorKind::PermissionDenied),
        }
    }

    /// The storage's settings are unusable: a retry is pointless.
    pub fn is_misconfigured(&self) -> bool {
        matches!(self, Self::OpenFolder { .. } | Self::OpenBucket { .. } | Self::Path { .. })
            && !self.is_not_permitted()
    }
}

/// The kind of the innermost IO error: the folder store wraps it in errors of its own.
fn io_kind(error: &object_store::Error) -> Option<std::io::ErrorKind> {
    let mut source: Option<&dyn std::error::Error> = Some(error);
    let mut kind = None;
    while let Some(error) = source {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            kind = Some(io.kind());
        }
        source = error.source();
    }
    kind
}

/// What the file system said, as the store of a folder would have told it.
pub(super) fn of_folder(source: std::io::Error) -> object_store::Error {
    object_store::Error::Generic { store: "folder", source: Box::new(source) }
}

pub(super) fn read_error(path: &str, source: object_store::Error) -> StorageError {
    match source {
        object_store::Error::NotFound { .. } => StorageError::Missing { path: path.into() },
        source => StorageError::Read { path: path.into(), source },
    }
}
