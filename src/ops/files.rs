//! `import` and `export`: images and root file systems from files, and images to files.

use std::io::{self, Write};
use std::path::PathBuf;

use serde::Serialize;

use crate::layer::{self, Profile};
use crate::oci::{Descriptor, Digest, Platform, Reference};
use crate::plan;
use crate::store::{self, Form, Input, Output, Packed, Produce};
use crate::transfer;

use super::access::Origins;
use super::build::source_date_epoch;
use super::{Access, Context, Error, destinations, inspect};

/// What to import.
#[derive(Clone, Debug)]
pub struct ImportOptions {
    /// The file or folder; stdin where it is `None`.
    pub file: Option<PathBuf>,
    /// Its form; found out where it is `None`.
    pub form: Option<Form>,
    /// The image's name in the store.
    pub name: Option<Reference>,
    /// The platform of a root file system.
    pub platform: Option<Platform>,
    /// Keep what the name stands for, and add this image's platforms to it.
    pub add: bool,
    /// The compression of a root file system's layer: `gzip` or `zstd`.
    pub compression: String,
    /// Which image of several.
    pub select: Option<String>,
}

/// An image of the store.
#[derive(Clone, Debug, Serialize)]
pub struct StoredReport {
    /// Its name.
    pub reference: Reference,
    /// What it names.
    pub digest: Digest,
}

/// What to export.
#[derive(Clone, Debug)]
pub struct ExportOptions {
    /// The image.
    pub reference: Reference,
    /// Where to; stdout where it is `None`.
    pub path: Option<PathBuf>,
    /// The form.
    pub form: Form,
    /// The one platform to take.
    pub platform: Option<Platform>,
    /// How to reach registries, for layers that the store lacks.
    pub access: Access,
}

/// Imports an image, or a root file system as an image of one layer.
pub fn import(options: &ImportOptions, context: &Context<'_>) -> Result<StoredReport, Error> {
    let store = context.open()?;
    let profile = Profile::of_algorithm(&options.compression).ok_or_else(|| {
        Error::Usage(format!(
            "`{}` is no compression; there are `gzip` and `zstd`",
            options.compression
        ))
    })?;
    let pack = |produce: Produce<'_>, out: &mut dyn Write| -> io::Result<Packed> {
        let produce = |out: &mut dyn Write| {
            produce(out).map_err(|source| layer::Error::Blob { action: "read", source })
        };
        let packed =
            layer::pack(profile, context.threads, produce, out).map_err(io::Error::other)?;
        Ok(Packed {
            diff_id: packed.diff_id,
            blob: Descriptor::new(profile.media_type(), packed.digest, packed.size),
            profile: profile.name().to_owned(),
        })
    };
    let how = store::ImportOptions {
        form: options.form,
        name: options.name.clone(),
        select: options.select.clone(),
        platform: options.platform.clone(),
        add: options.add,
        created: source_date_epoch(context)?.map(plan::rfc3339),
        threads: context.threads,
        pack: &pack,
    };
    let mut stdin = io::stdin();
    let input = match &options.file {
        Some(path) => Input::Path(path),
        None => Input::Stream("stdin", &mut stdin),
    };
    if let Some(most) = context.disk {
        store.bound(most)?;
    }
    let imported = store.import(input, &how, context.report.as_ref())?;
    Ok(StoredReport { reference: imported.name, digest: imported.descriptor.digest })
}

/// Exports an image; layers that were never fetched are fetched first.
pub fn export(options: &ExportOptions, context: &Context<'_>) -> Result<StoredReport, Error> {
    let store = context.open()?;
    let Some(descriptor) = store.resolve(&options.reference)? else {
        return Err(destinations::no_image(&options.reference, &store)?);
    };
    let missing = store.missing(&descriptor)?;
    if !missing.is_empty() {
        let registries = options.access.registries([&options.reference], context)?;
        let origins = Origins::new(&store, &registries, &missing)?;
        let document = transfer::Source::document(&store, &descriptor)?;
        let here = inspect::manifests(&options.reference, &document, &store)?;
        for (entry, _) in here {
            let manifest = transfer::Source::document(&store, &entry)?;
            let copy = transfer::Options::default();
            transfer::copy(&origins, &store, &manifest, &[], &copy, context.report.as_ref())?;
        }
    }
    let how = store::ExportOptions { form: options.form, platform: options.platform.clone() };
    let mut stdout = io::stdout().lock();
    let output = match &options.path {
        Some(path) => Output::Path(path),
        None => Output::Stream("stdout", &mut stdout),
    };
    store.export(&options.reference, output, &how, context.report.as_ref())?;
    Ok(StoredReport { reference: options.reference.clone(), digest: descriptor.digest })
}
