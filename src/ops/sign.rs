//! `keygen` and `sign`: signatures of an image with a key that lies in a file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

use crate::describe::sign::{BUNDLE, Bundle, SIMPLE, SigningKey, Simple, simple_tag};
use crate::describe::{Artifact, Parts, Statement, statement};
use crate::oci::{DOCUMENT_LIMIT, Descriptor, Digest, Document, Manifest, Reference};
use crate::registry::Repository;
use crate::transfer::{self, Source};
use crate::{describe, disk, plan};

use super::attach::{self, Attached};
use super::{Access, Context, Error, inspect};

/// The most bytes of a key's file.
pub(super) const KEY_LIMIT: u64 = 1 << 16;

/// Where a new pair of keys goes.
#[derive(Clone, Debug)]
pub struct KeygenOptions {
    /// The files' name without `.key` and `.pub`.
    pub prefix: PathBuf,
    /// What the private one is encrypted with.
    pub password: String,
}

/// A new pair of keys.
#[derive(Clone, Debug, Serialize)]
pub struct KeygenReport {
    /// The private one's file.
    pub private: PathBuf,
    /// The public one's.
    pub public: PathBuf,
}

/// Makes a pair of keys in files of their own; one that is there is never overwritten.
pub fn keygen(options: &KeygenOptions) -> Result<KeygenReport, Error> {
    let named = |extension: &str| {
        let mut path = options.prefix.clone().into_os_string();
        path.push(extension);
        PathBuf::from(path)
    };
    let (private, public) = (named(".key"), named(".pub"));
    for path in [&private, &public] {
        if path.symlink_metadata().is_ok() {
            return Err(Error::Usage(format!("{} is there already", path.display())));
        }
    }
    let (key, text) = SigningKey::generate(options.password.as_bytes())
        .map_err(|source| Error::Key { path: private.clone(), source })?;
    disk::write_private(&private, text.as_bytes())?;
    disk::write_whole(&public, key.public().pem().as_bytes())?;
    Ok(KeygenReport { private, public })
}

/// What to sign, and how.
#[derive(Clone, Debug)]
pub struct SignOptions {
    /// The image, which is in its registry.
    pub reference: Reference,
    /// The private key's file.
    pub key: PathBuf,
    /// Its password, where it is encrypted.
    pub password: Option<String>,
    /// Sign in the older form, too.
    pub tag: bool,
    /// Sign the documents that are attached, too.
    pub attached: bool,
    /// How to reach the registry.
    pub access: Access,
}

/// What was signed.
#[derive(Clone, Debug, Serialize)]
pub struct SignReport {
    /// The image.
    pub reference: Reference,
    /// Its digest.
    pub digest: Digest,
    /// One entry a signature, those that were there already too.
    pub signed: Vec<SignedReport>,
}

/// A signature.
#[derive(Clone, Debug, Serialize)]
pub struct SignedReport {
    /// What it is about.
    pub subject: Digest,
    /// What it claims: the statement's type.
    pub claim: String,
    /// Whether this key's was there already.
    pub existed: bool,
}

/// Signs an image: its index and every platform's manifest; if asked for, what is attached to them.
/// What the key has signed before is left as it is.
pub fn sign(options: &SignOptions, context: &Context<'_>) -> Result<SignReport, Error> {
    let key = read_key(&options.key, options.password.as_deref())?;
    let registries = options.access.registries([&options.reference], context)?;
    let registry = registries.open(&options.reference);
    let root = registry.document(&registry.resolve(&options.reference)?)?;
    let signer = Signer { key: &key, registry: &registry, context };
    let mut signed = Vec::new();
    for subject in subjects(&options.reference, &root, &registry)? {
        signer.sign_one(&subject, options, &mut signed)?;
    }
    Ok(SignReport { reference: options.reference.clone(), digest: root.digest(), signed })
}

/// Reads a private key's file.
pub(super) fn read_key(path: &Path, password: Option<&str>) -> Result<SigningKey, Error> {
    let text = disk::read(path, KEY_LIMIT)?;
    SigningKey::read(&text, password.map(str::as_bytes))
        .map_err(|source| Error::Key { path: path.to_owned(), source })
}

/// Returns a document and, if it is an index, its images.
pub(super) fn subjects(
    reference: &Reference,
    root: &Document,
    source: &dyn Source,
) -> Result<Vec<Descriptor>, Error> {
    let mut subjects = vec![root.descriptor()];
    if root.is_index() {
        let all = inspect::manifests_of(reference, root, source, &|_| true)?;
        subjects.extend(all.into_iter().map(|(entry, _)| entry));
    }
    Ok(subjects)
}

