//! The process's AWS credentials as the object store asks for them.

use std::sync::Arc;

use async_trait::async_trait;
use object_store::aws::AwsCredential;
use object_store::{CredentialProvider, Error};
use tokio::sync::Mutex;
use weir_coordinator::dynamodb::{CredentialChain, Keys};
use weir_model::Clock;
use weir_state::s3::Access;

/// Keys are asked for anew this long before they expire.
const RENEWED_BEFORE_MICROS: i64 = 300_000_000;

#[derive(Debug)]
struct Chained {
    chain: CredentialChain,
    clock: Arc<dyn Clock>,
    kept: Mutex<Option<(Arc<AwsCredential>, i64)>>,
}

/// Region and credentials of the chain that the coordination table uses too.
pub(crate) async fn access(clock: Arc<dyn Clock>) -> Access {
    let chain = CredentialChain::load().await;
    let region = chain.region();
    Access { region, credentials: Arc::new(Chained { chain, clock, kept: Mutex::new(None) }) }
}

#[async_trait]
impl CredentialProvider for Chained {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let mut kept = self.kept.lock().await;
        if let Some((credential, until)) = kept.as_ref()
            && self.clock.now_micros() < *until
        {
            return Ok(Arc::clone(credential));
        }
        let keys = self.chain.keys().await;
        let Keys { id, secret, token, expires_micros } =
            keys.map_err(|error| Error::Unauthenticated { path: "the bucket".to_owned(), source: error.into() })?;
        let until = expires_micros.map_or(i64::MAX, |expires| expires.saturating_sub(RENEWED_BEFORE_MICROS));
        let credential = Arc::new(AwsCredential { key_id: id, secret_key: secret, token });
        *kept = Some((Arc::clone(&credential), until));
        Ok(credential)
    }
}
