//! `audit`: an image built again from what its lock lists, and compared with what was published.
//!
//! ```text
//! image -> lock (its digest is a label of the image; beside a definition, else attached to the image)
//!       -> inputs here? attached? -> every step run -> compared
//! ```
//! Whatever stops it is a verdict with its reason; an error is only what says nothing of the image.

mod report;

use std::collections::BTreeMap;
use std::error::Error as _;
use std::path::{Path, PathBuf};

use crate::audit::{self, Side};
use crate::build::Built;
use crate::fault::{Fault, Kind};
use crate::lock::{self, Lock};
use crate::netlog::{self, Fetch};
use crate::oci::{Descriptor, Digest, Document, Platform, Reference};
use crate::plan::{self, Ownership, Sources};
use crate::registry::Repository;
use crate::store::Store;
use crate::transfer::{self, Source, Verify};
use crate::{definition, disk, text};

use super::build::{self, OWNERSHIP};
use super::diff::{self, Find, Found, ImageName};
use super::sign::{self, CheckOptions};
use super::{Access, BuildOptions, Context, Error, Network, SourcesOptions, inputs, named};

pub use report::{AuditReport, AuditVerdict, InputsReport};

/// The label by which an image names its lock.
const LOCK: &str = "dev.ocibuild.lock";

/// How many examples of what is missing are told.
const EXAMPLES: usize = 3;

/// What to audit.
#[derive(Clone, Debug)]
pub struct AuditOptions {
    /// An image, or a definition, whose last build is meant then.
    pub image: String,
    /// The definition that the image was built from, where it is not to be found by its lock.
    pub definition: Option<String>,
    /// The folder that definitions are looked for from.
    pub folder: PathBuf,
    /// The platforms; none is all that the image has.
    pub platforms: Vec<Platform>,
    /// Public keys, one of which must have signed the image in its registry; none asks for nothing.
    pub keys: Vec<PathBuf>,
    /// How to reach registries. Offline, nothing is asked for what the store lacks.
    pub access: Access,
}

/// Stops an audit with a verdict.
struct Stop {
    verdict: AuditVerdict,
    reason: Vec<String>,
    hint: Option<String>,
}

impl Stop {
    fn new(verdict: AuditVerdict, reason: impl Into<String>, hint: impl Into<String>) -> Stop {
        Stop { verdict, reason: vec![reason.into()], hint: Some(hint.into()) }
    }
}

/// Why an audit ends early.
enum Ended {
    Stop(Stop),
    Error(Error),
}

impl<E: Into<Error>> From<E> for Ended {
    fn from(error: E) -> Ended {
        Ended::Error(error.into())
    }
}

/// Builds an image again from its lock, and compares. To be called inside the namespace.
pub fn audit(options: &AuditOptions, context: &Context<'_>) -> Result<AuditReport, Error> {
    let store = context.open()?;
    let given = definition_of(options)?;
    let name = match (&given, options.definition.is_some()) {
        (Some(sources), false) => ImageName::Reference(sources.1.definition.image.clone()),
        _ => image_name(&options.image, options)?,
    };
    let registries = options.access.registries(name.reference(), context)?;
    let found = Find { store: &store, registries: &registries }.find(&name)?;
    let origins = diff::origins(&[&found], &store, &registries)?;
    let subject = diff::side(&name, &found, &origins);
    let images = audit::subject(&subject)?;
    let mut report = AuditReport {
        schema: audit::SCHEMA,
        image: name.to_string(),
        digest: subject.descriptor.digest,
        verdict: AuditVerdict::Reproduced,
        exit_code: 0,
        reason: Vec::new(),
        hint: None,
        definition: None,
        mode: None,
        inputs: None,
        rebuilt: None,
        comparison: None,
    };
    context.report.note(&format!("1/5 image: {name} is {}", report.digest));
    let remote = name.reference().map(|reference| registries.open(reference));
    if let (Found::Remote(..), Some(reference)) = (&found, name.reference()) {
        // The base's layers are among the image's, wherever the base itself has gone.
        for image in &images {
            store.add_origins(&image.layers, reference)?;
        }
    }
    let run = store.begin_run(context.report.as_ref())?;
    let audit = Audit {
        options,
        context,
        store: &store,
        subject: &subject,
        images,
        name: name.reference(),
        remote: remote.as_ref().filter(|_| !options.access.offline),
        folder: run.path().join("sources"),
    };
    let ended = audit.run(given, &mut report);
    match ended {
        Ok(()) => {}
        Err(Ended::Error(error)) => return Err(error),
        Err(Ended::Stop(Stop { verdict, reason, hint })) => {
            report.verdict = verdict;
            report.reason = reason;
            report.hint = hint;
        }
    }
    report.exit_code = report.verdict.exit_code();
    Ok(report)
}

