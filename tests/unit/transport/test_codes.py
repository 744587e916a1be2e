"""CoAP codes as numbers and as text."""

import pytest

from lwm2m_server.transport import Code, dotted, is_success


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (Code.GET, "0.01"),
        (Code.IPATCH, "0.07"),
        (Code.CREATED, "2.01"),
        (Code.CONTENT, "2.05"),
        (Code.CONTINUE, "2.31"),
        (Code.REQUEST_ENTITY_INCOMPLETE, "4.08"),
        (Code.CONFLICT, "4.09"),
        (Code.UNPROCESSABLE_ENTITY, "4.22"),
        (Code.TOO_MANY_REQUESTS, "4.29"),
        (Code.SERVICE_UNAVAILABLE, "5.03"),
    ],
)
def test_code_is_class_times_32_plus_detail(code: Code, text: str) -> None:
    assert code.dotted == text
    assert dotted(int(code)) == text


def test_a_bare_2_00_of_real_devices_is_a_success() -> None:
    assert is_success(64)
    assert is_success(Code.VALID)
    assert not is_success(Code.BAD_REQUEST)
