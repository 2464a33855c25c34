"""Commands that help texts, documentation, notebooks, conf/ and messages print, found in the sources."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path

import nbformat

from xai_brain.config.command_help import COMMANDS, command_help, general_help

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "CONTRIBUTING.md", "docs/**/*.md", "notebooks/*.md")
DEMO = "experiment=demo"  # in place of ...
TOOL_WORDS = ("bash", "info", "verify", "clear", "info|verify|clear")
WORD = re.compile(r"""(?:'[^'\n]*'|"[^"\n]*"|<[^>\n]*>|[^\s'"`\\])+""")


@cache
def texts() -> tuple[tuple[str, str], ...]:
    """Source and text of everything that prints commands to a user."""
    return tuple(_texts())


def _texts() -> Iterator[tuple[str, str]]:
    yield "help", general_help()
    for command in COMMANDS:
        yield f"help of {command}", command_help(command)
    for pattern in (*PAGES, "conf/**/*.yaml", "Makefile"):
        for path in sorted(ROOT.glob(pattern)):
            yield str(path.relative_to(ROOT)), path.read_text()
    for path in sorted(ROOT.glob("notebooks/*.ipynb")):
        for cell in nbformat.read(path, 4).cells:
            yield str(path.relative_to(ROOT)), cell.source
    for path in sorted(ROOT.glob("benchmarks/*.py")):
        yield str(path.relative_to(ROOT)), ast.get_docstring(ast.parse(path.read_text())) or ""
    for path in sorted(ROOT.glob("xai_brain/**/*.py")):
        if path.name != "command_help.py":
            yield from ((str(path.relative_to(ROOT)), text) for text in strings(path))


def strings(path: Path) -> Iterator[str]:
    """Texts of a module; what a format string inserts is ``<value>``."""
    tree = ast.parse(path.read_text())
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(p.value) if isinstance(p, ast.Constant) else "<value>" for p in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            yield node.value


def printed() -> dict[tuple[str, ...], str]:
    """Words of every command ``xai-brain`` with arguments, and the first place that prints it.

    A command without arguments is a name, whose help is tested elsewhere.
    """
    found: dict[tuple[str, ...], str] = {}
    for where, text in texts():
        for match in re.finditer(r"(?:\bxai-brain|-m xai_brain) +([^`\n]+)", text):
            command, *rest = WORD.findall(match[1]) or [""]
            words = tuple(arguments(rest))
            if command in COMMANDS and set(words) - {"-m", DEMO}:
                found.setdefault((command, *words), where)
    return found


def arguments(words: list[str]) -> Iterator[str]:
    """Leading words that are arguments, without brackets around optional ones; ``...`` is the demo."""
    for before, word in pairwise(["", *words]):
        is_argument = "=" in word or word.startswith(("-", "~", "'~", "<", "outputs/")) or word in TOOL_WORDS
        if not (is_argument or before == "--cfg" or word.startswith("...")):
            return
        optional = word.startswith("[") or (word.endswith("]") and "[" not in word)
        plain = (word.strip("[]") if optional else word).rstrip(",;:)")
        if word == "...":
            yield DEMO
        elif not plain.endswith("...") and plain not in ("setting=value", "key=value", ""):
            yield plain.replace("info|verify|clear", "info").rstrip(".")
        if word.endswith((";", ",", ".", ":", ")")) and not word.endswith("..."):
            return


def printed_scripts() -> dict[str, str]:
    """Commands ``python benchmarks/...``, and the first place that prints each."""
    found: dict[str, str] = {}
    for where, text in texts():
        for match in re.finditer(r"python (benchmarks/\w+\.py[^`\n#]*)", text):
            found.setdefault(re.split(r"  +", match[1].strip())[0], where)
    return found


def printed_targets() -> dict[str, str]:
    """Targets of ``make``, and the first place that prints each."""
    found: dict[str, str] = {}
    for where, text in texts():
        for match in re.finditer(r"(?:^|`)make ([a-z-]+)", text, re.MULTILINE):
            if not where.endswith(".py"):
                found.setdefault(match[1], where)
    return found
