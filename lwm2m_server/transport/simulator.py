"""The simulator: fleets of light devices for trying campaigns, and load that measures (`engine/simulator`)."""

from lwm2m_server._engine import Fleet, Load

__all__ = ["Fleet", "Load"]
