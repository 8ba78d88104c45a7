//! Connections: where to, how, and what an error means.

use std::error::Error as _;
use std::io::ErrorKind;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConfig, RootCertStore};
use tokio_postgres::config::Host;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, Error};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::options::{OptionsError, TableOptions};

/// What a URL begins with, as JDBC has it.
const SCHEME: &str = "jdbc:postgresql://";
/// Variable that has the password where the script does not: as for every client of PostgreSQL.
const PASSWORD_VARIABLE: &str = "PGPASSWORD";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// After this a network that says nothing is taken for gone.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// Where `options` point.
///
/// # Errors
/// [`OptionsError`] naming the option.
pub(super) fn config(options: TableOptions<'_>) -> Result<Config, OptionsError> {
    let url = options.require("url")?;
    let Some(rest) = url.strip_prefix(SCHEME) else {
        return Err(options.error(format!("'url' = '{url}': write '{SCHEME}HOST:PORT/DATABASE'; only PostgreSQL is known")));
    };
    let parsed = Config::from_str(&format!("postgresql://{rest}"));
    let mut config = parsed.map_err(|error| options.error(format!("'url' = '{url}': {}", told(&error))))?;
    if config.get_dbname().is_none() {
        return Err(options.error(format!("'url' = '{url}' names no database: write '{SCHEME}HOST:PORT/DATABASE'")));
    }
    if let Some(user) = options.get("username") {
        config.user(user);
    }
    let password = options.get("password").map(str::to_owned).or_else(|| std::env::var(PASSWORD_VARIABLE).ok());
    if let Some(password) = password.filter(|_| config.get_password().is_none()) {
        config.password(password);
    }
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(CONNECT_TIMEOUT);
    }
    config.tcp_user_timeout(SILENCE_MAX).keepalives_idle(SILENCE_MAX).application_name("weir");
    Ok(config)
}

/// Hosts and database, without what is secret.
pub(super) fn shown(config: &Config) -> String {
    let ports = config.get_ports();
    let port = |place: usize| ports.get(place).or(ports.first()).copied().unwrap_or(5432);
    let hosts: Vec<String> = (config.get_hosts().iter().enumerate())
        .map(|(place, host)| match host {
            Host::Tcp(name) => format!("{name}:{}", port(place)),
            Host::Unix(path) => path.display().to_string(),
        })
        .collect();
    format!("postgresql://{}/{}", hosts.join(","), config.get_dbname().unwrap_or_default())
}

/// Connects; with TLS unless the URL's `sslmode` or the server will not. The connection ends with the client.
///
/// # Errors
/// [`Error`].
pub(super) async fn connect(config: &Config) -> Result<Client, Error> {
    let (client, connection) = config.connect(MakeRustlsConnect::new(tls())).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::info!(error = told(&error), "a connection to PostgreSQL ended");
        }
    });
    Ok(client)
}

/// Trusts whom this machine trusts.
fn tls() -> ClientConfig {
    let mut roots = RootCertStore::empty();
    // Certificates that cannot be used are as good as missing: then a server that shows one of theirs is refused.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(rustls::DEFAULT_VERSIONS);
    match builder {
        Ok(builder) => builder.with_root_certificates(roots).with_no_client_auth(),
        // The provider has all default versions; without any, every handshake fails and says so.
        Err(_) => ClientConfig::builder().with_root_certificates(roots).with_no_client_auth(),
    }
}

/// What the server says, or why there is none.
pub(super) fn told(error: &Error) -> String {
    let Some(database) = error.as_db_error() else {
        let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
        return format!("{error}{cause}");
    };
    let detail = database.detail().map(|detail| format!(" ({detail})")).unwrap_or_default();
    let help = match *database.code() {
        SqlState::INVALID_COLUMN_REFERENCE => {
            "\nhelp: the table needs a PRIMARY KEY or a unique index on the columns of the sink's PRIMARY KEY"
        }
        SqlState::UNDEFINED_COLUMN => "\nhelp: the sink's columns must be columns of the table",
        SqlState::INSUFFICIENT_PRIVILEGE => {
            "\nhelp: the user must be allowed to read and write the table, and weir_progress beside it"
        }
        _ => "",
    };
    format!("{}{detail}{help}", database.message())
}

/// Whether the same may go well a little later.
pub(super) fn is_passing(error: &Error) -> bool {
    let Some(said) = error.as_db_error() else { return error.is_closed() || is_network(error) };
    match *said.code() {
        SqlState::LOCK_NOT_AVAILABLE | SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT => true,
        // Two that make a table at once.
        SqlState::UNIQUE_VIOLATION => said.constraint().is_some_and(|constraint| constraint.starts_with("pg_")),
        // The server goes down, comes up, is full, or asks to try again.
        ref code => matches!(code.code().get(..2).unwrap_or_default(), "08" | "40" | "53" | "57" | "58"),
    }
}

/// Not what was said is wrong, as with a password or a certificate, but the way.
fn is_network(error: &Error) -> bool {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<std::io::Error>());
    cause.is_some_and(|cause| cause.kind() != ErrorKind::InvalidData)
}
