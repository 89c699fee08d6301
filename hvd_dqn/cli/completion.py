"""hvd-dqn completion: prints a script by which a shell completes verbs, flags, values and run directories."""

from __future__ import annotations

import ast
import contextlib
import io
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import tyro

from hvd_dqn.cli.arguments import parse
from hvd_dqn.cli.entry import VERBS, load
from hvd_dqn.cli.parsing import parse_dataclass
from hvd_dqn.errors import EXIT_DONE, EXIT_USER_ERROR, UserError
from hvd_dqn.presets import PRESETS
from hvd_dqn.run.directory import read_config_of

PROGRAM = "hvd-dqn completion"
DESCRIPTION = """Prints a script by which a shell completes verbs, flags, values and run directories.

  eval "$(hvd-dqn completion bash)"                              in this shell; in ~/.bashrc for all
  hvd-dqn completion bash > ~/.local/share/bash-completion/completions/hvd-dqn
  autoload -Uz compinit && compinit && eval "$(hvd-dqn completion zsh)"   in ~/.zshrc"""
_SPEC = "COMPLETION_SPEC = "
_SCRIPT = """# Completion of hvd-dqn. Printed by `hvd-dqn completion`; print it again after an update.
_hvd_dqn_flags() {
    case $1 in
@FLAGS@
    esac
}

# _hvd_dqn_values VERB FLAG: prints the values that the flag may have, if they are a few words.
_hvd_dqn_values() {
    case "$1 $2" in
@VALUES@
    esac
}

# Prints the run directories below ./runs.
_hvd_dqn_runs() {
    local file
    for file in runs/*/*/config.json; do
        if [[ -f $file ]]; then echo "${file%/config.json}"; fi
    done
}

_hvd_dqn() {
    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]} verb=${COMP_WORDS[1]}
    local words IFS=$'\\n'
    COMPREPLY=()
    if ((COMP_CWORD == 1)); then
        words='@VERBS@'
        words=${words// /$'\\n'}
    elif [[ $current == -* ]]; then
        words=$(_hvd_dqn_flags "$verb")
        words=${words// /$'\\n'}
    else
        words=$(_hvd_dqn_values "$verb" "$previous")
        words=${words// /$'\\n'}
        if [[ -z $words ]]; then
            words=$(_hvd_dqn_runs)
            COMPREPLY=($(compgen -f -- "$current"))
        fi
    fi
    COMPREPLY+=($(compgen -W "$words" -- "$current"))
}
complete -o filenames -F _hvd_dqn hvd-dqn
"""


@dataclass(frozen=True)
class Asked:
    """What is asked for."""

    shell: Annotated[Literal["bash", "zsh"], tyro.conf.Positional]
    """The shell."""


def main(arguments: Sequence[str]) -> int:
    """Prints the script and returns the exit code."""
    try:
        asked = parse_dataclass(Asked, arguments, PROGRAM, DESCRIPTION)
    except UserError as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return EXIT_USER_ERROR
    # zsh runs the completions of bash.
    head = "autoload -Uz bashcompinit && bashcompinit\n" if asked.shell == "zsh" else ""
    print(head + script(), end="")
    return EXIT_DONE


def script() -> str:
    """Returns the script for bash."""
    flags, values = [], []
    for verb in VERBS:
        options = _options(verb)
        names = [name for option in options for name in option["flags"]]
        flags.append(f"        {verb}) echo {shlex.quote(' '.join(names))} ;;")
        for option in options:
            choices = list(PRESETS) if option["flags"] == ["--preset"] else option.get("choices", [])
            if choices:
                words = shlex.quote(" ".join(map(str, choices)))
                values += [f"        '{verb} {name}') echo {words} ;;" for name in option["flags"]]
    filled = {"VERBS": " ".join(VERBS), "FLAGS": "\n".join(flags), "VALUES": "\n".join(values)}
    text = _SCRIPT
    for name, content in filled.items():
        text = text.replace(f"@{name}@", content)
    return text


def _options(verb: str) -> list[dict[str, Any]]:
    """Returns the flags of a verb, from the completion that tyro has for its form."""
    printed = io.StringIO()
    asked = ["--tyro-print-completion", "bash"]
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        if verb == "train":
            parse(asked, read_config_of, quiet=False)
        load(verb).main(asked)
    (line,) = [line for line in printed.getvalue().splitlines() if line.startswith(_SPEC)]
    options: list[dict[str, Any]] = ast.literal_eval(line.removeprefix(_SPEC))["options"]
    return [*options, {"flags": ["--seeds"]}] if verb == "train" else options
