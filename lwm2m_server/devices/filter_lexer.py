"""Cuts a filter's text into tokens.

What a word means is decided later, by the type of the attribute beside it.
"""

import re
from dataclasses import dataclass
from enum import Enum, auto

from lwm2m_server.errors import InvalidInput

MAX_LENGTH = 4096  # characters of a filter


class FilterError(InvalidInput):
    """A filter that can't be used. `position` is the index of the character at fault."""

    code = "invalid-filter"

    def __init__(self, message: str, position: int, *, hint: str | None = None) -> None:
        super().__init__(f"column {position + 1}: {message}", field="filter", hint=hint)
        self.position = position


class Kind(Enum):
    """What a token is."""

    WORD = auto()  # name, keyword, number, version, time
    STRING = auto()
    SYMBOL = auto()
    END = auto()


@dataclass(frozen=True, slots=True)
class Token:
    """A token; `text` is the string's content without quotes, `position` where it starts."""

    kind: Kind
    text: str
    position: int

    def __str__(self) -> str:
        return "the end" if self.kind is Kind.END else repr(self.text)


_TOKEN = re.compile(
    r"""\s*(?:
        (?P<word>[A-Za-z0-9_+\-][A-Za-z0-9_.+:/\-]*)
      | (?P<string>"(?:[^"\\]|\\.)*" | '(?:[^'\\]|\\.)*')
      | (?P<symbol><=|>=|!=|==|<>|=|<|>|\(|\)|,)
    )""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_SPELLED = {"==": "=", "<>": "!="}


def tokens(text: str) -> list[Token]:
    """Return the tokens of `text`, ended by one of kind END; `FilterError` where it can't be cut."""
    if len(text) > MAX_LENGTH:
        raise FilterError(
            f"the filter is longer than {MAX_LENGTH} characters",
            MAX_LENGTH,
            hint="give the devices an attribute and select by that",
        )
    found: list[Token] = []
    end = len(text.rstrip())
    at = 0
    while at < end:
        match = _TOKEN.match(text, at)
        if match is None:
            raise _unreadable(text, at)
        found.append(_token(match))
        at = match.end()
    found.append(Token(Kind.END, "", end))
    return found


def _token(match: re.Match[str]) -> Token:
    position = match.start(match.lastgroup or 0)
    word, string, symbol = match.group("word", "string", "symbol")
    if word is not None:
        return Token(Kind.WORD, word, position)
    if symbol is not None:
        return Token(Kind.SYMBOL, _SPELLED.get(symbol, symbol), position)
    for escape in _ESCAPE.finditer(string):
        if escape[1] not in "\\\"'":
            raise FilterError(
                f"unknown escape {escape[0]!r}",
                position + escape.start(),
                hint="a backslash stands only before a quote or another backslash; write it twice",
            )
    return Token(Kind.STRING, _ESCAPE.sub(r"\1", string[1:-1]), position)


def _unreadable(text: str, at: int) -> FilterError:
    at += len(text[at:]) - len(text[at:].lstrip())
    if text[at] in "\"'":
        return FilterError("the text that begins here isn't closed", at, hint=f"end it with {text[at]}")
    return FilterError(f"{text[at]!r} is not part of the filter language", at, hint="put text in quotes")
