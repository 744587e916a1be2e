"""Counters for Prometheus: what the engine counts, and what the server has at hand, read when they are asked for."""

from collections.abc import Callable, Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector, CollectorRegistry

# Of the engine's numbers these are sizes of tables now; all others only grow.
_GAUGES = (
    "peers",
    "registrations",
    "queued",
    "pending",
    "waiting",
    "observations",
    "calls",
    "exchanges",
    "depth",
)


class _Numbers(Collector):
    def __init__(self, sources: Mapping[str, Callable[[], Mapping[str, int]]]) -> None:
        self._sources = sources

    def collect(self) -> Iterator[Metric]:
        for prefix, read in self._sources.items():
            for name, value in sorted(read().items()):
                family = GaugeMetricFamily if any(word in name for word in _GAUGES) else CounterMetricFamily
                metric = family(f"lwm2m_{prefix}_{name}", f"{prefix}: {name.replace('_', ' ')}")
                metric.add_metric([], value)
                yield metric


def registry_of(sources: Mapping[str, Callable[[], Mapping[str, int]]]) -> CollectorRegistry:
    """Make a registry of named sources; each gives numbers by name at the moment it is asked."""
    registry = CollectorRegistry()
    registry.register(_Numbers(sources))
    return registry
