//! `remove` and `gc`: names out of the store, and then what nothing else needs.

use serde::Serialize;

use crate::oci::Reference;
use crate::store;

use super::{Context, Error, destinations};

/// What was freed.
#[derive(Clone, Debug, Serialize)]
pub struct GcReport {
    /// Whether it was only told.
    pub dry_run: bool,
    /// Blobs.
    pub blobs: u64,
    /// Remembered layers.
    pub keys: u64,
    /// Unpacked layers.
    pub trees: u64,
    /// Files of processes that died.
    pub leftovers: u64,
    /// Bytes of all that.
    pub freed_bytes: u64,
    /// Bytes of cached and unpacked layers that stay.
    pub kept_bytes: u64,
    /// Bodies that steps fetched, and that stay.
    pub inputs: u64,
    /// Bytes of these.
    pub inputs_bytes: u64,
}

/// How many bytes of layers stay where nobody says.
const KEPT: u64 = 20_000_000_000;

/// What is to stay.
#[derive(Clone, Copy, Debug, Default)]
pub struct GcOptions {
    /// How many bytes of the layers used last, with what their steps fetched; `None` is what a bound of
    /// the disk leaves, else a usual amount.
    pub keep: Option<u64>,
    /// Whether what steps fetched goes, of images too.
    pub no_inputs: bool,
    /// Only tell what would go.
    pub dry_run: bool,
}

/// Frees what no image needs, but for the layers used last; where disk is bounded all that stays has
/// to fit there with the images. To be called inside the namespace, since unpacked trees have files of
/// other owners.
pub fn gc(wish: &GcOptions, context: &Context<'_>) -> Result<GcReport, Error> {
    let store = context.open()?;
    let options = store::GcOptions {
        keep_bytes: wish.keep.or(if context.disk.is_none() { Some(KEPT) } else { None }),
        total_bytes: context.disk,
        no_inputs: wish.no_inputs,
        dry_run: wish.dry_run,
        ..store::GcOptions::default()
    };
    let freed = store.gc(&options, context.report.as_ref())?;
    Ok(GcReport {
        dry_run: wish.dry_run,
        blobs: freed.blobs,
        keys: freed.keys,
        trees: freed.trees,
        leftovers: freed.leftovers,
        freed_bytes: freed.bytes,
        kept_bytes: freed.kept_bytes,
        inputs: freed.inputs,
        inputs_bytes: freed.inputs_bytes,
    })
}

/// Takes names out of the store. All must be there, or none goes.
pub fn remove(references: &[Reference], context: &Context<'_>) -> Result<Vec<Reference>, Error> {
    let store = context.open()?;
    for reference in references {
        if store.resolve(reference)?.is_none() && store.partials(reference)?.is_empty() {
            return Err(destinations::no_image(reference, &store)?);
        }
    }
    for reference in references {
        store.untag(reference)?;
    }
    Ok(references.to_vec())
}