/// A definition's file and all that belongs to it.
type Given = (PathBuf, Sources);

/// Reads the definition that was named, as such or in place of the image.
fn definition_of(options: &AuditOptions) -> Result<Option<Given>, Error> {
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

fn image_name(text: &str, options: &AuditOptions) -> Result<ImageName, Error> {
    // One word is rather a definition with a slip than an image of Docker Hub's.
    if !text.contains(['/', ':', '.']) {
        definition::find(text, &options.folder.join("manifests"))?;
    }
    let name: ImageName = text
        .parse()
        .map_err(|error: crate::oci::ReferenceError| Error::Usage(error.to_string()))?;
    Ok(name.from_folder(&options.folder))
}

struct Audit<'a> {
    options: &'a AuditOptions,
    context: &'a Context<'a>,
    store: &'a Store,
    subject: &'a Side<'a>,
    images: Vec<audit::SubjectImage>,
    /// The image's name, where it has one.
    name: Option<&'a Reference>,
    /// Its repository, unless nobody may be asked.
    remote: Option<&'a Repository>,
    /// Where what was attached to the image is unpacked.
    folder: PathBuf,
}

impl Audit<'_> {
    fn run(&self, given: Option<Given>, report: &mut AuditReport) -> Result<(), Ended> {
        self.signed()?;
        let images = self.chosen()?;
        let (path, sources) = self.locked(&images, given)?;
        let chosen: Vec<Platform> = sources
            .definition
            .platforms
            .iter()
            .filter(|platform| images.iter().any(|image| image.platform.satisfies(platform)))
            .cloned()
            .collect();
        self.context.report.note(&format!("2/5 lock: {}", lock::path_beside(&path).display()));
        report.definition = Some(path.clone());
        let listed: Vec<Fetch> =
            fetches(sources.lock.as_ref(), &chosen).into_iter().cloned().collect();
        let fetches: Vec<&Fetch> = listed.iter().collect();
        let (mut inputs, mut missing) = self.inputs(&fetches);
        if !missing.is_empty() && self.bring_inputs()? {
            (inputs, missing) = self.inputs(&fetches);
        }
        self.tell_inputs(&inputs);
        report.inputs = Some(inputs);
        if self.options.access.offline && !missing.is_empty() {
            return Err(Ended::Stop(missing_inputs(&missing)));
        }
        let mode = self.context.mode()?;
        report.mode = Some(build::name_of(mode).to_owned());
        self.context.report.note(&format!(
            "4/5 building again {}, in mode {}",
            if missing.is_empty() { "without the network" } else { "with what is missing fetched" },
            build::name_of(mode)
        ));
        let built = self.rebuild(&path, sources, &chosen, &missing, &fetches)?;
        self.context.report.note("5/5 comparing");
        self.compare(&built, &images, report)
    }

    /// Returns the platforms of the image that are audited.
    fn chosen(&self) -> Result<Vec<&audit::SubjectImage>, Ended> {
        let wanted = &self.options.platforms;
        let is_wanted = |image: &&audit::SubjectImage| {
            wanted.is_empty() || wanted.iter().any(|platform| image.platform.satisfies(platform))
        };
        let images: Vec<&audit::SubjectImage> = self.images.iter().filter(is_wanted).collect();
        if images.is_empty() {
            let there: Vec<&Platform> = self.images.iter().map(|image| &image.platform).collect();
            let text = format!("the image is for {} alone", crate::fault::list_of(&there));
            return Err(Error::Usage(text).into());
        }
        Ok(images)
    }

    /// Finds the definition whose lock the image names.
    fn locked(
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

    /// Asks for a signature by one of the given keys.
    fn signed(&self) -> Result<(), Ended> {
        if self.options.keys.is_empty() {
            return Ok(());
        }
        let invalid = |reason: String, hint: Option<String>| {
            let (verdict, reason) = (AuditVerdict::SignatureInvalid, vec![reason]);
            Ended::Stop(Stop { verdict, reason, hint })
        };
        let Some(name) = self.name else {
            return Err(Error::Usage(
                "signatures are looked for in a registry: name the image as it is there".to_owned(),
            )
            .into());
        };
        // Of what was audited, whatever the name stands for by now.
        let check = CheckOptions {
            reference: name.at(self.subject.descriptor.digest),
            keys: self.options.keys.clone(),
            access: self.options.access.clone(),
        };
        match sign::check(&check, self.context) {
            Ok(_) => Ok(()),
            Err(error @ Error::NotSigned { .. }) => Err(invalid(error.to_string(), error.hint())),
            Err(error) => Err(error.into()),
        }
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

    /// Brings the inputs that are attached to the image; tells whether there were any.
    fn bring_inputs(&self) -> Result<bool, Ended> {
        let (Some(name), Some(remote)) = (self.name, self.remote) else { return Ok(false) };
        let name = name.at(self.subject.descriptor.digest);
        // Where the registry does not have it, the inputs come from where they were recorded.
        let Ok(document) = remote.document(&self.subject.descriptor) else { return Ok(false) };
        // The store has to have the manifests to know what the inputs belong to.
        self.store.put_document(&document)?;
        for image in &self.images {
            if let Some(entry) = Audit::entry(&document, image.manifest)? {
                self.store.put_document(&remote.document(&entry)?)?;
            }
        }
        let report = self.context.report.as_ref();
        match inputs::pull_inputs(&name, &document, remote, self.store, report) {
            Ok(()) => Ok(true),
            Err(Error::NotAttached { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Finds the entry of a manifest in an index.
    fn entry(document: &Document, manifest: Digest) -> Result<Option<Descriptor>, Ended> {
        if !document.is_index() {
            return Ok(None);
        }
        let index = document.index().map_err(transfer::Error::from)?;
        Ok(index.manifests.into_iter().find(|entry| entry.digest == manifest))
    }

    /// Counts the inputs, and lists those that the store lacks or has damaged.
    fn inputs<'f>(&self, fetches: &[&'f Fetch]) -> (InputsReport, Vec<&'f Fetch>) {
        let mut report = InputsReport { fetches: fetches.len(), ..InputsReport::default() };
        let mut bodies: BTreeMap<Digest, &Fetch> = BTreeMap::new();
        for fetch in fetches {
            bodies.entry(fetch.digest).or_insert(fetch);
            *report.authorities.entry(fetch.authority.to_string()).or_default() += 1;
        }
        report.bodies = bodies.len();
        report.bytes = bodies.values().map(|fetch| fetch.size).sum();
        let missing: Vec<&Fetch> =
            bodies.into_values().filter(|fetch| fetch.size > 0 && !self.is_whole(fetch)).collect();
        report.here = report.bodies - missing.len();
        (report, missing)
    }

    /// Tells whether a body is here and what its name says; all of it is read.
    fn is_whole(&self, fetch: &Fetch) -> bool {
        let Ok(file) = self.store.open_blob(&fetch.digest) else { return false };
        let descriptor = Descriptor::new("", fetch.digest, fetch.size);
        std::io::copy(&mut Verify::new(file, &descriptor), &mut std::io::sink()).is_ok()
    }

    fn tell_inputs(&self, inputs: &InputsReport) {
        let authorities: Vec<String> =
            inputs.authorities.iter().map(|(name, count)| format!("{name} {count}")).collect();
        self.context.report.note(&format!(
            "3/5 inputs: {} of {} bodies here, {} answers{}{}",
            inputs.here,
            inputs.bodies,
            inputs.fetches,
            if authorities.is_empty() { "" } else { ": " },
            authorities.join(", ")
        ));
    }

    fn rebuild(
        &self,
        path: &Path,
        sources: Sources,
        chosen: &[Platform],
        missing: &[&Fetch],
        fetches: &[&Fetch],
    ) -> Result<(Sources, Vec<Built>), Ended> {
        let mut access = self.options.access.clone();
        // What is here needs nobody; a base that was never fetched is no input of the lock.
        access.offline |= missing.is_empty() && self.base_is_here(&sources)?;
        let discards = self.images.iter().any(|image| image.labels.contains_key(OWNERSHIP));
        let options = BuildOptions {
            names: vec![path.display().to_string()],
            folder: self.options.folder.clone(),
            platforms: chosen.to_vec(),
            always_pull: false,
            no_cache: true,
            refresh: Vec::new(),
            locked: true,
            unnamed: true,
            send: false,
            ownership: if discards { Ownership::Discarded } else { Ownership::Kept },
            network: Network::Recorded,
            shell: None,
            access,
        };
        let misfits = sources.misfits(chosen);
        if !misfits.is_empty() {
            let words: Vec<String> = misfits.iter().map(ToString::to_string).collect();
            return Err(Ended::Stop(Stop::new(
                AuditVerdict::NoInputs,
                words.join(", "),
                "check out the state of the definition that the image was built from",
            )));
        }
        let job = build::job_of(sources, &options, self.store, self.context)?;
        match build::make(&job, &options, self.store, self.context) {
            Ok(built) => Ok((job.sources, built)),
            Err(error) => Err(self.failed(error, fetches)),
        }
    }

    fn base_is_here(&self, sources: &Sources) -> Result<bool, Error> {
        let Some(descriptor) = self.store.resolve(&sources.base())? else { return Ok(false) };
        Ok(self.store.is_complete(&descriptor)?)
    }

    /// Tells what says something of the image from what says something of the machine.
    fn failed(&self, error: Error, fetches: &[&Fetch]) -> Ended {
        let is_of_steps = matches!(
            &error,
            Error::Build(
                crate::build::Error::Step { .. }
                    | crate::build::Error::Place { .. }
                    | crate::build::Error::Unlisted { .. }
                    | crate::build::Error::Recorder(
                        netlog::Error::Absent { .. }
                            | netlog::Error::Damaged { .. }
                            | netlog::Error::Changed { .. }
                    )
            )
        );
        if !is_of_steps || error.kind() != Kind::Failed {
            return Ended::Error(error);
        }
        let (_, missing) = self.inputs(fetches);
        let is_input = matches!(&error, Error::Build(crate::build::Error::Recorder(_)));
        let verdict = if is_input || !missing.is_empty() {
            AuditVerdict::InputsMissing
        } else {
            AuditVerdict::RebuildFailed
        };
        let mut reason = vec![error.to_string()];
        let mut source = error.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            if reason.last() != Some(&text) {
                reason.push(text);
            }
            source = cause.source();
        }
        if verdict == AuditVerdict::InputsMissing {
            reason.extend(missing_inputs(&missing).reason);
        }
        Ended::Stop(Stop { verdict, reason, hint: error.hint() })
    }

    fn compare(
        &self,
        (sources, built): &(Sources, Vec<Built>),
        images: &[&audit::SubjectImage],
        report: &mut AuditReport,
    ) -> Result<(), Ended> {
        let manifests: Vec<Descriptor> = built.iter().map(|one| one.manifest.clone()).collect();
        let whole = images.len() == self.images.len()
            && manifests.len() == sources.definition.platforms.len();
        let same = images.len() == manifests.len()
            && images
                .iter()
                .all(|image| manifests.iter().any(|manifest| manifest.digest == image.manifest));
        let index = named::index_of(&sources.definition, &manifests)?;
        // An image that was one manifest all along is compared with its one.
        let rebuilt = if let (false, [only]) = (self.subject.is_index(), manifests.as_slice()) {
            only.clone()
        } else {
            self.store.put_document(&index)?;
            index.descriptor()
        };
        report.rebuilt = Some(if whole {
            rebuilt.digest
        } else {
            manifests.first().map_or(rebuilt.digest, |manifest| manifest.digest)
        });
        if same && (!whole || rebuilt.digest == report.digest) {
            return Ok(());
        }
        let run = self.store.begin_run(self.context.report.as_ref())?;
        let compare = audit::Options {
            platforms: images.iter().map(|image| image.platform.clone()).collect(),
            scratch: run.path(),
            report: self.context.report.as_ref(),
        };
        let ours = Side { name: "built again".to_owned(), source: self.store, descriptor: rebuilt };
        let comparison = audit::compare(self.subject, &ours, &compare)?;
        report.verdict = AuditVerdict::of(&comparison);
        report.comparison = Some(comparison);
        Ok(())
    }
}

/// Lists what a lock has for some platforms.
fn fetches<'l>(lock: Option<&'l Lock>, platforms: &[Platform]) -> Vec<&'l Fetch> {
    let sections = lock
        .into_iter()
        .flat_map(|lock| platforms.iter().filter_map(|platform| lock.section(platform)));
    sections.flat_map(|section| section.layers.values()).flat_map(|layer| &layer.fetches).collect()
}

fn missing_inputs(missing: &[&Fetch]) -> Stop {
    let mut reason =
        vec![format!("{} recorded bodies are not in the store, or damaged there", missing.len())];
    reason.extend(
        missing.iter().take(EXAMPLES).map(|fetch| format!("{} {}", fetch.digest, fetch.url)),
    );
    if missing.len() > EXAMPLES {
        reason.push(format!("and {} more", missing.len() - EXAMPLES));
    }
    Stop {
        verdict: AuditVerdict::InputsMissing,
        reason,
        hint: Some("without --offline they are fetched from where they were recorded".to_owned()),
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
