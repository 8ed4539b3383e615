//! A tar's way into a blob, in one pass:
//!
//! ```text
//! produce -> blocks of 1 MiB -+-> hash: diff id
//!                             +-> compress (N threads, or zstd's own) -> in order -> hash -> out
//! ```
//!
//! All queues are short, so memory does not depend on the layer's size, and each stage is a thread
//! of its own, so none waits while another could work.

use std::io::{self, Write};
use std::thread;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::blocks::{Block, Cutter, Pool, stopped};
use super::{Error, Profile, gzip};
use crate::oci::{Digest, Hasher};

/// The size of the blocks; part of the profiles.
pub(super) const BLOCK: usize = 1 << 20;

/// zstd's level in `zstd-1`.
const ZSTD_LEVEL: i32 = 3;

/// The size of zstd's jobs in `zstd-1`. Its own choice, 8 MiB, would keep small layers on one core
/// and take several times that a thread; jobs of 1 MiB take 3 MB, and the blob of 3 GB of libraries
/// is larger by 0.6 in a hundred than with jobs of 2.
const ZSTD_JOB: u32 = 1 << 20;

/// What a layer came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packed {
    /// The digest of the tar.
    pub diff_id: Digest,
    /// The size of the tar.
    pub uncompressed: u64,
    /// The digest of the blob.
    pub digest: Digest,
    /// The size of the blob.
    pub size: u64,
}

/// Compresses what `produce` writes into `out`, with `threads` compressing threads, and hashes both
/// sides in the same pass. The bytes depend on neither the threads nor the sizes of the writes.
///
/// `out` is written to by the calling thread. After an error it has got a part of the blob.
pub fn pack<P>(
    profile: Profile,
    threads: usize,
    produce: P,
    out: &mut dyn Write,
) -> Result<Packed, Error>
where
    P: FnOnce(&mut dyn Write) -> Result<(), Error> + Send,
{
    let threads = threads.max(1);
    let mut blob = Blob { out, hasher: Hasher::new(), size: 0 };
    let pool = Pool::new(2 * threads + 4);
    let (to_hash, hashed) = bounded::<Block>(2);
    thread::scope(|scope| {
        let hashing = scope.spawn(move || hash(&hashed));
        let (made, written) = match profile {
            Profile::Gzip1 => {
                let (to_work, work) = bounded::<gzip::Job>(threads);
                // The window of blocks that are not written yet.
                let (to_order, ordered) = bounded(threads + threads.min(4));
                for _ in 0..threads {
                    let work = work.clone();
                    scope.spawn(move || gzip::work(&work));
                }
                drop(work);
                let making = scope.spawn(move || {
                    make(produce, &pool, |block| {
                        let (job, result) = gzip::Job::of(block.clone());
                        to_hash.send(block).map_err(stopped)?;
                        to_order.send(result).map_err(stopped)?;
                        to_work.send(job).map_err(stopped)
                    })
                });
                let written = gzip::join(ordered, &mut blob);
                (making.join(), written)
            }
            Profile::Zstd1 => {
                let (to_zstd, blocks) = bounded::<Block>(2);
                let (to_blob, chunks) = bounded::<Vec<u8>>(4);
                let making = scope.spawn(move || {
                    make(produce, &pool, |block| {
                        to_hash.send(block.clone()).map_err(stopped)?;
                        to_zstd.send(block).map_err(stopped)
                    })
                });
                let zstd = scope.spawn(move || zstd(&blocks, threads, to_blob));
                let written = chunks.into_iter().try_for_each(|chunk| blob.write_all(&chunk));
                let compressed = zstd.join();
                (making.join(), written.and(compressed.unwrap_or_else(|_| Err(stopped(())))))
            }
        };
        // Where the blob could not be written the producer has only seen a closed pipe.
        let made = made.map_err(|_| Error::Worker)?;
        match written {
            Err(source) if source.kind() != io::ErrorKind::BrokenPipe || made.is_ok() => {
                return Err(Error::Blob { action: "write", source });
            }
            _ => made?,
        }
        let (diff_id, uncompressed) = hashing.join().map_err(|_| Error::Worker)?;
        Ok(Packed { diff_id, uncompressed, digest: blob.hasher.finish(), size: blob.size })
    })
}

/// Hashes what `produce` writes: the diff id and the size of the tar, and nothing else.
pub fn measure<P>(produce: P) -> Result<(Digest, u64), Error>
where
    P: FnOnce(&mut dyn Write) -> Result<(), Error> + Send,
{
    let (to_hash, hashed) = bounded::<Block>(4);
    thread::scope(|scope| {
        let hashing = scope.spawn(move || hash(&hashed));
        let made = make(produce, &Pool::new(8), |block| to_hash.send(block).map_err(stopped));
        drop(to_hash);
        let result = hashing.join().map_err(|_| Error::Worker)?;
        made.map(|()| result)
    })
}

