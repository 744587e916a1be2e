"""Credentials from CSV, line by line: bounded memory, and a reason for each line that is refused.

The first line names the columns: `endpoint` and `kind`, then as needed `identity`, `key`, `public_key`,
`certificate`, in any order, separated by commas (or semicolons, as spreadsheets of some countries write them).
Fields in double quotes may hold separators and line breaks (RFC 4180), so a PEM file fits into one.
"""

import asyncio
import csv
import hashlib
import hmac
import pickle
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import IO

from lwm2m_server.errors import Conflict, InvalidInput
from lwm2m_server.services.credential_input import Material, checked, endpoint_name, kind_of
from lwm2m_server.services.sealing import SealBroken, Sealer
from lwm2m_server.store.records import Credential, JsonValue, NewEvent
from lwm2m_server.store.security_ports import CredentialStore

COLUMNS = ("endpoint", "kind", "identity", "key", "public_key", "certificate")
TEMPLATE = (
    ",".join(COLUMNS) + "\nmeter-1,psk,meter-1,000102030405060708090a0b0c0d0e0f,,\n"
    "meter-2,rpk,,,MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE…,\nmeter-3,x509,x509:<SHA-256 in hex>,,,\n"
)
MAX_BYTES = 256 << 20
MAX_LINES = 250_000
MAX_RECORD = 64 << 10  # bytes
_BATCH = 500
_ENDLESS = f"A quote is not closed within {MAX_RECORD} bytes"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A line that was not taken; `line` is where it begins, from 1."""

    line: int
    code: str
    field: str
    text: str


@dataclass(slots=True)
class ImportReport:
    """What became of the lines: `unchanged` ones were there with the same endpoint and key."""

    lines: int = 0
    added: int = 0
    unchanged: int = 0
    refused: list[Refusal] = field(default_factory=list)


_Record = tuple[int, list[str]]
_Row = tuple[int, Credential, bytes | None]


class Importer:
    """One import."""

    def __init__(self, store: CredentialStore, sealer: Sealer, *, now: float, actor: str) -> None:
        self._store = store
        self._sealer = sealer
        self._now = now
        self._actor = actor
        self._columns: list[str] = []
        self._first_seen: dict[bytes, int] = {}
        self.report = ImportReport()

    async def run(self, chunks: AsyncIterator[bytes], *, strict: bool) -> ImportReport:
        """Import the file. Raises `InvalidInput` when it can't be read at all, `Conflict` (only with `strict`)
        when the store was changed at the same time.
        """
        with tempfile.TemporaryFile() as shelf:
            async for batch in _batches(chunks, self.report):
                rows = await asyncio.to_thread(self._prepare, batch)
                if strict:
                    fresh = await self._fresh(rows)
                    await asyncio.to_thread(_shelve, shelf, fresh)
                    self.report.added += len(fresh)
                else:
                    await self._add(rows)
            if not self._columns:
                raise InvalidInput(self._no_header(), field="file", hint=_columns_hint())
            if strict:
                await self._add_all(shelf)
        self.report.refused.sort(key=lambda refusal: refusal.line)
        return self.report

    async def _add_all(self, shelf: IO[bytes]) -> None:
        if self.report.refused:
            self.report.added = 0
            return
        taken = await self._store.add_all(lambda: _shelved(shelf, self._event))
        if taken is not None:
            raise Conflict(
                f"Nothing was imported: {taken} was added by somebody else meanwhile.",
                code="identity-taken",
                field="identity",
                hint="Import again.",
            )

    def _no_header(self) -> str:
        return self.report.refused[0].text if self.report.refused else "The file is empty."

    def _prepare(self, records: Sequence[_Record]) -> list[_Row]:
        rows: list[_Row] = []
        for line, fields in records:
            if not self._columns:
                self._columns = _header(fields)
                continue
            self.report.lines += 1
            try:
                rows.append((line, *self._credential(fields, line)))
            except InvalidInput as error:
                self._refuse(line, error)
        return rows

    def _credential(self, fields: Sequence[str], line: int) -> tuple[Credential, bytes | None]:
        if len(fields) != len(self._columns):
            raise InvalidInput(
                f"The line has {len(fields)} fields instead of {len(self._columns)}.", field="line"
            )
        named = dict(zip(self._columns, (text.strip() for text in fields), strict=True))
        endpoint, kind = endpoint_name(named.pop("endpoint")), kind_of(named.pop("kind"))
        found = checked(kind, endpoint, Material(**named), now=self._now, random=None)
        digest = hashlib.sha256(found.identity.encode()).digest()[:12]
        first = self._first_seen.setdefault(digest, line)
        if first != line:
            raise InvalidInput(
                f"The identity {found.identity} stands on line {first} already.",
                code="duplicate",
                field="identity",
            )
        credential = Credential(
            identity=found.identity,
            kind=kind,
            endpoint=endpoint,
            created_at=self._now,
            created_by=self._actor,
            secret=None if found.key is None else self._sealer.seal(found.key, found.identity),
            public=found.public,
            expires_at=found.expires_at,
        )
        return credential, found.key

    def _refuse(self, line: int, error: InvalidInput | Conflict) -> None:
        text = f"{error.message} {error.hint}" if error.hint else error.message
        self.report.refused.append(Refusal(line, error.code, error.field or "", text))

    async def _add(self, rows: Sequence[_Row]) -> None:
        added = await self._store.add_many([(row, self._event(row)) for _, row, _ in rows])
        self.report.added += sum(added)
        rest = [row for row, is_new in zip(rows, added, strict=True) if not is_new]
        if rest:
            self._compare(rest, await self._store.get_many(row.identity for _, row, _ in rest))

    async def _fresh(self, rows: Sequence[_Row]) -> list[Credential]:
        """Return those that aren't there; explain the others."""
        there = await self._store.get_many(row.identity for _, row, _ in rows)
        live = {
            identity: row
            for identity, row in there.items()
            if row.revoked_at is None and (row.expires_at is None or row.expires_at > self._now)
        }
        self._compare([row for row in rows if row[1].identity in live], live)
        return [row for _, row, _ in rows if row.identity not in live]

    def _compare(self, rows: Sequence[_Row], there: dict[str, Credential]) -> None:
        for line, row, key in rows:
            known = there.get(row.identity)
            if known is not None and known.endpoint == row.endpoint and self._has_key(known, key):
                self.report.unchanged += 1
                continue
            whose = (
                "another key" if known is not None and known.endpoint == row.endpoint else "another endpoint"
            )
            self._refuse(
                line,
                Conflict(
                    f"The identity {row.identity} is there already, with {whose}.",
                    code="identity-taken",
                    field="identity",
                    hint="Rotate or remove that one first.",
                ),
            )

    def _has_key(self, known: Credential, key: bytes | None) -> bool:
        if key is None or known.secret is None:
            return key is None and known.secret is None
        try:
            return hmac.compare_digest(self._sealer.open(known.secret, known.identity), key)
        except SealBroken:
            return False

    def _event(self, credential: Credential) -> NewEvent:
        data: dict[str, JsonValue] = {
            "identity": credential.identity,
            "kind": credential.kind,
            "by": self._actor,
        }
        return NewEvent(kind="credential.imported", at=self._now, endpoint=credential.endpoint, data=data)


