//! The process's one credential chain, for clients that are not the SDK's: the object store signs with the same keys.

use std::time::UNIX_EPOCH;

use aws_config::{BehaviorVersion, SdkConfig};
use aws_sdk_dynamodb::config::ProvideCredentials;

use crate::store::StoreError;

use super::connect::no_credentials;
use super::failure::causes;

/// Keys to sign with.
#[derive(Clone)]
pub struct Keys {
    /// Access key id.
    pub id: String,
    /// Secret access key.
    pub secret: String,
    /// Session token of keys that expire.
    pub token: Option<String>,
    /// When they expire, microseconds UTC.
    pub expires_micros: Option<i64>,
}

impl std::fmt::Debug for Keys {
    /// Never shows the secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys").field("id", &self.id).field("expires_micros", &self.expires_micros).finish_non_exhaustive()
    }
}

/// Environment, profile, web identity, container and instance roles, in this order.
#[derive(Debug, Clone)]
pub struct CredentialChain(SdkConfig);

impl CredentialChain {
    /// Reads what the environment and the profile say.
    pub async fn load() -> Self {
        Self(aws_config::defaults(BehaviorVersion::v2026_01_12()).http_client(super::connect::http()).load().await)
    }

    /// Region of the environment or the profile.
    #[must_use]
    pub fn region(&self) -> Option<String> {
        self.0.region().map(ToString::to_string)
    }

    /// The present keys; asks again whoever gives them.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] with the remedy if there are none.
    pub async fn keys(&self) -> Result<Keys, StoreError> {
        let Some(provider) = self.0.credentials_provider() else { return Err(no_credentials("there is no provider")) };
        let found = provider.provide_credentials().await.map_err(|error| no_credentials(&causes(&error)))?;
        let since = found.expiry().and_then(|expiry| expiry.duration_since(UNIX_EPOCH).ok());
        Ok(Keys {
            id: found.access_key_id().to_owned(),
            secret: found.secret_access_key().to_owned(),
            token: found.session_token().map(str::to_owned),
            expires_micros: since.map(|since| i64::try_from(since.as_micros()).unwrap_or(i64::MAX)),
        })
    }
}
