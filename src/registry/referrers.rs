//! What refers to an image: signatures, SBOMs, attestations. A registry lists them itself or, where it
//! does not, clients keep an index of them under the tag `sha256-<hex>` (distribution-spec,
//! "Referrers Tag Schema").

use serde_json::Value;

use crate::http::{Method, StatusCode, header};
use crate::oci::{DOCUMENT_LIMIT, Descriptor, Digest, Document, Index, media_type};
use crate::transfer;

use super::Error;
use super::repository::{For, Repository};

/// The header with which a registry says that it has listed what was pushed.
pub(super) const SUBJECT: &str = "oci-subject";

/// More pages than this of one image's referrers are no list.
const PAGES: usize = 100;

/// How often the index is written again that another client overwrote.
const TRIES: usize = 4;

impl Repository {
    /// Returns what refers to a document here, as the registry or the fallback tag lists it.
    pub fn referrers(&self, subject: Digest) -> Result<Vec<Descriptor>, Error> {
        self.read(true, |place| {
            if let Some(listed) = place.listed_by_registry(subject)? {
                return Ok(listed);
            }
            let index = place.fallback(subject, For::Pull)?;
            let listed = index.map(|index| index.manifests).unwrap_or_default();
            listed.into_iter().map(|entry| place.told_in_full(entry)).collect()
        })
    }

    /// Completes an entry of a list that a client wrote: cosign's has the config's type for the
    /// artifact's, and no annotations. What can't be read is left as it is listed.
    fn told_in_full(&self, entry: Descriptor) -> Result<Descriptor, Error> {
        if entry.artifact_type().is_some_and(|kind| kind != media_type::EMPTY) {
            return Ok(entry);
        }
        match self.get_document(&entry.digest.to_string(), Some(entry.digest), For::Pull) {
            Ok(document) => {
                let told = as_referrer(&document).ok().flatten();
                Ok(told.map_or(entry, |(_, told)| told))
            }
            Err(error) if error.is_not_found() => Ok(entry),
            Err(error) => Err(error),
        }
    }

    /// Sees to it that a document which has a subject is listed as its referrer. What lists it already
    /// is left as it is.
    pub fn list_referrer(&self, document: &Document) -> Result<(), transfer::Error> {
        let Some((subject, entry)) = as_referrer(document)? else { return Ok(()) };
        match self.listed_by_registry(subject)? {
            Some(listed) if listed.iter().any(|has| has.digest == entry.digest) => Ok(()),
            _ => Ok(self.add_to_fallback(subject, &entry)?),
        }
    }

    /// `None` where the registry keeps no such lists. Some answer other questions than the one that
    /// was asked with 200, so only an index counts.
    fn listed_by_registry(&self, subject: Digest) -> Result<Option<Vec<Descriptor>>, Error> {
        let mut url = self.url(&format!("referrers/{subject}"))?;
        let mut found = Vec::new();
        for _ in 0..PAGES {
            let mut answer = self.send(&Method::GET, &url, &self.scopes(For::Pull), |request| {
                request.header(header::ACCEPT, media_type::INDEX)
            })?;
            match answer.status() {
                StatusCode::OK => {}
                status if matches!(status.as_u16(), 400 | 404 | 405 | 501) => return Ok(None),
                _ => {
                    let doing = format!("list what refers to {subject}");
                    return Err(self.refused(&doing, &mut answer));
                }
            }
            let sent = answer.header(header::CONTENT_TYPE).unwrap_or_default();
            if sent.split(';').next().map(str::trim) != Some(media_type::INDEX) {
                return Ok(None);
            }
            let next = answer.header(header::LINK).and_then(next_page).map(str::to_owned);
            let bytes = answer.bytes(DOCUMENT_LIMIT)?;
            let index = Document::read(bytes, Some(media_type::INDEX))
                .and_then(|document| document.index())
                .map_err(|source| Error::Document { repository: self.name(), source })?;
            found.extend(index.manifests);
            let next = next.and_then(|link| answer.url().join(&link).ok());
            match next {
                Some(next) if crate::http::same_origin(&url, &next) && next != url => url = next,
                _ => break,
            }
        }
        Ok(Some(found))
    }

