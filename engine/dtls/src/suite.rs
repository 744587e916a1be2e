//! Cipher suites (RFC 6655, 7251, 5487, 5289, 8442): AES-128 and SHA-256; AEAD, and the two with CBC that OMA demands.

/// How the premaster secret comes about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyExchange {
    /// RFC 4279 2.
    Psk,
    /// RFC 5489, 8442.
    EcdhePsk,
    /// RFC 8422.
    EcdheEcdsa,
}

impl KeyExchange {
    pub(crate) const fn has_psk(self) -> bool {
        matches!(self, Self::Psk | Self::EcdhePsk)
    }

    pub(crate) const fn has_ecdhe(self) -> bool {
        matches!(self, Self::EcdhePsk | Self::EcdheEcdsa)
    }
}

/// The record cipher of a suite that authenticates as it encrypts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Aead {
    Ccm8,
    Ccm,
    Gcm,
}

impl Aead {
    pub(crate) const fn tag_length(self) -> usize {
        match self {
            Self::Ccm8 => 8,
            Self::Ccm | Self::Gcm => 16,
        }
    }
}

/// Which comes first in a suite with CBC (RFC 7366).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum MacOrder {
    #[default]
    MacThenEncrypt,
    EncryptThenMac,
}

macro_rules! suites {
    ($($name:ident = $code:literal, $exchange:ident, $aead:expr, $text:literal;)*) => {
        /// A cipher suite.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u16)]
        pub enum Suite {
            $(#[doc = concat!("`", $text, "`")] $name = $code,)*
        }

        impl Suite {
            /// Every suite, the ones that LwM2M asks for first.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The suite of a code point.
            #[must_use]
            pub const fn from_code(code: u16) -> Option<Self> {
                match code {
                    $($code => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// The suite of a registered name.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                match name {
                    $($text => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// The code point.
            #[must_use]
            pub const fn code(self) -> u16 {
                match self {
                    $(Self::$name => $code,)*
                }
            }

            /// The registered name.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }

            /// Its key exchange.
            #[must_use]
            pub const fn key_exchange(self) -> KeyExchange {
                match self {
                    $(Self::$name => KeyExchange::$exchange,)*
                }
            }

            /// `None` is CBC.
            pub(crate) const fn aead(self) -> Option<Aead> {
                match self {
                    $(Self::$name => $aead,)*
                }
            }

            pub(crate) const fn is_cbc(self) -> bool {
                self.aead().is_none()
            }
        }
    };
}

suites! {
    PskCcm8 = 0xc0a8, Psk, Some(Aead::Ccm8), "TLS_PSK_WITH_AES_128_CCM_8";
    EcdheEcdsaCcm8 = 0xc0ae, EcdheEcdsa, Some(Aead::Ccm8), "TLS_ECDHE_ECDSA_WITH_AES_128_CCM_8";
    PskGcm = 0x00a8, Psk, Some(Aead::Gcm), "TLS_PSK_WITH_AES_128_GCM_SHA256";
    EcdheEcdsaGcm = 0xc02b, EcdheEcdsa, Some(Aead::Gcm), "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256";
    PskCcm = 0xc0a4, Psk, Some(Aead::Ccm), "TLS_PSK_WITH_AES_128_CCM";
    EcdheEcdsaCcm = 0xc0ac, EcdheEcdsa, Some(Aead::Ccm), "TLS_ECDHE_ECDSA_WITH_AES_128_CCM";
    EcdhePskGcm = 0xd001, EcdhePsk, Some(Aead::Gcm), "TLS_ECDHE_PSK_WITH_AES_128_GCM_SHA256";
    EcdhePskCcm8 = 0xd003, EcdhePsk, Some(Aead::Ccm8), "TLS_ECDHE_PSK_WITH_AES_128_CCM_8_SHA256";
    EcdhePskCcm = 0xd005, EcdhePsk, Some(Aead::Ccm), "TLS_ECDHE_PSK_WITH_AES_128_CCM_SHA256";
    PskCbc = 0x00ae, Psk, None, "TLS_PSK_WITH_AES_128_CBC_SHA256";
    EcdheEcdsaCbc = 0xc023, EcdheEcdsa, None, "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256";
}
