//! Clients from the environment: credentials, region and endpoint as every AWS tool finds them.
//!
//! Why ring: the tree has one TLS stack, rustls, with the crypto that the object store uses too; it needs no CMake and
//! cross-compiles.

use std::fmt;
use std::time::Duration;

use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, SdkConfig};
use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::config::{ProvideCredentials, SharedHttpClient};
use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};

use crate::store::StoreError;

use super::failure::causes;

/// Past it nothing answers at that address.
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// Past it an answer counts as lost; the slowest one in a thousand takes a tenth of that.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// Idle connections are dropped before the service drops them under a request.
const IDLE_MAX: Duration = Duration::from_secs(20);

/// Where a table is, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The table.
    pub table: String,
    /// Its region.
    pub region: String,
    /// An endpoint that is not the region's own.
    pub endpoint: Option<String>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "table {} in {}", self.table, self.region)?;
        match &self.endpoint {
            Some(endpoint) => write!(f, " at {endpoint}"),
            None => Ok(()),
        }
    }
}

/// Clients of one account and region.
#[derive(Debug, Clone)]
pub struct Connection {
    /// For the table.
    pub table: aws_sdk_dynamodb::Client,
    /// For its stream.
    pub streams: aws_sdk_dynamodbstreams::Client,
    region: String,
    endpoint: Option<String>,
}

impl Connection {
    /// Where a table of this name would be.
    #[must_use]
    pub fn place(&self, table: &str) -> Place {
        Place { table: table.to_owned(), region: self.region.clone(), endpoint: self.endpoint.clone() }
    }
}

/// Credentials, region and endpoints of the environment, for clients of other services; they send a request again by themselves.
pub async fn sdk_config() -> SdkConfig {
    let timeouts = TimeoutConfig::builder().connect_timeout(CONNECT_MAX).operation_attempt_timeout(ANSWER_MAX).build();
    aws_config::defaults(BehaviorVersion::v2026_01_12()).http_client(http()).timeout_config(timeouts).load().await
}

/// Connects as the environment says (`AWS_REGION`, `AWS_PROFILE`, `AWS_ENDPOINT_URL_DYNAMODB`, ...). The clients never send a request
/// again by themselves.
///
/// - `endpoint`: instead of the environment's, for the table and its stream.
///
/// # Errors
/// [`StoreError::Invalid`] with the remedy if there is no region or there are no credentials.
pub async fn connect(endpoint: Option<&str>) -> Result<Connection, StoreError> {
    let timeouts = TimeoutConfig::builder().connect_timeout(CONNECT_MAX).operation_attempt_timeout(ANSWER_MAX).build();
    let loader = aws_config::defaults(BehaviorVersion::v2026_01_12()).http_client(http());
    let config = loader.retry_config(RetryConfig::disabled()).timeout_config(timeouts).load().await;
    let Some(region) = config.region() else {
        return Err(StoreError::Invalid("no AWS region: set AWS_REGION, or a region in the profile".to_owned()));
    };
    check_credentials(&config).await?;
    let of_table = endpoint.map(str::to_owned).or_else(|| variable("AWS_ENDPOINT_URL_DYNAMODB"));
    // A local table has its stream at the same place; the stream of another would be the wrong one.
    let of_streams = match endpoint {
        Some(endpoint) => Some(endpoint.to_owned()),
        None => variable("AWS_ENDPOINT_URL_DYNAMODB_STREAMS").or_else(|| of_table.clone()),
    };
    let mut table = aws_sdk_dynamodb::config::Builder::from(&config);
    let mut streams = aws_sdk_dynamodbstreams::config::Builder::from(&config);
    if of_table.is_some() {
        table.set_endpoint_url(of_table.clone());
    }
    if of_streams.is_some() {
        streams.set_endpoint_url(of_streams);
    }
    Ok(Connection {
        table: aws_sdk_dynamodb::Client::from_conf(table.build()),
        streams: aws_sdk_dynamodbstreams::Client::from_conf(streams.build()),
        region: region.to_string(),
        endpoint: of_table.or_else(|| config.endpoint_url().map(str::to_owned)),
    })
}

/// The one TLS stack.
pub(super) fn http() -> SharedHttpClient {
    Builder::new().pool_idle_timeout(IDLE_MAX).tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https()
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

async fn check_credentials(config: &SdkConfig) -> Result<(), StoreError> {
    let Some(provider) = config.credentials_provider() else { return Err(no_credentials("there is no provider")) };
    let found = provider.provide_credentials().await;
    found.map(drop).map_err(|error| no_credentials(&causes(&error)))
}

pub(super) fn no_credentials(why: &str) -> StoreError {
    StoreError::Invalid(format!(
        "no AWS credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or AWS_PROFILE, or run where a role is attached ({why})"
    ))
}
