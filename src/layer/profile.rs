//! Named compression profiles. A profile is a function of the bytes alone, at pinned versions of
//! its libraries; another function gets another name, and old ones stay executable.

use std::fmt;
use std::str::FromStr;

use crate::oci::media_type;

/// A compression profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Profile {
    /// libdeflate 1.26.1, level 1, each block of 1 MiB a gzip member; a block whose samples do not
    /// shrink is stored.
    Gzip1,
    /// libzstd 1.5.7, level 3, multithreaded form.
    Zstd1,
}

/// A name that no profile has.
#[derive(Debug, Clone, thiserror::Error)]
#[error("`{0}` is no compression profile; there are `gzip-1` and `zstd-1`")]
pub struct ProfileError(String);

impl Profile {
    /// Every profile that can be written.
    pub const ALL: [Profile; 2] = [Profile::Gzip1, Profile::Zstd1];

    /// Returns the profile's name, as it goes into records.
    pub fn name(self) -> &'static str {
        match self {
            Profile::Gzip1 => "gzip-1",
            Profile::Zstd1 => "zstd-1",
        }
    }

    /// Returns the newest profile of an algorithm that a definition names: `gzip` or `zstd`.
    pub fn of_algorithm(algorithm: &str) -> Option<Profile> {
        match algorithm {
            "gzip" => Some(Profile::Gzip1),
            "zstd" => Some(Profile::Zstd1),
            _ => None,
        }
    }

    /// Returns the media type of a layer made with it.
    pub fn media_type(self) -> &'static str {
        match self {
            Profile::Gzip1 => media_type::LAYER_GZIP,
            Profile::Zstd1 => media_type::LAYER_ZSTD,
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Profile {
    type Err = ProfileError;

    fn from_str(text: &str) -> Result<Profile, ProfileError> {
        match text {
            "gzip-1" => Ok(Profile::Gzip1),
            "zstd-1" => Ok(Profile::Zstd1),
            other => Err(ProfileError(other.to_owned())),
        }
    }
}
