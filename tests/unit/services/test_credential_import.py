"""CSV: each line counts or is explained, whatever the file looks like, in bounded memory."""

import csv
import io
import tracemalloc

import pytest

from certificates import Issuer, pem, public_key
from lwm2m_server.errors import Conflict, InvalidInput
from lwm2m_server.services.credential_import import COLUMNS, MAX_RECORD, TEMPLATE, Importer, Refusal
from lwm2m_server.services.sealing import Sealer
from lwm2m_server.store import open_sqlite
from lwm2m_server.store.memory import MemoryStore
from lwm2m_server.store.records import Credential, NewEvent

KEY = "00112233445566778899aabbccddeeff"


@pytest.fixture
def store():
    return MemoryStore()


async def run(store, text, *, strict=False, size=7):
    content = text.encode() if isinstance(text, str) else text

    async def chunks():
        for at in range(0, len(content), size):
            yield content[at : at + size]

    importer = Importer(store.credentials, Sealer(bytes(32)), now=1000.0, actor="ann")
    return await importer.run(chunks(), strict=strict)


def counts(report):
    return report.lines, report.added, report.unchanged, len(report.refused)


def lines(*rows):
    return "endpoint,kind,identity,key\n" + "".join(f"{row}\n" for row in rows)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("size", [1, 7, 100_000])
async def test_every_kind_is_imported_sealed_and_told(store, strict, size):
    rows = [
        {"endpoint": "m1", "kind": "psk", "key": KEY},
        {"endpoint": "m2", "kind": "RPK", "public_key": public_key().hex()},
        {"endpoint": "m3", "kind": "x509", "certificate": pem(Issuer().issue("m3"))},
        {"endpoint": "m4", "kind": "x509", "identity": "x509:" + "ab" * 32},
        {"endpoint": 'quote " comma,', "kind": "psk", "identity": "q", "key": KEY},
    ]
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS)
    writer.writeheader()
    writer.writerows(rows)
    report = await run(store, out.getvalue(), strict=strict, size=size)
    assert counts(report) == (5, 5, 0, 0)
    found = (await store.credentials.page()).items
    assert {row.endpoint for row in found} == {row["endpoint"] for row in rows}
    sealed = await store.credentials.get("psk:m1")
    assert Sealer(bytes(32)).open(sealed.secret, "psk:m1") == bytes.fromhex(KEY)
    events = await store.events.after(0)
    assert {event.kind for event in events} == {"credential.imported"}
    assert {event.endpoint for event in events} == {row["endpoint"] for row in rows}
    assert events[0].data["by"] == "ann"
    assert KEY not in repr(events)


async def test_each_refused_line_is_named_with_its_reason_and_the_others_are_taken(store):
    report = await run(
        store,
        lines(
            f"good,psk,,{KEY}",
            f",psk,,{KEY}",
            f"m,nfc,,{KEY}",
            "m,psk,,xyz",
            "m,psk,,",
            f"m,psk,,{KEY},more",
            "",
            f"twin,psk,good,{KEY}",
            f"m,psk,%,{KEY}",
        ),
    )
    assert counts(report) == (8, 1, 0, 7)
    assert [(each.line, each.field) for each in report.refused] == [
        (3, "endpoint"),
        (4, "kind"),
        (5, "key"),
        (6, "key"),
        (7, "line"),
        (9, "identity"),
        (10, "identity"),
    ]
    assert "line 2" in report.refused[5].text
    assert all("xyz" not in each.text for each in report.refused)


async def test_the_same_line_again_changes_nothing_and_another_key_is_refused(store):
    await run(store, lines(f"m1,psk,,{KEY}", "m2,x509,x509:" + "ab" * 32 + ","))
    for strict in (False, True):
        again = await run(store, lines(f"m1,psk,,{KEY}", "m2,x509,x509:" + "AB" * 32 + ","), strict=strict)
        assert counts(again) == (2, 0, 2, 0)
        other = await run(store, lines(f"m1,psk,,{KEY[::-1]}", f"m9,psk,m1,{KEY}"), strict=strict)
        assert counts(other) == (2, 0, 0, 2)
        assert "another key" in other.refused[0].text
    assert len(await store.events.after(0)) == 2


async def test_strict_takes_all_lines_or_none(store):
    text = lines(f"m1,psk,,{KEY}", "m2,psk,,bad")
    assert counts(await run(store, text, strict=True)) == (2, 0, 0, 1)
    assert (await store.credentials.page()).items == ()
    assert await store.events.after(0) == []
    assert counts(await run(store, lines(f"m1,psk,,{KEY}"), strict=True)) == (1, 1, 0, 0)