/// Runs the producer over a cutter.
fn make<P, F>(produce: P, pool: &Pool, pass_on: F) -> Result<(), Error>
where
    P: FnOnce(&mut dyn Write) -> Result<(), Error>,
    F: FnMut(Block) -> io::Result<()>,
{
    let mut cutter = Cutter::new(BLOCK, pool.clone(), pass_on);
    produce(&mut cutter)?;
    cutter.finish().map_err(|source| Error::Blob { action: "write", source })
}

/// Hashes all blocks that come.
pub(super) fn hash(blocks: &Receiver<Block>) -> (Digest, u64) {
    let mut hasher = Hasher::new();
    let mut size = 0;
    for block in blocks {
        hasher.update(&block);
        size += block.len() as u64;
    }
    (hasher.finish(), size)
}

/// The place where the blob goes, hashed on the way.
struct Blob<'a> {
    out: &'a mut dyn Write,
    hasher: Hasher,
    size: u64,
}

impl Write for Blob<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write_all(bytes)?;
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Compresses the blocks in the multithreaded form, which one thread has too: the plain form gives
/// other bytes.
fn zstd(blocks: &Receiver<Block>, threads: usize, to_blob: Sender<Vec<u8>>) -> io::Result<()> {
    let pipe = io::BufWriter::with_capacity(256 * 1024, Pipe(to_blob));
    let mut encoder = zstd::stream::write::Encoder::new(pipe, ZSTD_LEVEL)?;
    encoder.multithread(u32::try_from(threads).unwrap_or(1))?;
    encoder.set_parameter(zstd::zstd_safe::CParameter::JobSize(ZSTD_JOB))?;
    for block in blocks {
        encoder.write_all(&block)?;
    }
    encoder.finish()?.flush()
}

