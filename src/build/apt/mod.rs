//! What a step's apt is told of its surroundings, by `APT_CONFIG`; never in a layer or a key.
//!
//! ```text
//! recorded   authorities, owners
//! replayed   the same, and that no date counts: of the lists, of the keys that signed them, of the
//!            algorithms. What is as fresh as it should be was seen when it was recorded; the lock's
//!            digests stand for it since.
//! ```

use crate::plan::Ownership;

use super::environment::SUPPORT;

/// Programs of ours that apt calls in a replay, by their names under [`SUPPORT`].
pub(super) const PROGRAMS: [(&str, &str); 2] =
    [("gpgv", include_str!("gpgv.sh")), ("sqv", include_str!("sqv.sh"))];

/// Where apt looks for the second of its verifiers, and takes it if it is there.
pub(super) const SQV: &str = "/usr/bin/sqv";

/// What apt's configuration depends on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Apt {
    /// Whether there is a file of authorities.
    pub trust: bool,
    /// Whether the layer's owners are kept.
    pub ownership: Ownership,
    /// Whether what apt is given was recorded before.
    pub replayed: bool,
}

impl Apt {
    /// Tells whether apt needs another configuration than the image's.
    pub(super) fn is_told(self) -> bool {
        self.trust || self.ownership == Ownership::Discarded || self.replayed
    }

    /// The file behind `APT_CONFIG`; `None` where apt needs nothing else than what the image says.
    /// `sqv` tells whether the image has [`SQV`].
    pub(super) fn configuration(self, sqv: bool) -> Option<String> {
        let mut text = String::new();
        if self.trust {
            text.push_str(&format!("Acquire::https::CaInfo \"{SUPPORT}/ca.crt\";\n"));
        }
        // Without owners, apt must not look whether it has become another user.
        if self.ownership == Ownership::Discarded {
            text.push_str("APT::Sandbox::User \"root\";\n");
        }
        if self.replayed {
            text.push_str(
                "Acquire::Check-Valid-Until \"false\";\nAcquire::Check-Date \"false\";\n",
            );
            text.push_str(&format!("Dir::Bin::Methods::sqv \"{SUPPORT}/sqv\";\n"));
            // To an apt that has both this means to leave sqv alone, and gpgv may be missing then.
            if !sqv {
                text.push_str(&format!("APT::Key::GPGVCommand \"{SUPPORT}/gpgv\";\n"));
            }
        }
        self.is_told().then_some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN: Apt = Apt { trust: true, ownership: Ownership::Kept, replayed: false };

    #[test]
    fn dates_count_where_lists_are_new_and_in_no_replay() {
        let open = OPEN.configuration(false).unwrap();
        assert!(!open.contains("Check-") && !open.contains("GPGV"), "{open}");
        let replayed = Apt { replayed: true, ..OPEN }.configuration(false).unwrap();
        let added = replayed.strip_prefix(&open).unwrap();
        assert_eq!(
            added,
            "Acquire::Check-Valid-Until \"false\";\nAcquire::Check-Date \"false\";\n\
             Dir::Bin::Methods::sqv \"/run/ocibuild/sqv\";\n\
             APT::Key::GPGVCommand \"/run/ocibuild/gpgv\";\n"
        );
        let with_sqv = Apt { replayed: true, ..OPEN }.configuration(true).unwrap();
        assert!(!with_sqv.contains("GPGV"), "{with_sqv}");
    }

    #[test]
    fn apt_is_told_nothing_that_the_image_says_too() {
        let plain = Apt { trust: false, ..OPEN };
        assert!(plain.configuration(false).is_none() && !plain.is_told());
        let discarded = Apt { ownership: Ownership::Discarded, ..plain };
        assert_eq!(discarded.configuration(false).unwrap(), "APT::Sandbox::User \"root\";\n");
    }
}
