//! Changes from the upper folder of an overlay.

use std::path::{Path, PathBuf};

use super::{Change, Error};

/// Lists what an overlay's upper folder changes over its parent.
///
/// `parent` is the read-only view of the layers below; `excluded` are paths relative to the root
/// (mount points) that are left out with everything below them. The root folder itself is never an
/// entry. The result is sorted by path bytes.
pub fn from_upper(
    _upper: &Path,
    _parent: &Path,
    _excluded: &[PathBuf],
) -> Result<Vec<Change>, Error> {
    Ok(Vec::new())
}
