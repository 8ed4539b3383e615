//! R's databases of a package's code and help (`*.rdb`): pieces one after another, each the size that
//! it unpacks to and a zlib stream.

use flate2::{Decompress, FlushDecompress, Status};

use super::super::mask;
use super::{Explained, Parts, part};

/// The most bytes that a piece unpacks to.
const PIECE_LIMIT: usize = 64 << 20;

/// Explains two databases; `None` where one has another form.
pub(super) fn explain(a: &[u8], b: &[u8]) -> Option<Explained> {
    let (old, new) = (pieces(a)?, pieces(b)?);
    let mut parts = Parts::default();
    if old.len() != new.len() {
        let what = format!("{} -> {}", old.len(), new.len());
        parts.push(part("number of objects", what), None);
    }
    for (number, (old, new)) in old.iter().zip(&new).enumerate() {
        if old != new {
            let what = format!("{} -> {} bytes", old.len(), new.len());
            parts.push(part(format!("object {number}"), what), mask::guess(old, new));
        }
    }
    if parts.is_empty() {
        parts.push(part("compression", "the same objects, compressed in another way"), None);
    }
    Some(parts.finish("r-database", "objects"))
}

fn pieces(bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut found = Vec::new();
    let mut rest = bytes;
    let mut total = 0;
    while !rest.is_empty() {
        let size = u32::from_be_bytes(rest.get(..4)?.try_into().ok()?) as usize;
        total += size;
        if total > PIECE_LIMIT {
            return None;
        }
        let mut stream = Decompress::new(true);
        let mut plain = Vec::with_capacity(size + 1);
        let status = stream.decompress_vec(&rest[4..], &mut plain, FlushDecompress::Finish).ok()?;
        if status != Status::StreamEnd || plain.len() != size {
            return None;
        }
        rest = rest.get(4 + usize::try_from(stream.total_in()).ok()?..)?;
        found.push(plain);
    }
    Some(found)
}
