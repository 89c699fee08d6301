"""Laws of the page of a report: valid, small, without a request, and complete without a script."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from hvd_dqn.cli import compare as compare_verb
from hvd_dqn.cli import report as report_verb
from hvd_dqn.errors import EXIT_DONE, EXIT_USER_ERROR
from hvd_dqn.report.drawing import COLOURS, short, style

from .report_runs import evaluation, final, training, whole_run, write_run

VOID = {"meta", "input", "br", "img", "link", "hr"}
CONTRAST_OF_TEXT, CONTRAST_OF_LINES = 4.5, 3.0


class Document(HTMLParser):
    """Collects elements, and checks that each is closed in its turn."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), f"{tag} has an attribute twice"
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def of(self, tag: str) -> list[dict[str, str | None]]:
        """Returns the attributes of all elements of a kind."""
        return [attributes for name, attributes in self.elements if name == tag]


def _page(*arguments: str | Path, output: Path) -> str:
    assert report_verb.main([*map(str, arguments), "--output", str(output)]) == EXIT_DONE
    return output.read_text()


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """Two settings, with two seeds and one."""
    plain = [whole_run(tmp_path / f"plain{seed}", 10.0 * seed, seed=seed) for seed in (1, 2)]
    return [*plain, whole_run(tmp_path / "double", 30.0, double=True, ranks=4)]


def test_the_page_is_valid_html_with_unique_ids(runs: list[Path], tmp_path: Path) -> None:
    for page in (_page(*runs, output=tmp_path / "all.html"), _page(runs[0], output=tmp_path / "one.html")):
        document = Document(page)
        ids = [attributes["id"] for _, attributes in document.elements if "id" in attributes]
        assert len(set(ids)) == len(ids)
        assert len(document.of("h1")) == 1
        assert len(document.of("figure")) >= 8
        used = set(re.findall(r"url\(#([\w-]+)\)", page)) | set(re.findall(r'href="#([\w-]+)"', page))
        assert used <= set(ids)


def test_the_page_needs_nothing_else(runs: list[Path], tmp_path: Path) -> None:
    page = _page(*runs, output=tmp_path / "all.html")
    assert not re.findall(r"https?:", page)
    assert not re.findall(r"""(src|href)=["'](?!#|data:)""", page)
    assert "@import" not in page
    assert not re.findall(r"url\((?!#)", page)


