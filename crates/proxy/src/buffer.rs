//! Memory for bytes on their way. A connection has some only while bytes are there: each worker's thread keeps a shelf of
//! what is free, so that the same few buffers, warm in the processor's cache, serve thousands of connections.

use std::cell::RefCell;
use std::io;
use std::io::IoSlice;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Enough for almost every head and small body.
pub(crate) const SMALL: usize = 16 * 1024;
/// For bodies that are longer.
pub(crate) const LARGE: usize = 64 * 1024;
/// How many small ones a thread keeps.
const SMALL_KEPT: usize = 64;
/// How many large ones a thread keeps.
const LARGE_KEPT: usize = 16;

#[derive(Default)]
struct Shelf {
    small: Vec<Box<[u8]>>,
    large: Vec<Box<[u8]>>,
    output: Vec<Vec<u8>>,
}

thread_local! {
    static SHELF: RefCell<Shelf> = const { RefCell::new(Shelf { small: Vec::new(), large: Vec::new(), output: Vec::new() }) };
}

/// On a thread that is ending there is no shelf any more.
fn with_shelf<T: Default>(visit: impl FnOnce(&mut Shelf) -> T) -> T {
    SHELF.try_with(|shelf| visit(&mut shelf.borrow_mut())).unwrap_or_default()
}

/// At least `size` bytes, in one of the usual sizes if possible.
fn take(size: usize) -> Box<[u8]> {
    let size = if size <= SMALL { SMALL } else { size.max(LARGE) };
    let kept = with_shelf(|shelf| match size {
        SMALL => shelf.small.pop(),
        LARGE => shelf.large.pop(),
        _ => None,
    });
    kept.unwrap_or_else(|| vec![0; size].into())
}

fn give_back(bytes: Box<[u8]>) {
    with_shelf(|shelf| match bytes.len() {
        SMALL if shelf.small.len() < SMALL_KEPT => shelf.small.push(bytes),
        LARGE if shelf.large.len() < LARGE_KEPT => shelf.large.push(bytes),
        _ => (),
    });
}

/// Bytes that have been read and not yet been used.
#[derive(Default)]
pub(crate) struct Input {
    /// Empty while there is nothing.
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Input {
    /// What is there.
    pub(crate) fn filled(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// Whether nothing is there.
    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// The first `count` bytes have been used.
    pub(crate) fn consume(&mut self, count: usize) {
        self.start = self.start.saturating_add(count).min(self.end);
    }

    /// Gives the memory back if nothing is in it.
    pub(crate) fn release(&mut self) {
        if self.is_empty() && !self.bytes.is_empty() {
            (self.start, self.end) = (0, 0);
            give_back(std::mem::take(&mut self.bytes));
        }
    }

    /// Reads more, into `room` bytes if nothing is there yet; 0 at the end of the stream, or if `most` bytes are there
    /// already. Keeps no memory while there is nothing to read.
    pub(crate) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut (impl AsyncRead + Unpin),
        room: usize,
        most: usize,
    ) -> Poll<io::Result<usize>> {
        if !self.make_room(room, most) {
            return Poll::Ready(Ok(0));
        }
        let mut into = ReadBuf::new(&mut self.bytes[self.end..]);
        match Pin::new(stream).poll_read(cx, &mut into) {
            Poll::Ready(Ok(())) => {
                let count = into.filled().len();
                self.end += count;
                Poll::Ready(Ok(count))
            }
            other => {
                self.release();
                other.map_ok(|()| 0)
            }
        }
    }

    /// Whether there is room behind what is there.
    fn make_room(&mut self, room: usize, most: usize) -> bool {
        if self.is_empty() {
            (self.start, self.end) = (0, 0);
            if self.bytes.len() < room {
                give_back(std::mem::replace(&mut self.bytes, take(room)));
            }
            return true;
        }
        if self.end < self.bytes.len() {
            return true;
        }
        let length = self.end - self.start;
        if length >= most {
            return false;
        }
        if self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
        } else {
            let mut larger = take((2 * length).min(most));
            larger[..length].copy_from_slice(&self.bytes);
            give_back(std::mem::replace(&mut self.bytes, larger));
        }
        (self.start, self.end) = (0, length);
        true
    }

    /// The bytes that are left, as a vector.
    pub(crate) fn into_rest(mut self) -> Vec<u8> {
        let rest = self.filled().to_vec();
        self.start = self.end;
        rest
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        if !self.bytes.is_empty() {
            give_back(std::mem::take(&mut self.bytes));
        }
    }
}

