//! A layer that is made, on its way from a tree into a blob of the store: hashed at once, compressed
//! beside the next layer's steps.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::changes::{Changes, Kind};
use crate::disk::At;
use crate::layer::{self, Profile};
use crate::oci::{Descriptor, Digest};
use crate::report::{Report, Task, Unit};
use crate::rootfs::Ledger;
use crate::store::{Growing, Store};

use super::make::Made;
use super::trust::Search;
use super::{Error, HomeFiles};

/// A layer's way from its tree into a blob of the store.
pub(super) struct Pack<'a> {
    pub layer: String,
    pub upper: PathBuf,
    pub changes: Changes,
    pub ledger: Arc<Ledger>,
    pub store: &'a Store,
    pub profile: Profile,
    pub threads: usize,
    /// What the first pass gave.
    pub expected: Option<Digest>,
    /// What the layer must not have in it.
    pub search: Option<Arc<Search>>,
    pub report: &'a dyn Report,
    pub begun: &'a (dyn Fn(&str, Growing) + Sync),
}

impl<'a> Pack<'a> {
    /// Compresses at once, in the one pass that also gives the diff id.
    pub(super) fn now(self, home: HomeFiles) -> Result<Made<'a>, Error> {
        let (diff_id, _) = self.compress()?;
        let pack = Pack { expected: Some(diff_id), ..self };
        Ok(Made { diff_id: Some(diff_id), home, fetches: None, pack: Some(pack) })
    }

    /// Hashes only, so that the next layer can begin.
    pub(super) fn measure(self, home: HomeFiles) -> Result<Made<'a>, Error> {
        let (diff_id, _) = layer::measure(|out| self.write(out))?;
        self.check()?;
        let pack = Pack { expected: Some(diff_id), ..self };
        Ok(Made { diff_id: Some(diff_id), home, fetches: None, pack: Some(pack) })
    }

    /// Returns the layer's blob, making it where the store has none of this diff id.
    pub(super) fn run(self) -> Result<Descriptor, Error> {
        if let Some(diff_id) = &self.expected
            && let Some(blob) = self.store.blob_for(diff_id, self.profile.name())?
        {
            return Ok(blob);
        }
        let (diff_id, blob) = self.compress()?;
        match self.expected {
            Some(first) if first != diff_id => {
                Err(Error::Unstable { layer: self.layer.clone(), first, second: diff_id })
            }
            _ => Ok(blob),
        }
    }

    /// Writes the tar; in the first pass it is searched.
    fn write(&self, out: &mut dyn std::io::Write) -> Result<(), layer::Error> {
        match &self.search {
            Some(search) if self.expected.is_none() => {
                let mut through = search.through(out);
                layer::write_tar(&self.upper, &self.changes, &self.ledger, &mut through)
            }
            _ => layer::write_tar(&self.upper, &self.changes, &self.ledger, out),
        }
    }

    /// Fails where the layer has the recorder's certificate in it, and finds out where.
    fn check(&self) -> Result<(), Error> {
        use std::os::unix::ffi::OsStrExt;
        let Some(search) = self.search.as_ref().filter(|search| search.has_found()) else {
            return Ok(());
        };
        let mut cursor = self.changes.cursor();
        while let Some((path, kind)) = cursor.advance() {
            let file = self.upper.join(std::ffi::OsStr::from_bytes(path));
            let is_file = |file: &Path| fs::symlink_metadata(file).is_ok_and(|it| it.is_file());
            if kind == Kind::Present
                && is_file(&file)
                && search.is_in(&fs::read(&file).at("read", &file)?)
            {
                let path = format!("/{}", String::from_utf8_lossy(path));
                return Err(Error::Leak { layer: self.layer.clone(), path });
            }
        }
        Err(Error::Leak { layer: self.layer.clone(), path: "(a name)".to_owned() })
    }

    fn compress(&self) -> Result<(Digest, Descriptor), Error> {
        let task = Task::start(self.report, format!("compress {}", self.layer), None, Unit::Bytes);
        let mut writer = self.store.raw_writer()?;
        (self.begun)(&self.layer, writer.share()?);
        let packed = layer::pack(
            self.profile,
            self.threads,
            |out| {
                let mut counted = Counted { out, task: &task };
                self.write(&mut counted)
            },
            &mut writer,
        )?;
        self.check()?;
        writer.commit_hashed(packed.digest, packed.size)?;
        let blob = Descriptor::new(self.profile.media_type(), packed.digest, packed.size);
        self.store.remember_blob(&packed.diff_id, self.profile.name(), &blob)?;
        task.finish("done");
        Ok((packed.diff_id, blob))
    }
}

struct Counted<'a, 't> {
    out: &'a mut dyn std::io::Write,
    task: &'a Task<'t>,
}

impl std::io::Write for Counted<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn write_all(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.out.write_all(bytes)?;
        self.task.advance(bytes.len() as u64);
        Ok(())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}
