//! Why the engine refused something.

use std::fmt;

use crate::settings::SettingError;

/// Why the engine refused.
#[derive(Debug)]
pub enum Error {
    /// A setting or an argument, named.
    Invalid(String),
    /// Too many actions wait.
    QueueFull,
    /// It was closed, or belongs to another process.
    Closed(&'static str),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(what) => f.write_str(what),
            Self::QueueFull => f.write_str("too many actions wait; try again after the next drain"),
            Self::Closed(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for Error {}

impl From<SettingError> for Error {
    fn from(error: SettingError) -> Self {
        Self::Invalid(error.to_string())
    }
}
