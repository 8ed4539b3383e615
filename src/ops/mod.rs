//! The verbs: a function, an options struct and a report each. `cli` turns arguments into options
//! and reports into text; a program that uses the library calls the same functions.
//!
//! Those that unpack or run ([`build()`], [`gc()`], [`remove()`], [`pull()`] with `unpack`) expect to
//! be inside the namespace that [`crate::sandbox::enter()`] makes.

mod access;
mod ahead;
mod attach;
mod audit;
mod base;
mod build;
mod check;
mod copy;
mod destinations;
mod diff;
mod doctor;
mod error;
mod files;
mod gc;
mod index;
mod inputs;
mod inspect;
mod lock;
mod login;
mod named;
mod news;
mod outlook;
mod provenance;
mod publish;
mod pull;
mod rehearse;
mod room;
mod sbom;
mod shell;
mod short;
mod sign;
mod twice;
mod verify;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

pub use access::Access;
pub use audit::{AttestOptions, AuditOptions, AuditReport, AuditVerdict, InputsReport, audit};
pub use build::{BuildOptions, BuildReport, LayerReport, Network, PlatformReport, build, emulate};
pub use check::{AuditClaim, CheckOptions, CheckReport, ClaimReport, check};
pub use copy::{CopyOptions, CopyReport, copy};
pub use diff::{DiffOptions, ImageName, diff};
pub use doctor::{DoctorReport, Finding, RuleReport, RulesReport, doctor, rules};
pub use error::Error;
pub use files::{ExportOptions, ImportOptions, StoredReport, export, import};
pub use gc::{GcOptions, GcReport, gc, remove};
pub use index::{IndexOptions, index};
pub use inputs::{SourcesOptions, SourcesReport, sources};
pub use inspect::{ImageLayer, ImagePlatform, ImageReport, ListedReport, ShowOptions, list, show};
pub use lock::{LockOptions, LockReport, LockedPlatform, MergeReport, lock, lock_diff, lock_merge};
pub use login::{LoginOptions, LoginReport, LogoutReport, login, logout};
pub use news::{NewsOptions, NewsReport, lock_news};
pub use outlook::{LayerPlan, PlanReport, PlatformPlan, plan};
pub use provenance::{ProvenanceOptions, provenance};
pub use publish::{Attest, Inputs, PushOptions, PushReport, Pushed, push};
pub use pull::{PullOptions, PullReport, pull};
pub use rehearse::{How, PlannedBlob, PlannedTag, PushPlan, Rehearsed, rehearse};
pub use room::{Bound, DiskPlan};
pub use sbom::{SbomOptions, SbomReport, sbom};
pub use sign::{KeygenOptions, KeygenReport, SignOptions, SignReport, SignedReport, keygen, sign};
pub use twice::{NotVaried, TwiceOptions, TwiceReport, Varied, twice};
pub use verify::{Damage, VerifyReport, verify};

pub use shell::{Failed, ShellOptions, failed, shell};
pub use short::{Whereabouts, full_name};

use crate::report::Report;
use crate::rootfs;
use crate::sandbox;
use crate::store::Store;

/// What every operation is told about the machine and the caller's wishes.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// The store's folder.
    pub store: &'a Path,
    /// Where a build's trees go that do not fit into memory; the store where it is `None`.
    pub scratch: Option<&'a Path>,
    /// How trees are made of layers.
    pub tree: rootfs::TreeRequest,
    /// How many bytes of memory a build's trees may take; `None` is half of what is free.
    pub memory: Option<u64>,
    /// How much disk the store may take, and what a build has there; `None` is what is free.
    pub disk: Option<u64>,
    /// Threads for hashing and compressing.
    pub threads: usize,
    /// The caller's environment.
    pub env: &'a BTreeMap<String, String>,
    /// How the process is root in its namespace; `None` for a command that never entered one.
    pub mode: Option<sandbox::Mode>,
    /// The time, in seconds since 1970; no digest depends on it.
    pub now: u64,
    /// Where progress goes.
    pub report: &'a Arc<dyn Report>,
}

impl std::fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("store", &self.store).finish_non_exhaustive()
    }
}

impl Context<'_> {
    fn open(&self) -> Result<Store, Error> {
        Ok(Store::open(self.store)?)
    }

    /// Returns how this process is root, which operations on trees need.
    fn mode(&self) -> Result<sandbox::Mode, Error> {
        self.mode.ok_or(Error::NotInside)
    }
}

/// Kills what runs and removes what is half done, from a signal's thread just before the process ends.
pub fn abandon() {
    crate::sandbox::restore_terminal();
    crate::build::stop_steps();
    // A killed step may still be on its way out, and its files would come back.
    std::thread::sleep(std::time::Duration::from_millis(50));
    crate::store::abandon_runs();
}
