//! The one integration binary: a module a subject, a sentence each for what belongs there.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "a test that panics has failed"
)]

// What several subjects share: folders that vanish, free ports, real registries.
mod support;

// Pull and push against real registries.
mod registry;

// Certificates of one registry, its authority's and ours.
mod trust;

// Images that are read elsewhere than their names say, and names that are blocked.
mod mirrors;

// Pushes that are killed, that race, and that outlive their tokens.
mod convergence;

// From registry to registry, with referrers; several destinations, and tags that wait for all.
mod publish;

// Logging in and out, and what skopeo makes of it.
mod login;

// What a user's home says of registries, for each kind of user.
mod homes;

// The store on real disks: other readers, several processes, kills, damage, no space.
mod store;

// Between tree and blob: an overlay's changes, tars that others read, and the way back.
mod layer;

// What a layer of very many entries takes.
mod memory;

// Images as files: layouts, archives and root file systems, in and out, honest and hostile.
mod formats;

// Definitions and recipes: the repository's own, good and bad examples, and the schemas.
mod intent;

// What registries do only on bad days, done by a double on purpose.
mod double;
mod faults;

// How long a registry is waited for, and what its refusals mean.
mod refusals;

// Pushes and pulls in bad weather, two hundred of each.
mod weather;

// Which room may use which, and that no test is forgotten.
mod layering;

// Commands over a tree: what they see, what they may, how they end, and that nothing outlives them.
mod sandbox;

// Owners, device nodes and ids where the kernel has one id alone.
mod ownership;

// The same answers where a process is no longer stopped to be told.
mod unstopped;

// What another than root may where the kernel has one id alone.
mod access;

// Stacks of layers: whiteouts, implied folders, extras that leave no trace, and where none works.
mod rootfs;

// The recorder of the network, between real clients and a web of doubles.
mod netlog;

// Steps behind the recorder: clients, modes, trees, refusals, and what must be in no layer.
mod recorded;

// Recipes in, an image out: what is in the layers, the cache, failing steps, broken files.
mod build;

// Blobs that go up while they are made: ahead of their end, cut, hung, given up.
mod upload;

// One digest: as root and as an ordinary user, under other clocks, hosts, stores, threads.
mod parity;
mod plain;

// Interrupted, killed and starved builds.
mod crash;

// The repository's own recipes on Debian: one digest, and R, Jupyter and VS Code at work. It takes
// the longest, and tests start in the order of their names: this one as the first. R packages from
// source are built upon it: the same bytes each time, by every way to install them.
mod acceptance;
mod packages;

// How much of an image lies on disk.
mod disk;

// The executable that is given away: alone, and on an old system.
mod release;

// Ways out of a step, each tried and seen to fail.
mod escape;

// Steps of another architecture.
mod emulation;

// Looking around: in the build's namespace, in an image, where a step failed.
mod shell;

// Locks: told apart, merged, made and played back.
mod locks;

// Locks played back when what they hold has expired.
mod later;

// What goes with an image: its packages, signatures, and where it comes from.
mod describe;

// Help, errors, and the commands round the store.
mod commands;

// Images built again from their locks, elsewhere, and what an audit says where that fails.
mod audit;

// Two images compared: each kind of difference, its cause, the page in a browser.
mod diff;

// What skopeo, umoci, podman and buildah make of our images, and we of theirs.
mod clients;
mod strangers;
