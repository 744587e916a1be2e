//! Invariant: any bytes as a certificate, an authority, a key or a chain give a verdict, and only what an authority
//! issued is ever taken.

#![no_main]

use dtls::{CertifiedKey, Role, SigningKey, Trust, Usage};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((&[usage, split], rest)) = bytes.split_first_chunk() else {
        return;
    };
    let (first, second) = rest.split_at(rest.len() * usize::from(split) / 256);
    let trust = Trust::new(&[first.to_vec()]).unwrap_or_default();
    let chain = [second, first];
    let taken = trust.verify(&chain, 1_800_000_000, Role::Client, None);
    assert!(taken.is_err() || !trust.is_empty());
    // Where a path is not needed, whether there is one is told all the same.
    let alone = trust.verify_client(&chain, 1_800_000_000, true);
    assert_eq!(taken.is_ok(), matches!(alone, Ok((_, true))));
    let usage = [
        Usage::CaConstraint,
        Usage::ServiceCertificateConstraint,
        Usage::TrustAnchorAssertion,
        Usage::DomainIssuedCertificate,
    ][usize::from(usage & 3)];
    if let Some(trust) = Trust::pinned(usage, second.to_vec(), &[]) {
        // Without an authority nothing but the pinned certificate itself can be taken.
        trust
            .verify(&chain, 1_800_000_000, Role::Server, Some("localhost"))
            .ok();
        assert!(trust.verify(&[], 0, Role::Server, None).is_err());
    }
    if let Some(key) = SigningKey::from_pkcs8(second) {
        // They belong together only where the certificate has that very key.
        let pair = CertifiedKey::new(vec![first.to_vec()], key);
        assert!(pair.is_none() || !first.is_empty());
    }
});
