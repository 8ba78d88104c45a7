//! HTTP ingest as an AWS Lambda function behind a function URL or an HTTP API: the same routes as `weir serve`.
//!
//! Settings come from the environment: `WEIR_STORE`, `WEIR_COORDINATION`, `WEIR_FOLD_INTERVAL`; who may send, `WEIR_TOKEN` or
//! `WEIR_AUTH`, must be said. The table is not raced at each cold start (T2): whoever made the stream has done that.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use weir_ingest::Seams;
use weir_ingest::server::auth::token_of_function;
use weir_ingest::server::{Server, ServerSettings};
use weir_model::Ids as _;
use weir_seams::text::parse_duration;
use weir_seams::{Durability, Places, RandomIds, SystemClock, UnknownLiveness};

/// A function stops between requests: what is committed at once needs nothing of it afterwards.
const FOLD_INTERVAL: Duration = Duration::ZERO;

fn settings() -> Result<ServerSettings, String> {
    let (token, auth) = (std::env::var("WEIR_TOKEN").ok(), std::env::var("WEIR_AUTH").ok());
    let token = token_of_function(token.as_deref(), auth.as_deref()).map_err(|error| error.to_string())?;
    let mut settings = ServerSettings { token, ..ServerSettings::default() };
    settings.fold.interval = FOLD_INTERVAL;
    if let Ok(text) = std::env::var("WEIR_FOLD_INTERVAL") {
        settings.fold.interval = parse_duration(&text).map_err(|error| format!("WEIR_FOLD_INTERVAL: {error}"))?;
    }
    Ok(settings)
}

async fn open() -> Result<Arc<Server>, Box<dyn std::error::Error>> {
    let settings = settings()?;
    let store = std::env::var("WEIR_STORE").map_err(|_| "WEIR_STORE is not set: name the bucket, s3://BUCKET/PREFIX")?;
    let coordination = std::env::var("WEIR_COORDINATION").ok();
    let places = Places { store, coordination, durability: Durability::Fsync };
    let ids = RandomIds::new();
    let owner = ids.owner();
    let seams = Seams {
        objects: places.open_objects().await?,
        table: places.open_table().await?,
        clock: Arc::new(SystemClock::new()),
        ids: Arc::new(ids),
        owner,
        liveness: Arc::new(UnknownLiveness),
    };
    Ok(Server::new(seams, settings))
}

#[tokio::main]
#[expect(clippy::print_stderr, reason = "the function's last word")]
async fn main() -> ExitCode {
    weir_seams::log_for_machines();
    let server = match open().await {
        Ok(server) => server,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    match lambda_http::run(server.router()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
