"""What commands say of components, and of what deltas saved."""

from typing import Any

import httpx

COMPONENTS = [
    {"instance": 0, "name": "00", "version": "2.0.0", "digest": "ab" * 32, "capacity": 65536},
    {"instance": 1, "name": "modem", "version": None, "digest": None, "capacity": None},
]
DEVICE: dict[str, Any] = {
    "endpoint": "meter-1",
    "registered": True,
    "firmware": {"version": "2.0.0", "digest": "ab" * 32},
    "capacity": 65536,
    "components": COMPONENTS,
    "applications": [],
    "attributes": {},
    "registration": None,
}
COUNTS: dict[str, Any] = {
    "totals": {"done": 3, "targets": 3},
    "states": {"succeeded": 3},
    "reasons": {"succeeded": {"confirmed-digest": 3}},
    "savings": {"updates": 3, "deltas": 2, "image_bytes": 1000, "sent_bytes": 400, "saved_bytes": 600},
}


def test_a_device_shows_each_component_with_what_is_known_of_it(lwm2m) -> None:
    lwm2m.answer = lambda _: httpx.Response(200, json=DEVICE)
    shown = lwm2m("devices", "show", "meter-1")
    assert shown.exit_code == 0, shown.output
    assert "00 2.0.0 (abababababab, 65536 bytes fit); modem ?" in shown.stdout


def test_statistics_tell_what_deltas_saved_where_there_were_any(lwm2m) -> None:
    lwm2m.answer = lambda _: httpx.Response(200, json=COUNTS)
    assert "deltas saved 600 B (60.0%): 2 of 3 updates" in lwm2m("campaigns", "statistics", "c").stderr
    without = COUNTS | {"savings": COUNTS["savings"] | {"deltas": 0}}
    lwm2m.answer = lambda _: httpx.Response(200, json=without)
    assert "saved" not in lwm2m("campaigns", "statistics", "c").output
