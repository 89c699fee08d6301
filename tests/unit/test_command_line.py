"""Laws of the command line: precedence, files, help, and mistakes answered with their remedy."""

from __future__ import annotations

import ast
import inspect
import itertools
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hvd_dqn import __version__, config
from hvd_dqn.cli import flags
from hvd_dqn.cli.arguments import parse
from hvd_dqn.config import Config, field_names, flatten, replace
from hvd_dqn.errors import EXIT_USER_ERROR, UserError
from hvd_dqn.presets import PRESETS

ROOT = Path(__file__).parents[2]


def _parse(*arguments: str, run_config: dict[str, Any] | None = None) -> dict[str, Any]:
    return flatten(parse(arguments, lambda path: run_config or {}, quiet=True))


def _train(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )


def test_no_arguments_mean_the_settings_of_cartpole_and_the_preset_dqn_the_defaults() -> None:
    of_cartpole = flatten(replace(Config(), PRESETS["cartpole"]))
    assert of_cartpole != flatten(Config())
    assert _parse() == _parse("--env", "CartPole-v1") == _parse("--preset", "cartpole") == of_cartpole
    assert _parse("--preset", "dqn") == flatten(Config())


@pytest.mark.parametrize("flags", [("--double",), ("--learner", "native"), ("--learner=tensorflow",)])
def test_what_only_some_algorithms_have_is_not_refused_for_an_algorithm_that_nobody_asked_for(
    flags: tuple[str, ...],
) -> None:
    of_cartpole = flatten(replace(Config(), PRESETS["cartpole"]))
    given = _parse(*flags)
    assert {name for name in given if given[name] != of_cartpole[name]} == {"algorithm", flags[0][2:].partition("=")[0]}
    assert given["algorithm"] == "dqn"
    assert _parse("--name", "double") == of_cartpole | {"name": "double"}


def test_flags_override_the_file_which_overrides_the_preset_which_overrides_the_defaults(tmp_path: Path) -> None:
    """The maze preset sets gamma 0.9, epsilon_end 0.5, loss mse; the file the first two; the flag the first."""
    file = tmp_path / "run.toml"
    file.write_text("gamma = 0.8\nepsilon_end = 0.3\n")
    expected = flatten(replace(Config(), PRESETS["maze"])) | {"gamma": 0.7, "epsilon_end": 0.3}
    for arguments in (
        ("--preset", "maze", "--config", str(file), "--gamma", "0.7"),
        ("--gamma=0.7", f"--config={file}", "--preset=maze"),
    ):
        assert _parse(*arguments) == expected


def test_every_kind_of_value_can_be_given_as_a_flag() -> None:
    flat = _parse(
        *("--preset", "dqn", "--hidden-sizes", "32", "16", "--no-double", "--epsilon-ladder", "--optimizer", "sgd"),
        *("--env-kwargs", '{"a": 1}', "--learning-rate", "1e-2", "--seed", "7"),
    )
    assert flat == flatten(Config()) | {
        "hidden_sizes": [32, 16],
        "double": False,
        "epsilon_ladder": True,
        "optimizer": "sgd",
        "env_kwargs": '{"a": 1}',
        "learning_rate": 0.01,
        "seed": 7,
    }


@pytest.mark.parametrize(("text", "number"), [("1e6", 10**6), ("2.5e3", 2500), ("1_000", 1000), ("7.0", 7)])
def test_a_whole_number_may_be_written_with_an_exponent(text: str, number: int, tmp_path: Path) -> None:
    assert _parse("--num-envs", "1", "--n-step", "1", "--total-env-steps", text)["total_env_steps"] == number
    assert _parse("--seed", text)["seed"] == number
    file = tmp_path / "run.toml"
    file.write_text(f"total_env_steps = {text}\nnum_envs = 1\nn_step = 1\n")
    assert _parse("--config", str(file))["total_env_steps"] == number


def test_a_run_shorter_than_the_default_start_of_learning_learns_and_an_order_not_to_is_refused(tmp_path: Path) -> None:
    assert _parse("--total-env-steps", "800")["learning_starts"] == 400
    assert _parse("--total-env-steps", "1200")["learning_starts"] == 1000
    file = tmp_path / "run.toml"
    file.write_text("learning_starts = 900\n")
    for arguments in (("--learning-starts", "900"), ("--learning_starts=900",), ("--config", str(file))):
        with pytest.raises(UserError, match="--learning-starts 900 is not before --total-env-steps 800"):
            _parse("--total-env-steps", "800", *arguments)


