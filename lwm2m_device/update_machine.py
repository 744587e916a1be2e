"""The machine of object 5 in flash: State and Update Result, what the server configured, deferral.

Every method commits to flash before it returns. Listeners are called after each change of State or Result.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

from lwm2m_device.flash import Flash
from lwm2m_device.layout import Layout
from lwm2m_device.machine import Result, State, Trigger, step
from lwm2m_device.update_state import StateStore, UpdateRecord, UpdateState
from lwm2m_server.clock import Clock


class UpdateMachine:
    """State and Update Result of each instance, with the record behind them.

    A device with one component has one instance, 0. `focus` is the instance whose package is on its way, or asked
    about: a device has one transfer, and asks about one installation, at a time.
    """

    def __init__(self, flash: Flash, layout: Layout, clock: Clock) -> None:
        self.flash = flash
        self.layout = layout
        self._clock = clock
        self._store = StateStore(flash, layout)
        self.focus = self._under_way()
        self.listeners: list[Callable[[], None]] = []

    @property
    def record(self) -> UpdateRecord:
        """The states of all instances, with banks and plan, as they are in flash."""
        return self._store.record

    @property
    def states(self) -> tuple[UpdateState, ...]:
        """The present states by instance."""
        return self._store.record.states

    @property
    def state(self) -> UpdateState:
        """The present state of the instance in focus."""
        return self.states[self.focus]

    @property
    def refusal(self) -> tuple[str, str]:
        """Code and text of the last refusal, empty when what came after it was none."""
        latest = max(state.changed for state in self.states)
        last = [state for state in self.states if state.changed == latest]
        refused = next((state for state in last if state.code), self.state)
        return refused.code, refused.text

    @property
    def damaged(self) -> bool:
        """Say whether the stored update state can't be read; `reconcile` mends it."""
        return self._store.damaged

    def configure(self, *, severity: int | None = None, defer: int | None = None, instance: int = 0) -> None:
        """Keep Severity (0..2) or Maximum Defer Period (seconds) of an instance."""
        state = self.states[instance]
        self._keep(
            replace(
                state,
                severity=state.severity if severity is None else severity,
                defer=state.defer if defer is None else defer,
            ),
            instance,
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

    def commit(self, record: UpdateRecord) -> None:
        """Make this the present record, and tell the listeners."""
        now = self._clock.now()
        states = tuple(
            after if after.state is before.state else _entered(after, now)
            for before, after in zip(self.states, record.states, strict=True)
        )
        self._store.store(replace(record, states=states))
        for listener in self.listeners:
            listener()

    def with_states(self, changes: Mapping[int, UpdateState]) -> UpdateRecord:
        """Return the present record with other states for some instances."""
        states = tuple(changes.get(instance, state) for instance, state in enumerate(self.states))
        return replace(self.record, states=states)

    def _happen(self, trigger: Trigger, base: UpdateState, *, cause: Result = Result.INITIAL) -> None:
        """Apply an event of the device's own; `cause` is the result where the table leaves it open."""
        found = step(self.state.state, trigger)
        if found is not None:
            self._enter(found.state, cause if found.result is None else found.result, base)

    def _enter(self, state: State, result: Result, base: UpdateState) -> None:
        entered = replace(base, state=state, result=result, changed=self.state.changed)
        self.commit(self.with_states({self.focus: entered}))

    def _keep(self, state: UpdateState, instance: int | None = None) -> None:
        """Store details that nobody observes."""
        self._store.store(self.with_states({self.focus if instance is None else instance: state}))

    def _under_way(self) -> int:
        """Return the instance that a restart goes on with."""

        def rank(instance: int) -> tuple[bool, bool, bool]:
            state = self.states[instance]
            return (
                state.state is State.DOWNLOADING,
                state.state is State.UPDATING,
                state.state is State.DOWNLOADED and state.result is Result.DEFERRED,
            )

        return max(range(len(self.states)), key=rank)


def _entered(state: UpdateState, now: float) -> UpdateState:
    # A new State is a new question to the application.
    return replace(state, deferred_until=0.0, agreed=False, changed=now)


def fresh(state: UpdateState, *, uri: str = "", source: str = "") -> UpdateState:
    """Forget the update but keep what the server configured."""
    return UpdateState(
        uri=uri, source=source, severity=state.severity, defer=state.defer, changed=state.changed
    )
