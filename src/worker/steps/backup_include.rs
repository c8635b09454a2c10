//! The files that a backup takes along: configuration, templates, code, mounted from ConfigMaps.
//! Used by Backup alone. Must not follow a name out of the mount.

use std::path::{Path, PathBuf};

use crate::contract::exit;
use crate::worker::Error;
use crate::worker::postgres::manifest::blocker;

/// A ConfigMap holds 1 MiB at most.
const MAX_INCLUDE_BYTES: u64 = 16 << 20;

/// An include's name and its files.
pub type Include = (String, Vec<PathBuf>);

/// The files of each include; a ConfigMap's folder also has entries that begin with two dots, which are its machinery.
pub fn find_includes(mount: &Path, names: &[String]) -> Result<Vec<Include>, Error> {
    let mut includes = Vec::new();
    for name in names {
        if name.is_empty() || name.contains('/') || name.starts_with('.') {
            return Err(Error::Input { reason: "the name of a backup include is no plain name".into() });
        }
        let folder = mount.join(name);
        let entries = std::fs::read_dir(&folder).map_err(|_| {
            Error::refused(
                exit::INPUT_MISSING,
                blocker("IncludeMissing", name, "The backup include is not mounted; its ConfigMap must exist."),
            )
        })?;
        let mut files = Vec::new();
        for entry in entries {
            let path = entry.map_err(include_error(name))?.path();
            let machinery = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(".."));
            let metadata = std::fs::metadata(&path).map_err(include_error(name))?;
            if machinery || !metadata.is_file() {
                continue;
            }
            if metadata.len() > MAX_INCLUDE_BYTES {
                return Err(include_error(name)(std::io::ErrorKind::FileTooLarge.into()));
            }
            files.push(path);
        }
        files.sort();
        includes.push((name.clone(), files));
    }
    Ok(includes)
}

pub fn include_error(name: &str) -> impl Fn(std::io::Error) -> Error {
    let attempted = format!("read the backup include {name}");
    move |source| Error::File { attempted: attempted.clone(), source }
}
