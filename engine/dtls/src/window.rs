//! The replay window (RFC 6347 4.1.2.6): 64 numbers wide, moved by authenticated records only.

/// Numbers below `next` that were seen are set bits, the lowest bit for `next - 1`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) next: u64,
    pub(crate) seen: u64,
}

impl Window {
    /// Not seen yet, and not too old to tell.
    pub(crate) fn admits(&self, sequence: u64) -> bool {
        match self.next.checked_sub(sequence) {
            None | Some(0) => true,
            Some(age) => age <= 64 && self.seen >> (age - 1) & 1 == 0,
        }
    }

    /// Newer than every record so far.
    pub(crate) fn is_newest(&self, sequence: u64) -> bool {
        sequence >= self.next
    }

    /// Takes nothing up to `sequence` any more.
    pub(crate) fn raise(&mut self, sequence: u64) {
        match self.next.checked_sub(sequence) {
            None | Some(0) => {
                self.next = sequence + 1;
                self.seen = u64::MAX;
            }
            Some(age @ 1..=64) => self.seen |= u64::MAX << (age - 1),
            Some(_) => {}
        }
    }

    /// Notes a record that `admits` let pass and that has proved authentic.
    pub(crate) fn note(&mut self, sequence: u64) {
        if let Some(ahead) = sequence.checked_sub(self.next) {
            let shift = ahead + 1;
            self.seen = if shift >= 64 { 0 } else { self.seen << shift };
            self.seen |= 1;
            self.next = sequence + 1;
        } else {
            let age = self.next - sequence;
            if age <= 64 {
                self.seen |= 1 << (age - 1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_number_passes_once_and_only_while_it_is_less_than_65_old(
            steps in prop::collection::vec((0_u64..200, 0_u64..1000), 1..200)
        ) {
            let mut window = Window::default();
            let mut seen = BTreeSet::new();
            let mut base = 0;
            for (spread, jump) in steps {
                if jump > 950 {
                    base += jump;
                }
                let sequence = base + spread;
                let newest = seen.last().copied();
                let admitted = window.admits(sequence);
                let expected = !seen.contains(&sequence)
                    && newest.is_none_or(|newest: u64| sequence + 64 > newest);
                prop_assert_eq!(admitted, expected);
                prop_assert_eq!(window.is_newest(sequence), newest.is_none_or(|newest| sequence > newest));
                if admitted {
                    window.note(sequence);
                    seen.insert(sequence);
                }
            }
        }
    }

    #[test]
    fn a_raised_window_refuses_all_up_to_its_edge_and_keeps_what_is_above() {
        let mut window = Window::default();
        window.raise(99);
        assert!(!window.admits(99) && !window.admits(36) && !window.admits(0));
        assert!(window.admits(100));
        window.note(110);
        window.raise(105);
        assert!(!window.admits(103) && !window.admits(105) && !window.admits(110));
        assert!(window.admits(106) && window.admits(109));
        window.raise(20);
        assert!(window.admits(106) && !window.admits(105));
    }
}
