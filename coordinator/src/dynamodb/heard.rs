//! Hears what time the service says it is: the `Date` of an answer, beside this machine's clock (W3).

use std::sync::{Arc, Mutex, PoisonError};

use aws_sdk_dynamodb::config::interceptors::{BeforeDeserializationInterceptorContextRef, BeforeTransmitInterceptorContextRef};
use aws_sdk_dynamodb::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_dynamodb::error::BoxError;
use weir_model::Clock;
use weir_model::decide::{Stamp, parse_date};

/// The last answer.
#[derive(Debug, Clone)]
pub(super) struct Heard {
    clock: Arc<dyn Clock>,
    noted: Arc<Mutex<Noted>>,
}

#[derive(Debug, Default)]
struct Noted {
    asked_micros: i64,
    stamp: Option<Stamp>,
}

impl Heard {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, noted: Arc::default() }
    }

    /// What the last answer said; `None` before it, and if it bore no date.
    pub(super) fn stamp(&self) -> Option<Stamp> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner).stamp
    }
}

impl Intercept for Heard {
    fn name(&self) -> &'static str {
        "weir-date"
    }

    fn read_before_transmit(
        &self,
        _context: &BeforeTransmitInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner).asked_micros = self.clock.now_micros();
        Ok(())
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let answered_micros = self.clock.now_micros();
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        let date = context.response().headers().get("date").and_then(parse_date);
        noted.stamp = date.map(|date_micros| Stamp { asked_micros: noted.asked_micros, answered_micros, date_micros });
        Ok(())
    }
}
