//! Who a step runs as: names are those of the image's own `/etc/passwd` and `/etc/group`.

use serde::{Deserialize, Serialize};

/// A user of the image, with all that the kernel wants to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct User {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) groups: Vec<u32>,
    pub(super) home: String,
}

/// A name that the image does not have: what it was to be, and the name.
pub(super) type Unknown = (&'static str, String);

/// Resolves `USER`, `USER:GROUP`, in names or numbers, by the texts of the two files. A user who
/// isn't named with a group has those that the files give her.
pub(super) fn resolve(text: &str, passwd: &str, group: &str) -> Result<User, Unknown> {
    let (name, group_name) = match text.split_once(':') {
        Some((name, group)) => (name, Some(group)),
        None => (text, None),
    };
    let name = if name.is_empty() { "0" } else { name };
    let number = name.parse::<u32>().ok();
    // As `name:password:uid:gid:comment:home:shell`. A name wins over a number that looks like it.
    let entries = || passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let entry = entries().find(|entry| entry.first() == Some(&name)).or_else(|| {
        entries().find(|entry| {
            number.is_some() && entry.get(2).and_then(|uid| uid.parse().ok()) == number
        })
    });
    let field = |at: usize| entry.as_ref().and_then(|entry| entry.get(at)).copied();
    let Some(uid) = field(2).and_then(|uid| uid.parse().ok()).or(number) else {
        return Err(("user", name.to_owned()));
    };
    let home = field(5).filter(|home| home.starts_with('/')).unwrap_or("/").to_owned();

    // As `name:password:gid:member,member`.
    let groups = || group.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let gid_of = |entry: &Vec<&str>| entry.get(2).and_then(|gid| gid.parse::<u32>().ok());
    if let Some(name) = group_name.filter(|name| !name.is_empty()) {
        let named = groups().find(|entry| entry.first() == Some(&name));
        let gid = named.as_ref().and_then(gid_of).or_else(|| name.parse().ok());
        let gid = gid.ok_or_else(|| ("group", name.to_owned()))?;
        return Ok(User { uid, gid, groups: Vec::new(), home });
    }
    let gid = field(3).and_then(|gid| gid.parse().ok()).unwrap_or(0);
    let member = field(0).unwrap_or_default();
    let mut all: Vec<u32> = groups()
        .filter(|entry| {
            let members = entry.get(3).copied().unwrap_or_default();
            !member.is_empty() && members.split(',').any(|name| name == member)
        })
        .filter_map(|entry| gid_of(&entry))
        .filter(|other| *other != gid)
        .collect();
    all.sort_unstable();
    all.dedup();
    Ok(User { uid, gid, groups: all, home })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\n\
        jovyan:x:1000:100::/home/jovyan:/bin/bash\n\
        7:x:8:9::/seven:/bin/sh\nbroken\n";
    const GROUP: &str =
        "root:x:0:\nusers:x:100:jovyan\nstaff:x:50:other,jovyan\nsudo:x:27:jovyan\n";

    fn found(text: &str) -> (u32, u32, Vec<u32>, String) {
        let user = resolve(text, PASSWD, GROUP).unwrap();
        (user.uid, user.gid, user.groups, user.home)
    }

    #[test]
    fn names_and_numbers() {
        let none = Vec::new;
        assert_eq!(found(""), (0, 0, none(), "/root".to_owned()));
        assert_eq!(found("root"), (0, 0, none(), "/root".to_owned()));
        assert_eq!(found("jovyan"), (1000, 100, vec![27, 50], "/home/jovyan".to_owned()));
        assert_eq!(found("1000"), found("jovyan"));
        assert_eq!(found("1000:1000"), (1000, 1000, none(), "/home/jovyan".to_owned()));
        assert_eq!(found("jovyan:sudo"), (1000, 27, none(), "/home/jovyan".to_owned()));
        assert_eq!(found("4321"), (4321, 0, none(), "/".to_owned()));
        assert_eq!(found("7"), (8, 9, none(), "/seven".to_owned()));
        assert_eq!(resolve("nobody", PASSWD, GROUP), Err(("user", "nobody".to_owned())));
        assert_eq!(resolve("0:wheel", PASSWD, GROUP), Err(("group", "wheel".to_owned())));
    }
}
