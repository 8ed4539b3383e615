//! Operating system, architecture and variant of an image (image-spec, index, `platform`).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A platform as an index names it: Go's spelling of system and architecture.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Platform {
    /// Always `linux` for images that are built here.
    pub os: String,
    /// `amd64`, `arm64` and the like.
    pub architecture: String,
    /// `v8` of arm64, `v7` of arm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// A text that is no platform.
#[derive(Debug, Clone, thiserror::Error)]
#[error("`{0}` is not a platform such as `linux/amd64` or `linux/arm64/v8`")]
pub struct PlatformError(String);

impl Platform {
    /// Returns the Linux platform of an architecture in any vendor's spelling.
    pub fn linux(architecture: &str) -> Platform {
        let (architecture, variant) = match architecture {
            "x86_64" | "x86-64" => ("amd64", None),
            "aarch64" => ("arm64", None),
            "armv7l" | "armhf" => ("arm", Some("v7".to_owned())),
            "i386" | "i686" => ("386", None),
            "ppc64el" => ("ppc64le", None),
            other => (other, None),
        };
        Platform { os: "linux".to_owned(), architecture: architecture.to_owned(), variant }
    }

    /// Returns the platform of this machine.
    pub fn host() -> Platform {
        Platform::linux(std::env::consts::ARCH)
    }

    /// Returns the name that the kernel and GNU use: `x86_64`, `aarch64`.
    pub fn machine(&self) -> &str {
        match self.architecture.as_str() {
            "amd64" => "x86_64",
            "arm64" => "aarch64",
            "386" => "i686",
            "arm" => "armv7l",
            other => other,
        }
    }

    /// Tells whether an image for `self` is what `wanted` asks for; `arm64/v8` is `arm64`, and
    /// `unknown/unknown`, which marks attestations, is nothing.
    pub fn satisfies(&self, wanted: &Platform) -> bool {
        let plain = |platform: &Platform| match (
            platform.architecture.as_str(),
            platform.variant.as_deref(),
        ) {
            ("arm64", Some("v8")) | ("amd64", Some("v1")) => None,
            (_, variant) => variant.map(str::to_owned),
        };
        self.os == wanted.os
            && self.architecture == wanted.architecture
            && self.architecture != "unknown"
            && plain(self) == plain(wanted)
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = format!("{}/{}", self.os, self.architecture);
        if let Some(variant) = &self.variant {
            text.push('/');
            text.push_str(variant);
        }
        f.pad(&text)
    }
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Platform, PlatformError> {
        let refuse = || PlatformError(text.to_owned());
        let word = |part: &str| {
            !part.is_empty()
                && part.bytes().all(|c| c.is_ascii_alphanumeric() || b"._-".contains(&c))
        };
        let parts: Vec<&str> = text.split('/').collect();
        if !parts.iter().all(|part| word(part)) {
            return Err(refuse());
        }
        match parts[..] {
            ["linux", architecture] => Ok(Platform::linux(architecture)),
            ["linux", architecture, variant] => {
                let mut platform = Platform::linux(architecture);
                platform.variant = Some(variant.to_owned());
                Ok(platform)
            }
            _ => Err(refuse()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vendors_spellings_are_one_platform() {
        let arm: Platform = "linux/aarch64".parse().unwrap();
        assert_eq!(arm.to_string(), "linux/arm64");
        assert_eq!(arm.machine(), "aarch64");
        let v8: Platform = "linux/arm64/v8".parse().unwrap();
        assert!(v8.satisfies(&arm) && arm.satisfies(&v8));
        assert!("windows/amd64".parse::<Platform>().is_err());
        assert!("linux".parse::<Platform>().is_err());
        let attestation =
            Platform { os: "unknown".into(), architecture: "unknown".into(), variant: None };
        assert!(!attestation.satisfies(&attestation));
    }
}