    fn fallback(&self, subject: Digest, purpose: For) -> Result<Option<Index>, Error> {
        match self.get_document(&fallback_tag(subject), None, purpose) {
            Ok(document) => document
                .index()
                .map(Some)
                .map_err(|source| Error::Document { repository: self.name(), source }),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Adds an entry to the index under the fallback tag. Two clients may write it at once, so it is
    /// read again afterwards.
    pub(super) fn add_to_fallback(&self, subject: Digest, entry: &Descriptor) -> Result<(), Error> {
        let tag = fallback_tag(subject);
        let mut tried = 0;
        loop {
            let mut index = self
                .fallback(subject, For::Push)?
                .unwrap_or_else(|| Index::new(Vec::new(), std::collections::BTreeMap::new()));
            if index.manifests.iter().any(|has| has.digest == entry.digest) {
                return Ok(());
            }
            if tried == TRIES {
                return Err(Error::Contended { repository: self.name(), tag });
            }
            index.manifests.push(entry.clone());
            let document = Document::of_index(&index)
                .map_err(|source| Error::Encode { repository: self.name(), source })?;
            self.put_under(&document, &tag)?;
            tried += 1;
        }
    }
}

/// Returns a document's subject, if it has one, and the entry by which it is to be listed.
pub(super) fn as_referrer(
    document: &Document,
) -> Result<Option<(Digest, Descriptor)>, transfer::Error> {
    let (rest, annotations, config) = if document.is_index() {
        let index = document.index()?;
        (index.rest, index.annotations, None)
    } else {
        let manifest = document.manifest()?;
        (manifest.rest, manifest.annotations, Some(manifest.config.media_type))
    };
    let subject = rest.get("subject").and_then(|subject| subject.get("digest"));
    let Some(subject) = subject.and_then(Value::as_str).and_then(|text| text.parse().ok()) else {
        return Ok(None);
    };
    let mut entry = document.descriptor();
    entry.annotations = annotations;
    let kind = rest.get("artifactType").and_then(Value::as_str).filter(|kind| !kind.is_empty());
    if let Some(kind) = kind.map(str::to_owned).or(config) {
        entry.rest.insert("artifactType".to_owned(), Value::String(kind));
    }
    Ok(Some((subject, entry)))
}

fn fallback_tag(subject: Digest) -> String {
    subject.to_string().replacen(':', "-", 1)
}

/// Reads `</v2/…>; rel="next"`, with quotes or without.
fn next_page(link: &str) -> Option<&str> {
    link.split(',').find_map(|one| {
        let (target, parameters) = one.trim().strip_prefix('<')?.split_once('>')?;
        let next = parameters.split(';').any(|parameter| {
            parameter.trim().strip_prefix("rel=").is_some_and(|rel| rel.trim_matches('"') == "next")
        });
        next.then_some(target)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_found_in_every_spelling() {
        assert_eq!(next_page(r#"</v2/a?n=1>; rel="next""#), Some("/v2/a?n=1"));
        assert_eq!(next_page(r#"<b>; rel=first, <c>; title="x"; rel=next"#), Some("c"));
        assert_eq!(next_page(r#"<b>; rel="prev""#), None);
    }

    #[test]
    fn a_referrer_is_listed_with_its_type_and_annotations() {
        let subject = Digest::of(b"x");
        let text = format!(
            r#"{{"schemaVersion":2,"mediaType":"{}","config":{{"mediaType":"a/config","digest":"{subject}","size":1}},"layers":[],"subject":{{"mediaType":"m","digest":"{subject}","size":1}},"annotations":{{"k":"v"}}}}"#,
            media_type::MANIFEST
        );
        let document = Document::read(text.into_bytes(), None).unwrap();
        let (found, entry) = as_referrer(&document).unwrap().unwrap();
        assert_eq!(found, subject);
        assert_eq!(entry.annotations["k"], "v");
        assert_eq!(entry.rest["artifactType"], "a/config");
        assert_eq!(fallback_tag(subject), format!("sha256-{}", subject.hex()));
    }
}