/// Signs statements about images of a registry.
pub(super) struct Signer<'a> {
    pub(super) key: &'a SigningKey,
    pub(super) registry: &'a Repository,
    pub(super) context: &'a Context<'a>,
}

impl Signer<'_> {
    fn sign_one(
        &self,
        subject: &Descriptor,
        options: &SignOptions,
        signed: &mut Vec<SignedReport>,
    ) -> Result<(), Error> {
        let digest = subject.digest;
        let attached = attach::list(self.registry, digest)?;
        let no_claim = Value::Object(serde_json::Map::new());
        let mut statements =
            vec![Statement::encode(&[(None, digest)], statement::SIGNATURE, &no_claim)?];
        let wanted = attached.iter().filter(|_| options.attached);
        for one in wanted {
            statements.extend(attach::as_statement(one, digest)?);
        }
        for bytes in statements {
            signed.extend(self.attest(subject, &bytes, &attached)?);
        }
        if options.tag {
            let existed = self.sign_under_tag(subject, &options.reference)?;
            signed.push(SignedReport { subject: digest, claim: SIMPLE.to_owned(), existed });
        }
        Ok(())
    }

    /// Attaches a signed statement to what it is about, unless the key's is among what is attached
    /// already; `None` where the bytes are no statement.
    pub(super) fn attest(
        &self,
        subject: &Descriptor,
        bytes: &[u8],
        attached: &[Attached],
    ) -> Result<Option<SignedReport>, Error> {
        let Some(Statement { predicate_type, .. }) = Statement::read(bytes) else {
            return Ok(None);
        };
        let public = self.key.public();
        let existed = attached
            .iter()
            .filter(|one| Bundle::is_type(&one.artifact_type))
            .filter_map(|one| Bundle::read(&one.bytes).ok())
            .any(|bundle| bundle.verify(&public).is_ok_and(|signed| signed == bytes));
        if !existed {
            self.push(subject, bytes, &predicate_type)?;
        }
        Ok(Some(SignedReport { subject: subject.digest, claim: predicate_type, existed }))
    }

    fn push(&self, subject: &Descriptor, bytes: &[u8], predicate: &str) -> Result<(), Error> {
        let bundle = Bundle::sign(bytes, self.key).map_err(describe::Error::from)?;
        let annotations = BTreeMap::from([
            ("dev.sigstore.bundle.content".to_owned(), "dsse-envelope".to_owned()),
            ("dev.sigstore.bundle.predicateType".to_owned(), predicate.to_owned()),
            (
                "org.opencontainers.image.created".to_owned(),
                plan::rfc3339(i64::try_from(self.context.now).unwrap_or(i64::MAX)),
            ),
        ]);
        let artifact = Artifact::new(Parts {
            subject,
            artifact_type: BUNDLE,
            annotations,
            blobs: vec![(BUNDLE, bundle, BTreeMap::new())],
        })?;
        attach::push(&artifact, self.registry, self.context)?;
        Ok(())
    }

    /// Adds a signature to those under the image's tag, and tells whether the key's was there.
    fn sign_under_tag(&self, subject: &Descriptor, image: &Reference) -> Result<bool, Error> {
        let digest = subject.digest;
        let public = self.key.public();
        let there = under_tag(digest, self.registry)?;
        if there.iter().any(|simple| simple.verify(digest, &public).is_ok()) {
            return Ok(true);
        }
        let own = Simple::sign(image, digest, self.key).map_err(describe::Error::from)?;
        let all: Vec<Simple> = there.into_iter().chain([own]).collect();
        attach::push_tagged(&all, &simple_tag(digest), self.registry, self.context)?;
        Ok(false)
    }
}

/// Reads the signatures of the older form that an image has.
pub(super) fn under_tag(digest: Digest, registry: &Repository) -> Result<Vec<Simple>, Error> {
    let Some(document) = registry.find(&simple_tag(digest))? else { return Ok(Vec::new()) };
    let Ok(Manifest { layers, .. }) = document.manifest() else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for layer in layers.into_iter().filter(|layer| layer.media_type == SIMPLE) {
        let payload = transfer::fetch(registry, &layer, DOCUMENT_LIMIT)?;
        found.push(Simple { payload, layer });
    }
    Ok(found)
}
