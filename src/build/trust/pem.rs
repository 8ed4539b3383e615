//! A bundle of certificates as text.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use memchr::memmem;

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";
/// What the builder writes before its certificate.
const MARK: &str = "\n# ocibuild: trusted while a step runs\n";

/// A certificate of a bundle.
struct Block {
    /// Where it begins.
    start: usize,
    /// Where the text after it begins.
    end: usize,
    der: Vec<u8>,
}

/// Adds a certificate.
pub(super) fn with(content: &[u8], pem: &str) -> Vec<u8> {
    [content, MARK.as_bytes(), pem.trim_end().as_bytes(), b"\n"].concat()
}

/// Returns a bundle without a certificate, whoever wrote it there; `None` where it isn't in it.
pub(super) fn without(content: &[u8], der: &[u8]) -> Option<Vec<u8>> {
    let mut kept = Vec::with_capacity(content.len());
    let mut from = 0;
    let mut found = false;
    for block in blocks(content).iter().filter(|block| block.der == der) {
        found = true;
        kept.extend_from_slice(&content[from..block.start]);
        if kept.ends_with(MARK.as_bytes()) {
            kept.truncate(kept.len() - MARK.len());
        }
        from = block.end;
    }
    kept.extend_from_slice(&content[from..]);
    found.then_some(kept)
}

/// Returns the certificates of a bundle.
pub(super) fn certificates(content: &[u8]) -> Vec<Vec<u8>> {
    blocks(content).into_iter().map(|block| block.der).collect()
}

fn blocks(content: &[u8]) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut at = 0;
    while let Some(start) = memmem::find(&content[at..], BEGIN.as_bytes()).map(|start| at + start) {
        let body = start + BEGIN.len();
        let Some(length) = memmem::find(&content[body..], END.as_bytes()) else { break };
        let text: Vec<u8> = content[body..body + length]
            .iter()
            .copied()
            .filter(|byte| !byte.is_ascii_whitespace())
            .collect();
        at = body + length + END.len();
        if content.get(at) == Some(&b'\n') {
            at += 1;
        }
        // What is no certificate is none to be looked for, either.
        blocks.extend(STANDARD.decode(text).ok().map(|der| Block { start, end: at, der }));
    }
    blocks
}
