//! Settings of an engine, checked once; an error names the setting.

use std::fmt;
use std::time::Duration;

use coap::Config;

/// A setting that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingError {
    /// Its name.
    pub name: &'static str,
    /// What it must be.
    pub rule: String,
}

impl fmt::Display for SettingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: must be {}", self.name, self.rule)
    }
}

impl std::error::Error for SettingError {}

/// Raw settings as they come from outside; [`Settings::check`] makes sense of them. Times are in seconds.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `ACK_TIMEOUT` (RFC 7252 4.8)
    pub ack_timeout: f64,
    /// `ACK_RANDOM_FACTOR`
    pub ack_random_factor: f64,
    /// `MAX_RETRANSMIT`
    pub max_retransmit: i64,
    /// `NSTART`
    pub nstart: i64,
    /// Until an unanswered CON gets an empty ACK.
    pub processing_delay: f64,
    /// Without progress, until a push fails.
    pub transfer_timeout: f64,
    /// Bytes of one assembled body.
    pub max_body: i64,
    /// Bodies in assembly.
    pub max_assemblies: i64,
    /// Peers with requests of ours.
    pub max_peers: i64,
    /// Requests of ours waiting for one peer.
    pub max_queued: i64,
    /// Requests waiting for Python.
    pub max_events: i64,
    /// Actions waiting for the engine, and requests of ours in total.
    pub max_actions: i64,
    /// Max-Age of 5.03.
    pub busy_max_age: i64,
    /// Coarseness of progress.
    pub progress_bytes: i64,
    /// Block size, both ways.
    pub block_size: i64,
    /// Handshakes under way with devices, on each secure listener.
    pub max_half_open: i64,
    /// The same with one IPv4 /24 or IPv6 /64.
    pub max_half_open_per_prefix: i64,
    /// Handshakes with public keys begun in a second; more are shed.
    pub key_operations_per_second: i64,
    /// The same with one prefix.
    pub key_operations_per_second_per_prefix: i64,
}

/// Settings that hold.
#[derive(Clone, Debug)]
pub struct Checked {
    /// Those of the stack.
    pub coap: Config,
    /// Bounds of DTLS.
    pub dtls: dtls::Config,
    /// Requests that may wait for Python.
    pub max_events: usize,
    /// Actions that may wait.
    pub max_actions: usize,
}

fn seconds(name: &'static str, value: f64, least: f64, most: f64) -> Result<Duration, SettingError> {
    if (least..=most).contains(&value) {
        return Ok(Duration::from_secs_f64(value));
    }
    Err(SettingError {
        name,
        rule: format!("between {least} and {most} seconds, not {value}"),
    })
}

fn whole<T: TryFrom<i64>>(name: &'static str, value: i64, least: i64, most: i64) -> Result<T, SettingError> {
    let error = || SettingError {
        name,
        rule: format!("between {least} and {most}, not {value}"),
    };
    if !(least..=most).contains(&value) {
        return Err(error());
    }
    T::try_from(value).map_err(|_| error())
}

impl Settings {
    /// Checks every setting.
    ///
    /// # Errors
    /// [`SettingError`] for the first one that cannot be used.
    pub fn check(&self) -> Result<Checked, SettingError> {
        if !(1.0..=16.0).contains(&self.ack_random_factor) {
            let rule = format!("between 1 and 16, not {}", self.ack_random_factor);
            return Err(SettingError {
                name: "ack_random_factor",
                rule,
            });
        }
        if !matches!(self.block_size, 16 | 32 | 64 | 128 | 256 | 512 | 1024) {
            let rule = format!(
                "16, 32, 64, 128, 256, 512 or 1024 (RFC 7959 2.2), not {}",
                self.block_size
            );
            return Err(SettingError {
                name: "block_size",
                rule,
            });
        }
        let max_actions = whole("max_actions", self.max_actions, 1, 1 << 24)?;
        let coap = Config {
            ack_timeout: seconds("ack_timeout", self.ack_timeout, 0.001, 3600.0)?,
            ack_random_factor: self.ack_random_factor,
            max_retransmit: whole("max_retransmit", self.max_retransmit, 0, 16)?,
            nstart: whole("nstart", self.nstart, 1, 1024)?,
            processing_delay: seconds("processing_delay", self.processing_delay, 0.0, 3600.0)?,
            transfer_timeout: seconds("transfer_timeout", self.transfer_timeout, 0.001, 86_400.0)?,
            block_size: whole("block_size", self.block_size, 16, 1024)?,
            progress_bytes: whole("progress_bytes", self.progress_bytes, 1, 1 << 40)?,
            max_body: whole("max_body", self.max_body, 1, 1 << 30)?,
            max_assemblies: whole("max_assemblies", self.max_assemblies, 1, 1 << 24)?,
            max_peers: whole("max_peers", self.max_peers, 1, 1 << 26)?,
            max_queued: whole("max_queued", self.max_queued, 1, 1 << 20)?,
            max_calls: max_actions,
            busy_max_age: whole("busy_max_age", self.busy_max_age, 0, 86_400)?,
            ..Config::default()
        };
        let dtls = dtls::Config {
            max_half_open: whole("max_half_open", self.max_half_open, 1, 1 << 20)?,
            max_half_open_per_prefix: whole(
                "max_half_open_per_prefix",
                self.max_half_open_per_prefix,
                1,
                1 << 20,
            )?,
            key_operations_per_second: whole(
                "key_operations_per_second",
                self.key_operations_per_second,
                1,
                1 << 20,
            )?,
            key_operations_per_second_per_prefix: whole(
                "key_operations_per_second_per_prefix",
                self.key_operations_per_second_per_prefix,
                1,
                1 << 20,
            )?,
            ..dtls::Config::default()
        };
        Ok(Checked {
            coap,
            dtls,
            max_events: whole("max_events", self.max_events, 1, 1 << 24)?,
            max_actions,
        })
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            ack_timeout: 2.0,
            ack_random_factor: 1.5,
            max_retransmit: 4,
            nstart: 1,
            processing_delay: 0.5,
            transfer_timeout: 300.0,
            max_body: 1 << 20,
            max_assemblies: 1024,
            max_peers: 1 << 20,
            max_queued: 64,
            max_events: 8192,
            max_actions: 65536,
            busy_max_age: 5,
            progress_bytes: 65536,
            block_size: 1024,
            max_half_open: 32_768,
            max_half_open_per_prefix: 16,
            key_operations_per_second: 2000,
            key_operations_per_second_per_prefix: 200,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_hold() {
        assert!(Settings::default().check().is_ok());
    }

    #[test]
    fn an_error_names_the_setting() {
        let good = Settings::default();
        for (name, bad) in [
            (
                "ack_timeout",
                Settings {
                    ack_timeout: f64::NAN,
                    ..good.clone()
                },
            ),
            (
                "ack_random_factor",
                Settings {
                    ack_random_factor: 0.5,
                    ..good.clone()
                },
            ),
            (
                "block_size",
                Settings {
                    block_size: 1000,
                    ..good.clone()
                },
            ),
            (
                "max_events",
                Settings {
                    max_events: 0,
                    ..good.clone()
                },
            ),
            (
                "max_body",
                Settings {
                    max_body: -1,
                    ..good.clone()
                },
            ),
        ] {
            assert_eq!(bad.check().unwrap_err().name, name);
        }
    }
}
