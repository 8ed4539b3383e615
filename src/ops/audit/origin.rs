//! Where the definition and the lock of an image lie: named by the caller, beside the definitions of a
//! checkout, or attached to the image.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::audit;
use crate::lock::{self, Lock};
use crate::oci::{Digest, Platform};
use crate::plan::{self, Sources};
use crate::{definition, disk, text};

use super::{Audit, AuditOptions, AuditVerdict, Ended, Stop};
use crate::ops::{Error, SourcesOptions, inputs};

/// The label by which an image names its lock.
pub(super) const LOCK: &str = "dev.ocibuild.lock";

/// A definition's file and all that belongs to it.
pub(super) type Given = (PathBuf, Sources);

/// Reads the definition that was named, as such or in place of the image.
pub(super) fn definition_of(options: &AuditOptions) -> Result<Option<Given>, Error> {
    let manifests = options.folder.join("manifests");
    let path = match &options.definition {
        Some(name) => options.folder.join(definition::find(name, &manifests)?),
        None => match definition::find(&options.image, &manifests) {
            Ok(path) if options.folder.join(&path).is_file() => options.folder.join(path),
            _ => return Ok(None),
        },
    };
    let sources = Sources::load(&path).map_err(plan::Error::from)?;
    Ok(Some((path, sources)))
}

impl Audit<'_> {
    /// Finds the definition whose lock the image names.
    pub(super) fn locked(
        &self,
        images: &[&audit::SubjectImage],
        given: Option<Given>,
    ) -> Result<Given, Ended> {
        let mut labels: BTreeMap<&Platform, Digest> = BTreeMap::new();
        for image in images {
            let label = image.labels.get(LOCK).and_then(|label| label.parse().ok());
            let Some(label) = label else {
                return Err(Ended::Stop(Stop::new(
                    AuditVerdict::NoInputs,
                    format!(
                        "the image for {} names no lock: it was built with the network open",
                        image.platform
                    ),
                    "`ocibuild lock NAME` writes one for the next build; `ocibuild diff` compares without",
                )));
            };
            labels.insert(&image.platform, label);
        }
        let fits = |lock: &Lock| -> Result<bool, Error> {
            for (platform, label) in &labels {
                if lock.digest(platform)? != Some(*label) {
                    return Ok(false);
                }
            }
            Ok(true)
        };
        if let Some((path, sources)) = given {
            return match &sources.lock {
                Some(lock) if fits(lock)? => Ok((path, sources)),
                Some(_) => Err(Ended::Stop(Stop::new(
                    AuditVerdict::NoInputs,
                    format!(
                        "{} is not the lock that the image names, which is {}",
                        lock::path_beside(&path).display(),
                        labels.values().map(ToString::to_string).collect::<Vec<_>>().join(", ")
                    ),
                    "check out the state of the definition that the image was built from",
                ))),
                None => Err(Ended::Stop(Stop::new(
                    AuditVerdict::NoInputs,
                    format!("there is no {}", lock::path_beside(&path).display()),
                    "check out the state of the definition that the image was built from",
                ))),
            };
        }
        let manifests = self.options.folder.join("manifests");
        if let Some(found) = matching(&manifests, &fits)? {
            return Ok(found);
        }
        if self.unpack_sources(images)?
            && let Some(found) = matching(&self.folder.join("manifests"), &fits)?
        {
            return Ok(found);
        }
        Err(Ended::Stop(Stop::new(
            AuditVerdict::NoInputs,
            format!(
                "no lock in {} is the one that the image names, and none is attached to it",
                manifests.display()
            ),
            "call it in a checkout of the definitions, in the state that the image was built from, or name one with --definition",
        )))
    }

    /// Unpacks the definition, recipes and lock that are attached to the image; tells whether there
    /// were any.
    fn unpack_sources(&self, images: &[&audit::SubjectImage]) -> Result<bool, Ended> {
        let (Some(name), Some(image)) = (self.name, images.first()) else { return Ok(false) };
        let digest = self.subject.descriptor.digest;
        let options = |remote| SourcesOptions {
            // By its digest, in the store as well as in the registry.
            reference: name.clone(),
            remote,
            platform: Some(image.platform.clone()),
            folder: self.folder.clone(),
            access: self.options.access.clone(),
        };
        let is_here = self.store.resolve(name)?.is_some_and(|here| here.digest == digest);
        if is_here && inputs::sources(&options(false), self.context).is_ok() {
            return Ok(true);
        }
        let Some(_) = self.remote else { return Ok(false) };
        let options = SourcesOptions { reference: name.at(digest), ..options(true) };
        match inputs::sources(&options, self.context) {
            Ok(_) => Ok(true),
            Err(Error::NotAttached { .. }) => Ok(false),
            // An image that is here alone has nothing in a registry.
            Err(_) if is_here => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// Finds the definition in a folder whose lock fits.
fn matching(
    folder: &Path,
    fits: &dyn Fn(&Lock) -> Result<bool, Error>,
) -> Result<Option<Given>, Error> {
    for path in locks_in(folder)? {
        let problems = text::Problems::new();
        let read = lock::read(&path, &problems);
        // One that cannot be read is none that an image of this release names.
        let Ok(lock) = problems.finish(read) else { continue };
        let definition = path.with_extension("toml");
        if fits(&lock)? && definition.is_file() {
            let sources = Sources::load(&definition).map_err(plan::Error::from)?;
            return Ok(Some((definition, sources)));
        }
    }
    Ok(None)
}

/// Lists the locks of a folder; none where it does not exist.
fn locks_in(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let names = disk::list(folder)?;
    let paths = names.into_iter().map(|name| folder.join(name));
    Ok(paths.filter(|path| path.extension().is_some_and(|end| end == "lock")).collect())
}
