//! Compressing a body as it passes.
//!
//! Each encoder takes some hundred kilobytes for as long as its body is under way, and that is up to whoever reads it: a client that asks
//! for many answers and reads none would have them all. So all encoders together have so much room and no more; beyond it, answers go
//! out as they are.

use std::io::{self, Write};
use std::sync::atomic::{AtomicUsize, Ordering};

use coracle_proxy_table::Encoding;

/// Quality of Brotli, 0 to 11: beyond 4 it costs several times what gzip does.
const BROTLI_QUALITY: u32 = 4;
/// Binary logarithm of Brotli's window, in bytes: 256 kB, for what many streams at once take.
const BROTLI_WINDOW: u32 = 18;
/// zstd's own usual level.
const ZSTD_LEVEL: i32 = 3;
/// Binary logarithm of zstd's window, for the same reason.
const ZSTD_WINDOW: u32 = 18;
/// The smallest window of either, for bodies that are shorter than the usual one.
const LEAST_WINDOW: u32 = 12;
/// What all encoders may take together, in bytes.
const ROOM: usize = 64 << 20;

/// What they take, in bytes.
static TAKEN: AtomicUsize = AtomicUsize::new(0);

/// Compresses a body as it passes. What comes out is appended to the buffers it is given; little or nothing comes out of a small
/// piece until [`Encoder::flush`].
pub struct Encoder {
    inner: Inner,
    _room: Room,
}

/// So many bytes of what all encoders may take.
struct Room(usize);

impl Room {
    fn take(bytes: usize) -> Option<Self> {
        let more = |taken: usize| taken.checked_add(bytes).filter(|taken| *taken <= ROOM);
        match TAKEN.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more) {
            Ok(_) => Some(Self(bytes)),
            Err(_) => None,
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        TAKEN.fetch_sub(self.0, Ordering::Relaxed);
    }
}

enum Inner {
    Gzip(flate2::write::GzEncoder<Vec<u8>>),
    Br(Box<brotli::CompressorWriter<Vec<u8>>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = match &self.inner {
            Inner::Gzip(_) => "gzip",
            Inner::Br(_) => "br",
            Inner::Zstd(_) => "zstd",
        };
        f.debug_tuple("Encoder").field(&name).finish()
    }
}

impl Encoder {
    /// One for a body that begins now, of so many bytes if that is known. Nothing if there is no room for it.
    pub fn new(encoding: Encoding, length: Option<u64>) -> Option<Self> {
        let room = Room::take(cost(encoding, length))?;
        let inner = match encoding {
            Encoding::Gzip => Inner::Gzip(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default())),
            Encoding::Br => {
                let window = window(length, BROTLI_WINDOW);
                Inner::Br(Box::new(brotli::CompressorWriter::new(Vec::new(), 4096, BROTLI_QUALITY, window)))
            }
            Encoding::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), ZSTD_LEVEL).ok()?;
                encoder.window_log(window(length, ZSTD_WINDOW)).ok()?;
                encoder.set_pledged_src_size(length).ok()?;
                Inner::Zstd(encoder)
            }
        };
        Some(Self { inner, _room: room })
    }

    /// Takes the body's next piece.
    ///
    /// # Errors
    /// If there is no memory for it. The body cannot be ended properly then.
    pub fn encode(&mut self, piece: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        match &mut self.inner {
            Inner::Gzip(encoder) => encoder.write_all(piece),
            Inner::Br(encoder) => encoder.write_all(piece),
            Inner::Zstd(encoder) => encoder.write_all(piece),
        }?;
        self.drain(out);
        Ok(())
    }

    /// Makes everything taken so far come out, for bodies that pause. Each time costs some bytes.
    ///
    /// # Errors
    /// As [`Encoder::encode`].
    pub fn flush(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        match &mut self.inner {
            Inner::Gzip(encoder) => encoder.flush(),
            Inner::Br(encoder) => encoder.flush(),
            Inner::Zstd(encoder) => encoder.flush(),
        }?;
        self.drain(out);
        Ok(())
    }

    /// Ends the body.
    ///
    /// # Errors
    /// As [`Encoder::encode`].
    pub fn finish(self, out: &mut Vec<u8>) -> io::Result<()> {
        out.append(&mut match self.inner {
            Inner::Gzip(encoder) => encoder.finish()?,
            Inner::Br(encoder) => encoder.into_inner(),
            Inner::Zstd(encoder) => encoder.finish()?,
        });
        Ok(())
    }

    fn drain(&mut self, out: &mut Vec<u8>) {
        match &mut self.inner {
            Inner::Gzip(encoder) => out.append(encoder.get_mut()),
            Inner::Br(encoder) => out.append(encoder.get_mut()),
            Inner::Zstd(encoder) => out.append(encoder.get_mut()),
        }
    }
}

