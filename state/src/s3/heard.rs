//! Hears what time a store says it is: the `Date` of its first answer, beside this machine's clock (W3).
//!
//! Why at the transport: the client keeps no headers of an answer that says no, and the probe's answer does.

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use object_store::ClientOptions;
use object_store::client::{HttpClient, HttpConnector, HttpError, HttpRequest, HttpResponse, HttpService, ReqwestConnector};
use weir_model::Clock;
use weir_model::decide::{Stamp, parse_date};

/// The first answer of a store.
#[derive(Debug)]
pub(super) struct Heard {
    clock: Arc<dyn Clock>,
    first: OnceLock<Option<Stamp>>,
}

impl Heard {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, first: OnceLock::new() }
    }

    /// What the first answer said; `None` before it, and if it bore no date.
    pub(super) fn stamp(&self) -> Option<Stamp> {
        self.first.get().copied().flatten()
    }

    fn note(&self, asked_micros: i64, response: &HttpResponse) {
        let date = response.headers().get("date").and_then(|date| date.to_str().ok()).and_then(parse_date);
        let answered_micros = self.clock.now_micros();
        self.first.get_or_init(|| date.map(|date_micros| Stamp { asked_micros, answered_micros, date_micros }));
    }
}

/// Makes clients that listen.
#[derive(Debug)]
pub(super) struct Listening(pub(super) Arc<Heard>);

impl HttpConnector for Listening {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = ReqwestConnector::default().connect(options)?;
        Ok(HttpClient::new(Noting { client, heard: Arc::clone(&self.0) }))
    }
}

#[derive(Debug)]
struct Noting {
    client: HttpClient,
    heard: Arc<Heard>,
}

#[async_trait]
impl HttpService for Noting {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        if self.heard.first.get().is_some() {
            return self.client.execute(request).await;
        }
        let asked_micros = self.heard.clock.now_micros();
        let response = self.client.execute(request).await?;
        self.heard.note(asked_micros, &response);
        Ok(response)
    }
}
