//! The `Date` of answers that came without one (RFC 9110, section 6.6.1).

use std::cell::RefCell;
use std::time::{Duration, SystemTime};

use coracle_proxy_http::Fields;

thread_local! {
    /// Which second it was, and how that is written: it is asked for thousands of times a second.
    static NOW: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
}

/// Adds the field.
pub(crate) fn put(fields: &mut Fields) {
    let second = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs();
    let added = NOW.try_with(|now| {
        let mut now = now.borrow_mut();
        if now.0 != second {
            *now = (second, httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(second)));
        }
        fields.append("Date", &now.1)
    });
    if !matches!(added, Ok(Ok(()))) {
        tracing::debug!("an answer has no date");
    }
}