/// The binary logarithm of a window that a body of so many bytes fits into, or the usual one.
fn window(length: Option<u64>, usual: u32) -> u32 {
    let bits = length.map_or(usual, |length| u64::BITS - length.saturating_add(16).leading_zeros());
    bits.clamp(LEAST_WINDOW, usual)
}

/// What an encoder takes, in bytes: measured with many of them at once, and rounded up.
fn cost(encoding: Encoding, length: Option<u64>) -> usize {
    match encoding {
        Encoding::Gzip => 400 << 10,
        Encoding::Br if length.is_some_and(|length| length < 1 << 14) => 640 << 10,
        Encoding::Br => 2 << 20,
        Encoding::Zstd => (384 << 10) + (4 << window(length, ZSTD_WINDOW)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn windows_are_as_large_as_bodies_and_no_larger_than_usual() {
        let sizes = [None, Some(0), Some(4000), Some(5000), Some(200_000), Some(10_000_000), Some(u64::MAX)];
        assert_eq!(sizes.map(|length| window(length, 18)), [18, 12, 12, 13, 18, 18, 18]);
    }

    /// What this process has in memory, in bytes.
    fn resident() -> usize {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
    }

    /// One test, since what is taken is of the whole process.
    #[test]
    fn all_encoders_together_take_no_more_than_there_is() {
        each_takes_what_is_reckoned();
        all_have_so_much_room();
    }

    fn each_takes_what_is_reckoned() {
        let text: Vec<u8> = (0..400_000_u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 27) as u8 + b'a').collect();
        let mut out = Vec::with_capacity(1 << 20);
        for (encoding, length) in [
            (Encoding::Gzip, None),
            (Encoding::Br, None),
            (Encoding::Zstd, None),
            (Encoding::Br, Some(5000)),
            (Encoding::Br, Some(60_000)),
            (Encoding::Br, Some(200_000)),
            (Encoding::Zstd, Some(60_000)),
            (Encoding::Zstd, Some(200_000)),
            (Encoding::Zstd, Some(5000)),
        ] {
            let before = resident();
            let mut all: Vec<_> = (0..20).map(|_| Encoder::new(encoding, length).unwrap()).collect();
            for encoder in &mut all {
                out.clear();
                encoder.encode(&text[..length.map_or(text.len(), |length| length as usize)], &mut out).unwrap();
                out.clear();
                encoder.flush(&mut out).unwrap();
            }
            let each = resident().saturating_sub(before) / all.len();
            assert!(each <= cost(encoding, length) * 5 / 4, "{encoding:?} {length:?}: {each} of {}", cost(encoding, length));
            // Kept, so that what follows finds nothing that was given back.
            std::mem::forget(all);
            TAKEN.store(0, Ordering::Relaxed);
        }
    }

    fn all_have_so_much_room() {
        for encoding in [Encoding::Gzip, Encoding::Br, Encoding::Zstd] {
            let all: Vec<_> = (0..10_000).map_while(|_| Encoder::new(encoding, None)).collect();
            assert!(all.len() >= 32 && all.len() < 1000, "{encoding:?}: {}", all.len());
            // Short ones take less.
            let room = ROOM - TAKEN.load(Ordering::Relaxed);
            assert!(room < cost(encoding, None), "{encoding:?}: {room} bytes are left beside {}", all.len());
            drop(all);
            assert!(Encoder::new(encoding, Some(100)).is_some());
        }
    }
}
