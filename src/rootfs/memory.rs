//! How much memory a tree may take: what is free on the machine and below the cgroup's limits.

use std::fs;
use std::path::{Path, PathBuf};

use crate::disk::{self, At};
use crate::rootfs::Error;

/// Returns the bytes of memory that can be used without pushing anybody out: what the machine has
/// available, or less where a cgroup (of either version) allows less.
pub fn available_memory() -> Result<u64, Error> {
    available(Path::new("/proc"))
}

fn available(proc: &Path) -> Result<u64, Error> {
    let path = proc.join("meminfo");
    let meminfo = fs::read_to_string(&path).at("read", &path)?;
    let kilobytes = field(&meminfo, "MemAvailable:").ok_or_else(|| {
        disk::Error::new("find MemAvailable in", &path, std::io::ErrorKind::InvalidData)
    })?;
    let mut available = kilobytes * 1024;
    // Without these files there are no cgroups to keep within.
    let cgroups = fs::read_to_string(proc.join("self/cgroup")).unwrap_or_default();
    let mounts = fs::read_to_string(proc.join("self/mountinfo")).unwrap_or_default();
    for folder in folders(&cgroups, &mounts) {
        if let Some(left) = left_in(&folder) {
            available = available.min(left);
        }
    }
    Ok(available)
}

/// Returns the folders of this process' memory cgroup and of all above it.
fn folders(cgroups: &str, mounts: &str) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    for line in cgroups.lines() {
        // As `4:memory:/path`, or `0::/path` for version 2.
        let mut parts = line.splitn(3, ':');
        let (Some(number), Some(controllers), Some(path)) =
            (parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        let second = number == "0" && controllers.is_empty();
        if !second && !controllers.split(',').any(|name| name == "memory") {
            continue;
        }
        for mount in mounts.lines() {
            let Some((left, right)) = mount.split_once(" - ") else { continue };
            let mut right = right.split(' ');
            let kind = right.next().unwrap_or_default();
            let of_memory = right.nth(1).is_some_and(|o| o.split(',').any(|name| name == "memory"));
            if !(second && kind == "cgroup2" || !second && kind == "cgroup" && of_memory) {
                continue;
            }
            let mut left = left.split(' ').skip(3);
            let (Some(root), Some(point)) = (left.next(), left.next()) else { continue };
            // What is mounted may itself be only a part of the hierarchy, as in a container.
            let below = Path::new(path).strip_prefix(root).unwrap_or(Path::new(""));
            let point = Path::new(point);
            let whole = point.join(below);
            folders.extend(
                whole.ancestors().take_while(|at| at.starts_with(point)).map(Path::to_owned),
            );
        }
    }
    folders
}

/// Returns how much a cgroup may still take; `None` when it has no limit. Cached files that can be
/// dropped count as free.
fn left_in(folder: &Path) -> Option<u64> {
    let read = |name: &str| fs::read_to_string(folder.join(name)).ok();
    let number = |name: &str| read(name)?.trim().parse::<u64>().ok();
    let stat = read("memory.stat").unwrap_or_default();
    let (limit, used, reclaimable) = match number("memory.max") {
        Some(limit) => (limit, number("memory.current")?, field(&stat, "inactive_file")),
        None => (
            number("memory.limit_in_bytes")?,
            number("memory.usage_in_bytes")?,
            field(&stat, "total_inactive_file"),
        ),
    };
    Some(limit.saturating_sub(used.saturating_sub(reclaimable.unwrap_or(0))))
}

/// Returns the number after a name at the start of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some(name)).then(|| words.next()?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes a false /proc whose process is in a cgroup, with the cgroup's files beside it.
    fn machine(cgroup: &str, mount: &str, files: &[(&str, &str)]) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let proc = dir.path().join("proc");
        fs::create_dir_all(proc.join("self")).unwrap();
        fs::write(proc.join("meminfo"), "MemTotal: 9 kB\nMemAvailable:    1000000 kB\n").unwrap();
        fs::write(proc.join("self/cgroup"), cgroup).unwrap();
        let mount = mount.replace("ROOT", dir.path().to_str().unwrap());
        fs::write(proc.join("self/mountinfo"), mount).unwrap();
        for (path, content) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        (dir, proc)
    }

    #[test]
    fn the_machine_alone() {
        let (_dir, proc) = machine("", "", &[]);
        assert_eq!(available(&proc).unwrap(), 1_024_000_000);
    }

    #[test]
    fn a_limit_of_a_cgroup_above_counts_and_dropped_caches_do_too() {
        let mount = "30 23 0:26 / ROOT/cg rw,nosuid shared:4 - cgroup2 cgroup2 rw\n";
        let files = [
            ("cg/job/memory.max", "1000000\n"),
            ("cg/job/memory.current", "600000\n"),
            ("cg/job/memory.stat", "anon 5\ninactive_file 100000\n"),
            ("cg/job/step/memory.max", "max\n"),
            ("cg/job/step/memory.current", "600000\n"),
        ];
        let (_dir, proc) = machine("0::/job/step\n", mount, &files);
        assert_eq!(available(&proc).unwrap(), 500_000);
    }

    #[test]
    fn version_1_in_a_container() {
        let mount = "40 23 0:29 /docker/1 ROOT/cg/memory ro - cgroup cgroup rw,memory\n";
        let files = [
            ("cg/memory/memory.limit_in_bytes", "700000"),
            ("cg/memory/memory.usage_in_bytes", "800000"),
            ("cg/memory/memory.stat", "inactive_file 1\ntotal_inactive_file 200000\n"),
        ];
        let (_dir, proc) = machine("4:memory:/docker/1\n3:cpu:/docker/1\n", mount, &files);
        assert_eq!(available(&proc).unwrap(), 100_000);
    }
}
