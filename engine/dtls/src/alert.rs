//! Alerts (RFC 5246 7.2) and the errors that become one.

use std::fmt;

macro_rules! alerts {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $text:literal;)*) => {
        /// An alert description.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Alert {
            $($(#[$doc])* $name = $code,)*
        }

        impl Alert {
            /// The description that a peer sent, if it is one we know.
            #[must_use]
            pub const fn from_code(code: u8) -> Option<Self> {
                match code {
                    $($code => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// The RFC's name with hyphens.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

alerts! {
    /// The sender is done.
    CloseNotify = 0, "close-notify";
    /// A message that has no place here.
    UnexpectedMessage = 10, "unexpected-message";
    /// A record that does not authenticate.
    BadRecordMac = 20, "bad-record-mac";
    /// A record longer than negotiated.
    RecordOverflow = 22, "record-overflow";
    /// Nothing in common.
    HandshakeFailure = 40, "handshake-failure";
    /// A certificate that cannot be read or whose signature is wrong.
    BadCertificate = 42, "bad-certificate";
    /// A certificate of a kind that is not taken.
    UnsupportedCertificate = 43, "unsupported-certificate";
    /// A certificate that was revoked.
    CertificateRevoked = 44, "certificate-revoked";
    /// A certificate out of its validity.
    CertificateExpired = 45, "certificate-expired";
    /// A certificate refused for another reason.
    CertificateUnknown = 46, "certificate-unknown";
    /// A field out of range.
    IllegalParameter = 47, "illegal-parameter";
    /// No path to a trust anchor.
    UnknownCa = 48, "unknown-ca";
    /// Authentic, but not allowed.
    AccessDenied = 49, "access-denied";
    /// A message that cannot be parsed.
    DecodeError = 50, "decode-error";
    /// A signature or Finished that does not verify.
    DecryptError = 51, "decrypt-error";
    /// No version in common.
    ProtocolVersion = 70, "protocol-version";
    /// The peer offers less security than required.
    InsufficientSecurity = 71, "insufficient-security";
    /// Not the peer's fault.
    InternalError = 80, "internal-error";
    /// The handshake is given up.
    UserCanceled = 90, "user-canceled";
    /// No second handshake inside an association.
    NoRenegotiation = 100, "no-renegotiation";
    /// An extension that was not offered.
    UnsupportedExtension = 110, "unsupported-extension";
    /// No such identity; never sent, only understood.
    UnknownPskIdentity = 115, "unknown-psk-identity";
}

impl fmt::Display for Alert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A fatal error of a handshake: what the peer is told, and what the operator is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Sent to the peer.
    pub alert: Alert,
    /// A kebab-case word for operators.
    pub reason: &'static str,
}

impl Failure {
    pub(crate) const fn new(alert: Alert, reason: &'static str) -> Self {
        Self { alert, reason }
    }
}

impl From<Alert> for Failure {
    fn from(alert: Alert) -> Self {
        Self::new(alert, alert.as_str())
    }
}
