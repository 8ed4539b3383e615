//! From what a user typed to the file of a definition.

use std::path::{Path, PathBuf};

use crate::disk;
use crate::fault::{self, Fault, Kind};
use crate::text::nearest;

/// A definition that could not be found.
#[derive(Debug, thiserror::Error)]
#[must_use]
pub enum Error {
    /// No file of that name.
    #[error("there is no definition `{name}` in {}", folder.display())]
    Unknown {
        /// What was asked for.
        name: String,
        /// Where it was looked for.
        folder: PathBuf,
        /// The definitions that are there.
        known: Vec<String>,
    },
    /// No folder of definitions.
    #[error("there are no definitions here")]
    NoFolder(#[source] disk::Error),
}

impl Fault for Error {
    fn kind(&self) -> Kind {
        Kind::Usage
    }

    fn hint(&self) -> Option<String> {
        match self {
            Error::Unknown { name, known, .. } => {
                match nearest(name, known.iter().map(String::as_str)) {
                    Some(meant) => Some(format!("did you mean `{meant}`?")),
                    None if known.is_empty() => {
                        Some("give the path of a definition, such as `manifests/mine.toml`".into())
                    }
                    None => Some(format!("there are {}", fault::list_of(known))),
                }
            }
            Error::NoFolder(_) => Some(
                "call it beside a folder `manifests/`, or give the path of a definition".to_owned(),
            ),
        }
    }
}

/// Returns the file of a definition: `name` in `folder`, or the path that `name` is, one that ends
/// in `.toml` or has a `/` in it.
pub fn find(name: &str, folder: &Path) -> Result<PathBuf, Error> {
    let path = Path::new(name);
    if name.contains('/') || path.extension().is_some_and(|end| end == "toml") {
        let whole = with_ending(path);
        return Ok(if path.is_file() || !whole.is_file() { path.to_owned() } else { whole });
    }
    let known = names(folder).map_err(Error::NoFolder)?;
    if known.iter().any(|has| has == name) {
        return Ok(folder.join(format!("{name}.toml")));
    }
    Err(Error::Unknown { name: name.to_owned(), folder: folder.to_owned(), known })
}

/// Returns the path with the ending that a shell's completion may have left out.
fn with_ending(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".toml");
    PathBuf::from(name)
}

/// Returns the names of the definitions in a folder, sorted.
pub fn names(folder: &Path) -> Result<Vec<String>, disk::Error> {
    let files = disk::list(folder)?;
    let stem = |name: &std::ffi::OsString| Some(name.to_str()?.strip_suffix(".toml")?.to_owned());
    Ok(files.iter().filter_map(stem).filter(|name| !name.starts_with('.')).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_or_a_path() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["ml.toml", "cuda.toml", "ml.lock"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        assert_eq!(find("ml", dir.path()).unwrap(), dir.path().join("ml.toml"));
        assert_eq!(find("x/y", dir.path()).unwrap(), Path::new("x/y"));
        let bare = dir.path().join("ml");
        assert_eq!(
            find(bare.to_str().unwrap(), Path::new("x")).unwrap(),
            dir.path().join("ml.toml")
        );
        let error = find("mll", dir.path()).unwrap_err();
        assert_eq!(error.hint().unwrap(), "did you mean `ml`?");
        let error = find("other", dir.path()).unwrap_err();
        assert_eq!(error.hint().unwrap(), "there are `cuda` and `ml`");
        assert!(find("ml", &dir.path().join("none")).is_err());
    }
}
