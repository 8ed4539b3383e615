//! Room on disk: what a command will put there, told before its first byte, made by freeing what no
//! image needs where a bound was given, and refused where it cannot suffice.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::build::Need;
use crate::disk::At;
use crate::oci::Digest;
use crate::report::Report;
use crate::store::{self, GcOptions, Store};

use super::{Context, Error};

/// The share of a bound that is freed for layers to be made, as far as no image needs it: while a build
/// runs nothing can be freed.
const UNKNOWN: u64 = 5;

/// What will be on disk, in bytes, as far as it is known before the work begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DiskPlan {
    /// What comes over the line.
    pub fetch: u64,
    /// Blobs that are kept of that.
    pub blobs: u64,
    /// Trees of layers that are there, at the least.
    pub trees_least: u64,
    /// Those trees by the usual growth of what is compressed.
    pub trees_about: u64,
    /// Layers that have yet to be made, whose size nobody knows: steps write to memory while it
    /// suffices, and their blobs to the store.
    pub layers_to_make: u64,
}

impl DiskPlan {
    /// Adds what unpacking takes.
    pub(super) fn add(&mut self, need: &Need) {
        self.fetch += need.fetch;
        self.blobs += need.keep;
        self.trees_least += need.trees_least;
        self.trees_about += need.trees_about;
    }

    fn least(&self) -> u64 {
        self.blobs.saturating_add(self.trees_least)
    }

    /// About how much there will be.
    pub fn about(&self) -> u64 {
        self.blobs.saturating_add(self.trees_about)
    }
}

impl std::ops::AddAssign for DiskPlan {
    fn add_assign(&mut self, other: DiskPlan) {
        self.fetch += other.fetch;
        self.blobs += other.blobs;
        self.trees_least += other.trees_least;
        self.trees_about += other.trees_about;
        self.layers_to_make += other.layers_to_make;
    }
}

/// Bytes as a person reads them.
pub(super) struct Amount(pub(super) u64);

impl std::fmt::Display for Amount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (unit, name) = match self.0 {
            0..1_000_000 => (1_000, "kB"),
            1_000_000..1_000_000_000 => (1_000_000, "MB"),
            _ => (1_000_000_000, "GB"),
        };
        let tenths = (u128::from(self.0) * 10 + unit / 2) / unit;
        write!(f, "{}.{} {name}", tenths / 10, tenths % 10)
    }
}

/// Why there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// The caller allows no more, and this much is taken by what has to stay.
    Allowed {
        /// The bound.
        most: u64,
        /// What is taken.
        used: u64,
    },
    /// The file system has no more.
    Free(u64),
}

impl std::fmt::Display for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Bound::Allowed { most, used } => write!(
                f,
                "{} are allowed, and what the store has to keep takes {}",
                Amount(*most),
                Amount(*used)
            ),
            Bound::Free(free) => write!(f, "{} are free", Amount(*free)),
        }
    }
}

/// Makes room for a plan, as far as the caller bounds it, tells it, and refuses what cannot fit; keys
/// and trees of `spared` layers are not freed. From here on writes beyond the bound fail.
pub(super) fn make(
    plan: &DiskPlan,
    spared: BTreeSet<Digest>,
    store: &Store,
    context: &Context<'_>,
) -> Result<(), Error> {
    let report = context.report.as_ref();
    let refuse = |bound| Err(Error::NoRoom { plan: Box::new(*plan), bound });
    if let Some(most) = context.disk {
        let mut used = store.used()?;
        let unknown = if plan.layers_to_make > 0 { most / UNKNOWN } else { 0 };
        let wanted = plan.about().saturating_add(unknown);
        if used.saturating_add(wanted) > most {
            let total_bytes = Some(most.saturating_sub(wanted));
            let options = GcOptions { total_bytes, spared, ..GcOptions::default() };
            collect(&options, store, report)?;
            used = store.used()?;
        }
        report.note(&told(plan, most, used));
        if used.saturating_add(plan.least()) > most {
            return refuse(Bound::Allowed { most, used });
        }
        if used.saturating_add(plan.about()) > most {
            report.warning(&format!(
                "the trees may not fit: {} to come and {} taken, of {}",
                Amount(plan.about()),
                Amount(used),
                Amount(most)
            ));
        }
        store.bound(most)?;
    }
    let space = rustix::fs::statvfs(store.root()).at("look at", store.root())?;
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    // Some network file systems do not say.
    if space.f_blocks > 0 && plan.least() > free {
        return refuse(Bound::Free(free));
    }
    Ok(())
}

fn told(plan: &DiskPlan, most: u64, used: u64) -> String {
    let mut parts = vec![format!("disk: {} of {} are taken", Amount(used), Amount(most))];
    if plan.fetch > 0 {
        parts.push(format!("{} to fetch", Amount(plan.fetch)));
    }
    if plan.blobs > 0 {
        parts.push(format!("{} of blobs to keep", Amount(plan.blobs)));
    }
    if plan.trees_about > 0 {
        parts.push(format!("trees of about {}", Amount(plan.trees_about)));
    }
    if plan.layers_to_make > 0 {
        parts.push(format!("{} layers to be made", plan.layers_to_make));
    }
    parts.join(", ")
}

/// Frees what no image needs. While others use the store it cannot be done.
fn collect(options: &GcOptions, store: &Store, report: &dyn Report) -> Result<(), Error> {
    match store.gc(options, report) {
        Ok(freed) if freed.bytes > 0 => {
            report.note(&format!("disk: freed {} that no image needs", Amount(freed.bytes)));
            Ok(())
        }
        Ok(_) => Ok(()),
        Err(store::Error::Busy { .. }) => {
            report.note("disk: nothing can be freed while another process uses the store");
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_rounded_for_people() {
        let shown = |bytes| Amount(bytes).to_string();
        assert_eq!(shown(0), "0.0 kB");
        assert_eq!(shown(14_000_000_000), "14.0 GB");
        assert_eq!(shown(2_349_000), "2.3 MB");
        assert_eq!(shown(u64::MAX), "18446744073.7 GB");
    }
}
