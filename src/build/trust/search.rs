//! Looks for the recorder's certificate in what becomes a layer: a step may have copied what it was
//! told to trust.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use memchr::memmem::Finder;

/// The bytes of the certificate that are looked for; they are of its key, so no other has them.
const BYTES: usize = 24;
/// The letters of it as text. Of two such parts in a row a line's end breaks one at most.
const LETTERS: usize = 20;

/// What to look for, and whether it was seen.
#[derive(Debug)]
pub(in crate::build) struct Search {
    parts: [Finder<'static>; 3],
    found: AtomicBool,
}

impl Search {
    pub(super) fn of(der: &[u8]) -> Search {
        let middle = der.len() / 2;
        let text = STANDARD.encode(der).into_bytes();
        let at = text.len() / 2;
        let part = |bytes: &[u8], from: usize, length: usize| {
            let end = (from + length).min(bytes.len());
            Finder::new(&bytes[from.min(end)..end]).into_owned()
        };
        let parts = [
            part(der, middle, BYTES),
            part(&text, at, LETTERS),
            part(&text, at + LETTERS, LETTERS),
        ];
        Search { parts, found: AtomicBool::new(false) }
    }

    /// Tells whether bytes have it in them.
    pub(in crate::build) fn is_in(&self, bytes: &[u8]) -> bool {
        self.parts.iter().any(|part| part.find(bytes).is_some())
    }

    /// Tells whether anything that was written through it had it.
    pub(in crate::build) fn has_found(&self) -> bool {
        self.found.load(Ordering::Relaxed)
    }

    /// Looks at all that is written.
    pub(in crate::build) fn through<'s>(&'s self, out: &'s mut dyn Write) -> Through<'s> {
        Through { search: self, out, seam: Vec::new() }
    }
}

/// A writer that looks at what passes.
pub(in crate::build) struct Through<'s> {
    search: &'s Search,
    out: &'s mut dyn Write,
    /// The end of what was written before.
    seam: Vec<u8>,
}

impl Write for Through<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        const SEAM: usize = BYTES - 1;
        if !self.search.has_found() {
            let begin = &bytes[..bytes.len().min(SEAM)];
            self.seam.extend_from_slice(begin);
            if self.search.is_in(&self.seam) || self.search.is_in(bytes) {
                self.search.found.store(true, Ordering::Relaxed);
            }
            if bytes.len() > SEAM {
                self.seam.clear();
                self.seam.extend_from_slice(&bytes[bytes.len() - SEAM..]);
            } else {
                let extra = self.seam.len().saturating_sub(SEAM);
                self.seam.drain(..extra);
            }
        }
        self.out.write_all(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlog::Authority;

    #[test]
    fn a_certificate_is_seen_however_it_is_written() {
        let authority = Authority::new().unwrap();
        let der = authority.certificate_der();
        let text = STANDARD.encode(der);
        let wrapped: Vec<String> =
            text.as_bytes().chunks(76).map(|line| String::from_utf8_lossy(line).into()).collect();
        let forms = [
            der.to_vec(),
            authority.certificate_pem().into_bytes(),
            text.into_bytes(),
            wrapped.join("\n").into_bytes(),
        ];
        for form in &forms {
            let content = [vec![b'x'; 1000], form.clone(), vec![b'y'; 1000]].concat();
            for size in [1, 7, 23, 100, 4096] {
                let search = Search::of(der);
                let mut out = Vec::new();
                let mut through = search.through(&mut out);
                content.chunks(size).for_each(|piece| through.write_all(piece).unwrap());
                assert!(search.has_found(), "in pieces of {size}");
                assert_eq!(out, content);
            }
        }
        let search = Search::of(der);
        let other = Authority::new().unwrap();
        search.through(&mut Vec::new()).write_all(other.certificate_pem().as_bytes()).unwrap();
        search.through(&mut Vec::new()).write_all(other.certificate_der()).unwrap();
        assert!(!search.has_found());
    }
}
