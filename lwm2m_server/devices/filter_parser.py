"""Reads the filter language.

    filter := and-part { "or" and-part }
    and-part := part { "and" part }
    part := "not" part | "(" filter ")" | "all" | "exists" name | test
    test := name ("=" | "!=" | "<" | "<=" | ">" | ">=") value
          | name ["not"] "in" "(" value { "," value } ")"
          | name ["not"] ("like" | "starts with") text
          | name                                            of a boolean: the same as name = true

Text stands in quotes; versions, numbers, `true`, `false` and times may stand bare. A time is ISO 8601
(`2026-01-31`, `2026-01-31T12:00:00Z`; UTC unless it says otherwise) or relative (`90m ago`, `2d ago`; s m h d
w). Keywords are read in any letter case, names are not.
"""

import difflib
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType

from lwm2m_server import versions
from lwm2m_server.devices.attributes import (
    APPLICATION,
    BUILT_IN,
    COMPONENT,
    KEYWORDS,
    MAX_NUMBER,
    AttributeType,
    check_text,
    type_of,
)
from lwm2m_server.devices.filter_lexer import FilterError, Kind, Token, tokens
from lwm2m_server.devices.filter_tree import (
    LISTS,
    ORDERING,
    Ago,
    All,
    And,
    Filter,
    Literal,
    Not,
    Operator,
    Or,
    Test,
)
from lwm2m_server.errors import InvalidInput