def test_five_long_runs_make_a_page_of_less_than_a_megabyte(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for i in range(5):
        records = []
        for step in range(1, 10_001):
            noise = {name: float(rng.random()) for name in ("loss", "abs_td_error", "mean_q", "mean_return", "epsilon")}
            records.append(training(step, env_steps_per_second=float(rng.random()), **noise))
            if step % 4 == 0:
                records.append(evaluation(step, float(rng.random()), start_value=float(rng.random())))
        write_run(tmp_path / f"run{i}", [*records, final(10_000, 1.0)], n_step=i + 1, ranks=2)
    page = _page(*sorted(tmp_path.glob("run*")), output=tmp_path / "all.html")
    assert len(page.encode()) < 1_000_000
    Document(page)


def test_every_figure_has_words_and_a_table_of_its_numbers(runs: list[Path], tmp_path: Path) -> None:
    document = Document(_page(*runs, output=tmp_path / "all.html"))
    plots = [attributes for attributes in document.of("div") if attributes.get("class") == "plot"]
    assert plots
    for plot in plots:
        assert plot["role"] == "img"
        assert "ends at" in str(plot["aria-label"])
        assert plot["tabindex"] == "0"
    labels = [str(attributes["aria-label"]) for attributes in document.of("div") if attributes.get("role") == "region"]
    for plot in plots:
        assert str(plot["aria-label"]).partition(":")[0] in labels
    assert all(attributes.get("aria-hidden") == "true" for attributes in document.of("svg"))


def test_groups_are_hidden_by_boxes_and_style_alone(runs: list[Path], tmp_path: Path) -> None:
    page = _page(*runs, output=tmp_path / "all.html")
    boxes = [attributes["id"] for attributes in Document(page).of("input")]
    assert boxes == ["group0", "group1"]
    for index, box in enumerate(boxes):
        assert f"body:has(#{box}:not(:checked)) .g{index}{{display:none}}" in page
        assert len(re.findall(rf'<g class="g{index}">', page)) >= 8
    assert not Document(_page(runs[0], output=tmp_path / "one.html")).of("input")


def test_what_a_run_says_is_text_and_no_html(tmp_path: Path) -> None:
    name = "a<script>alert(1)</script>&b"
    folder = whole_run(tmp_path / "run", 1.0, name=name, env_kwargs='{"<b>": "&"}')
    other = whole_run(tmp_path / "other", 1.0, env_kwargs="{}")
    document = Document(_page(folder, other, output=tmp_path / "all.html"))
    assert len(document.of("script")) == 1
    assert "an <abacus> & a pencil" in document.text
    assert name in document.text


def test_last_best_and_final_evaluation_are_named_with_their_episodes(tmp_path: Path) -> None:
    records = [training(300), evaluation(100, 8.0), evaluation(200, 3.0), final(300, 6.0)]
    text = Document(_page(write_run(tmp_path / "a", records), output=tmp_path / "a.html")).text
    assert "Final evaluation6.0095 % interval 5.00 to 7.00, 100 new episodes of the best checkpoint" in text
    assert "Best evaluation8.0020 episodes at env step 100, the highest of 2" in text
    assert "Last evaluation3.0020 episodes at env step 200" in text


def test_a_run_without_metrics_has_a_page(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", [])
    text = Document(_page(folder, output=tmp_path / "a.html")).text
    assert "No metrics have been written yet." in text
    assert "Unfinished, as of 20" in text
    (folder / "metrics.jsonl").unlink()
    Document(_page(folder, output=tmp_path / "a.html"))


def test_a_page_is_loaded_again_only_if_asked_for(runs: list[Path], tmp_path: Path) -> None:
    assert "http-equiv" not in _page(runs[0], output=tmp_path / "a.html")
    again = _page(runs[0], "--refresh-seconds", "30", output=tmp_path / "a.html")
    assert '<meta http-equiv="refresh" content="30">' in again


def test_the_newest_film_is_embedded_or_linked(tmp_path: Path) -> None:
    folder = whole_run(tmp_path / "run", 1.0)
    (folder / "videos").mkdir()
    (folder / "videos" / "one film.mp4").write_bytes(b"film")
    embedded = _page(folder, output=tmp_path / "a.html")
    (video,) = Document(embedded).of("video")
    assert video["src"] == "data:video/mp4;base64,ZmlsbQ=="
    assert "one film.mp4, 0.0 MB" in embedded
    linked = Document(_page(folder, "--no-video", output=tmp_path / "a.html"))
    assert not linked.of("video")
    assert [attributes["href"] for attributes in linked.of("a")] == ["run/videos/one%20film.mp4"]


def test_the_page_goes_into_the_run_directory_of_a_single_run(
    runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert report_verb.main([str(runs[0])]) == EXIT_DONE
    assert (runs[0] / "report.html").is_file()
    assert report_verb.main([str(run) for run in runs]) == EXIT_DONE
    assert [path.name for path in Path().iterdir()] == ["report.html"]


def test_json_has_the_numbers_and_writes_no_page(runs: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert report_verb.main([*map(str, runs), "--json"]) == EXIT_DONE
    found = json.loads(capsys.readouterr().out)
    plain, double = found["groups"]
    assert (plain["name"], plain["preset"]) == ("preset cartpole, 1 rank", "cartpole")
    assert plain["final"]["mean_return"] == 15.0
    assert plain["differs_from_preset"] == {}
    assert double["differs_from_preset"] == {"double": True}
    assert [run["best"]["mean_return"] for run in plain["runs"]] == [10.0, 20.0]
    assert not list(runs[0].glob("*.html"))


@pytest.mark.parametrize("verb", [report_verb, compare_verb])
def test_mistakes_are_refused_with_the_remedy(
    verb: object, runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*arguments: str) -> str:
        assert verb.main(list(arguments)) == EXIT_USER_ERROR  # type: ignore[attr-defined]
        return capsys.readouterr().err

    assert "no run is given" in refused()
    assert "no such directory" in refused(str(tmp_path / "absent"))
    taken = tmp_path / "taken"
    taken.write_text("")
    assert "--output" in refused(*map(str, runs), "--output", str(taken / "a.html"))


def test_a_launcher_of_several_ranks_is_refused(
    runs: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "0")
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    assert report_verb.main([str(runs[0])]) == EXIT_USER_ERROR
    assert "hvd-dqn report is run by one process, and 2 were started: leave the launcher out" in capsys.readouterr().err


def test_without_matplotlib_the_extra_is_named(
    runs: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert report_verb.main([str(runs[0])]) == EXIT_USER_ERROR
    assert "pip install 'hvd-dqn[report]'" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["report", "compare"])
def test_help_has_examples_and_loads_nothing_heavy(
    verb: str,
) -> None:
    code = (
        f"import sys\nfrom hvd_dqn.cli import {verb}\ntry:\n {verb}.main(['--help'])\nexcept SystemExit: pass\n"
        "print(sorted(sys.modules.keys() & {'numpy', 'matplotlib', 'tensorflow'}))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert f"hvd-dqn {verb} runs/CartPole-v1/" in answer
    assert answer.endswith("[]\n")


def _luminance(colour: str) -> float:
    """Relative luminance of WCAG 2.2."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


def test_text_and_lines_stand_out_in_light_and_dark() -> None:
    css = (Path(report_verb.__file__).parents[1] / "report" / "page.css").read_text()
    blocks = re.findall(r":root \{(.*?)\}", css, re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        colours = dict(re.findall(r"--([\w-]+): (#\w+)", block))
        full = {n: c if len(c) == 7 else "#" + "".join(2 * x for x in c[1:]) for n, c in colours.items()}

        def contrast(a: str, b: str, full: dict[str, str] = full) -> float:
            light, dark = sorted((_luminance(full[a]), _luminance(full[b])), reverse=True)
            return (light + 0.05) / (dark + 0.05)

        for ground in ("paper", "card"):
            for text in {"ink", "muted", "focus"} & full.keys():
                assert contrast(text, ground) >= CONTRAST_OF_TEXT, (text, ground)
            for index in range(COLOURS):
                assert contrast(f"c{index}", ground) >= CONTRAST_OF_LINES, (index, ground)


def test_no_two_of_many_groups_look_alike() -> None:
    looks = [style(group)[:2] for group in range(COLOURS**2)]
    assert len(set(looks)) == len(looks)
    assert len({dashes for _, dashes in looks[:COLOURS]}) == COLOURS


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (12_000, "12k"), (-1_500_000, "-1.5M"), (0.02, "0.02"), (250.0, "250"), (2e9, "2G")]
)
def test_numbers_of_an_axis_are_short(value: float, text: str) -> None:
    assert short(value) == text
