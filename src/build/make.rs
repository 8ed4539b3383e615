//! Makes one layer: parents to a tree, steps over it, changes, rules, and the layer's digest; its
//! compression is left as a job to be run beside the next layer.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::changes::{self, Changes, Kind};
use crate::disk::{self, At};
use crate::layer::normalise;
use crate::netlog::Fetch;
use crate::oci::{Descriptor, Digest};
use crate::plan::{self, Layer, Plan};
use crate::recipe::Action;
use crate::rootfs::{self, EntryPath, Inherited, Ledger, Lower, PlainTree, Tree, Truth};
use crate::sandbox::{Means, Mode, Owners, Ownership, Scope};
use crate::store::{Run, Store};

use super::gather::gather;
use super::pack::Pack;
use super::step::{self, Stage};
use super::trees::{LayerId, Trees};
use super::workplace::{Place, Workplace};
use super::written::{Marks, clock};
use super::{Base, Error, HomeFiles, Options};

/// How many of the paths below home a warning names.
const NAMED: usize = 5;

/// A layer that is made but for its blob.
pub(super) struct Made<'a> {
    pub diff_id: Option<Digest>,
    pub home: HomeFiles,
    /// What the steps fetched, where it was recorded.
    pub fetches: Option<Vec<Fetch>>,
    /// What gives the blob; `None` for a layer that is empty.
    pub pack: Option<Pack<'a>>,
}

/// The layers below the next one.
enum Parent {
    /// In the store.
    Stored(LayerId),
    /// A layer that this build has made.
    Fresh(Lower),
}

/// A plain tree that goes on being used.
struct Standing {
    tree: Box<PlainTree>,
    /// The folder that is the tree's alone.
    home: PathBuf,
    in_memory: bool,
    /// What the last layer has made of it; `None` for nothing.
    fresh: Option<Lower>,
}

/// What keeps the owners of files while the steps of a layer run.
enum Keeper {
    Kept(Box<Ownership>),
    /// Nobody, as asked for; what the layers below know still holds.
    Nobody(Inherited),
}

impl Keeper {
    fn truth(&self) -> &dyn Truth {
        match self {
            Keeper::Kept(ownership) => ownership.as_ref(),
            Keeper::Nobody(inherited) => inherited,
        }
    }

    fn owners(&self) -> Owners<'_> {
        match self {
            Keeper::Kept(ownership) => Owners::Kept(ownership),
            Keeper::Nobody(_) => Owners::Nobody,
        }
    }
}

/// Tells whether a layer below has a device node that a step can come across.
fn has_nodes(lowers: &[Lower]) -> bool {
    let reached = |path: &EntryPath| !path.as_bytes().starts_with(b"dev/");
    lowers.iter().any(|lower| match &lower.sidecar {
        Some(sidecar) => sidecar.devices.keys().any(reached),
        None => lower.ledger.devices.keys().any(reached),
    })
}

/// Tells whether a layer's steps may use the network.
fn fetches(layer: &Layer) -> bool {
    layer.steps.iter().any(|step| match &step.action {
        Action::Run(run) => run.network,
        Action::Fetch(_) => true,
        Action::Copy(_) | Action::Env(_) => false,
    })
}

/// How far a layer came.
enum Attempt<'a> {
    Made(Box<Made<'a>>),
    /// The memory was too small.
    OutOfMemory,
    /// A step makes a device node, under a supervisor that doesn't look after them.
    NeedsNodes,
}

/// Makes the layers of one platform, one on the other.
pub(super) struct Maker<'a> {
    plan: &'a Plan,
    store: &'a Store,
    options: &'a Options<'a>,
    parents: Vec<Parent>,
    home: String,
    /// Made with the first layer that has to be made; declared before `run`, so that it goes first.
    workplace: Option<Workplace<'a>>,
    run: Option<Run>,
    standing: Option<Standing>,
    on_disk: bool,
    /// Whether steps have been seen to make device nodes.
    nodes: bool,
}