/// Bytes that wait to be written.
#[derive(Default)]
pub(crate) struct Output {
    bytes: Vec<u8>,
    start: usize,
    /// Whether any has been written, of these or others.
    used: bool,
}

impl Output {
    /// To append to.
    pub(crate) fn bytes(&mut self) -> &mut Vec<u8> {
        if self.bytes.capacity() == 0 {
            self.bytes = with_shelf(|shelf| shelf.output.pop()).unwrap_or_else(|| Vec::with_capacity(4 * 1024));
        }
        &mut self.bytes
    }

    /// How many bytes wait.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// What waits.
    pub(crate) fn waiting(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// Whether none waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether anything has ever been written.
    pub(crate) fn is_used(&self) -> bool {
        self.used
    }

    /// Writes what waits. Says what it has written by the end of it only: `Pending` may have written something.
    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>, stream: &mut (impl AsyncWrite + Unpin)) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            let count = ready!(Pin::new(&mut *stream).poll_write(cx, &self.bytes[self.start..]))?;
            self.wrote(count)?;
        }
        Poll::Ready(Ok(()))
    }

    /// Writes what waits and `more` behind it, with one call where possible. How much of `more` was written.
    pub(crate) fn poll_write_with(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut (impl AsyncWrite + Unpin),
        more: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            if self.is_empty() {
                return match ready!(Pin::new(stream).poll_write(cx, more))? {
                    0 => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    count => {
                        self.used = true;
                        Poll::Ready(Ok(count))
                    }
                };
            }
            let waiting = self.len();
            let slices = [IoSlice::new(&self.bytes[self.start..]), IoSlice::new(more)];
            let count = ready!(Pin::new(&mut *stream).poll_write_vectored(cx, &slices))?;
            self.wrote(count.min(waiting))?;
            if count > waiting {
                return Poll::Ready(Ok(count - waiting));
            }
        }
    }

    fn wrote(&mut self, count: usize) -> io::Result<()> {
        if count == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.used = true;
        self.start += count;
        if self.start == self.bytes.len() {
            self.start = 0;
            self.bytes.clear();
        }
        Ok(())
    }

    /// Forgets what has not been written.
    pub(crate) fn discard(&mut self) {
        self.start = 0;
        self.bytes.clear();
    }

    /// Gives the memory back if nothing is in it.
    pub(crate) fn release(&mut self) {
        if self.is_empty() && self.bytes.capacity() > 0 {
            self.discard();
            let bytes = std::mem::take(&mut self.bytes);
            with_shelf(|shelf| {
                if bytes.capacity() <= LARGE && shelf.output.len() < SMALL_KEPT {
                    shelf.output.push(bytes);
                }
            });
        }
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        self.discard();
        self.release();
    }
}

/// Lends a large buffer for as long as `visit` runs.
pub(crate) fn with_scratch<T>(visit: impl FnOnce(&mut [u8]) -> T) -> T {
    let mut bytes = take(LARGE);
    let result = visit(&mut bytes);
    give_back(bytes);
    result
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn fill(input: &mut Input, stream: &mut (impl AsyncRead + Unpin), most: usize) -> usize {
        std::future::poll_fn(|cx| input.poll_fill(cx, stream, SMALL.min(most), most)).await.unwrap()
    }

    #[tokio::test]
    async fn input_grows_up_to_its_limit_and_has_no_memory_while_it_is_empty() {
        let (mut near, mut far) = tokio::io::duplex(1024 * 1024);
        far.write_all(&vec![7; LARGE + 1]).await.unwrap();
        let mut input = Input::default();
        while fill(&mut input, &mut near, LARGE).await > 0 {}
        assert_eq!(input.filled().len(), LARGE);
        input.consume(1);
        assert_eq!(fill(&mut input, &mut near, LARGE).await, 1);
        input.consume(LARGE);
        assert!(input.is_empty());
        assert!(futures::FutureExt::now_or_never(fill(&mut input, &mut near, SMALL)).is_none());
        assert!(input.bytes.is_empty());
    }

    #[tokio::test]
    async fn output_goes_before_what_is_written_with_it() {
        let (mut near, mut far) = tokio::io::duplex(4);
        let mut output = Output::default();
        output.bytes().extend_from_slice(b"head, ");
        let body = b"body";
        let writer = async {
            let mut sent = 0;
            while sent < body.len() {
                sent += std::future::poll_fn(|cx| output.poll_write_with(cx, &mut near, &body[sent..])).await.unwrap();
            }
            drop(near);
        };
        let mut read = Vec::new();
        let (_, ()) = tokio::join!(far.read_to_end(&mut read), writer);
        assert_eq!(read, b"head, body");
    }
}
