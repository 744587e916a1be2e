"""Is the server alive and ready, and what do its counters say."""

from collections.abc import Awaitable, Callable, Mapping

from prometheus_client import CollectorRegistry, generate_latest

from lwm2m_server.errors import Lwm2mError

Check = Callable[[], Awaitable[None]]


class HealthService:
    """Liveness, readiness and metrics."""

    def __init__(self, registry: CollectorRegistry, checks: Mapping[str, Check]) -> None:
        """Each check raises an `Lwm2mError` when its part does not work."""
        self._registry = registry
        self._checks = checks

    def live(self) -> bool:
        """Say that the event loop turns: whoever gets this answer knows."""
        return True

    async def ready(self) -> dict[str, str]:
        """Return every part of the server with `ok` or what is wrong with it."""
        found: dict[str, str] = {}
        for name, check in self._checks.items():
            try:
                await check()
            except Lwm2mError as error:
                found[name] = error.message
            else:
                found[name] = "ok"
        return found

    def metrics(self) -> bytes:
        """Return the counters in Prometheus' text format."""
        return generate_latest(self._registry)
