"""docs/interop.md has the row of each peer, and each row has a test that proves it."""

import re
from pathlib import Path

from interop_table import BEGIN, END, HEAD, ROWS

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_names_the_rows_that_the_tests_prove() -> None:
    text = (ROOT / "docs/interop.md").read_text()
    lines = text.split(BEGIN)[1].split(END)[0].strip().splitlines()
    assert lines[:2] == HEAD.splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    shown = [(peer, server, did) for peer, _, server, did, _ in cells]
    assert shown == [(row.peer, row.server, row.did) for row in ROWS.values()]
    assert {result for *_, result in cells} == {"passed"}


def test_each_row_is_proved_by_a_test() -> None:
    tests = "".join(file.read_text() for file in (ROOT / "tests/interop").glob("test_*.py"))
    assert set(re.findall(r'mark\.row\("([\w-]+)"\)', tests)) == set(ROWS)
