//! Several locks of one definition, each for platforms of its own, as one: what native runners
//! wrote, put together.

use std::path::PathBuf;

use super::Lock;
use crate::fault::{Fault, Kind};

/// Locks that can't be one.
#[derive(Debug, thiserror::Error)]
#[must_use]
pub enum MergeError {
    /// They stand on different bases.
    #[error(
        "`{}` stands on {first}, `{}` on {second}", first_path.display(), second_path.display()
    )]
    Base {
        /// A lock.
        first_path: PathBuf,
        /// Its base.
        first: String,
        /// Another.
        second_path: PathBuf,
        /// Its base.
        second: String,
    },
    /// They were made under different rules of normalisation.
    #[error(
        "`{}` was made under the rules {first}, `{}` under {second}",
        first_path.display(),
        second_path.display()
    )]
    Rules {
        /// A lock.
        first_path: PathBuf,
        /// Its rules.
        first: String,
        /// Another.
        second_path: PathBuf,
        /// Its rules.
        second: String,
    },
    /// They say different things of one platform.
    #[error(
        "`{}` and `{}` differ for {platform}", first_path.display(), second_path.display()
    )]
    Platform {
        /// A lock.
        first_path: PathBuf,
        /// Another.
        second_path: PathBuf,
        /// What both are for.
        platform: String,
    },
    /// There are none.
    #[error("there is no lock to merge")]
    Nothing,
}

impl Fault for MergeError {
    fn kind(&self) -> Kind {
        Kind::Usage
    }

    fn hint(&self) -> Option<String> {
        match self {
            MergeError::Base { .. } => {
                Some("name the base by digest in the definition, and lock again".to_owned())
            }
            MergeError::Rules { .. } => Some("lock again with one release of ocibuild".to_owned()),
            MergeError::Platform { .. } => Some("lock each platform in one place only".to_owned()),
            MergeError::Nothing => None,
        }
    }
}

/// Joins locks; the paths are for errors.
pub fn merge(locks: &[(PathBuf, Lock)]) -> Result<Lock, MergeError> {
    let Some(((first_path, first), others)) = locks.split_first() else {
        return Err(MergeError::Nothing);
    };
    let mut merged = first.clone();
    let named = |lock: &Lock| format!("{} at {}", lock.base.reference, lock.base.digest.short());
    for (position, (path, lock)) in others.iter().enumerate() {
        let (first_path, second_path) = (first_path.clone(), path.clone());
        if lock.base != first.base {
            let (first, second) = (named(first), named(lock));
            return Err(MergeError::Base { first_path, first, second_path, second });
        }
        if lock.rules != first.rules {
            let (first, second) = (first.rules.clone(), lock.rules.clone());
            return Err(MergeError::Rules { first_path, first, second_path, second });
        }
        for (platform, section) in &lock.platforms {
            match merged.platforms.get(platform) {
                None => {
                    merged.platforms.insert(platform.clone(), section.clone());
                }
                Some(same) if same == section => {}
                Some(_) => {
                    let platform = platform.clone();
                    let has = |(_, lock): &&(PathBuf, Lock)| lock.platforms.contains_key(&platform);
                    let first_path = locks[..=position]
                        .iter()
                        .find(has)
                        .map_or(first_path, |(path, _)| path.clone());
                    return Err(MergeError::Platform { first_path, second_path, platform });
                }
            }
        }
    }
    Ok(merged)
}
