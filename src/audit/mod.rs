//! Compares two images, and says of each difference what caused it: the documents first, then
//! packages, then each pair of layers path by path, then the contents by the kind of file.
//!
//! ```text
//! documents -> layers paired -> listings (one pass a layer) -> paths that differ
//!                            -> contents of those that no package explains (a second pass) -> causes
//! ```
//! Layers of one content are never read.

mod cause;
mod differences;
mod documents;
mod error;
mod explain;
mod fold;
mod image;
mod listing;
mod mask;
mod packages;
mod page;
mod pairing;
mod report;
mod spool;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::thread;

use self::differences::Layers;
use self::image::Image;
use self::listing::Listing;
use self::packages::Package;
use self::spool::Spool;
use crate::oci::{Digest, Document, Platform};
use crate::report::Report;

pub use cause::Cause;
pub use error::Error;
pub use image::{Side, SubjectImage, subject};
pub use page::page;
pub use report::{
    Change, Comparison, Difference, Explanation, FieldChange, Group, LayerComparison, LayerSide,
    PackageChange, Pair, Part, PlatformComparison, SCHEMA, Shown, Subject, Verdict,
};

/// How to compare.
pub struct Options<'a> {
    /// Leave out the other platforms; none is all.
    pub platforms: Vec<Platform>,
    /// A folder for the contents of files that differ.
    pub scratch: &'a Path,
    /// Tells which step wrote a path of a layer of the second image, where that is known.
    pub written: &'a dyn Fn(&Digest, &str) -> Option<String>,
    /// Where progress goes.
    pub report: &'a dyn Report,
}

impl std::fmt::Debug for Options<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options").field("platforms", &self.platforms).finish_non_exhaustive()
    }
}

/// Compares two images.
pub fn compare(a: &Side<'_>, b: &Side<'_>, options: &Options<'_>) -> Result<Comparison, Error> {
    let (old, new) = (a.document()?, b.document()?);
    let mut comparison = Comparison {
        schema: SCHEMA,
        a: described(a, &old),
        b: described(b, &new),
        verdict: Verdict::Identical,
        fields: Vec::new(),
        platforms: Vec::new(),
    };
    if old.digest() == new.digest() {
        return Ok(comparison);
    }
    if old.is_index() && new.is_index() {
        let json = |side: &Side<'_>, document: &Document| {
            let damaged = |source| Error::Document { name: side.name.clone(), source };
            let index = document.index().map_err(damaged)?;
            Ok::<_, Error>(serde_json::to_value(index).unwrap_or_default())
        };
        comparison.fields = documents::compare("index", &json(a, &old)?, &json(b, &new)?);
    }
    let is_wanted = |image: &Image<'_>| {
        options.platforms.is_empty()
            || options.platforms.iter().any(|wanted| image.is_for.satisfies(wanted))
    };
    let by_platform = |images: Vec<Image<'_>>| -> Vec<String> {
        images.iter().map(|image| image.platform.clone()).collect()
    };
    let (mine, theirs) = (a.images(&old)?, b.images(&new)?);
    if let Some(platform) = options.platforms.first()
        && !mine.iter().chain(&theirs).any(is_wanted)
    {
        let mut there = by_platform(mine);
        there.extend(by_platform(theirs));
        there.sort();
        there.dedup();
        return Err(Error::NoPlatform { platform: platform.clone(), there });
    }
    let named = |images: Vec<_>| -> BTreeMap<String, _> {
        images
            .into_iter()
            .filter(&is_wanted)
            .map(|image: Image<'_>| (image.platform.clone(), image))
            .collect()
    };
    let (mine, theirs) = (named(mine), named(theirs));
    let names: BTreeSet<&String> = mine.keys().chain(theirs.keys()).collect();
    for name in names {
        let compared = platform(name, mine.get(name), theirs.get(name), options)?;
        comparison.verdict = comparison.verdict.max(compared.verdict);
        comparison.platforms.push(compared);
    }
    // The documents differ, if nothing below them does.
    comparison.verdict = comparison.verdict.max(Verdict::Equivalent);
    Ok(comparison)
}

fn described(side: &Side<'_>, document: &Document) -> Subject {
    Subject {
        name: side.name.clone(),
        digest: document.digest(),
        media_type: document.media_type().to_owned(),
    }
}

fn platform(
    name: &str,
    a: Option<&Image<'_>>,
    b: Option<&Image<'_>>,
    options: &Options<'_>,
) -> Result<PlatformComparison, Error> {
    let mut compared = PlatformComparison {
        platform: name.to_owned(),
        verdict: Verdict::Differs,
        manifest: Pair { a: a.map(Image::digest), b: b.map(Image::digest) },
        config: Pair {
            a: a.map(|image| image.manifest.config.digest),
            b: b.map(|image| image.manifest.config.digest),
        },
        fields: Vec::new(),
        packages: Vec::new(),
        layers: Vec::new(),
    };
    // A platform that one side lacks is no matter of its layers.
    let (Some(a), Some(b)) = (a, b) else { return Ok(compared) };
    compared.verdict = Verdict::Identical;
    if compared.manifest.is_same() {
        return Ok(compared);
    }
    compared.verdict = Verdict::Equivalent;
    compared.fields = documents::compare("manifest", &a.manifest_json(), &b.manifest_json());
    compared.fields.extend(documents::compare("config", &a.config.as_json(), &b.config.as_json()));
    let mut changes = BTreeSet::new();
    for (mine, theirs) in pairing::pair(&a.layers, &b.layers) {
        let (layer, packages) = layer(a, b, mine, theirs, options)?;
        compared.verdict = compared.verdict.max(layer.verdict);
        changes.extend(packages);
        compared.layers.push(layer);
    }
    compared.packages = changes.into_iter().collect();
    Ok(compared)
}