impl<'a> Maker<'a> {
    pub(super) fn new(
        plan: &'a Plan,
        base: &Base,
        store: &'a Store,
        options: &'a Options<'a>,
    ) -> Maker<'a> {
        Maker {
            plan,
            store,
            options,
            parents: base.layers().into_iter().map(Parent::Stored).collect(),
            home: plan.home.clone().unwrap_or_default(),
            workplace: None,
            run: None,
            standing: None,
            on_disk: false,
            nodes: false,
        }
    }

    /// Takes a layer that was found by its key as the next parent.
    pub(super) fn found(&mut self, diff_id: Option<Digest>, blob: Option<&Descriptor>) {
        if let (Some(diff_id), Some(blob)) = (diff_id, blob) {
            self.parents.push(Parent::Stored((blob.clone(), diff_id)));
            // It lacks this layer. What can't be removed goes with the workplace.
            if let Some(standing) = self.standing.take() {
                rootfs::remove_tree(&standing.home).ok();
            }
        }
    }

    /// Makes the next layer. One that the memory is too small for is begun again on disk.
    pub(super) fn make(&mut self, layer: &Layer, key: &Digest) -> Result<Made<'a>, Error> {
        let runs = layer.steps.iter().any(|step| matches!(step.action, Action::Run(_)));
        if runs {
            let host = self.options.host;
            let means = super::emulate(&layer.platform, host.env)?;
            if means != Means::Processor {
                host.report.detail(&format!("{} runs by {means}", layer.platform));
            }
        }
        if let Some(pins) = &layer.pins {
            let (store, report) = (self.store, self.options.host.report);
            gather(&pins.fetches, store, self.options.inputs, report)?;
        }
        let lowers = self.lowers()?;
        let last = self.plan.layers.last().is_some_and(|last| last.name == layer.name);
        loop {
            match self.attempt(layer, key, &lowers, last)? {
                Attempt::Made(made) => return Ok(*made),
                Attempt::NeedsNodes => {
                    let text =
                        format!("{}: once more, for a step that makes device nodes", layer.name);
                    self.options.host.report.detail(&text);
                    self.nodes = true;
                    continue;
                }
                Attempt::OutOfMemory => {}
            }
            self.options.host.report.note(&format!(
                "{}: too large for the memory that is free; once more on disk",
                layer.name
            ));
            self.on_disk = true;
        }
    }

    /// Returns the parents as trees, having unpacked what is not.
    fn lowers(&self) -> Result<Vec<Lower>, Error> {
        let stored: Vec<LayerId> = self
            .parents
            .iter()
            .filter_map(|parent| match parent {
                Parent::Stored(id) => Some(id.clone()),
                Parent::Fresh(_) => None,
            })
            .collect();
        let trees = Trees::new(
            self.store,
            self.options.elsewhere,
            self.options.mode,
            self.options.host.report,
        );
        let mut unpacked = trees.unpack_all(&stored)?.into_iter();
        Ok(self
            .parents
            .iter()
            .filter_map(|parent| match parent {
                Parent::Stored(_) => unpacked.next(),
                Parent::Fresh(lower) => Some(lower.clone()),
            })
            .collect())
    }

    fn workplace(&mut self) -> Result<&mut Workplace<'a>, Error> {
        let report = self.options.host.report;
        let run = match &mut self.run {
            Some(run) => run,
            none => none.insert(self.store.begin_run(report)?),
        };
        Ok(match &mut self.workplace {
            Some(workplace) => workplace,
            none => none.insert(Workplace::new(
                run.path(),
                self.options.scratch,
                self.options.memory,
                self.options.tree,
                self.options.mode,
                self.store.charge(),
                report,
            )?),
        })
    }

    /// Returns what keeps the owners in a tree over these layers.
    fn keeper(&self, tree: &Tree, lowers: &[Lower]) -> Result<Keeper, Error> {
        if self.options.ownership == plan::Ownership::Discarded {
            return Ok(Keeper::Nobody(Inherited::new(rootfs::records(lowers)?)));
        }
        let scope = match self.options.mode {
            Mode::Single => Scope::Full,
            Mode::Root | Mode::Range { .. } if self.nodes || has_nodes(lowers) => Scope::Nodes,
            Mode::Root | Mode::Range { .. } => Scope::Light,
        };
        let ownership =
            Ownership::of_tree(scope, tree, lowers).at("keep the owners of", tree.merged())?;
        Ok(Keeper::Kept(Box::new(ownership)))
    }

    /// Returns a tree over these layers, the folder that is its own, and one for the layer beside it;
    /// nothing where the memory is too small.
    fn tree(&mut self, lowers: &[Lower]) -> Result<Option<(Tree, PathBuf, Place)>, Error> {
        let on_disk = self.on_disk;
        let extras = step::extras(self.options.host);
        if let Some(Standing { mut tree, home, in_memory, fresh }) = self.standing.take() {
            match tree.go_on(fresh, &extras) {
                // Files of several names have become as many.
                Err(error) if in_memory && error.is_full() => {
                    rootfs::remove_tree(&home)?;
                    return Ok(None);
                }
                other => other?,
            }
            let place = self.workplace()?.beside(in_memory)?;
            return Ok(Some((Tree::Plain(tree), home, place)));
        }
        let size = || Ok(rootfs::size_of(lowers)?);
        let place = self.workplace()?.place(on_disk, size)?;
        let home = place.folder.join("tree");
        disk::make_dirs(&home)?;
        Ok(Some((Tree::new(place.kind, lowers, &home, &extras)?, home, place)))
    }

    /// Runs the steps and finds what they changed.
    fn attempt(
        &mut self,
        layer: &Layer,
        key: &Digest,
        lowers: &[Lower],
        last: bool,
    ) -> Result<Attempt<'a>, Error> {
        let report = self.options.host.report;
        let log = self.store.logs().join(format!("{}-{}.log", layer.name, &key.hex()[..12]));
        let Some((tree, home, place)) = self.tree(lowers)? else {
            return Ok(Attempt::OutOfMemory);
        };
        let Place { folder, in_memory, .. } = place;
        let keeper = self.keeper(&tree, lowers)?;
        let truth = keeper.truth();
        let (start, _) = clock(&home)?;
        let marks = self.options.written.map(|_| Marks::begin(&home)).transpose()?;
        let host = self.options.host;
        let single = self.options.mode == Mode::Single;
        let plan = self.plan;
        let workplace = &*self.workplace()?;
        let netlog = match host.recorder {
            Some(recorder) if fetches(layer) => Some(recorder.begin(layer)?),
            _ => None,
        };
        let stage = Stage {
            definition: &plan.name,
            layer,
            netlog: netlog.as_ref(),
            host,
            tree: &tree,
            truth: single.then_some(truth),
            owners: keeper.owners(),
            folder: &folder,
            log,
            is_full: &|| in_memory && workplace.is_nearly_full(),
            ended: &|step| marks.as_ref().map_or(Ok(()), |marks| marks.end(step)),
        };
        let ended = stage.run()?;
        if !in_memory {
            workplace.settle()?;
        }
        let early = match ended {
            step::Run::Done => None,
            step::Run::OutOfMemory => Some(Attempt::OutOfMemory),
            step::Run::NeedsNodes => Some(Attempt::NeedsNodes),
        };
        if let Some(early) = early {
            drop(keeper);
            drop(tree);
            rootfs::remove_tree(&home)?;
            rootfs::remove_tree(&folder)?;
            return Ok(early);
        }
        // A layer that nothing was fetched for has a record that says so.
        let recorded = || netlog.as_ref().map(|netlog| netlog.record().fetches);
        let fetches = host.recorder.map(|_| recorded().unwrap_or_default());
        let (end, _) = clock(&home)?;
        let times = normalise::Times { start, end, source_date: layer.source_date };
        clear_scratch(&folder)?;

        let excluded = step::excluded();
        let without = layer.without_rules.iter().cloned().collect();
        let raw = changes::of(&tree, &excluded, truth)?;
        let written = marks.map(|marks| marks.of(tree.changed(), &raw)).transpose()?;
        let mut search = None;
        if let (Some(recorder), Some(_)) = (host.recorder, &netlog) {
            let certificate = recorder.certificate();
            certificate
                .remove_copies(tree.merged(), &raw)
                .map_err(|source| Error::Trust { layer: layer.name.clone(), source })?;
            search = Some(certificate.search());
        }
        let applied = normalise::normalise(tree.merged(), &raw, &without, &times)?;
        drop(raw);
        for (rule, count) in applied {
            report.detail(&format!("{}: the rule `{rule}` touched {count} paths", layer.name));
        }
        // Both views are of one file system whose changed paths the rules have changed again.
        let changes = changes::of(&tree, &excluded, truth)?;
        let below_home = below_home(tree.changed(), &self.home, &changes)?;
        let ledger = Arc::new(match &tree {
            Tree::Overlay(mounted) => Ledger::collect(mounted.upper(), truth)?,
            Tree::Plain(plain) => ledger_of(plain, &changes, truth)?,
        });
        drop(keeper);
        let is_empty = changes.is_empty();
        let as_lower = |tree| Lower { tree, sidecar: None, ledger: Arc::clone(&ledger) };
        let layer_below = match tree {
            Tree::Overlay(mounted) => as_lower(mounted.unmount()?),
            // Nothing runs in it any more.
            Tree::Plain(plain) if last || is_empty => {
                let lower = as_lower(plain.merged().to_owned());
                self.standing = Some(Standing { tree: plain, home, in_memory, fresh: None });
                lower
            }
            Tree::Plain(plain) => {
                let list: Vec<_> = changes
                    .iter()
                    .map(|change| (change.path.into(), change.kind == Kind::Present))
                    .collect();
                let bytes = plain.size_of(&list)?;
                let aside = if in_memory && !self.workplace()?.has_room(bytes) {
                    self.workplace()?.beside(false)?.folder
                } else {
                    folder
                };
                let lower = plain.set_aside(&aside.join("layer"), &list, &ledger)?;
                let fresh = Some(lower.clone());
                self.standing = Some(Standing { tree: plain, home, in_memory, fresh });
                lower
            }
        };
        if is_empty {
            let made = Made { diff_id: None, home: below_home, fetches, pack: None };
            return Ok(Attempt::Made(Box::new(made)));
        }
        let upper = layer_below.tree.clone();
        self.parents.push(Parent::Fresh(layer_below));
        let pack = Pack {
            layer: layer.name.clone(),
            upper,
            changes,
            ledger,
            store: self.store,
            profile: self.options.profile,
            threads: self.options.threads,
            expected: None,
            search,
            report,
            begun: self.options.begun,
        };
        let made = if last { pack.now(below_home)? } else { pack.measure(below_home)? };
        if let (Some(all), Some(written), Some(diff_id)) =
            (self.options.written, written, made.diff_id)
        {
            all.keep(diff_id, written);
        }
        Ok(Attempt::Made(Box::new(Made { fetches, ..made })))
    }
}

