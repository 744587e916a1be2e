"""Rules that linters don't know: what pure packages may not touch, and how long a function may be."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PURE = ("lwm2m", "firmware", "devices", "campaigns")
IMPURE_MODULES = {
    "asyncio",
    "socket",
    "time",
    "random",
    "secrets",
    "sqlalchemy",
    "sqlite3",
    "threading",
    "subprocess",
}
IMPURE_CALLS = {"datetime.now", "datetime.utcnow", "date.today", "uuid.uuid1", "uuid.uuid4", "os.urandom"}
FUNCTION_LINES = 60


def pure_files() -> list[Path]:
    return sorted(file for package in PURE for file in (ROOT / "lwm2m_server" / package).rglob("*.py"))


def product_files() -> list[Path]:
    return sorted(
        file for package in ("lwm2m_server", "lwm2m_device") for file in (ROOT / package).rglob("*.py")
    )


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def impurities(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            modules = [node.module or ""]
        else:
            modules = []
        yield from (f"line {node.lineno}: imports {m}" for m in modules if m.split(".")[0] in IMPURE_MODULES)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            called = ast.unparse(node.func)
            if any(called == call or called.endswith("." + call) for call in IMPURE_CALLS):
                yield f"line {node.lineno}: calls {called}"


def test_the_pure_packages_exist() -> None:
    assert {file.parent.name for file in pure_files()} >= set(PURE)


@pytest.mark.parametrize("file", pure_files(), ids=name)
def test_pure_packages_have_no_io_clock_or_randomness(file: Path) -> None:
    assert list(impurities(ast.parse(file.read_text()))) == []


@pytest.mark.parametrize(
    "source", ["import asyncio", "from time import time", "import uuid\nuuid.uuid4()", "datetime.now()"]
)
def test_the_purity_rule_sees_an_impurity(source: str) -> None:
    assert list(impurities(ast.parse(source)))


@pytest.mark.parametrize("file", product_files(), ids=name)
def test_what_a_function_does_fits_on_a_screen(file: Path) -> None:
    # From its first statement on: the parameters of a command are the list of its options.
    long = [
        f"{node.name}: {node.end_lineno - node.body[0].lineno + 1} lines"
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.body[0].lineno + 1 > FUNCTION_LINES
    ]
    assert long == []


@pytest.mark.parametrize("file", product_files(), ids=name)
def test_only_the_transport_imports_the_engine(file: Path) -> None:
    modules = [
        node.module or ""
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ImportFrom)
    ]
    assert "lwm2m_server._engine" not in modules or file.parent.name == "transport"
