//! Python's byte code (PEP 552): a magic number, flags, then for flags of zero the source's time and
//! size. A time that is not the source's makes Python compile the file at each start; one that has
//! become its source's by chance makes it run what the source no longer says.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::tree::Tree;
use super::{Times, is_small};
use crate::changes::{Changes, Kind};
use crate::layer::Error;

/// Tells a compiled file of the layer the time that its source will have, before times are set;
/// tells whether it had to be told.
///
/// What is older than its source must not become current by that, and gets a time that no source
/// has.
pub(super) fn retime(
    tree: &Tree,
    path: &[u8],
    changes: &Changes,
    times: &Times,
    settles: bool,
) -> Result<bool, Error> {
    let (Some(place), Some(source)) = (tree.place(path)?, source_of(path)) else {
        return Ok(false);
    };
    if !place.file()?.is_some_and(|stat| is_small(&stat)) {
        return Ok(false);
    }
    let content = place.read()?;
    let Some(stamp) = stamp(&content) else { return Ok(false) };
    let of_source = match tree.place(&source)? {
        Some(place) => place.file()?.map(|stat| stat.st_mtime),
        None => None,
    };
    let settled =
        |time: i64, here: bool| field(if settles && here { times.settled(time) } else { time });
    let of_layer = changes.contains(path);
    let wanted = match of_source {
        None => settled(stamp.into(), of_layer),
        Some(time) => {
            let will_be = settled(time, changes.contains(&source));
            if field(time) == stamp {
                will_be
            } else if of_layer || will_be == stamp {
                u32::from(will_be == 0)
            } else {
                // Stale as it is: a parent's need not come into this layer.
                stamp
            }
        }
    };
    if wanted == stamp {
        return Ok(false);
    }
    place.replace(&restamped(content, wanted))?;
    Ok(true)
}

/// Does the same, where times will be set, to compiled files of parents whose source is of the
/// layer; returns how many had to be told.
pub(super) fn retime_parents(tree: &Tree, changes: &Changes, times: &Times) -> Result<u64, Error> {
    let mut count = 0;
    // The compiled files beside the sources of a folder, for the folders on the way down to here.
    let mut listed: Vec<(PathBuf, Vec<OsString>)> = Vec::new();
    let mut cursor = changes.cursor();
    while let Some((source, kind)) = cursor.advance() {
        let source = Path::new(OsStr::from_bytes(source));
        if kind != Kind::Present || !source.as_os_str().as_bytes().ends_with(b".py") {
            continue;
        }
        let (Some(folder), Some(module)) = (source.parent(), source.file_stem()) else { continue };
        while listed.last().is_some_and(|(above, _)| !folder.starts_with(above)) {
            listed.pop();
        }
        let cache = folder.join("__pycache__");
        if listed.last().is_none_or(|(last, _)| last != folder) {
            listed.push((folder.to_owned(), tree.list(cache.as_os_str().as_bytes())?));
        }
        let prefix = [module.as_bytes(), b"."].concat();
        for name in listed.last().into_iter().flat_map(|(_, names)| names) {
            if !name.as_bytes().starts_with(&prefix) || !name.as_bytes().ends_with(b".pyc") {
                continue;
            }
            let path = cache.join(name);
            let path = path.as_os_str().as_bytes();
            if !changes.contains(path) {
                count += u64::from(retime(tree, path, changes, times, true)?);
            }
        }
    }
    Ok(count)
}

/// Returns the source beside the `__pycache__` that a compiled file lies in.
fn source_of(path: &[u8]) -> Option<Vec<u8>> {
    let path = Path::new(OsStr::from_bytes(path));
    let name = path.file_name()?.to_str()?;
    let (module, _) = name.split_once(".cpython-")?;
    let source = path.parent()?.parent()?.join(format!("{module}.py"));
    Some(source.into_os_string().into_vec())
}

/// Returns the source's time that the file has; `None` for byte code that is checked by hash, and
/// for what is no byte code.
fn stamp(content: &[u8]) -> Option<u32> {
    let header = content.get(..16)?;
    // The magic number ends so that a text-mode copy would show.
    if header.get(2..4)? != b"\r\n" || header.get(4..8)? != [0; 4] {
        return None;
    }
    Some(u32::from_le_bytes(header.get(8..12)?.try_into().ok()?))
}

/// Returns a time as the field holds it: its low 32 bits.
pub(super) fn field(seconds: i64) -> u32 {
    let [a, b, c, d, ..] = seconds.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

/// Returns byte code with another time of its source; `None` for what has none.
pub(super) fn with_stamp(content: &[u8], time: u32) -> Option<Vec<u8>> {
    stamp(content).map(|_| restamped(content.to_vec(), time))
}

/// Returns the file, which has a stamp, with another one.
fn restamped(mut content: Vec<u8>, stamp: u32) -> Vec<u8> {
    content[8..12].copy_from_slice(&stamp.to_le_bytes());
    content
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_times_of_sources_are_stamps() {
        let stamped = [0xa7, 0x0d, b'\r', b'\n', 0, 0, 0, 0, 1, 2, 3, 4, 9, 0, 0, 0, 0xe3];
        assert_eq!(stamp(&stamped), Some(0x0403_0201));
        let new = restamped(stamped.to_vec(), 0x0403_0205);
        assert_eq!(new[8..12], [5, 2, 3, 4]);
        assert_eq!((&new[..8], &new[12..]), (&stamped[..8], &stamped[12..]));
        let mut hashed = stamped;
        hashed[4] = 3;
        assert_eq!(stamp(&hashed), None);
        assert_eq!(stamp(b"short"), None);
        assert_eq!(field((1 << 32) + 7), 7);
        assert_eq!(field(-1), u32::MAX);
    }
}