struct Pipe(Sender<Vec<u8>>);

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.send(bytes.to_vec()).map_err(stopped)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    /// A generator of numbers that are the same everywhere.
    struct Numbers(u64);

    impl Numbers {
        fn next(&mut self) -> u64 {
            // xorshift64*
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
        }
    }

    /// 64 MiB and a few bytes, of words, noise, tables and zeros, as a tar has them.
    fn pseudo_tar() -> Vec<u8> {
        const WORDS: [&[u8]; 8] = [
            b"return ",
            b"self.",
            b"\n    ",
            b"import ",
            b"lib/",
            b"0000644\0",
            b"def ",
            b"\0\0\0\0",
        ];
        let mut numbers = Numbers(42);
        let mut seed = Vec::new();
        while seed.len() < 3 << 20 {
            let number = numbers.next();
            match number % 16 {
                0..=10 => {
                    for shift in 0..16 {
                        seed.extend_from_slice(
                            WORDS[usize::try_from(number >> (4 * shift) & 7).unwrap()],
                        );
                    }
                }
                11..=13 => {
                    for _ in 0..number >> 32 & 63 {
                        seed.extend_from_slice(&numbers.next().to_le_bytes());
                    }
                }
                14 => {
                    for entry in 0..number >> 32 & 255 {
                        seed.extend_from_slice(&(number.wrapping_add(entry * 24)).to_be_bytes());
                    }
                }
                _ => seed.resize(seed.len() + usize::try_from(number >> 32 & 4095).unwrap(), 0),
            }
        }
        let mut all = Vec::with_capacity(65 << 20);
        while all.len() < 64 << 20 {
            let start = usize::try_from(numbers.next() % (1 << 20)).unwrap();
            let length = usize::try_from(numbers.next() % (2 << 20)).unwrap();
            all.extend_from_slice(&seed[start..start + length]);
            all.extend_from_slice(&numbers.next().to_le_bytes());
        }
        all.truncate((64 << 20) + 12_345);
        all
    }

    /// Packs with writes of changing sizes.
    fn packed(
        tar: &[u8],
        profile: Profile,
        threads: usize,
        step: Option<u64>,
    ) -> (Packed, Vec<u8>) {
        let mut blob = Vec::new();
        let produce = |out: &mut dyn Write| {
            let mut numbers = Numbers(step.unwrap_or(1));
            let mut rest = tar;
            while !rest.is_empty() {
                let next = match step {
                    None => rest.len(),
                    Some(step) => {
                        usize::try_from(numbers.next() % step + 1).unwrap().min(rest.len())
                    }
                };
                out.write_all(&rest[..next])
                    .map_err(|source| Error::Blob { action: "write", source })?;
                rest = &rest[next..];
            }
            Ok(())
        };
        let packed = pack(profile, threads, produce, &mut blob).unwrap();
        (packed, blob)
    }

    /// Another digest here means that every layer ever pushed would get another one: a new profile
    /// with a new name is the way then, and these stay.
    #[test]
    fn the_bytes_of_a_profile_never_change() {
        let tar = pseudo_tar();
        assert_eq!(
            Digest::of(&tar).to_string(),
            "sha256:64f44c6b120fe9c92e96eea5860ec1d0742055536c9b5e55667a976fcfa04d01",
        );
        for (profile, golden) in [
            (
                Profile::Gzip1,
                "sha256:e9e14b9a8b0395b9b4ae481a430b2827b700310b3e4d9547323881580d63db60",
            ),
            (
                Profile::Zstd1,
                "sha256:5e1916405079154704e13c4ef8cc1f5ae7c4ec79d4471e5f8d2626a72bf788b2",
            ),
        ] {
            for (threads, step) in [(1, None), (2, Some(300_000)), (7, Some(9_000_000))] {
                let (packed, blob) = packed(&tar, profile, threads, step);
                assert_eq!(packed.diff_id, Digest::of(&tar));
                assert_eq!(packed.uncompressed, tar.len() as u64);
                assert_eq!(packed.digest, Digest::of(&blob));
                assert_eq!(packed.size, blob.len() as u64);
                assert_eq!(packed.digest.to_string(), golden, "{profile} {threads} {}", blob.len());
            }
        }
    }

    #[test]
    fn what_does_not_shrink_is_stored() {
        let mut numbers = Numbers(7);
        let noise: Vec<u8> =
            (0..(3 << 20) / 8).flat_map(|_| numbers.next().to_le_bytes()).collect();
        let (packed, blob) = packed(&noise, Profile::Gzip1, 2, None);
        assert!((noise.len()..noise.len() + 1000).contains(&blob.len()), "{}", blob.len());
        assert!(blob.windows(1000).any(|window| window == &noise[5000..6000]));
        assert_eq!(
            packed.digest.to_string(),
            "sha256:a6b52d820f9a42455b8be551ebe670e1f6bc8cdea03bf7e94563a8b23a27b39a",
        );
    }

    #[test]
    fn other_readers_get_the_tar_back() {
        let tar = &pseudo_tar()[..=2 << 20];
        for length in [0, 1, 1 << 20, tar.len()] {
            let (_, gzip) = packed(&tar[..length], Profile::Gzip1, 2, Some(5000));
            let mut back = Vec::new();
            flate2::read::MultiGzDecoder::new(gzip.as_slice()).read_to_end(&mut back).unwrap();
            assert!(back == tar[..length]);
            let (_, zstd) = packed(&tar[..length], Profile::Zstd1, 2, Some(5000));
            assert!(zstd::decode_all(zstd.as_slice()).unwrap() == tar[..length]);
        }
    }

    #[test]
    fn a_failure_on_either_side_is_told_and_ends_all_threads() {
        struct Full(usize);
        impl Write for Full {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0 = self
                    .0
                    .checked_sub(bytes.len())
                    .ok_or_else(|| io::Error::from(io::ErrorKind::StorageFull))?;
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let noise: Vec<u8> = {
            let mut numbers = Numbers(9);
            (0..1 << 20).flat_map(|_| numbers.next().to_le_bytes()).collect()
        };
        for profile in [Profile::Gzip1, Profile::Zstd1] {
            let write = |out: &mut dyn Write| {
                for _ in 0..8 {
                    out.write_all(&noise)
                        .map_err(|source| Error::Blob { action: "write", source })?;
                }
                Ok(())
            };
            let error = pack(profile, 2, write, &mut Full(1 << 20)).unwrap_err();
            let Error::Blob { source, .. } = error else { panic!("{error}") };
            assert_eq!(source.kind(), io::ErrorKind::StorageFull);

            let stop = |out: &mut dyn Write| {
                out.write_all(&noise).map_err(|source| Error::Blob { action: "write", source })?;
                Err(Error::Unsteady { path: "/some/file".into() })
            };
            let error = pack(profile, 2, stop, &mut Full(usize::MAX)).unwrap_err();
            assert!(matches!(error, Error::Unsteady { .. }), "{error}");
        }
    }

    #[test]
    fn measuring_gives_the_diff_id_of_packing() {
        let tar = &pseudo_tar()[..3 << 20];
        let write = |out: &mut dyn Write| {
            out.write_all(tar).map_err(|source| Error::Blob { action: "write", source })
        };
        let (packed, _) = packed(tar, Profile::Gzip1, 1, None);
        assert_eq!(measure(write).unwrap(), (packed.diff_id, packed.uncompressed));
    }
}
