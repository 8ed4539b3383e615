//! A layer's blob in another compression: no step has to run again, since compression is in no key.

use crate::layer::{self, Blob, Limits};
use crate::oci::{Descriptor, Digest, media_type};
use crate::report::{Task, Unit};
use crate::store::Store;

use super::{Error, Options};

/// A blob to be compressed anew.
pub(super) struct Convert<'a> {
    pub blob: Descriptor,
    pub diff_id: Digest,
    pub store: &'a Store,
    pub options: &'a Options<'a>,
}

impl Convert<'_> {
    /// Makes the blob of the wanted profile, from the verified bytes of the one that is here.
    pub(super) fn run(self) -> Result<Descriptor, Error> {
        let Convert { blob, diff_id, store, options } = self;
        let compression = media_type::compression_of(&blob.media_type).ok_or_else(|| {
            Error::NoLayer { digest: blob.digest, media_type: blob.media_type.clone() }
        })?;
        let from =
            Blob { digest: blob.digest, size: blob.size, compression, diff_id: Some(diff_id) };
        let mut file = store.open_blob(&blob.digest)?;
        let task = Task::start(
            options.host.report,
            format!("compress {}", diff_id.short()),
            None,
            Unit::Bytes,
        );
        let mut writer = store.raw_writer()?;
        let packed = layer::pack(
            options.profile,
            options.threads,
            |out| layer::expand(&from, &mut file, &Limits::of_blob(blob.size), out).map(|_| ()),
            &mut writer,
        )?;
        writer.commit_hashed(packed.digest, packed.size)?;
        let made = Descriptor::new(options.profile.media_type(), packed.digest, packed.size);
        store.remember_blob(&diff_id, options.profile.name(), &made)?;
        task.finish("done");
        Ok(made)
    }
}
