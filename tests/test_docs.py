"""The guide: every block of code in it runs, and the reference names everything that is public."""

from __future__ import annotations

import ast
import doctest
import importlib
import re
import shlex
import sys
from pathlib import Path

import pytest

from rdgap.__main__ import main

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(path for path in (ROOT / "docs").rglob("*.md") if "api" not in path.parts)
PACKAGES = sorted(path.parent for path in (ROOT / "rdgap").glob("*/__init__.py"))
WITH_EXAMPLES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in (ROOT / "rdgap").rglob("*.py")
    if ">>> " in path.read_text(encoding="utf-8")
)


def blocks(page: Path) -> list[tuple[str, str]]:
    """Return the language and text of each block of code."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def test_there_are_blocks_and_each_has_a_language_that_is_run() -> None:
    languages = {language for page in PAGES for language, _ in blocks(page)}
    assert languages == {"python", "sh"}
    assert all(page.read_text(encoding="utf-8").count("```") == 2 * len(blocks(page)) for page in PAGES)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_runs_in_its_order(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)  # where `python -m` looks first
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for module in ("my_codec", "my_source"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    names: dict[str, object] = {"__name__": "__main__"}
    for language, text in blocks(page):
        if language == "python":
            exec(compile(text, f"{page.name}: {text[:40]!r}", "exec"), names)
            importlib.invalidate_caches()
            continue
        for line in text.replace("\\\n", " ").splitlines():
            words = shlex.split(line)
            assert words[:2] == ["python", "-m"], line
            package, *others = words[2:]
            assert main([package.removeprefix("rdgap."), *others] if package != "rdgap" else others) == 0, line


@pytest.mark.parametrize("module", WITH_EXAMPLES)
def test_examples_of_docstrings_run(module: str) -> None:
    result = doctest.testmod(importlib.import_module(module), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.attempted > 0
    assert result.failed == 0


def test_the_reference_names_all_that_packages_export() -> None:
    listed = {
        line.removeprefix("::: ").strip()
        for page in (ROOT / "docs" / "api").glob("*.md")
        for line in page.read_text(encoding="utf-8").splitlines()
        if line.startswith("::: ")
    }
    exported = {
        f"rdgap.{package.name}.{node.module}.{alias.name}"
        for package in PACKAGES
        for node in ast.parse((package / "__init__.py").read_text(encoding="utf-8")).body
        if isinstance(node, ast.ImportFrom) and node.level == 1
        for alias in node.names
    }
    assert exported - listed == set()
    for name in listed:  # and nothing that is not there
        owner, _, attribute = name.rpartition(".")
        assert hasattr(importlib.import_module(owner), attribute) or importlib.import_module(name)
