//! What a folder of a stack of layers holds, seen from the top, told without an overlay: by the rules
//! of overlay, from the trees and what their sidecars hide.

use std::collections::BTreeMap;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Stat};

use crate::disk::At;
use crate::rootfs::stack::is_opaque;
use crate::rootfs::{EntryPath, Error, Lower, each};

/// What a layer hides of those below it, in one folder.
#[derive(Debug)]
struct Hidden {
    layer: u16,
    name: Vec<u8>,
    /// Only what a folder of this name holds.
    content: bool,
}

/// A stack of layers, from the bottom up, seen as one tree.
#[derive(Debug)]
pub(super) struct Flat<'l> {
    lowers: &'l [Lower],
    /// By folder, the topmost layer first.
    hidden: BTreeMap<Vec<u8>, Vec<Hidden>>,
}

/// An entry of a folder.
#[derive(Debug)]
pub(super) struct Seen {
    /// The layer whose entry is seen; of a folder, the one whose metadata are.
    pub origin: u16,
    pub stat: Stat,
    /// The layers that a folder's content comes from, the topmost first; empty for all else.
    pub sources: Vec<u16>,
}

/// An entry while layers are looked through.
enum State {
    /// Hidden from here on down.
    Hidden,
    /// Nothing yet, and only the metadata of a folder can still come.
    Emptied,
    Found {
        seen: Seen,
        /// Lower layers may add to the folder.
        open: bool,
        /// The folder's metadata are made up so far.
        implied: bool,
    },
}

impl<'l> Flat<'l> {
    pub(super) fn new(lowers: &'l [Lower]) -> Flat<'l> {
        let mut hidden: BTreeMap<Vec<u8>, Vec<Hidden>> = BTreeMap::new();
        for (at, lower) in lowers.iter().enumerate().rev() {
            let Some(sidecar) = &lower.sidecar else { continue };
            let layer = index(at);
            let opaque = sidecar.opaque.iter().map(|path| (path, true));
            for (path, content) in sidecar.whiteouts.iter().map(|path| (path, false)).chain(opaque)
            {
                let (folder, name) = split(path.as_bytes());
                let name = name.to_vec();
                hidden.entry(folder.to_vec()).or_default().push(Hidden { layer, name, content });
            }
        }
        Flat { lowers, hidden }
    }

    /// Returns the root's metadata and sources; `None` for a stack of nothing.
    pub(super) fn root(&self) -> Result<Option<Seen>, Error> {
        let mut state = None;
        for (at, lower) in self.lowers.iter().enumerate().rev() {
            let stat = stat_of(&lower.tree)?;
            self.add(&mut state, index(at), &[], stat)?;
            let opaque = |lower: &Lower| {
                lower.sidecar.as_ref().is_some_and(|sidecar| sidecar.opaque.contains(&b""[..]))
            };
            if opaque(lower) {
                break;
            }
        }
        Ok(state.and_then(|state| match state {
            State::Found { seen, .. } => Some(seen),
            _ => None,
        }))
    }

    /// Returns what a folder holds, by name.
    pub(super) fn folder(
        &self,
        path: &[u8],
        sources: &[u16],
    ) -> Result<BTreeMap<Vec<u8>, Seen>, Error> {
        let mut states: BTreeMap<Vec<u8>, Option<State>> = BTreeMap::new();
        let mut hidden = self.hidden.get(path).map_or(&[][..], Vec::as_slice).iter().peekable();
        for source in sources {
            // Layers above this one that have not the folder themselves may hide things in it.
            while let Some(hides) = hidden.next_if(|hides| hides.layer > *source) {
                hide(states.entry(hides.name.clone()).or_default(), hides.content);
            }
            let mut added = Ok(());
            each(&self.lowers[usize::from(*source)].tree, path, &mut |name, below, stat| {
                if added.is_ok() {
                    let state = states.entry(name.to_vec()).or_default();
                    added = self.add(state, *source, below, *stat);
                }
            })?;
            added?;
            while let Some(hides) = hidden.next_if(|hides| hides.layer == *source) {
                hide(states.entry(hides.name.clone()).or_default(), hides.content);
            }
        }
        let found = |(name, state)| match state {
            Some(State::Found { seen, .. }) => Some((name, seen)),
            _ => None,
        };
        Ok(states.into_iter().filter_map(found).collect())
    }

    /// Adds what the next lower layer has.
    fn add(
        &self,
        state: &mut Option<State>,
        layer: u16,
        path: &[u8],
        stat: Stat,
    ) -> Result<(), Error> {
        let kind = FileType::from_raw_mode(stat.st_mode);
        let is_folder = kind == FileType::Directory;
        let lower = &self.lowers[usize::from(layer)];
        let implies =
            || lower.sidecar.as_ref().is_some_and(|sidecar| sidecar.implied.contains(path));
        let marked = || match &lower.sidecar {
            None => is_opaque(&lower.tree.join(EntryPath::from(path).as_path())),
            Some(_) => Ok(false),
        };
        match state {
            None if lower.sidecar.is_none()
                && kind == FileType::CharacterDevice
                && stat.st_rdev == 0 =>
            {
                *state = Some(State::Hidden);
            }
            None => {
                let sources = if is_folder { vec![layer] } else { Vec::new() };
                let open = is_folder && !marked()?;
                let implied = is_folder && implies();
                let seen = Seen { origin: layer, stat, sources };
                *state = Some(State::Found { seen, open, implied });
            }
            Some(State::Emptied) => {
                let seen = Seen { origin: layer, stat, sources: Vec::new() };
                *state = Some(State::Found { seen, open: false, implied: false });
            }
            Some(State::Found { seen, open, implied }) if *open => {
                *open = is_folder && !marked()?;
                if is_folder {
                    seen.sources.push(layer);
                    if *implied && !implies() {
                        (seen.origin, seen.stat, *implied) = (layer, stat, false);
                    }
                }
            }
            Some(State::Found { .. } | State::Hidden) => {}
        }
        Ok(())
    }
}

/// Hides what comes from further below.
fn hide(state: &mut Option<State>, content: bool) {
    match state {
        None if content => *state = Some(State::Emptied),
        None | Some(State::Emptied) => *state = Some(State::Hidden),
        Some(State::Found { open, .. }) => *open = false,
        Some(State::Hidden) => {}
    }
}

fn stat_of(path: &Path) -> Result<Stat, Error> {
    Ok(rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW).at("look at", path)?)
}

/// The number of a layer; images have at most a few hundred.
pub(super) fn index(at: usize) -> u16 {
    u16::try_from(at).unwrap_or(u16::MAX)
}

/// Parts a path into its folder and its name.
pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&[], path),
    }
}
