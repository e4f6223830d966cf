//! The account with an authority: made once, kept in a file, used again after every restart.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    client::{Client, Reply},
    key::{AccountKey, Signer},
    problem::AcmeError,
};
use crate::{
    AcmeOptions, CertError,
    files::{self, Mode},
    storage,
};

/// An account and the authority it is with.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) client: Client,
    key: AccountKey,
    /// Its URL, which identifies it.
    pub(crate) account: String,
    /// Files that were put aside on the way.
    pub(crate) remarks: Vec<String>,
}

/// As it is kept. No `Debug`, as there is a key in it.
#[derive(Serialize, Deserialize)]
struct AccountFile {
    key: String,
    /// Nothing as long as the authority has not confirmed it. The key is kept before it is told to the authority: a crash in between makes
    /// no second account, as the authority finds the first by the key.
    account: Option<String>,
    email: Option<String>,
}

impl Session {
    /// Opens the account in `path`, or makes one.
    pub(crate) async fn open(client: Client, path: &Path, options: &AcmeOptions) -> Result<Self, AcmeError> {
        if client.directory.meta.external_account_required {
            let reason = format!("{} wants an external account, which is not supported", options.directory_url);
            return Err(AcmeError::Protocol(reason));
        }
        let (file, mut remarks) = storage::read_json::<AccountFile>(path);
        let loaded = file.and_then(|file| match AccountKey::from_text(&file.key) {
            Ok(key) => Some((key, file)),
            Err(reason) => {
                remarks.push(storage::set_aside(path, reason));
                None
            }
        });
        let (key, account) = match loaded {
            Some((key, AccountFile { account: Some(account), email, .. })) => {
                if email != options.email {
                    tell_contact(&client, &key, &account, options).await?;
                    save(path, &key, Some(&account), options)?;
                }
                (key, account)
            }
            Some((key, AccountFile { account: None, .. })) => register(&client, key, path, options).await?,
            None => {
                let key = AccountKey::generate().map_err(|reason| AcmeError::Protocol(reason.to_owned()))?;
                save(path, &key, None, options)?;
                register(&client, key, path, options).await?
            }
        };
        Ok(Self { client, key, account, remarks })
    }

    /// A request in the account's name.
    pub(crate) async fn post(&self, url: &str, payload: &Value) -> Result<Reply, AcmeError> {
        self.client.post(&self.key, &Signer::Account(&self.account), url, Some(payload)).await
    }

    /// Reads something of the account's (RFC 8555, section 6.3).
    pub(crate) async fn read(&self, url: &str) -> Result<Reply, AcmeError> {
        self.client.post(&self.key, &Signer::Account(&self.account), url, None).await
    }

    /// What proves to the authority that this account is meant (RFC 8555, section 8.1).
    pub(crate) fn authorization(&self, token: &str) -> String {
        self.key.authorization(token)
    }
}

fn contact(options: &AcmeOptions) -> Vec<String> {
    options.email.iter().map(|email| format!("mailto:{email}")).collect()
}

async fn register(
    client: &Client,
    key: AccountKey,
    path: &Path,
    options: &AcmeOptions,
) -> Result<(AccountKey, String), AcmeError> {
    let payload = json!({ "termsOfServiceAgreed": true, "contact": contact(options) });
    let reply = client.post(&key, &Signer::Key, &client.directory.new_account, Some(&payload)).await?;
    let account = reply.location.ok_or_else(|| AcmeError::Protocol("the authority's new account has no URL".to_owned()))?;
    save(path, &key, Some(&account), options)?;
    tracing::info!(%account, "account with the certificate authority");
    Ok((key, account))
}

async fn tell_contact(client: &Client, key: &AccountKey, account: &str, options: &AcmeOptions) -> Result<(), AcmeError> {
    let payload = json!({ "contact": contact(options) });
    client.post(key, &Signer::Account(account), account, Some(&payload)).await.map(drop)
}

fn save(path: &Path, key: &AccountKey, account: Option<&str>, options: &AcmeOptions) -> Result<(), CertError> {
    let file = AccountFile { key: key.to_text(), account: account.map(ToOwned::to_owned), email: options.email.clone() };
    let content = serde_json::to_vec_pretty(&file).map_err(|error| files::at(path, error.into()))?;
    files::write(path, &content, Mode::Private)
}
