//! Certificates for the proxy: ACME, a local authority, given ones; storage, renewal, and choosing by SNI.
