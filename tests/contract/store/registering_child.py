"""Registers devices until it is killed, and prints each endpoint once it was acknowledged.

python registering_child.py DATABASE SEED
"""

import asyncio
import os
import random
import sys
from pathlib import Path

from lwm2m_server.devices.records import Registration
from lwm2m_server.store import open_sqlite


async def main(path: Path, seed: int) -> None:
    store = await open_sqlite(path)
    random_ = random.Random(seed)

    async def device(name: str) -> None:
        for round_ in range(10_000):
            registration = Registration(
                registration_id=f"{name}-{round_}",
                endpoint=f"{name}-{round_ % 50}",
                address="192.0.2.1:5683",
                registered_at=float(round_),
                last_seen=float(round_),
                expires_at=1e9,
                links="</3/0>" * random_.randrange(200),
            )
            (result,) = await store.registrations.register([registration])
            if isinstance(result, Exception):
                raise result
            # straight to the pipe: what was acknowledged must be seen, whatever happens next
            os.write(1, f"{registration.endpoint} {registration.registration_id}\n".encode())

    await asyncio.gather(*(device(f"dev{n}") for n in range(20)))


asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
