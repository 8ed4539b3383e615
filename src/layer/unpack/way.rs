//! The way to an entry's folder, one name at a time and never through a symbolic link, so that no
//! entry lands outside of the tree whatever came before it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

/// Why a folder was not reached.
#[derive(Debug)]
pub(super) enum Blocked {
    /// Nothing is at this path.
    Absent(Vec<u8>),
    /// A symbolic link is on the way, at this path.
    Link(Vec<u8>),
    /// Something else that is no folder.
    Other(Vec<u8>),
    /// The system's error at this path.
    System(Vec<u8>, Errno),
}

/// Open folders from the root down. Entries of a tar mostly follow each other within a folder, so
/// most ways are as long as the last one and need no call at all.
#[derive(Debug)]
pub(super) struct Way {
    root: Rc<OwnedFd>,
    steps: Vec<(Vec<u8>, Rc<OwnedFd>)>,
}

impl Way {
    pub(super) fn new(root: Rc<OwnedFd>) -> Way {
        Way { root, steps: Vec::new() }
    }

    /// Forgets all open folders, because one of them may have been replaced.
    pub(super) fn forget(&mut self) {
        self.steps.clear();
    }

    /// Opens the folder of these names. `make` is asked to create what is missing, given the path.
    pub(super) fn to(
        &mut self,
        names: &[&[u8]],
        mut make: impl FnMut(BorrowedFd<'_>, &[u8], &[&[u8]]) -> Result<(), Blocked>,
    ) -> Result<Rc<OwnedFd>, Blocked> {
        let common = self
            .steps
            .iter()
            .zip(names)
            .take_while(|((have, _), want)| have.as_slice() == **want)
            .count();
        self.steps.truncate(common);
        for depth in common..names.len() {
            let name = names[depth];
            let above = self.steps.last().map_or(self.root.as_fd(), |(_, folder)| folder.as_fd());
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let open = || rustix::fs::openat(above, name, flags, Mode::empty());
            let path = || names[..=depth].join(&b'/');
            let folder = match open() {
                Err(Errno::NOENT) => {
                    make(above, name, &names[..=depth])?;
                    open()
                }
                other => other,
            };
            let folder = folder.map_err(|error| match error {
                Errno::NOTDIR | Errno::LOOP => {
                    let stat = rustix::fs::statat(above, name, AtFlags::SYMLINK_NOFOLLOW);
                    match stat.map(|stat| FileType::from_raw_mode(stat.st_mode)) {
                        Ok(FileType::Symlink) => Blocked::Link(path()),
                        _ => Blocked::Other(path()),
                    }
                }
                error => Blocked::System(path(), error),
            })?;
            self.steps.push((name.to_vec(), Rc::new(folder)));
        }
        Ok(Rc::clone(self.steps.last().map_or(&self.root, |(_, folder)| folder)))
    }
}