def _shelve(shelf: IO[bytes], rows: Sequence[Credential]) -> None:
    """Keep rows on the disk until all lines have been read; keys in them are sealed."""
    for row in rows:
        pickle.dump(row, shelf)


def _shelved(
    shelf: IO[bytes], event: Callable[[Credential], NewEvent]
) -> Iterator[tuple[Credential, NewEvent]]:
    shelf.seek(0)
    while True:
        try:
            row: Credential = pickle.load(shelf)  # noqa: S301  we wrote it, into a file that has no name
        except EOFError:
            return
        yield row, event(row)


async def _batches(chunks: AsyncIterator[bytes], report: ImportReport) -> AsyncIterator[list[_Record]]:
    """Split the file into records; a quote that isn't closed ends it, with a refusal."""
    splitter = _Splitter(report)
    batch: list[_Record] = []
    async for chunk in chunks:
        for record in splitter.feed(chunk):
            batch.append(record)
            if len(batch) == _BATCH:
                yield batch
                batch = []
    batch += splitter.finish()
    if batch:
        yield batch


class _Splitter:
    """Cuts text at the ends of records: those of lines outside of quotes, of which a record has an even number."""

    def __init__(self, report: ImportReport) -> None:
        self._report = report
        self._rest = b""
        self._lines: list[bytes] = []
        self._quotes = 0
        self._size = 0
        self._line = 0
        self._records = 0
        self._delimiter = ""
        self._stopped = False

    def feed(self, chunk: bytes) -> list[_Record]:
        if self._stopped:
            return []
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        found = [record for line in lines if (record := self._take(line)) is not None]
        if len(self._rest) > MAX_RECORD:
            self._stop(self._line + 1, _ENDLESS)
        return found

    def finish(self) -> list[_Record]:
        record = self._take(self._rest) if self._rest else None
        if self._lines:
            self._stop(self._line - len(self._lines) + 1, _ENDLESS)
        return [] if record is None else [record]

    def _take(self, line: bytes) -> _Record | None:
        self._line += 1
        if self._stopped:
            return None
        self._lines.append(line.removesuffix(b"\r"))
        self._quotes += line.count(b'"')
        self._size += len(line)
        begin = self._line - len(self._lines) + 1
        if self._size > MAX_RECORD:
            self._stop(begin, _ENDLESS)
            return None
        if self._quotes % 2:
            return None
        record = b"\n".join(self._lines)
        self._lines, self._quotes, self._size = [], 0, 0
        return self._parsed(begin, record) if record.strip() else None

    def _parsed(self, begin: int, record: bytes) -> _Record | None:
        self._records += 1
        if self._records > MAX_LINES + 1:
            self._stop(begin, f"There are more than {MAX_LINES} lines; import the rest as another file")
            return None
        try:
            text = record.decode("utf-8-sig")
            if not self._delimiter:
                self._delimiter = ";" if ";" in text and "," not in text else ","
            (fields,) = csv.reader([text], delimiter=self._delimiter)
        except UnicodeDecodeError:
            self._refuse(begin, "The line is not UTF-8.")
            return None
        except (csv.Error, ValueError):
            self._refuse(begin, "The quotes of this line don't fit (RFC 4180).")
            return None
        return begin, fields

    def _stop(self, line: int, why: str) -> None:
        self._refuse(line, f"{why}; nothing was read from here on.")
        self._stopped, self._rest, self._lines = True, b"", []

    def _refuse(self, line: int, text: str) -> None:
        self._report.refused.append(Refusal(line, "malformed", "line", text))


def _header(fields: Sequence[str]) -> list[str]:
    names = [text.strip().lower() for text in fields]
    unknown = [name for name in names if name not in COLUMNS]
    if unknown or len(set(names)) != len(names) or not {"endpoint", "kind"} <= set(names):
        what = f"'{unknown[0][:40]}' is no column" if unknown else "A column is missing or stands twice"
        raise InvalidInput(f"{what} in the first line.", field="file", hint=_columns_hint())
    return names


def _columns_hint() -> str:
    return f"It names the columns: {','.join(COLUMNS)}; 'lwm2m credentials template' prints an example."
