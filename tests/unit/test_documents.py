"""Laws of the documents and the prose: short pages, working links, and the field's words."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MOST_LINES_OF_README = 150
MOST_CHARACTERS = 120
FORBIDDEN = {
    r"meeting points?": "barrier",
    r"(ranks|threads|all) (that )?meet": "synchronise",
    r"reunions?": "recovery, rendezvous",
    r"patien(ce|t|tly)": "keepalive, grace",
    r"side by side": "overlap, in parallel",
    r"deal(s|t|ing)? (\w+ )?out|dealt": "split, reshard",
    r"(shared|shares|sharing) (\w+ )?out": "split",
    r"(?<!loop-)carr(y|ies|ied|ier|iers)": "send, sum, transport",
    r"go(es)? on|gone on|going on": "continue, resume",
    r"for ever": "without limit",
    r"mend(s|ed|ing)?": "fix, correct",
    r"tells?|told": "report, log, print",
    r"anew": "again",
    r"beside": "next to, in addition to",
    r"gives? up for dead": "presumes dead",
    r"without a word": "without communication",
    r"whoever|nobody|somebody": "name who it is",
}
"""Words to avoid, as patterns, and words of the field in their place."""


def _documents() -> list[Path]:
    """Returns every Markdown file that git tracks or would track."""
    return _files("*.md")


def _files(pattern: str) -> list[Path]:
    """Returns the project's files of a pattern: tracked or new, not ignored, not deleted."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", pattern]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    return [ROOT / name for name in dict.fromkeys(filter(None, names)) if (ROOT / name).exists()]


def _without_code(text: str) -> str:
    """Returns Markdown with the lines of its code blocks and its `code` emptied."""
    text = re.sub(r"^```.*?^```", lambda block: "\n" * block[0].count("\n"), text, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`\n]*`", "``", text)


def long_lines(text: str) -> list[int]:
    """Returns the numbers of lines that are too long, tables, links and code left out."""
    lines = _without_code(text).split("\n")
    return [
        number
        for number, line in enumerate(lines, start=1)
        if len(line) > MOST_CHARACTERS and not line.startswith("|") and "](" not in line and "<http" not in line
    ]


def dead_links(text: str, folder: Path) -> list[str]:
    """Returns relative links that lead nowhere, or to a heading that does not exist."""
    dead = []
    for target in re.findall(r"\]\(([^)\s]+)\)", _without_code(text)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, heading = target.partition("#")
        path = folder / name
        if not path.exists() or (heading and heading not in _headings(path.read_text() if name else text)):
            dead.append(target)
    return dead


def _headings(text: str) -> set[str]:
    """Returns the anchors that GitHub gives the headings of a page."""
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def forbidden_words(text: str) -> list[str]:
    """Returns each forbidden word with its line number and what to write instead."""
    found = []
    for pattern, better in FORBIDDEN.items():
        for match in re.finditer(rf"\b({pattern})\b", text, re.IGNORECASE):
            line = text.count("\n", 0, match.start()) + 1
            found.append(f"line {line}: {match[0]!r}: write {better}")
    return found


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= MOST_LINES_OF_README


def test_lines_of_documents_are_short() -> None:
    found = {str(path.relative_to(ROOT)): long_lines(path.read_text()) for path in _documents()}
    assert {name: lines for name, lines in found.items() if lines} == {}


def test_links_between_documents_lead_somewhere() -> None:
    found = {str(path.relative_to(ROOT)): dead_links(path.read_text(), path.parent) for path in _documents()}
    assert {name: links for name, links in found.items() if links} == {}


def test_every_document_is_reachable_from_the_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text()
    linked = {(ROOT / "docs" / target.partition("#")[0]).resolve() for target in re.findall(r"\]\(([^)]+)\)", index)}
    pages = {path for path in _documents() if ROOT / "docs" in path.parents and path.parent.name != "decisions"}
    assert pages - linked - {ROOT / "docs" / "index.md"} == set()


def test_documents_that_the_code_names_exist() -> None:
    """So do the tests that docs/explanation/reliability.md names."""
    for path in _files("*.py") + _files("*.sh") + _files("*.yaml") + _documents():
        for name in re.findall(r"\bdocs/[\w/.-]+\.md\b", path.read_text()):
            assert (ROOT / name).exists(), f"{path.relative_to(ROOT)} names {name}"
    reliability = (ROOT / "docs" / "explanation" / "reliability.md").read_text()
    tests = re.findall(r"`((?:unit|parallel|learning|launch)/test_\w+\.py)`", reliability)
    assert len(tests) > 20
    assert {name for name in tests if not (ROOT / "tests" / name).exists()} == set()


def test_every_decision_has_four_parts() -> None:
    for path in sorted((ROOT / "docs" / "decisions").glob("0*.md")):
        titles = re.findall(r"^## (.*)$", path.read_text(), re.MULTILINE)
        assert titles == ["Context", "Decision", "Consequences", "Alternatives"], path.name


def test_prose_uses_the_words_of_the_field() -> None:
    """In documents, docstrings, comments and messages; code in documents is left out."""
    found = {}
    code = [*_files("hvd_dqn/*.py"), *_files("hvd_dqn/*.[ch]"), *_files("launch/*")]
    for path in [*_documents(), *code, ROOT / "train.py"]:
        text = path.read_text()
        prose = re.sub(r"\]\([^)]*\)", "]", _without_code(text)) if path.suffix == ".md" else text
        found[str(path.relative_to(ROOT))] = forbidden_words(prose)
    assert {name: words for name, words in found.items() if words} == {}


@pytest.mark.parametrize("word", ["Meeting point", "reunion", "patiently", "side by side", "deals them out", "carried"])
def test_a_forbidden_word_is_found(word: str) -> None:
    (found,) = forbidden_words(f"One line.\nThe ranks {word} here.")
    assert found.startswith("line 2")


def test_a_dead_link_and_a_long_line_are_found(tmp_path: Path) -> None:
    (tmp_path / "there.md").write_text("# One title: its anchor\n")
    good = "[a](there.md) [b](there.md#one-title-its-anchor) [c](https://example.org) `[d](absent.md)`"
    assert dead_links(good, tmp_path) == []
    assert dead_links("# Top\n[a](absent.md) [b](there.md#absent) [c](#top) [d](#bottom)", tmp_path) == [
        *("absent.md", "there.md#absent", "#bottom"),
    ]
    assert long_lines("word " * 30 + "\n| " + "cell " * 30 + "\n```\n" + "code " * 30 + "\n```\n") == [1]
