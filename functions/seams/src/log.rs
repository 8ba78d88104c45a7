//! Logs of functions: one JSON object a line on standard error, as the platform collects them.

use std::io::Write;

use tracing_subscriber::EnvFilter;

/// Starts logging; `WEIR_LOG` says what, as `info` or `weir_functions=debug`.
pub fn log_for_machines() {
    let filter = EnvFilter::try_from_env("WEIR_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).json().with_writer(std::io::stderr);
    if subscriber.try_init().is_err() {
        drop(writeln!(std::io::stderr(), "logging was started before"));
    }
}