def test_the_home_folder_is_found_where_the_shell_leaves_it_to_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    read: list[str] = []
    parse(["--resume=~/runs/a"], lambda path: read.append(path) or {}, quiet=True)  # type: ignore[func-returns-value]
    assert read == ["/home/me/runs/a"]
    assert _parse("--runs-dir=~/runs")["runs_dir"] == "/home/me/runs"


def test_a_switch_can_be_turned_either_way() -> None:
    assert _parse("--double")["double"] is True
    assert _parse("--no-double")["double"] is False


def test_a_toml_file_may_hold_every_field(tmp_path: Path) -> None:
    flat = flatten(replace(Config(), PRESETS["lunarlander"]))
    file = tmp_path / "all.toml"
    file.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in flat.items()))
    assert _parse("--config", str(file)) == flat


def test_a_toml_file_may_name_a_preset(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('preset = "maze"\ngamma = 1\n')
    assert _parse("--config", str(file)) == flatten(replace(Config(), PRESETS["maze"])) | {"gamma": 1.0}


def test_a_runs_config_json_is_a_config_file(tmp_path: Path) -> None:
    flat = flatten(replace(Config(), PRESETS["acrobot"] | {"seed": 9}))
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"config": flat, "ranks": 2}))
    assert _parse("--config", str(file)) == flat


def test_a_resumed_runs_configuration_is_the_base_and_flags_override_it() -> None:
    flat = flatten(replace(Config(), PRESETS["acrobot"]))
    resumed = _parse("--resume", "there", "--seed", "4", run_config=flat)
    assert resumed == flat | {"resume": "there", "seed": 4}


def test_resume_auto_takes_a_runs_configuration_once_it_has_a_checkpoint(tmp_path: Path) -> None:
    """Before, the flags alone count: a job that was killed early is started anew."""
    command = ("--preset", "dqn", "--name", "x", "--runs-dir", str(tmp_path), "--resume", "auto")
    of_flags = flatten(Config()) | {"name": "x", "runs_dir": str(tmp_path), "resume": "auto"}
    saved = of_flags | {"gamma": 0.5}
    assert _parse(*command, run_config=saved) == of_flags
    (tmp_path / "CartPole-v1" / "x").mkdir(parents=True)
    (tmp_path / "CartPole-v1" / "x" / "config.json").write_text(json.dumps({"config": saved}))
    assert _parse(*command, run_config=saved) == of_flags
    manifest = tmp_path / "CartPole-v1" / "x" / "checkpoints" / "000000000100" / "manifest.json"
    manifest.parent.mkdir(parents=True)
    manifest.touch()
    assert _parse(*command, run_config=saved) == saved
    assert _parse(*command, "--gamma", "0.6", run_config=saved) == saved | {"gamma": 0.6}


def test_resume_auto_without_a_name_is_refused() -> None:
    with pytest.raises(UserError, match="add --name NAME"):
        _parse("--resume", "auto")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--preset", "cartpool"), "did you mean 'cartpole'"),
        (("--preset", "zzz"), "choose from dqn, double, rainbow"),
        (("--lerning-rate", "1"), "--learning-rate"),
        (("--loss", "hubert"), "huber"),
        (("--seed", "many"), "--seed"),
        (("--total-env-steps", "1.5"), "--total-env-steps"),
        (("--total-env-steps", "inf"), "--total-env-steps"),
        (("--total-env-steps", "nan"), "--total-env-steps"),
        (("--gamma", "high"), "--gamma"),
        (("--num-envs", "-1"), "--num-envs is -1: give at least 1"),
        (("stray",), "stray"),
        (("--name", "a\nb"), r"--name 'a\nb' holds characters that cannot be shown: choose another name"),
    ],
)
def test_a_mistyped_command_line_is_refused_with_the_nearest_match(arguments: tuple[str, ...], words: str) -> None:
    with pytest.raises(UserError) as caught:
        _parse(*arguments)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("learning_rat = 1.0", "unknown key 'learning_rat' (did you mean 'learning_rate'?)"),
        ("zzzzzz = 1", "unknown key 'zzzzzz'"),
        ('seed = "1"', "seed is '1': it must be int"),
        ("seed = 1.5", "seed is 1.5: it must be int"),
        ("seed = inf", "seed is inf: it must be int"),
        ("seed = true", "seed is True: it must be int"),
        ("double = 1", "double is 1: it must be bool"),
        ("gamma = true", "gamma is True: it must be float"),
        ("env = 3", "env is 3: it must be str"),
        ("hidden_sizes = 64", "hidden_sizes is 64: it must be a list of integers"),
        ('hidden_sizes = ["a"]', "must be a list of integers"),
        ('loss = "hubber"', "did you mean 'huber'"),
        ('preset = "cartpool"', "did you mean 'cartpole'"),
        ("gamma = 2.0", "--gamma is 2.0"),
        ("[exploration]\nepsilon_end = 0.5", "unknown key 'exploration'"),
        ("gamma 0.5", "is not a configuration"),
    ],
)
def test_a_mistake_in_a_file_is_named(tmp_path: Path, content: str, words: str) -> None:
    file = tmp_path / "run.toml"
    file.write_text(content)
    with pytest.raises(UserError) as caught:
        _parse("--config", str(file))
    assert words in str(caught.value)


