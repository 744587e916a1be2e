"""The documentation says what the code does: tables, commands, codes, filters and links."""

import ast
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import doctables
from doctables import ROOT
from lwm2m_server.api import problems
from lwm2m_server.config import Settings
from lwm2m_server.devices.attributes import AttributeType
from lwm2m_server.devices.filter import parse
from lwm2m_server.lwm2m.ddf import parse_ddf

DOCUMENTS = doctables.documents()
NAMES = [str(document.relative_to(ROOT)) for document in DOCUMENTS]
CLI, API, FIRMWARE = (ROOT / "docs" / name for name in ("cli.md", "api.md", "firmware.md"))
OPERATORS = {"region": AttributeType.TEXT, "floor": AttributeType.NUMBER}

each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=NAMES)


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^ *```{language}\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)


def command_lines(document: Path) -> Iterator[list[str]]:
    """Every call of our programs in the shell blocks of a document, as words."""
    for block in blocks(document.read_text(encoding="utf-8"), "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words and words[0] in doctables.programs():
                yield [word for word in words if word != "&" and not re.match(r"2?>", word)]


@each_document
def test_tables_are_what_the_code_says(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    assert doctables.renewed(text) == text, "python tests/support/doctables.py brings them in step"


@each_document
def test_tables_are_closed_and_known(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    opened = re.findall(r"<!-- table: (\S+) -->", text)
    assert len(opened) == len(doctables.BLOCK.findall(text)) == text.count("<!-- end -->")
    assert set(opened) <= doctables.TABLES.keys()


def test_every_table_stands_somewhere() -> None:
    everything = "".join(document.read_text(encoding="utf-8") for document in DOCUMENTS)
    assert [name for name in doctables.TABLES if f"<!-- table: {name} -->" not in everything] == []


@each_document
def test_commands_in_examples_exist_and_take_these_options(document: Path) -> None:
    for words in command_lines(document):
        command: Any = doctables.programs()[words[0]]
        rest = words[1:]
        while hasattr(command, "commands"):
            assert rest, f"{words} names no command"
            assert rest[0] in command.commands, f"{' '.join(words)}: there is no {rest[0]}"
            command, rest = command.commands[rest[0]], rest[1:]
        with command.make_context(words[0], rest, resilient_parsing=False) as context:
            assert context.args == [], words


@each_document
def test_links_inside_the_project_lead_somewhere(document: Path) -> None:
    text = re.sub(r"```.*?```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#:]*)(?:#[^)]*)?\)", text):
        assert not target or (document.parent / target).exists(), f"{document.name} links to {target}"


@each_document
def test_anchors_are_headings(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    for target, anchor in re.findall(r"\]\(([^)#:]*)#([^)]*)\)", text):
        there = (document.parent / target).read_text(encoding="utf-8") if target else text
        headings = re.findall(r"^#+ (.*)$", there, re.MULTILINE)
        slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
        assert anchor in slugs, f"{document.name} links to #{anchor}"


def test_every_problem_code_in_the_source_is_explained() -> None:
    text = API.read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`[a-z`, -]+`) \| ([\d, any]*) \|", text, re.MULTILINE)
    explained = {code for names, _ in rows for code in re.findall(r"`([^`]+)`", names)}
    raised = _codes_in_source() | set(problems._CODES.values()) | {"http", "internal", "not-ready"}
    assert raised - explained == set()
    assert explained - raised == set()


def _codes_in_source() -> set[str]:
    """`code="…"` of calls and `code = "…"` of classes."""
    found = set()
    for file in (ROOT / "lwm2m_server").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            values: list[ast.expr | None] = []
            if isinstance(node, ast.Call):
                values = [keyword.value for keyword in node.keywords if keyword.arg == "code"]
            elif isinstance(node, ast.ClassDef):
                values = [
                    item.value
                    for item in node.body
                    if isinstance(item, ast.Assign) and ast.unparse(item.targets[0]) == "code"
                ]
            found |= {
                each.value
                for each in values
                if isinstance(each, ast.Constant) and isinstance(each.value, str)
            }
    return found


def test_every_filter_in_the_documentation_can_be_read() -> None:
    lines = [
        line
        for document in DOCUMENTS
        for block in blocks(document.read_text(encoding="utf-8"), "filter")
        for line in block.splitlines()
    ]
    assert lines
    for line in lines:
        parse(line, OPERATORS)


@each_document
def test_settings_in_examples_are_settings(document: Path) -> None:
    for block in blocks(document.read_text(encoding="utf-8"), "toml"):
        Settings(**tomllib.loads(block))


def test_the_example_of_an_object_definition_can_be_loaded() -> None:
    text = (ROOT / "docs" / "objects.md").read_text(encoding="utf-8")
    (document,) = blocks(text, "xml")
    (definition,) = parse_ddf(document.encode(), "example.xml")
    assert definition.name == "Pump"
