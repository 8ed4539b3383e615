//! Folders that trees may be made in. Below a folder with the set-group-id bit, as the folders of a
//! project often are, everything gets that folder's group; a user namespace of one id doesn't know
//! it, and its root then has no power over such files.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Gid};

use super::Error;
use crate::disk::At;

/// Makes sure that what is created in `dir`, a folder of this process' own, belongs to this process'
/// user and group and keeps the modes that it is given.
pub fn claim(dir: &Path) -> Result<(), Error> {
    let seen = fs::metadata(dir).at("look at", dir)?;
    let group = rustix::process::getegid().as_raw();
    let setgid = seen.mode() & 0o2000 != 0;
    if !setgid && seen.gid() == group {
        return Ok(());
    }
    let refused = |source| Error::Claim { dir: dir.to_owned(), source: Some(source) };
    rustix::fs::chownat(CWD, dir, None, Some(Gid::from_raw(group)), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|errno| refused(errno.into()))?;
    let mode = seen.mode() & 0o7777 & !0o2000;
    fs::set_permissions(dir, PermissionsExt::from_mode(mode)).map_err(refused)?;
    let file = dir.join(".claim");
    fs::write(&file, "").at("create", &file)?;
    let tried = || {
        fs::set_permissions(&file, PermissionsExt::from_mode(0o2755))?;
        fs::metadata(&file)
    };
    let made = tried();
    fs::remove_file(&file).at("remove", &file)?;
    let made = made.map_err(refused)?;
    if made.gid() == group && made.mode() & 0o7777 == 0o2755 {
        Ok(())
    } else {
        Err(Error::Claim { dir: dir.to_owned(), source: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_a_project_becomes_ones_own() {
        let dir = tempfile::tempdir().unwrap();
        let project = dir.path().join("project");
        fs::create_dir(&project).unwrap();
        if rustix::process::geteuid().is_root() {
            let group = Some(Gid::from_raw(4242));
            rustix::fs::chownat(CWD, &project, None, group, AtFlags::empty()).unwrap();
        }
        fs::set_permissions(&project, PermissionsExt::from_mode(0o2775)).unwrap();
        let store = project.join("store");
        fs::create_dir(&store).unwrap();
        assert_ne!(fs::metadata(&store).unwrap().mode() & 0o2000, 0);
        claim(&store).unwrap();
        let seen = fs::metadata(&store).unwrap();
        assert_eq!(seen.mode() & 0o2000, 0);
        assert_eq!(seen.gid(), rustix::process::getegid().as_raw());
        assert_eq!(crate::disk::list(&store).unwrap(), Vec::<std::ffi::OsString>::new());
    }
}
