//! Which ids a build may use: the lines of `/etc/subuid` and `/etc/subgid`, the two programs that
//! map them, and the map that this process lives in.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::Command;

use crate::sandbox::enter::entered;
use crate::sandbox::examine::Lack;

/// How many ids an image may use. Debian and Ubuntu's apt needs 65534.
pub(super) const NEEDED: u32 = 65536;

/// Where the two programs may lie. They get their power from the file, so `PATH` has no say.
const FOLDERS: &[&str] = &["/usr/bin", "/bin", "/usr/local/bin", "/usr/sbin", "/run/wrappers/bin"];

/// A part of a map: ids here from `inside` on are those there from `outside` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) inside: u32,
    pub(super) outside: u32,
    pub(super) count: u32,
}

/// Reads the text of a `uid_map`.
pub(super) fn parse_map(text: &str) -> Vec<Extent> {
    let extents = text.lines().map(|line| {
        let mut numbers = line.split_whitespace().map(str::parse::<u32>);
        match (numbers.next(), numbers.next(), numbers.next()) {
            (Some(Ok(inside)), Some(Ok(outside)), Some(Ok(count))) => {
                Some(Extent { inside, outside, count })
            }
            _ => None,
        }
    });
    extents.flatten().collect()
}

/// Returns the text of a map that leaves every id of another as it is.
pub(super) fn identity(map: &[Extent]) -> String {
    let line = |extent: &Extent| format!("{0} {0} {1}\n", extent.inside, extent.count);
    map.iter().map(line).collect::<Vec<_>>().concat()
}

/// Tells whether a map has all ids that an image may use.
pub(super) fn is_whole(map: &[Extent]) -> bool {
    let mut next = 0;
    let mut map = map.to_vec();
    map.sort_by_key(|extent| extent.inside);
    for extent in map {
        if extent.inside > next {
            break;
        }
        next = next.max(extent.inside.saturating_add(extent.count));
    }
    next >= NEEDED
}

/// What a range build needs, all found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) uid_helper: PathBuf,
    pub(super) gid_helper: PathBuf,
    pub(super) uids: Extent,
    pub(super) gids: Extent,
}

/// Looks for subordinate ids of the user `uid`.
pub(super) fn find_range(uid: u32) -> Result<Range, Lack> {
    let uid_helper = helper("newuidmap")?;
    let gid_helper = helper("newgidmap")?;
    let names = names_of(uid);
    let user = names.first().cloned().unwrap_or_else(|| uid.to_string());
    let read = |path: &str| -> Result<Extent, Lack> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => {
                return Err(Lack::new(
                    format!("{path} can't be read: {error}"),
                    "make it readable",
                ));
            }
        };
        find_extent(&text, uid, &names).map_err(|largest| {
            let have = match largest {
                0 => format!("{path} has no line for `{user}`"),
                count => format!("{path} gives `{user}` {count} ids, and images need {NEEDED}"),
            };
            let fix = format!(
                "have the administrator run `usermod --add-subuids 100000-165535 \
                 --add-subgids 100000-165535 {user}` (with a range that is free)"
            );
            Lack::new(have, fix)
        })
    };
    Ok(Range { uid_helper, gid_helper, uids: read("/etc/subuid")?, gids: read("/etc/subgid")? })
}

/// Finds the first range of enough ids, or tells how many the largest has.
fn find_extent(text: &str, uid: u32, names: &[String]) -> Result<Extent, u32> {
    let mut largest = 0;
    for line in text.lines() {
        // As `name:first:count`, where the name may be a number.
        let mut fields = line.trim().split(':');
        let (Some(name), Some(first), Some(count)) = (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let ours = name.parse() == Ok(uid) || names.iter().any(|known| known == name);
        let (Ok(outside), Ok(count)) = (first.parse::<u32>(), count.parse::<u32>()) else {
            continue;
        };
        if !ours {
            continue;
        }
        if count >= NEEDED {
            return Ok(Extent { inside: 1, outside, count });
        }
        largest = largest.max(count);
    }
    Err(largest)
}

/// Returns the names of a user: of the local file, or else of wherever the system looks.
fn names_of(uid: u32) -> Vec<String> {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let local: Vec<String> = passwd
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
        })
        .collect();
    if !local.is_empty() {
        return local;
    }
    let output = Command::new("id").args(["-un", &uid.to_string()]).output();
    let name = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    name.into_iter().filter(|name| !name.is_empty()).collect()
}

/// Finds one of the two programs and sees that it has the power it needs.
fn helper(name: &'static str) -> Result<PathBuf, Lack> {
    let package = "install the package `uidmap` (Debian, Ubuntu) or `shadow-utils` (Fedora, RHEL)";
    let path = FOLDERS.iter().map(|folder| PathBuf::from(folder).join(name)).find(|p| p.exists());
    let Some(path) = path else {
        return Err(Lack::new(format!("the program `{name}` is not installed"), package));
    };
    // Inside of the build's namespace the machine's root has no number to compare with.
    let is_root = |uid| uid == 0 || entered().is_some();
    let set_uid =
        fs::metadata(&path).is_ok_and(|seen| seen.mode() & 0o4000 != 0 && is_root(seen.uid()));
    let mut value = [0; 64];
    let capable = rustix::fs::getxattr(&path, "security.capability", &mut value).is_ok();
    if !set_uid && !capable {
        let text = format!("{} is neither set-uid root nor has file capabilities", path.display());
        return Err(Lack::new(text, format!("{package} again: its files lost their permissions")));
    }
    if rustix::thread::no_new_privs().unwrap_or(false) {
        let text = "this process may not gain privileges (no_new_privs), so that \
                    `newuidmap` has none";
        return Err(Lack::new(text, "start it from a session without that restriction"));
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_by_name_or_number_that_is_large_enough() {
        let text = "# who\nann:100000:1000\nann:200000:65536\n1001:300000:70000\nbob:400000:5\n";
        let find = |uid, name: &str| find_extent(text, uid, &[name.to_owned()]);
        assert_eq!(find(1000, "ann").map(|extent| extent.outside), Ok(200_000));
        assert_eq!(find(1001, "eve").map(|extent| (extent.inside, extent.count)), Ok((1, 70000)));
        assert_eq!(find(1002, "bob"), Err(5));
        assert_eq!(find(1003, "joe"), Err(0));
    }

    #[test]
    fn maps_are_kept_as_they_are() {
        let all = parse_map("         0          0 4294967295\n");
        assert!(is_whole(&all));
        assert_eq!(identity(&all), "0 0 4294967295\n");
        let nested = parse_map("0 1000 1\n1 100000 65536\n");
        assert!(is_whole(&nested));
        assert_eq!(identity(&nested), "0 0 1\n1 1 65536\n");
        assert!(!is_whole(&parse_map("0 1000 1\n")));
        assert!(!is_whole(&parse_map("0 0 1\n2 2 70000\n")));
    }
}
