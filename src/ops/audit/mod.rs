//! `audit`: an image built again from what its lock lists, and compared with what was published.
//!
//! ```text
//! image -> lock (its digest is a label of the image; beside a definition, else attached to the image)
//!       -> inputs here? attached? -> every step run -> compared
//! ```
//! Whatever stops it is a verdict with its reason; an error is only what says nothing of the image.

mod attest;
mod bodies;
mod origin;
mod report;

use std::error::Error as _;
use std::path::{Path, PathBuf};

use crate::audit::{self, Side};
use crate::build::{Built, Written};
use crate::definition;
use crate::fault::{Fault, Kind};
use crate::lock;
use crate::netlog::{self, Fetch};
use crate::oci::{Descriptor, Platform, Reference};
use crate::plan::{Ownership, Sources};
use crate::registry::Repository;
use crate::store::Store;

use super::build::{self, Job, OWNERSHIP};
use super::check::{self, CheckOptions};
use super::diff::{self, Find, Found, ImageName};
use super::{Access, BuildOptions, Context, Error, Network, named};

use attest::{Attester, Rebuilt};
use bodies::{fetches, missing_inputs};
use origin::{Given, definition_of};

pub use attest::AttestOptions;
pub use report::{AuditReport, AuditVerdict, InputsReport};

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
    /// Whose statement of what the audit comes to is attached to the image, if anyone's.
    pub attest: Option<AttestOptions>,
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
        attested: Vec::new(),
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
    let attester = options.attest.as_ref().map(|one| Attester::new(one, &audit)).transpose()?;
    let ended = audit.run(given, &mut report);
    match ended {
        Ok(rebuilt) => {
            if let Some(attester) = attester {
                report.attested = attester.attest(&rebuilt, &report)?;
            }
        }
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
    fn run(&self, given: Option<Given>, report: &mut AuditReport) -> Result<Rebuilt, Ended> {
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
            auditors: Vec::new(),
            access: self.options.access.clone(),
        };
        match check::check(&check, self.context) {
            Ok(_) => Ok(()),
            Err(error @ Error::NotSigned { .. }) => Err(invalid(error.to_string(), error.hint())),
            Err(error) => Err(error.into()),
        }
    }

    fn rebuild(
        &self,
        path: &Path,
        sources: Sources,
        chosen: &[Platform],
        missing: &[&Fetch],
        fetches: &[&Fetch],
    ) -> Result<(Job, Vec<Built>), Ended> {
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
            written: None,
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
        let mut job = build::job_of(sources, &options, self.store, self.context)?;
        job.written = Some(Written::default());
        match build::make(&job, &options, self.store, self.context) {
            Ok(built) => Ok((job, built)),
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
        (Job { sources, written, .. }, built): &(Job, Vec<Built>),
        images: &[&audit::SubjectImage],
        report: &mut AuditReport,
    ) -> Result<Rebuilt, Ended> {
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
        let pairs = images.iter().map(|image| {
            let ours = built.iter().find(|one| {
                let platform = one.manifest.platform.as_ref();
                platform.is_some_and(|platform| image.platform.satisfies(platform))
            });
            ((*image).clone(), ours.map(|one| one.manifest.digest))
        });
        let found = Rebuilt { index: whole.then_some(rebuilt.digest), platforms: pairs.collect() };
        if same && (!whole || rebuilt.digest == report.digest) {
            return Ok(found);
        }
        let run = self.store.begin_run(self.context.report.as_ref())?;
        let compare = audit::Options {
            platforms: images.iter().map(|image| image.platform.clone()).collect(),
            scratch: run.path(),
            written: &|layer, path| written.as_ref()?.step(layer, path),
            report: self.context.report.as_ref(),
        };
        let ours = Side { name: "built again".to_owned(), source: self.store, descriptor: rebuilt };
        let comparison = audit::compare(self.subject, &ours, &compare)?;
        report.verdict = AuditVerdict::of(&comparison);
        report.comparison = Some(comparison);
        Ok(found)
    }
}