@pytest.mark.parametrize("content", ["{", "[]", '{"config": 3}', '{"config": {"sead": 1}}', "{}", '"config"'])
def test_a_json_that_is_no_runs_config_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "config.json"
    file.write_text(content)
    with pytest.raises(UserError, match=r"config\.json"):
        _parse("--config", str(file))


def test_an_unreadable_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        _parse("--config", str(tmp_path / "absent.toml"))
    with pytest.raises(UserError, match="directory"):
        _parse("--config", str(tmp_path))
    with pytest.raises(UserError, match="more than"):
        _parse("--config", "/dev/zero")
    for name in ("deep.json", "deep.toml"):
        (tmp_path / name).write_text("a = " * name.endswith("toml") + "[" * 100_000)
        with pytest.raises(UserError, match="is not a configuration"):
            _parse("--config", str(tmp_path / name))
    with pytest.raises(UserError, match="is not JSON"):
        _parse("--env-kwargs", "[" * 100_000)
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not a configuration"):
        _parse("--config", str(tmp_path / "binary.toml"))


def _docstrings() -> dict[str, str]:
    """Returns each configuration field's docstring by its flag."""
    found = {}
    for section in (node for node in ast.parse(inspect.getsource(config)).body if isinstance(node, ast.ClassDef)):
        for field, after in itertools.pairwise(section.body):
            if isinstance(field, ast.AnnAssign) and isinstance(after, ast.Expr):
                found["--" + ast.unparse(field.target).replace("_", "-")] = ast.literal_eval(after.value)
    return found


def test_help_explains_every_field() -> None:
    """Each flag is followed by its whole docstring."""
    answer = _train("train.py", "--help")
    assert answer.returncode == 0
    text = re.sub(r"[│\s]+", " ", answer.stdout)
    docstrings = _docstrings()
    assert set(docstrings) == {"--" + name.replace("_", "-") for name in field_names()}
    for flag, docstring in docstrings.items():
        explained = re.escape(" ".join(docstring.split()))
        assert re.search(rf"{flag}[, ].{{0,120}}{explained}", text), f"{flag} is not explained"
    for word in ("--preset", "--config", *PRESETS):
        assert word in text


def test_help_lists_the_important_flags_first_and_speaks_the_users_language() -> None:
    answer = _train("train.py", "--help").stdout
    listed = re.findall(r"^│ (--[a-z-]+)", answer, re.MULTILINE)
    assert listed[:7] == ["--preset", "--config", "--version", "--env", "--total-env-steps", "--seed", "--name"]
    assert len(set(listed)) == len(listed) == len(field_names()) + 3
    assert "horovodrun -np 4 python train.py" in answer, "an example"
    for internal in ("config.", "None", "(default: '')"):
        assert internal not in answer.replace("config.json", "")


def test_the_version_is_printed() -> None:
    answer = _train("train.py", "--seed", "1", "--version")
    assert (answer.returncode, answer.stdout) == (0, f"hvd-dqn {__version__}\n")


def test_the_page_of_flags_is_up_to_date() -> None:
    page = ROOT / "docs" / "reference" / "flags.md"
    assert page.read_text() == flags.page(), "run: python -m hvd_dqn.cli.flags > docs/reference/flags.md"


def test_help_imports_neither_numpy_nor_tensorflow() -> None:
    """It must answer at once; and thread pools are sized before NumPy is loaded."""
    answer = _train("-X", "importtime", "train.py", "--help")
    assert answer.returncode == 0
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in answer.stderr.splitlines()}
    assert "tyro" in loaded
    assert not loaded & {"numpy", "tensorflow", "keras", "gymnasium", "horovod", "mpi4py"}


def test_a_mistake_ends_with_code_2_one_message_and_no_traceback() -> None:
    answer = _train("train.py", "--lerning-rate", "3")
    assert answer.returncode == EXIT_USER_ERROR == 2
    assert "--learning-rate" in answer.stderr
    assert "Traceback" not in answer.stderr + answer.stdout