/// Asks for the truth of what a layer has of a plain tree.
fn ledger_of(tree: &PlainTree, changes: &Changes, truth: &dyn Truth) -> Result<Ledger, Error> {
    let present: Vec<Vec<u8>> = changes
        .iter()
        .filter(|change| change.kind == Kind::Present)
        .map(|change| change.path)
        .collect();
    Ok(Ledger::of(tree.merged(), present.iter().map(Vec::as_slice), truth)?)
}

/// Frees what the steps left in the layer's scratch; the tree stays, the next layer stands on it.
fn clear_scratch(folder: &Path) -> Result<(), Error> {
    for name in disk::list(folder)? {
        if name != "tree" {
            rootfs::remove_tree(&folder.join(name))?;
        }
    }
    Ok(())
}

/// Finds what a layer leaves below the image's home folder.
fn below_home(upper: &Path, home: &str, changes: &Changes) -> Result<HomeFiles, Error> {
    use std::os::unix::ffi::OsStrExt;
    let mut found = HomeFiles::default();
    let home = home.trim_matches('/');
    if home.is_empty() {
        return Ok(found);
    }
    let prefix = format!("{home}/").into_bytes();
    let mut cursor = changes.cursor();
    while let Some((path, kind)) = cursor.advance() {
        if kind != Kind::Present || !path.starts_with(&prefix) {
            continue;
        }
        let file = upper.join(std::ffi::OsStr::from_bytes(path));
        let metadata = fs::symlink_metadata(&file).at("look at", &file)?;
        if metadata.is_dir() {
            continue;
        }
        found.count += 1;
        found.bytes += metadata.len();
        if found.paths.len() < NAMED {
            found.paths.push(format!("/{}", String::from_utf8_lossy(path)));
        }
    }
    Ok(found)
}
