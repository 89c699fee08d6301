"""Every command that a document shows is one that a shell, this project's programs and its Makefile accept."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from hvd_dqn.cli.arguments import parse
from hvd_dqn.cli.entry import VERBS, load
from hvd_dqn.cli.seeds import parse_seeds
from hvd_dqn.config import Config, flatten
from hvd_dqn.errors import UserError

ROOT = Path(__file__).parents[2]
PAGES = ["README.md", "CONTRIBUTING.md", *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "docs").rglob("*.md"))]
LAUNCHERS = {"horovodrun", "mpirun"}
FOREIGN = {
    *(
        "source",
        "export",
        "eval",
        "autoload",
        "compinit",
        "chromium",
        "cd",
        "git",
        "curl",
        "pip",
        "python3",
        "printf",
        "tail",
        "kill",
        "unzip",
        "$uv",
    ),
    *("tensorboard", "uvicorn", "mkdocs", "sbatch", "docker", "apptainer", "ch-convert", "enroot", "kubectl", "sky"),
    *("aws", "pcluster", "eksctl", "az", "cyclecloud", "gcloud", "cluster-toolkit/gcluster"),
}
"""Programs that are not this project's; their arguments are not checked here."""
BLOCK = re.compile(r"^ *```(.*?)\n(.*?)^ *```", re.DOTALL | re.MULTILINE)


def commands(text: str) -> list[list[str]]:
    """Returns the words of each command in the shell blocks of a page."""
    found = []
    for language, block in BLOCK.findall(text):
        if language == "sh":
            joined = re.sub(r"<<'(\w+)'.*?^\1$", "", re.sub(r"\\\n", " ", block), flags=re.DOTALL | re.MULTILINE)
            for line in joined.splitlines():
                found += [words for words in _simple_commands(line) if words]
    return found


def _simple_commands(line: str) -> list[list[str]]:
    """Splits a line at `&&` and `;`, and leaves out what sets variables and what follows a `>` or a `|`."""
    found: list[list[str]] = [[]]
    for word in shlex.split(re.sub(r"\$\(.*\)", "SUBSTITUTED", line), comments=True):
        if word == "&&" or word.endswith(";"):
            found[-1] += [word[:-1]] if word.endswith(";") and len(word) > 1 else []
            found.append([])
        else:
            found[-1].append(word)
    for words in found:
        while words and re.match(r"[A-Za-z_]+=", words[0]):
            words.pop(0)
        for redirection in (">", "|"):
            if redirection in words:
                del words[words.index(redirection) :]
    return found


def fault(words: list[str]) -> str:
    """Returns what is wrong with a command; empty if nothing is."""
    program, arguments = words[0], words[1:]
    found = f"{program} is no program that documents use"
    if program in FOREIGN:
        found = ""
    elif program in LAUNCHERS:
        start = next((i for i, word in enumerate(words) if word in ("python", "hvd-dqn")), None)
        found = "starts no program of this project" if start is None else fault(words[start:])
    elif program == "python":
        found = _training_fault(arguments[1:]) if arguments[0] == "train.py" else ""
    elif program == "hvd-dqn":
        found = _verb_fault(arguments)
    elif program == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        asked = [word for word in arguments if "=" not in word]
        found = "" if arguments[:1] == ["-C"] or set(asked) <= set(targets) else f"no such target in {asked}"
    elif program.startswith("launch/"):
        found = _training_fault(arguments[arguments.index("--") + 1 :]) if "--" in arguments else ""
        found = found if (ROOT / program).is_file() else f"{program} does not exist"
    return found


def _training_fault(arguments: list[str]) -> str:
    """Returns what train.py would refuse, whatever run it is asked to resume."""

    def read(_: str) -> dict[str, Any]:
        return flatten(Config())

    try:
        with contextlib.redirect_stdout(io.StringIO()):
            parse(["RUN" if word == "auto" else word for word in arguments], read, quiet=True)
    except UserError as error:
        return str(error)
    except SystemExit:
        pass
    return ""


def _verb_fault(arguments: list[str]) -> str:
    """Returns which flag `hvd-dqn VERB --help` does not name."""
    verb, flags = arguments[0], {word.partition("=")[0] for word in arguments[1:] if word.startswith("--")}
    if verb in ("--help", "--version"):
        return ""
    if verb not in VERBS:
        return f"no verb {verb!r}"
    if verb == "train":
        if "--seeds" in arguments:
            place = arguments.index("--seeds")
            parse_seeds(arguments[place + 1])
            del arguments[place : place + 2]
        return _training_fault(arguments[1:])
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
        load(verb).main(["--help"])
    missing = flags - set(re.findall(r"--[a-z][a-z-]*", shown.getvalue())) - {"--help"}
    return f"{verb} has no {', '.join(sorted(missing))}" if missing else ""


@pytest.mark.parametrize("page", PAGES)
def test_documented_commands_are_accepted(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run.toml").write_text('preset = "lunarlander"\n')
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    faults = {" ".join(words): fault(words) for words in commands((ROOT / page).read_text())}
    assert {command: why for command, why in faults.items() if why} == {}


def test_commands_are_found_in_most_pages() -> None:
    assert sum(bool(commands((ROOT / page).read_text())) for page in PAGES) >= 15


def test_blocks_of_commands_are_marked_as_such() -> None:
    """Otherwise no test reads them."""
    programs = FOREIGN | LAUNCHERS | {"python", "make", "hvd-dqn"}
    for page in PAGES:
        for language, block in BLOCK.findall((ROOT / page).read_text()):
            first = (block.split() or [""])[0]
            assert language or not (first in programs or first.startswith("launch/")), f"{page}: {block[:80]}"


@pytest.mark.parametrize(
    "line",
    [
        "python train.py --no-such-flag",
        "horovodrun -np 2 python train.py --n-step 0",
        "mpirun -np 2 hvd-dqn --preset cartpole",
        "hvd-dqn evaluate RUN --no-such-flag",
        "launch/absent.sh -np 2 -- --preset cartpole",
        "launch/local.sh -np 2 -- --preset absent",
        "make no-such-target",
        "Terraform cluster-toolkit/gcluster deploy",
    ],
)
def test_a_wrong_command_is_found(line: str) -> None:
    (words,) = commands(f"```sh\n{line}\n```\n")
    assert fault(words)
