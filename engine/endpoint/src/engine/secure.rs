//! What the caller's thread says about security: credentials, keys, verdicts, stored associations.

use std::sync::Arc;

use coap::Instant;
use dtls::{Identity, ImportError, SealingKey, Secret};

use super::{Engine, Result};
use crate::action::{Action, Listener, SecurityAction};
use crate::error::Error;
use crate::secure::{Gate, Place};
use crate::security::{Secured, Security};
use crate::shared::lock;

impl Engine {
    /// Sets credentials and trust, of listeners and of our client role; sessions go on.
    ///
    /// # Errors
    /// A field cannot be used, or the engine is closed.
    pub fn secure(&self, security: &Security) -> Result<()> {
        self.check_open()?;
        let secured = security.check(&self.checked)?;
        let mut front = lock(&self.front);
        let is_other = |before: &Secured| before.cid_length() != secured.cid_length();
        if front.secured.as_ref().is_some_and(is_other) {
            return Err(Error::Invalid(
                "connection_id_length: must stay what it was while the engine lives".into(),
            ));
        }
        for listener in &mut front.held {
            if let Gate::Devices(devices) = &mut listener.gate {
                devices.server.reconfigure(Arc::clone(&secured.server));
            }
        }
        front.secured = Some(secured.clone());
        self.shared
            .submit_or_wait(Action::Security(SecurityAction::Secure(Box::new(secured))));
        Ok(())
    }

    /// Gives the keys of an identity that a handshake asked for, the current one first; none: it is unknown.
    ///
    /// # Errors
    /// There are more than two, or the engine is closed.
    pub fn provide_psk(&self, handshake: u64, keys: Vec<Secret>) -> Result<()> {
        if keys.len() > 2 {
            return Err(Error::Invalid(
                "keys: at most the current and one former key".into(),
            ));
        }
        self.security(SecurityAction::Psk { handshake, keys })
    }

    /// Takes the peer of a handshake, or does not.
    ///
    /// # Errors
    /// The engine is closed.
    pub fn provide_verdict(&self, handshake: u64, accepted: bool) -> Result<()> {
        self.security(SecurityAction::Verdict { handshake, accepted })
    }

    /// Asks for the keys of this identity again at its next handshake.
    ///
    /// # Errors
    /// The engine is closed.
    pub fn forget_key(&self, identity: Identity) -> Result<()> {
        self.security(SecurityAction::ForgetKey(identity))
    }

    /// Ends the associations and handshakes of this identity and forgets its keys.
    ///
    /// # Errors
    /// The engine is closed.
    pub fn revoke(&self, identity: Identity) -> Result<()> {
        self.security(SecurityAction::Revoke(identity))
    }

    /// Says that what was exported of these records with these marks is durable.
    ///
    /// # Errors
    /// The engine is closed.
    pub fn confirm_sessions(&self, marks: Vec<(u64, u64)>) -> Result<()> {
        self.security(SecurityAction::Confirm(marks))
    }

    fn security(&self, action: SecurityAction) -> Result<()> {
        self.submit(Action::Security(action))
    }

    /// Goes on with stored associations at listeners that are bound and not yet served: row, generation that the
    /// claim has raised it to, and what was stored. Returns how many were `restored`, and how many were refused by
    /// reason.
    ///
    /// # Errors
    /// The engine is closed.
    pub fn restore(&self, sessions: &[(u64, u64, impl AsRef<[u8]>)]) -> Result<Vec<(&'static str, u64)>> {
        self.check_open()?;
        let mut front = lock(&self.front);
        let sealing_key = front
            .secured
            .as_ref()
            .and_then(|secured| secured.sealing_key.clone());
        let now = self.shared.now();
        let mut counts: Vec<(&'static str, u64)> = Vec::new();
        for (record, generation, export) in sessions {
            let outcome = restore(
                &mut front.held,
                (*record, *generation),
                export.as_ref(),
                sealing_key.as_ref(),
                now,
            );
            match counts.iter_mut().find(|(word, _)| *word == outcome) {
                Some((_, count)) => *count += 1,
                None => counts.push((outcome, 1)),
            }
        }
        Ok(counts)
    }
}

/// Gives a stored association to the listener that it came in by, or one of the same family; a word for what became
/// of it.
fn restore(
    held: &mut [Listener],
    (record, generation): (u64, u64),
    export: &[u8],
    key: Option<&SealingKey>,
    now: Instant,
) -> &'static str {
    let Some(((place, sealed), key)) = Place::split(export).zip(key) else {
        return ImportError::Unreadable.as_str();
    };
    let place_of = |listener: &Listener| match &listener.gate {
        Gate::Devices(devices) => Some(devices.place()),
        Gate::Plain | Gate::Servers => None,
    };
    let same = held.iter().position(|listener| place_of(listener) == Some(place));
    let like = |listener: &Listener| place_of(listener).is_some_and(|of| of.is_like(place));
    let found = same.or_else(|| held.iter().position(like));
    let Some(listener) = found.and_then(|index| held.get_mut(index)) else {
        return "no-listener";
    };
    let Gate::Devices(devices) = &mut listener.gate else {
        return "no-listener";
    };
    match devices.server.import(sealed, record, generation, key, now) {
        Ok(id) => {
            listener.restored.push((id, record));
            "restored"
        }
        Err(error) => error.as_str(),
    }
}
