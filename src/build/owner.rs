//! Owners of files by name, as the tree itself knows them (passwd(5), group(5)).

use crate::text::{Principal, User};

/// Returns the numbers of a user and a group; `None` when the tree does not know one of them. A user
/// without a group has that of the tree's passwd file, and one that is not in it its own number.
pub(super) fn resolve(user: &User, passwd: &str, group: &str) -> Option<(u32, u32)> {
    let line = |id: &Principal| {
        passwd.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| match id {
            Principal::Id(id) => fields.get(2).and_then(|field| field.parse().ok()) == Some(*id),
            Principal::Name(name) => fields.first() == Some(&name.as_str()),
        })
    };
    let found = line(&user.user);
    let number = |position: usize| found.as_ref()?.get(position)?.parse::<u32>().ok();
    let uid = match &user.user {
        Principal::Id(id) => *id,
        Principal::Name(_) => number(2)?,
    };
    let gid = match &user.group {
        None => number(3).unwrap_or(uid),
        Some(Principal::Id(id)) => *id,
        Some(Principal::Name(name)) => group.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            (fields.first() == Some(&name.as_str())).then(|| fields.get(2)?.parse().ok()).flatten()
        })?,
    };
    Some((uid, gid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_trees_own() {
        let passwd = "root:x:0:0::/root:/bin/sh\njovyan:x:1000:100::/home/jovyan:/bin/bash\n";
        let group = "root:x:0:\nusers:x:100:\nstaff:x:50:\n";
        let resolved = |text: &str| resolve(&User::parse(text).unwrap(), passwd, group);
        assert_eq!(resolved("jovyan"), Some((1000, 100)));
        assert_eq!(resolved("jovyan:staff"), Some((1000, 50)));
        assert_eq!(resolved("1000"), Some((1000, 100)));
        assert_eq!(resolved("7:9"), Some((7, 9)));
        assert_eq!(resolved("7"), Some((7, 7)));
        assert_eq!(resolved("nobody"), None);
        assert_eq!(resolved("root:wheel"), None);
    }
}