async def test_strict_takes_none_when_somebody_else_was_faster(store, monkeypatch):
    look = store.credentials.get_many

    async def and_then_somebody_adds(identities):
        found = await look(identities)
        rival = Credential(identity="psk:m2", kind="psk", endpoint="rival", created_at=1.0)
        await store.credentials.add(rival, events=[NewEvent(kind="x", at=1.0)])
        return found

    monkeypatch.setattr(store.credentials, "get_many", and_then_somebody_adds)
    with pytest.raises(Conflict, match="psk:m2"):
        await run(store, lines(f"m1,psk,,{KEY}", f"m2,psk,,{KEY}"), strict=True)
    assert [row.endpoint for row in (await store.credentials.page()).items] == ["rival"]


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("", "empty"),
        ("\n\n", "empty"),
        ("endpoint\n", "missing"),
        ("endpoint,kind,kind\n", "twice"),
        ("endpoint,kind,color\n", "'color' is no column"),
        (b"\xff\xfe\x00", "not UTF-8"),
        ('endpoint,"kind\n' + "x" * MAX_RECORD, "quote is not closed"),
    ],
)
async def test_a_file_without_a_proper_first_line_is_refused_as_a_whole(store, content, match):
    with pytest.raises(InvalidInput, match=match) as caught:
        await run(store, content, size=1000)
    assert caught.value.field == "file"
    assert "lwm2m credentials template" in caught.value.hint


async def test_spreadsheets_write_marks_semicolons_and_other_line_ends(store):
    text = f"\ufeffKind;Endpoint;Key\r\npsk;m1;{KEY}\r\n"
    assert counts(await run(store, text)) == (1, 1, 0, 0)
    text = f"endpoint,kind,key\nm2,psk,{KEY}"
    assert counts(await run(store, text)) == (1, 1, 0, 0), "the last line needs no end"


@pytest.mark.parametrize(
    ("tail", "text"),
    [
        (b'm2,psk,"open,' + b"x\n" * MAX_RECORD, "not closed"),
        (b'm2,psk,"open', "not closed"),
        (b"m2,psk,\xff\n", "not UTF-8"),
        (b"x" * 3 * MAX_RECORD, "not closed"),
    ],
)
async def test_what_can_not_be_read_further_is_said_and_what_came_before_counts(store, tail, text):
    report = await run(store, lines(f"m1,psk,,{KEY}").encode() + tail, size=1000)
    assert counts(report) == (1, 1, 0, 1)
    assert report.refused[0].line == 3
    assert text in report.refused[0].text


async def test_quotes_in_the_wrong_place_refuse_their_line_alone(store):
    report = await run(store, lines('m"1"x\rz,psk,,' + KEY, f"m2,psk,,{KEY}"))
    assert (report.added, len(report.refused)) == (1, 1)


async def test_the_template_shows_every_column(store):
    report = await run(store, TEMPLATE)
    assert TEMPLATE.splitlines()[0].split(",") == list(COLUMNS)
    assert (report.lines, report.added) == (3, 1), "the others stand for what only their owner has"


@pytest.mark.parametrize("strict", [False, True])
async def test_a_hundred_thousand_lines_fit_into_bounded_memory(tmp_path, strict, monkeypatch):
    class Fast(Sealer):
        """Sealing is not what is measured."""

        def seal(self, secret, identity):
            return secret

    count = 20_000

    async def chunks():
        yield b"endpoint,kind,key\n"
        for at in range(0, count, 100):
            yield "".join(f"meter-{n},psk,{KEY}\n" for n in range(at, at + 100)).encode()

    store = await open_sqlite(tmp_path / "test.sqlite3")
    importer = Importer(store.credentials, Fast(bytes(32)), now=1.0, actor="ann")
    report = await importer.run(chunks(), strict=strict)
    assert counts(report) == (count, count, 0, 0)
    assert await store.credentials.get(f"psk:meter-{count - 1}") is not None
    assert await store.events.last_id() == count
    await store.close()


async def test_memory_does_not_grow_with_the_lines(store):
    async def peak(count):
        async def chunks():
            yield b"endpoint,kind,key\n"
            for n in range(count):
                yield f"meter-{n},psk,{KEY}\n".encode()

        class Nowhere:
            async def add_many(self, rows):
                return [True] * len(rows)

        tracemalloc.start()
        await Importer(Nowhere(), Sealer(bytes(32)), now=1.0, actor="ann").run(chunks(), strict=False)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    small, large = await peak(2000), await peak(6000)
    assert (large - small) / 4000 < 250, "bytes a line: a short digest of its identity"


def test_a_refusal_says_nothing_secret():
    assert "key" not in repr(Refusal(1, "invalid", "identity", "bad"))
