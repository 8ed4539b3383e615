//! The environment of a step that runs a program, as far as a plan knows it.
//!
//! Later ones win: the image's own variables (but for those that speak of its user), those that make builds repeatable and keep caches out
//! of the image, where the step runs, the recipe's arguments, the step's own. What depends on the
//! tree (`DISTRIBUTION`, `HOME`) or on the machine (proxies, the CA bundle) comes on top when the
//! step runs, and is in no key.

use std::collections::BTreeMap;

use crate::oci::Platform;
use crate::recipe::{MOUNTED_AT, env_name};
use crate::text::Template;

/// The folder of the caches, writable for all, empty at the start of each layer, in no layer.
pub const CACHE_DIR: &str = "/var/cache/ocibuild";

/// Variables that make the same input give the same output.
pub const CONSTANTS: [(&str, &str); 11] = [
    ("DEBIAN_FRONTEND", "noninteractive"),
    // TeX looks at SOURCE_DATE_EPOCH only when told to.
    ("FORCE_SOURCE_DATE", "1"),
    ("LC_ALL", "C.UTF-8"),
    ("OCIBUILD_RECIPE", MOUNTED_AT),
    ("PIP_DISABLE_PIP_VERSION_CHECK", "1"),
    // Sets of strings have another order in each run otherwise, which ends up in files.
    ("PYTHONHASHSEED", "0"),
    ("TZ", "UTC"),
    // Questions to the registry that change nothing in the tree.
    ("npm_config_audit", "false"),
    ("npm_config_fund", "false"),
    // npm keeps a log of each run beside its cache.
    ("npm_config_logs_max", "0"),
    ("npm_config_update_notifier", "false"),
];

/// Variables that send tools' caches to folders below [`CACHE_DIR`].
pub const CACHES: [(&str, &str); 6] = [
    ("CONDA_PKGS_DIRS", "/var/cache/ocibuild/conda"),
    ("PIP_CACHE_DIR", "/var/cache/ocibuild/pip"),
    ("R_PKG_CACHE_DIR", "/var/cache/ocibuild/r-pkg"),
    ("R_USER_CACHE_DIR", "/var/cache/ocibuild/r"),
    ("XDG_CACHE_HOME", "/var/cache/ocibuild/xdg"),
    ("npm_config_cache", "/var/cache/ocibuild/npm"),
];

/// Variables that speak of the image's user; a step has its own, from the tree's `/etc/passwd`.
const OF_THE_USER: [&str; 3] = ["HOME", "LOGNAME", "USER"];

/// What a program finds when the image says nothing of where programs are.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Returns the environment of a step.
pub(super) fn of_step(
    image: &BTreeMap<String, String>,
    platform: &Platform,
    source_date: i64,
    args: &BTreeMap<String, String>,
    own: &BTreeMap<String, Template>,
) -> BTreeMap<String, Template> {
    let mut env = BTreeMap::new();
    let mut set = |name: &str, value: &str| {
        env.insert(name.to_owned(), Template::literal(value));
    };
    set("PATH", PATH);
    for (name, value) in image {
        if !OF_THE_USER.contains(&name.as_str()) {
            set(name, value);
        }
    }
    for (name, value) in CONSTANTS.iter().chain(&CACHES) {
        set(name, value);
    }
    set("ARCH", &platform.architecture);
    set("MACHINE", platform.machine());
    set("SOURCE_DATE_EPOCH", &source_date.to_string());
    for (name, value) in args {
        set(&env_name(name), value);
    }
    env.extend(own.iter().map(|(name, value)| (name.clone(), value.clone())));
    env
}