fn layer(
    a: &Image<'_>,
    b: &Image<'_>,
    mine: Option<usize>,
    theirs: Option<usize>,
    options: &Options<'_>,
) -> Result<(LayerComparison, Vec<PackageChange>), Error> {
    let layers =
        Pair { a: mine.map(|at| a.layers[at].clone()), b: theirs.map(|at| b.layers[at].clone()) };
    let made_by = layers.a.iter().chain(&layers.b).map(|side| side.maker().to_owned()).next();
    let mut compared = LayerComparison {
        made_by: made_by.unwrap_or_default(),
        verdict: Verdict::Identical,
        layers,
        paths: 0,
        unexplained: 0,
        groups: Vec::new(),
        differences: Vec::new(),
    };
    if let Pair { a: Some(old), b: Some(new) } = &compared.layers {
        if old.digest == new.digest {
            return Ok((compared, Vec::new()));
        }
        if old.diff_id.is_some() && old.diff_id == new.diff_id {
            compared.verdict = Verdict::Equivalent;
            return Ok((compared, Vec::new()));
        }
    }
    options.report.note(&format!(
        "comparing layer {}{}",
        mine.or(theirs).unwrap_or_default(),
        if compared.made_by.is_empty() { String::new() } else { format!(": {}", compared.made_by) }
    ));
    let listed = |image: &Image<'_>, at: Option<usize>| match at {
        Some(at) => Listing::of(image.layer(at)?),
        None => Ok(Listing::default()),
    };
    let (old, new) = both(|| listed(a, mine), || listed(b, theirs))?;
    let raws = differences::between(&old, &new);
    compared.verdict = if raws.is_empty() { Verdict::Equivalent } else { Verdict::Differs };
    let mut before = old.packages.clone();
    let mut after = new.packages.clone();
    if old.has_status != new.has_status {
        // A list of Debian's packages is of the whole image: the side that has none here goes on
        // with the last one below.
        if new.has_status {
            before.extend(status_below(if mine.is_some() { a } else { b }, mine.or(theirs))?);
        } else {
            after.extend(status_below(if theirs.is_some() { b } else { a }, theirs.or(mine))?);
        }
    }
    let packages = changes(&before, &after);
    let found = Layers { a: &old, b: &new, packages: &packages };
    let wanted = found.wanted(&raws);
    let contents = match (mine, theirs) {
        (Some(mine), Some(theirs)) if !wanted.is_empty() => Some(both(
            || Spool::fill(a.layer(mine)?, &wanted, options.scratch),
            || Spool::fill(b.layer(theirs)?, &wanted, options.scratch),
        )?),
        _ => None,
    };
    compared.differences = found.explain(&raws, contents.as_ref())?;
    if let Some(diff_id) = compared.layers.b.as_ref().and_then(|side| side.diff_id) {
        for difference in &mut compared.differences {
            difference.step = (options.written)(&diff_id, &difference.path);
        }
    }
    compared.paths = compared.differences.len();
    let is_open = |d: &&Difference| matches!(d.cause, Cause::Unexplained | Cause::Metadata);
    compared.unexplained = compared.differences.iter().filter(is_open).count();
    compared.groups = fold::fold(&compared.differences);
    Ok((compared, packages))
}

/// Does two things at once.
fn both<T: Send>(
    one: impl FnOnce() -> Result<T, Error> + Send,
    other: impl FnOnce() -> Result<T, Error>,
) -> Result<(T, T), Error> {
    thread::scope(|scope| {
        let one = scope.spawn(one);
        let other = other();
        let one = one.join().map_err(|_| Error::Worker)?;
        Ok((one?, other?))
    })
}

/// Returns what the last list of Debian's packages below a layer says.
fn status_below(image: &Image<'_>, layer: Option<usize>) -> Result<Vec<Package>, Error> {
    for below in (0..layer.unwrap_or(0)).rev() {
        if let Some(packages) = listing::status_of(image.layer(below)?)? {
            return Ok(packages);
        }
    }
    Ok(Vec::new())
}

/// Lists the packages whose versions differ.
fn changes(before: &[Package], after: &[Package]) -> Vec<PackageChange> {
    let by_name = |packages: &[Package]| -> BTreeMap<(&'static str, String, Vec<u8>), String> {
        packages
            .iter()
            .map(|package| {
                let Package { kind, name, place, version, .. } = package.clone();
                ((kind, name, place), version)
            })
            .collect()
    };
    let (before, after) = (by_name(before), by_name(after));
    let names: BTreeSet<_> = before.keys().chain(after.keys()).collect();
    let mut found: Vec<PackageChange> = names
        .into_iter()
        .filter_map(|key| {
            let (a, b) = (before.get(key).cloned(), after.get(key).cloned());
            let (kind, name) = (key.0, key.1.clone());
            (a != b).then_some(PackageChange { kind, name, a, b })
        })
        .collect();
    found.sort();
    found.dedup();
    found
}
