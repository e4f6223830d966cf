//! The heads of a request and of its answer. There are as many as requests are being answered: each worker's thread keeps
//! those that are free, with the memory that they have grown.

use std::cell::RefCell;

use coracle_proxy_http::{RequestHead, ResponseHead};

/// How many a thread keeps.
const KEPT: usize = 256;

thread_local! {
    // Boxed, because what is lent out is a pointer: a pair is more than a kilobyte.
    #[allow(clippy::vec_box, reason = "a pair is lent in its box")]
    static FREE: RefCell<Vec<Box<Pair>>> = const { RefCell::new(Vec::new()) };
}

/// A request's head and that of its answer.
#[derive(Default)]
pub(crate) struct Pair {
    pub(crate) request: RequestHead,
    pub(crate) response: ResponseHead,
}

/// Lent for one request.
pub(crate) struct Heads(Option<Box<Pair>>);

impl Heads {
    /// With whatever the request before has left in them.
    pub(crate) fn take() -> Self {
        let free = FREE.try_with(|free| free.borrow_mut().pop()).ok().flatten();
        Self(Some(free.unwrap_or_default()))
    }

    /// Both.
    pub(crate) fn pair(&mut self) -> &mut Pair {
        self.0.get_or_insert_default()
    }
}

impl Drop for Heads {
    fn drop(&mut self) {
        let Some(mut pair) = self.0.take() else { return };
        // What has grown large gives its memory back.
        pair.request.clear();
        pair.response.clear();
        let kept = FREE.try_with(|free| {
            let mut free = free.borrow_mut();
            if free.len() < KEPT {
                free.push(pair);
            }
        });
        if kept.is_err() {
            tracing::trace!("on a thread that is ending nothing is kept");
        }
    }
}
