//! The account's key: ES256 over P-256, and the signatures that ACME wants (RFC 7515, RFC 7638).

use std::fmt;

use base64::prelude::{BASE64_URL_SAFE_NO_PAD as BASE64, Engine as _};
use ring::{
    digest::{SHA256, digest},
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use serde_json::{Value, json};

/// Signs an account's requests.
pub(crate) struct AccountKey {
    pair: EcdsaKeyPair,
    pkcs8: Vec<u8>,
}

impl fmt::Debug for AccountKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccountKey").finish_non_exhaustive()
    }
}

/// Who signs: a key that has no account yet, or an account.
pub(crate) enum Signer<'a> {
    Key,
    Account(&'a str),
}

impl AccountKey {
    pub(crate) fn generate() -> Result<Self, &'static str> {
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new());
        Self::from_pkcs8(pkcs8.map_err(|_| "no key can be made")?.as_ref().to_vec())
    }

    fn from_pkcs8(pkcs8: Vec<u8>) -> Result<Self, &'static str> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pkcs8, &SystemRandom::new());
        Ok(Self { pair: pair.map_err(|_| "not a P-256 key")?, pkcs8 })
    }

    /// As it is kept in the account's file.
    pub(crate) fn from_text(text: &str) -> Result<Self, &'static str> {
        Self::from_pkcs8(BASE64.decode(text).map_err(|_| "not a key")?)
    }

    /// To be kept in the account's file.
    pub(crate) fn to_text(&self) -> String {
        BASE64.encode(&self.pkcs8)
    }

    fn coordinates(&self) -> (String, String) {
        // An uncompressed point: 4, x, y (SEC 1, section 2.3.3).
        let point = self.pair.public_key().as_ref();
        let (x, y) = point.get(1..).unwrap_or_default().split_at(32);
        (BASE64.encode(x), BASE64.encode(y))
    }

    /// `token.thumbprint` (RFC 8555, section 8.1).
    pub(crate) fn authorization(&self, token: &str) -> String {
        let (x, y) = self.coordinates();
        // RFC 7638, section 3: these members, in this order, without white space.
        let members = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
        format!("{token}.{}", BASE64.encode(digest(&SHA256, members.as_bytes())))
    }

    /// A flattened JWS (RFC 8555, section 6.2); without a payload it is a POST-as-GET.
    pub(crate) fn sign(
        &self,
        signer: &Signer<'_>,
        nonce: &str,
        url: &str,
        payload: Option<&Value>,
    ) -> Result<Value, &'static str> {
        let mut header = json!({ "alg": "ES256", "nonce": nonce, "url": url });
        match signer {
            Signer::Account(account) => header["kid"] = json!(account),
            Signer::Key => {
                let (x, y) = self.coordinates();
                header["jwk"] = json!({ "kty": "EC", "crv": "P-256", "x": x, "y": y });
            }
        }
        let protected = BASE64.encode(header.to_string());
        let payload = payload.map(|payload| BASE64.encode(payload.to_string())).unwrap_or_default();
        let signature = self.pair.sign(&SystemRandom::new(), format!("{protected}.{payload}").as_bytes());
        let signature = BASE64.encode(signature.map_err(|_| "the account's key cannot sign")?);
        Ok(json!({ "protected": protected, "payload": payload, "signature": signature }))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};

    use super::*;

    #[test]
    fn a_key_survives_its_file_and_signs_what_it_says() {
        let key = AccountKey::from_text(&AccountKey::generate().unwrap().to_text()).unwrap();
        let jws = key.sign(&Signer::Key, "n", "https://ca.example/new", Some(&json!({ "a": 1 }))).unwrap();
        let text = |member: &str| jws[member].as_str().unwrap().to_owned();
        let signed = format!("{}.{}", text("protected"), text("payload"));
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key.pair.public_key().as_ref())
            .verify(signed.as_bytes(), &BASE64.decode(text("signature")).unwrap())
            .unwrap();
        let header: Value = serde_json::from_slice(&BASE64.decode(text("protected")).unwrap()).unwrap();
        assert_eq!(header["nonce"], "n");
        assert_eq!(header["jwk"]["crv"], "P-256");
        assert!(header.get("kid").is_none());
        assert_eq!(key.sign(&Signer::Account("a"), "n", "u", None).unwrap()["payload"], "");
        assert!(!format!("{key:?}").contains(&key.to_text()));
    }
}