MAX_DEPTH = 32  # of parentheses and `not`
MAX_STARS = 4  # in one pattern: each multiplies the work of a match
_NO_ATTRIBUTES: Mapping[str, AttributeType] = MappingProxyType({})
_NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")
_SPAN = re.compile(r"(\d{1,9})([smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_HEX = re.compile(r"(?:[0-9a-f]{2})+")
_TEXTUAL = frozenset({AttributeType.TEXT, AttributeType.VERSION})
_EXAMPLES = {
    AttributeType.TEXT: '"text" in quotes',
    AttributeType.NUMBER: "a number such as 3 or 0.5",
    AttributeType.BOOLEAN: "true or false",
    AttributeType.VERSION: "a version such as 2.1 or 1.10.0-rc1",
    AttributeType.TIME: "a time such as 2d ago or 2026-01-31T12:00:00Z",
    AttributeType.IDENTIFIER: "an identifier in quotes, hex or UUID",
}


def parse(text: str, attributes: Mapping[str, AttributeType] = _NO_ATTRIBUTES) -> Filter:
    """Return the tree of a filter; `attributes` are the operators' attributes that exist, with their types.

    Raises `FilterError`, which says where, what was expected, and the way out.
    """
    return _Parser(text, attributes).filter()


class _Parser:
    def __init__(self, text: str, attributes: Mapping[str, AttributeType]) -> None:
        self._tokens = tokens(text)
        self._at = 0
        self._types = {**attributes, **BUILT_IN}

    def filter(self) -> Filter:
        if self._next().kind is Kind.END:
            raise FilterError("the filter is empty", 0, hint="write `all` to mean every device")
        tree = self._or(0)
        if self._next().kind is not Kind.END:
            raise self._expected("'and', 'or' or the end")
        return tree

    def _next(self) -> Token:
        return self._tokens[self._at]

    def _take(self) -> Token:
        self._at += 1
        return self._tokens[self._at - 1]

    def _keyword(self, *words: str) -> bool:
        """Step over `words` if they come next."""
        following = self._tokens[self._at : self._at + len(words)]
        if [t.text.lower() for t in following if t.kind is Kind.WORD] != list(words):
            return False
        self._at += len(words)
        return True

    def _symbol(self, symbol: str) -> bool:
        if self._next().kind is not Kind.SYMBOL or self._next().text != symbol:
            return False
        self._at += 1
        return True

    def _expected(self, what: str, *, hint: str | None = None) -> FilterError:
        return FilterError(f"expected {what}, found {self._next()}", self._next().position, hint=hint)

    def _or(self, depth: int) -> Filter:
        parts = [self._and(depth)]
        while self._keyword("or"):
            parts.append(self._and(depth))
        return Or(tuple(parts)) if len(parts) > 1 else parts[0]

    def _and(self, depth: int) -> Filter:
        parts = [self._part(depth)]
        while self._keyword("and"):
            parts.append(self._part(depth))
        return And(tuple(parts)) if len(parts) > 1 else parts[0]

    def _part(self, depth: int) -> Filter:
        if depth > MAX_DEPTH:
            raise FilterError(
                f"nested deeper than {MAX_DEPTH}", self._next().position, hint="write it flatter"
            )
        if self._keyword("not"):
            return Not(self._part(depth + 1))
        if self._symbol("("):
            tree = self._or(depth + 1)
            if not self._symbol(")"):
                raise self._expected("'and', 'or' or ')'")
            return tree
        if self._keyword("all"):
            return All()
        if self._keyword("exists"):
            name = self._name()
            return Test(name, self._type(name), Operator.EXISTS)
        return self._test()

    def _name(self) -> str:
        token = self._next()
        if token.kind is not Kind.WORD or token.text.lower() in KEYWORDS:
            raise self._expected("the name of an attribute")
        if token.text not in self._types and type_of(token.text) is None:
            similar = difflib.get_close_matches(token.text, self._types, n=1, cutoff=0.5) or [
                name for name in self._types if name.lower() == token.text.lower()
            ]
            if token.text.startswith(COMPONENT):
                similar = [f"{COMPONENT}NAME.version' or '{COMPONENT}NAME.digest"]
            if token.text.startswith(APPLICATION):
                similar = [f"{APPLICATION}NAME.version' or '{APPLICATION}NAME.active"]
            names = ", ".join(sorted(self._types))
            hint = f"did you mean '{similar[0]}'?" if similar else f"there are: {names}"
            raise FilterError(f"there is no attribute {token.text!r}", token.position, hint=hint)
        return self._take().text

    def _type(self, name: str) -> AttributeType:
        return type_of(name) or self._types[name]

    def _test(self) -> Test:
        name = self._name()
        type_ = self._type(name)
        token = self._next()
        operator = self._operator()
        if operator is None:
            if type_ is not AttributeType.BOOLEAN:
                raise self._expected(f"a comparison of {name}", hint=f"such as {name} = {_EXAMPLES[type_]}")
            return Test(name, type_, Operator.EQUAL, (True,))
        self._check(name, type_, operator, token)
        if operator in LISTS:
            return Test(name, type_, operator, self._list(name, type_, operator))
        return Test(name, type_, operator, (self._value(name, type_, operator),))

    def _operator(self) -> Operator | None:
        if self._next().kind is Kind.SYMBOL and self._next().text in tuple(Operator):
            return Operator(self._take().text)
        for operator in (Operator.NOT_STARTS_WITH, Operator.STARTS_WITH, Operator.NOT_LIKE, Operator.LIKE):
            if self._keyword(*operator.split()):
                return operator
        for operator in (Operator.NOT_IN, Operator.IN):
            if self._keyword(*operator.split()):
                return operator
        return None

    def _check(self, name: str, type_: AttributeType, operator: Operator, token: Token) -> None:
        """Refuse operators that make no sense for the attribute's type."""
        wrong = f"{name} is a {type_} and can't be compared by '{operator}'"
        if operator in ORDERING:
            if type_ in (AttributeType.BOOLEAN, AttributeType.IDENTIFIER):
                raise FilterError(wrong, token.position, hint="use = or !=")
        elif operator in LISTS or operator in (Operator.EQUAL, Operator.NOT_EQUAL):
            if type_ is AttributeType.TIME:
                raise FilterError(wrong, token.position, hint=f"use < and >, such as {name} > 2d ago")
        elif type_ not in _TEXTUAL:
            raise FilterError(wrong, token.position, hint="patterns are for text")

    def _list(self, name: str, type_: AttributeType, operator: Operator) -> tuple[Literal, ...]:
        if not self._symbol("("):
            raise self._expected("'('", hint=f"such as {name} in (…, …)")
        values = [self._value(name, type_, operator)]
        while self._symbol(","):
            values.append(self._value(name, type_, operator))
        if not self._symbol(")"):
            raise self._expected("',' or ')'")
        return tuple(values)

    def _value(self, name: str, type_: AttributeType, operator: Operator) -> Literal:
        token = self._next()
        if token.kind not in (Kind.WORD, Kind.STRING):
            raise self._expected(_EXAMPLES[type_])
        value = self._read(token, type_, operator)
        if value is None:
            raise self._expected(_EXAMPLES[type_], hint=self._advice(token, name, type_, operator))
        self._at += 1
        if isinstance(value, Ago) and not self._keyword("ago"):
            raise self._expected("'ago'", hint=f"such as {name} > {value}")
        return value

    def _read(self, token: Token, type_: AttributeType, operator: Operator) -> Literal | None:
        """Return the literal, None when the token is none of this type."""
        quoted = token.kind is Kind.STRING
        match type_:
            case AttributeType.TEXT:
                return _text(token, operator) if quoted else None
            case AttributeType.VERSION:
                if versions.try_sort_key(token.text) is not None and operator not in (
                    Operator.LIKE,
                    Operator.NOT_LIKE,
                    Operator.STARTS_WITH,
                    Operator.NOT_STARTS_WITH,
                ):
                    return token.text
                return _text(token, operator) if quoted and operator not in ORDERING else None
            case AttributeType.NUMBER:
                return None if quoted else _number(token.text)
            case AttributeType.BOOLEAN:
                return None if quoted else {"true": True, "false": False}.get(token.text.lower())
            case AttributeType.TIME:
                return _time(token.text, quoted=quoted)
            case AttributeType.IDENTIFIER:
                digits = token.text.replace("-", "").lower()
                return digits if _HEX.fullmatch(digits) else None

    def _advice(self, token: Token, name: str, type_: AttributeType, operator: Operator) -> str:
        if type_ in _TEXTUAL and token.kind is Kind.WORD and operator not in ORDERING:
            return f'put text in quotes: {name} {operator} "{token.text}"'
        return f"{name} is a {type_}"


def _text(token: Token, operator: Operator) -> str:
    try:
        check_text(token.text, "filter")
    except InvalidInput as error:
        raise FilterError(error.message, token.position, hint=error.hint) from None
    if operator in (Operator.LIKE, Operator.NOT_LIKE) and token.text.count("*") > MAX_STARS:
        raise FilterError(
            f"more than {MAX_STARS} '*' in one pattern", token.position, hint="split it with `and`"
        )
    return token.text


def _number(text: str) -> int | float | None:
    if not _NUMBER.fullmatch(text):
        return None
    value = float(text)
    if abs(value) > MAX_NUMBER:
        return None
    return int(value) if value.is_integer() else value


def _time(text: str, *, quoted: bool) -> float | Ago | None:
    span = None if quoted else _SPAN.fullmatch(text)
    if span is not None:
        return Ago(int(span[1]) * _SECONDS[span[2]])
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
