"""The machine of object 5 in flash: State and Update Result, what the server configured, deferral.

Every method commits to flash before it returns. Listeners are called after each change of State or Result.
"""

from collections.abc import Callable
from dataclasses import replace

from lwm2m_device.flash import Flash
from lwm2m_device.layout import Layout
from lwm2m_device.machine import Result, State, Trigger, step
from lwm2m_device.update_state import StateStore, UpdateState
from lwm2m_server.clock import Clock


class UpdateMachine:
    """State and Update Result with the record behind them."""

    def __init__(self, flash: Flash, layout: Layout, clock: Clock) -> None:
        self.flash = flash
        self.layout = layout
        self._clock = clock
        self._store = StateStore(flash, layout)
        self.listeners: list[Callable[[], None]] = []

    @property
    def state(self) -> UpdateState:
        """The present state, as it is in flash."""
        return self._store.state

    @property
    def damaged(self) -> bool:
        """Say whether the stored update state can't be read; `reconcile` mends it."""
        return self._store.damaged

    def configure(self, *, severity: int | None = None, defer: int | None = None) -> None:
        """Keep Severity (0..2) or Maximum Defer Period (seconds)."""
        state = self.state
        self._store.store(
            replace(
                state,
                severity=state.severity if severity is None else severity,
                defer=state.defer if defer is None else defer,
            )
        )

    def defer(self, seconds: float) -> bool:
        """Put the download or the installation off, within the Maximum Defer Period; False when that is over."""
        now, left = self._clock.now(), self.may_defer()
        if left <= 0:
            return False
        since = self.state.deferred_since or now
        until = now + min(seconds, left)
        self._happen(Trigger.DEFERRED, replace(self.state, deferred_since=since, deferred_until=until))
        return True

    def deferred(self) -> float:
        """Return for how many seconds this update has been put off so far."""
        since = self.state.deferred_since
        return max(0.0, self._clock.now() - since) if since else 0.0

    def may_defer(self) -> float:
        """Return for how many seconds it may still be put off."""
        return max(0.0, self.state.defer - self.deferred())

    def pause(self) -> float:
        """Return the seconds until the application is asked again; 0 when it is time.

        Never longer than what is left of the period, which the server may shorten, and a clock may be set back.
        """
        until = self.state.deferred_until
        return max(0.0, min(until - self._clock.now(), self.may_defer())) if until else 0.0

    def agree(self) -> None:
        """Note that the application lets the download begin: it is not asked again after a restart."""
        self._happen(Trigger.AGREED, replace(self.state, deferred_until=0.0, agreed=True))

    def _happen(self, trigger: Trigger, base: UpdateState, *, cause: Result = Result.INITIAL) -> None:
        """Apply an event of the device's own; `cause` is the result where the table leaves it open."""
        found = step(self.state.state, trigger)
        if found is not None:
            self._enter(found.state, cause if found.result is None else found.result, base)

    def _enter(self, state: State, result: Result, base: UpdateState) -> None:
        changed = self.state.changed
        if state is not self.state.state:
            # A new State is a new question to the application.
            base = replace(base, deferred_until=0.0, agreed=False)
            changed = self._clock.now()
        self._store.store(replace(base, state=state, result=result, changed=changed))
        for listener in self.listeners:
            listener()


def fresh(state: UpdateState, *, uri: str = "", source: str = "") -> UpdateState:
    """Forget the update but keep what the server configured."""
    return UpdateState(
        uri=uri, source=source, severity=state.severity, defer=state.defer, changed=state.changed
    )
