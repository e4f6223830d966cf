//! Compressing a body as it passes.

use std::io::{self, Write};

use coracle_proxy_table::Encoding;

/// Quality of Brotli, 0 to 11: beyond 4 it costs several times what gzip does.
const BROTLI_QUALITY: u32 = 4;
/// Binary logarithm of Brotli's window, in bytes: 256 kB, for what many streams at once take.
const BROTLI_WINDOW: u32 = 18;
/// zstd's own usual level.
const ZSTD_LEVEL: i32 = 3;
/// Binary logarithm of zstd's window: 1 MB. Browsers refuse more than 8 MB.
const ZSTD_WINDOW: u32 = 20;

/// Compresses a body as it passes. What comes out is appended to the buffers it is given; little or nothing comes out of a small
/// piece until [`Encoder::flush`].
pub struct Encoder(Inner);

enum Inner {
    Gzip(flate2::write::GzEncoder<Vec<u8>>),
    Br(Box<brotli::CompressorWriter<Vec<u8>>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = match &self.0 {
            Inner::Gzip(_) => "gzip",
            Inner::Br(_) => "br",
            Inner::Zstd(_) => "zstd",
        };
        f.debug_tuple("Encoder").field(&name).finish()
    }
}

impl Encoder {
    /// One for a body that begins now.
    ///
    /// # Errors
    /// If there is no memory for it.
    pub fn new(encoding: Encoding) -> io::Result<Self> {
        Ok(Self(match encoding {
            Encoding::Gzip => Inner::Gzip(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default())),
            Encoding::Br => Inner::Br(Box::new(brotli::CompressorWriter::new(Vec::new(), 4096, BROTLI_QUALITY, BROTLI_WINDOW))),
            Encoding::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), ZSTD_LEVEL)?;
                encoder.window_log(ZSTD_WINDOW)?;
                Inner::Zstd(encoder)
            }
        }))
    }

    /// Takes the body's next piece.
    ///
    /// # Errors
    /// If there is no memory for it. The body cannot be ended properly then.
    pub fn encode(&mut self, piece: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        match &mut self.0 {
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
        match &mut self.0 {
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
        out.append(&mut match self.0 {
            Inner::Gzip(encoder) => encoder.finish()?,
            Inner::Br(encoder) => encoder.into_inner(),
            Inner::Zstd(encoder) => encoder.finish()?,
        });
        Ok(())
    }

    fn drain(&mut self, out: &mut Vec<u8>) {
        match &mut self.0 {
            Inner::Gzip(encoder) => out.append(encoder.get_mut()),
            Inner::Br(encoder) => out.append(encoder.get_mut()),
            Inner::Zstd(encoder) => out.append(encoder.get_mut()),
        }
    }
}
