"""What is measured over DTLS: handshakes, registrations and answers behind them, and what a session takes."""

from collections.abc import Callable
from dataclasses import replace

from bench.children import Child
from bench.keys import Keys
from bench.scenarios import LANES, Measurement, Memory, measure, registrations
from lwm2m_server.transport.simulator import DeviceSecurity, Load

PSK = "PSK handshake"
PSK_AGAIN = "PSK handshake, key known"
MUTUAL = "ECDHE-ECDSA handshake, raw public keys both ways"
ANSWER = "1 KB answer over PSK"


def psk_handshakes(child: Child, count: int, *, shared: bool = True) -> Measurement:
    """Handshakes of devices that the server has not seen, with cookie, 50 at a time.

    Not `shared`: each from an address of its own, for servers that have one association an address.
    """

    def shake(prefix: str, count: int) -> dict[str, float]:
        load = child.load(LANES) if shared else child.new_load(count)
        return load.handshake(count, prefix=prefix)

    return measure(
        PSK, child, lambda: shake("first-", count), warm_up=lambda: shake("warm-", max(count // 4, LANES))
    )


def psk_handshakes_again(child: Child, count: int) -> Measurement:
    """Handshakes of the same devices once more: ours has their keys in the engine."""
    return measure(PSK_AGAIN, child, lambda: child.load(LANES).handshake(count, prefix="first-"))


def mutual_handshakes(child: Child, devices: DeviceSecurity, count: int) -> Measurement:
    """Handshakes with ECDHE and raw public keys on both sides: two signatures, two verifications, two agreements."""
    load = child.new_load(LANES, devices)
    return measure(
        MUTUAL,
        child,
        lambda: load.handshake(count, prefix="rpk-"),
        warm_up=lambda: load.handshake(count // 2, prefix="rpk-"),
    )


def answers(child: Child, count: int) -> Measurement:
    """A request of 30 bytes that is answered with 1 KB, sealed by AES-128-CCM-8."""
    load = child.new_load(LANES)
    load.handshake(LANES, prefix="get-")
    return measure(
        ANSWER,
        child,
        lambda: load.get(["small"], count),
        warm_up=lambda: load.get(["small"], max(count // 4, LANES)),
    )


def secure_registrations(child: Child, devices: int, *, rounds: int, durable: bool) -> list[Measurement]:
    """Handshake and registration of that many devices, then bare Updates of all of them."""
    done = registrations(child, devices, rounds=rounds, durable=durable)
    return [
        replace(each, work=work)
        for each, work in zip(
            done,
            (
                "PSK handshake + registration",
                "registration update over PSK",
                "registration update over PSK, each stored",
            ),
            strict=False,
        )
    ]


def session_memory(child: Child, count: int, used: Callable[[], int]) -> Memory:
    """Memory after that many handshakes; devices share 50 addresses."""
    loads: list[Load] = [child.new_load(LANES), child.new_load(LANES)]
    loads[0].handshake(LANES * 40, prefix="warm-")
    before = used()
    loads[1].handshake(count, prefix="held-")
    return Memory(child.name, count, (used() - before) / count, "a session, devices share 50 addresses")


def shared_devices(keys: Keys, child: Child, count: int) -> DeviceSecurity:
    """Return devices with raw public keys; Leshan knows one key, of ours each has its own."""
    return keys.rpk_devices(count, one_key=child.name == "Leshan")
