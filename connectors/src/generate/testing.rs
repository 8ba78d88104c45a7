//! What the tests of generated sources share.

use std::collections::BTreeMap;
use std::time::Duration;

use weir_model::Clock;
use weir_model::time::Sleep;

/// A clock that stands still, at so many microseconds.
#[derive(Debug)]
pub(super) struct Still(pub(super) i64);

impl Clock for Still {
    fn now_micros(&self) -> i64 {
        self.0
    }

    fn monotonic_micros(&self) -> i64 {
        self.0
    }

    fn sleep(&self, _: Duration) -> Sleep {
        Box::pin(std::future::ready(()))
    }
}

/// `WITH` options.
pub(super) fn with(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}
