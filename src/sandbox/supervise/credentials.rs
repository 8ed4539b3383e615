//! Who a process believes to be: the rules of the setuid family, as credentials(7) has them.

/// The ids of a process.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Credentials {
    pub(super) user: Ids,
    pub(super) group: Ids,
    pub(super) groups: Vec<u32>,
    /// Capabilities shall outlive a change of the user.
    pub(super) keeps: bool,
    /// It has root's capabilities.
    pub(super) capable: bool,
}

/// The ids of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ids {
    pub(super) real: u32,
    pub(super) effective: u32,
    pub(super) saved: u32,
    pub(super) files: u32,
}

/// "Leave it", as an id.
pub(super) const SAME: u32 = u32::MAX;

/// A change that isn't permitted, or makes no sense, as an errno.
pub(super) type Refusal = i32;

impl Ids {
    pub(super) const fn all(id: u32) -> Ids {
        Ids { real: id, effective: id, saved: id, files: id }
    }

    /// `setuid` and `setgid`.
    pub(super) fn set(&mut self, id: u32, capable: bool) -> Result<(), Refusal> {
        if id == SAME {
            return Err(libc::EINVAL);
        }
        if capable {
            (self.real, self.saved) = (id, id);
        } else if id != self.real && id != self.saved {
            return Err(libc::EPERM);
        }
        (self.effective, self.files) = (id, id);
        Ok(())
    }

    /// `setreuid` and `setregid`.
    pub(super) fn set_two(
        &mut self,
        real: u32,
        effective: u32,
        capable: bool,
    ) -> Result<(), Refusal> {
        let old = *self;
        let may_real = real == SAME || [old.real, old.effective].contains(&real);
        let may_effective =
            effective == SAME || [old.real, old.effective, old.saved].contains(&effective);
        if !(capable || may_real && may_effective) {
            return Err(libc::EPERM);
        }
        if real != SAME {
            self.real = real;
        }
        if effective != SAME {
            self.effective = effective;
        }
        if real != SAME || (effective != SAME && effective != old.real) {
            self.saved = self.effective;
        }
        self.files = self.effective;
        Ok(())
    }

    /// `setresuid` and `setresgid`.
    pub(super) fn set_three(&mut self, ids: [u32; 3], capable: bool) -> Result<(), Refusal> {
        let old = [self.real, self.effective, self.saved];
        if !capable && ids.iter().any(|id| *id != SAME && !old.contains(id)) {
            return Err(libc::EPERM);
        }
        for (place, id) in
            [&mut self.real, &mut self.effective, &mut self.saved].into_iter().zip(ids)
        {
            if id != SAME {
                *place = id;
            }
        }
        self.files = self.effective;
        Ok(())
    }

    /// `setfsuid` and `setfsgid`; returns the id before.
    pub(super) fn set_files(&mut self, id: u32, capable: bool) -> u32 {
        let own = [self.real, self.effective, self.saved, self.files];
        let before = self.files;
        if id != SAME && (capable || own.contains(&id)) {
            self.files = id;
        }
        before
    }
}

impl Credentials {
    /// Those of a process that begins as somebody.
    pub(super) fn new(uid: u32, gid: u32, groups: Vec<u32>) -> Credentials {
        let (user, group) = (Ids::all(uid), Ids::all(gid));
        Credentials { user, group, groups, keeps: false, capable: uid == 0 }
    }

    /// Changes the user by one of the rules above.
    pub(super) fn change_user(
        &mut self,
        change: impl FnOnce(&mut Ids, bool) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let was_root = [self.user.real, self.user.effective, self.user.saved].contains(&0);
        change(&mut self.user, self.capable)?;
        let is_root = [self.user.real, self.user.effective, self.user.saved].contains(&0);
        if self.user.effective == 0 {
            self.capable = true;
        } else if was_root && !is_root && self.keeps {
            // What it had it keeps.
        } else if was_root {
            self.capable = false;
        }
        Ok(())
    }

    /// What an executed file makes of them: `set_user` and `set_group` are its owner and group
    /// where it has the bits.
    pub(super) fn execute(&mut self, set_user: Option<u32>, set_group: Option<u32>) {
        if let Some(uid) = set_user {
            self.user.effective = uid;
        }
        if let Some(gid) = set_group {
            self.group.effective = gid;
        }
        for ids in [&mut self.user, &mut self.group] {
            ids.saved = ids.effective;
            ids.files = ids.effective;
        }
        self.keeps = false;
        self.capable = self.user.effective == 0;
    }

    /// Tells whether it is in a group.
    pub(super) fn is_in(&self, gid: u32) -> bool {
        self.group.files == gid || self.group.effective == gid || self.groups.contains(&gid)
    }

    /// Tells whether the kernel would ask whose a file is before the process gets at it.
    pub(super) fn is_restricted(&self) -> bool {
        !self.capable || (self.user.effective == 0 && self.user.files != 0)
    }

    /// Tells whether new files of its are root's own.
    pub(super) fn makes_roots_files(&self) -> bool {
        self.user.files == 0 && self.group.files == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_gives_up_root_cannot_come_back() {
        let mut it = Credentials::new(0, 0, vec![]);
        it.change_user(|ids, may| ids.set_three([42; 3], may)).unwrap();
        assert_eq!((it.user, it.capable), (Ids::all(42), false));
        assert_eq!(it.change_user(|ids, may| ids.set(0, may)), Err(libc::EPERM));
        assert_eq!(it.change_user(|ids, may| ids.set_two(0, 0, may)), Err(libc::EPERM));
        assert_eq!(it.user.set_files(0, it.capable), 42);
        assert_eq!(it.user.files, 42);
    }

    #[test]
    fn who_gives_it_up_for_a_while_can() {
        let mut it = Credentials::new(0, 0, vec![]);
        it.change_user(|ids, may| ids.set_two(SAME, 33, may)).unwrap();
        assert_eq!((it.user.effective, it.user.real, it.capable), (33, 0, false));
        it.change_user(|ids, may| ids.set(0, may)).unwrap();
        assert_eq!((it.user.effective, it.capable), (0, true));
    }

    #[test]
    fn capabilities_may_outlive_root() {
        let mut it = Credentials::new(0, 0, vec![]);
        it.keeps = true;
        it.change_user(|ids, may| ids.set_three([7; 3], may)).unwrap();
        assert!(it.capable);
        it.execute(None, None);
        assert!(!it.capable);
    }

    #[test]
    fn a_set_user_program_is_root_for_another() {
        let mut it = Credentials::new(1000, 100, vec![27]);
        it.execute(Some(0), None);
        assert_eq!((it.user.real, it.user.effective, it.user.saved), (1000, 0, 0));
        assert!(it.capable && it.is_in(27) && it.is_in(100) && !it.is_in(0));
    }
}
