//! Retransmission of a confirmable message with exponential back-off (RFC 7252 4.2).

use std::time::Duration;

use crate::config::Times;
use crate::random::Random;
use crate::time::Instant;

/// The clock of one confirmable message that waits for its ACK or RST.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    timeout: Duration,
    retransmissions: u32,
    /// When to act next.
    pub(crate) at: Instant,
}

impl Backoff {
    /// For a message sent now: the first wait is random between `ACK_TIMEOUT` and × `ACK_RANDOM_FACTOR`.
    pub(crate) fn new(times: &Times, random: &mut Random, now: Instant) -> Self {
        let timeout = times.ack + random.within(times.spread);
        Self {
            timeout,
            retransmissions: 0,
            at: now + timeout,
        }
    }

    /// The wait is over without an answer. True: send again, the next wait is twice as long. False: give up.
    pub(crate) fn again(&mut self, times: &Times, now: Instant) -> bool {
        if self.retransmissions >= times.retransmissions {
            return false;
        }
        self.retransmissions += 1;
        self.timeout = self.timeout.saturating_mul(2);
        self.at = now + self.timeout;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn a_message_is_sent_max_retransmit_times_again_and_given_up_within_max_transmit_wait() {
        let config = Config::default();
        for seed in 0..200 {
            let mut backoff = Backoff::new(&config.times(), &mut Random::new(seed), Instant::ZERO);
            let first = backoff.at.since(Instant::ZERO);
            assert!(
                first >= config.ack_timeout && first <= config.max_ack_wait(),
                "seed {seed}: {first:?}"
            );
            let mut last = Instant::ZERO;
            for _ in 0..4 {
                last = backoff.at;
                assert!(backoff.again(&config.times(), last), "seed {seed}");
            }
            assert!(
                last.since(Instant::ZERO) <= config.max_transmit_span(),
                "seed {seed}"
            );
            assert!(!backoff.again(&config.times(), backoff.at), "seed {seed}");
            assert!(
                backoff.at.since(Instant::ZERO) <= config.max_transmit_wait(),
                "seed {seed}"
            );
        }
    }

    #[test]
    fn the_derived_times_are_those_of_rfc_7252_4_8_2() {
        let config = Config::default();
        assert_eq!(config.max_transmit_span(), Duration::from_secs(45));
        assert_eq!(config.max_transmit_wait(), Duration::from_secs(93));
        assert_eq!(config.exchange_lifetime(), Duration::from_secs(247));
        assert_eq!(config.non_lifetime(), Duration::from_secs(145));
    }
}
