"""`lwm2m serve` under cProfile, each thread by itself, in CPU time: `python -m bench.profiled_server FILE serve ...`.

The profile of every thread that ran Python is written to FILE when the server ends (SIGTERM), merged; waiting
counts nothing because the timer is the thread's CPU clock.
"""

import cProfile
import pstats
import sys
import threading
import time

import lwm2m_server.app  # noqa: F401  what is imported before the profile begins does not stand in it
from lwm2m_server.cli.commands import app


def _profiles() -> list[cProfile.Profile]:
    """Make every thread that starts from now on profile itself; the list grows by one a thread."""
    profiles: list[cProfile.Profile] = []

    def begin(*_: object) -> None:
        # called by the thread itself at its first event; the profiler then takes this hook's place
        profile = cProfile.Profile(time.thread_time)
        profiles.append(profile)
        profile.enable()

    threading.setprofile(begin)
    return profiles


def run(file: str, arguments: list[str]) -> None:
    """Run the command line and write the statistics."""
    profiles = _profiles()
    own = cProfile.Profile(time.thread_time)
    own.enable()
    try:
        app(arguments)
    finally:
        own.disable()
        threading.setprofile(None)
        statistics = pstats.Stats(own)
        for profile in profiles:
            profile.create_stats()
            if profile.getstats():
                statistics.add(profile)
        statistics.dump_stats(file)


if __name__ == "__main__":
    run(sys.argv[1], sys.argv[2:])
