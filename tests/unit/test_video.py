"""Laws of films: what a picture shows, and that what was written is what players read."""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Any

import imageio_ffmpeg  # type: ignore[import-untyped]
import numpy as np
import pytest
from PIL import Image

from hvd_dqn.errors import UserError
from hvd_dqn.video.panel import BAR, CHOSEN, INVALID, TRACK, Moment, Panel, Scale, frame_size, scaled
from hvd_dqn.video.writer import Gif, Mp4, Window

NAMES = ["left", "right", "fire"]
FRAME = np.full((40, 60, 3), 200, np.uint8)


def _moment(values: list[float], *chosen: int, **others: Any) -> Moment:
    return Moment(FRAME, np.array(values, np.float32), chosen, others.get("total", 0.0), others.get("step", 0))


def _panel() -> Panel:
    return Panel("Toy-v0", "after 5 env steps", NAMES, FRAME.shape)


def _row(picture: np.ndarray, panel: Panel, row: int, rows: int = 3) -> np.ndarray:
    """Returns the pixels of a row's track, a little above its middle, from left to right."""
    left, top, right, bottom = panel.bar_box(row, rows)
    pixels: np.ndarray = picture[round(0.75 * top + 0.25 * bottom), round(left) : round(right) + 1]
    return pixels


def _count(pixels: np.ndarray, colour: tuple[int, int, int]) -> int:
    return int((pixels == colour).all(axis=-1).sum())


def test_the_chosen_bar_alone_has_the_colour_of_the_choice() -> None:
    panel, scale = _panel(), Scale(0.0, 4.0, np.array([3.0]))
    picture = panel.draw(_moment([1.0, 3.0, 2.0], 1), scale)
    rows = [_row(picture, panel, row) for row in range(3)]
    assert [_count(row, CHOSEN) > 0 for row in rows] == [False, True, False]
    assert [_count(row, BAR) > 0 for row in rows] == [True, False, True]


def test_an_action_of_several_joints_has_a_chosen_bar_for_each() -> None:
    panel, scale = _panel(), Scale(0.0, 4.0, np.array([3.0]))
    picture = panel.draw(_moment([1.0, 3.0, 2.0], 0, 2), scale)
    assert [_count(_row(picture, panel, row), CHOSEN) > 0 for row in range(3)] == [True, False, True]


def test_a_bar_is_as_long_as_its_value_on_the_scale_of_the_episode() -> None:
    panel, scale = _panel(), Scale(0.0, 4.0, np.array([3.0]))
    picture = panel.draw(_moment([1.0, 3.0, 4.0], 1), scale)
    left, _, right, _ = panel.bar_box(0, 3)
    lengths = [_count(_row(picture, panel, row), colour) for row, colour in enumerate((BAR, CHOSEN, BAR))]
    np.testing.assert_allclose(np.array(lengths) / (right - left), [0.25, 0.75, 1.0], atol=0.02)


def test_bars_of_negative_values_reach_from_zero_to_the_left() -> None:
    panel, scale = _panel(), Scale(-2.0, 2.0, np.array([1.0]))
    picture = panel.draw(_moment([-2.0, 1.0, 0.5], 1), scale)
    coloured = np.flatnonzero((_row(picture, panel, 0) == BAR).all(axis=-1))
    width = len(_row(picture, panel, 0))
    assert coloured[0] <= 1
    assert abs(coloured[-1] - width / 2) <= 2


def test_a_masked_action_has_no_bar() -> None:
    panel, scale = _panel(), Scale(0.0, 4.0, np.array([3.0]))
    picture = panel.draw(_moment([1.0, -np.inf, 3.0], 2), scale)
    row = _row(picture, panel, 1)
    assert _count(row, TRACK) == len(row)
    left, top, right, bottom = panel.bar_box(1, 3)
    middle = picture[round((top + bottom) / 2), round(left) + 1 : round(right)]
    assert _count(middle, INVALID) == len(middle)


def test_the_scale_holds_all_valid_values_of_an_episode() -> None:
    scale = Scale.of(np.array([[1.0, -np.inf], [-3.0, 5.0]]), np.array([1.0, 5.0]))
    assert scale.low < -3.0
    assert scale.high > 5.0
    assert 0.0 < scaled(-3.0, scale) < 0.1
    assert 0.9 < scaled(5.0, scale) < 1.0
    assert scale.best.tolist() == [1.0, 5.0]
    equal = Scale.of(np.full((2, 2), 7.0), np.full(2, 7.0))
    assert scaled(7.0, equal) == pytest.approx(0.5)


@pytest.mark.parametrize(
    "shape",
    [(400, 600), (210, 160), (10, 10), (84, 84), (96, 96), (256, 256), (400, 601), (1080, 1920), (3, 900)],
)
def test_pictures_have_even_sides_and_are_large_enough_to_read(shape: tuple[int, int]) -> None:
    width, height = frame_size(*shape)
    assert width % 2 == height % 2 == 0
    assert height <= 480
    assert width <= 760
    assert width / height == pytest.approx(shape[1] / shape[0], rel=0.5 if min(shape) < 5 else 0.01)
    panel = Panel("Toy-v0", "", NAMES, (*shape, 3))
    frame = np.zeros((*shape, 3), np.uint8)
    picture = panel.draw(_moment([0.0, 1.0, 2.0], 0)._replace(frame=frame), Scale(0.0, 2.0, np.array([2.0])))
    assert picture.shape == (panel.size[1], panel.size[0], 3)
    assert all(side % 2 == 0 for side in panel.size)
    assert panel.size[1] >= 360


@pytest.mark.parametrize(("shape", "count"), [((40, 60, 3), 26), ((300, 900, 3), 14)])
def test_of_very_many_actions_the_best_and_the_chosen_one_have_rows(shape: tuple[int, ...], count: int) -> None:
    panel = Panel("Toy-v0", "", [str(n) for n in range(100)], shape)
    values = np.arange(100.0)
    rows = panel.shown(values, [3])
    assert len(rows) == count
    assert rows == sorted(rows)
    tops = [panel.bar_box(row, len(rows))[1] for row in (0, 1)]
    assert tops[1] - tops[0] >= 9, "names do not overlap"
    assert {3, 99, 98} <= set(rows)
    panel.draw(_moment(values.tolist(), 3), Scale(0.0, 99.0, np.array([99.0])))


def _pictures(count: int) -> list[np.ndarray]:
    """Returns pictures that become brighter: a white bar that grows from the left."""
    pictures = [np.full((64, 96, 3), 40, np.uint8) for _ in range(count)]
    for number, picture in enumerate(pictures):
        picture[:, : number + 1] = 255
    return pictures


def test_an_mp4_has_its_pictures_speed_and_size(tmp_path: Path) -> None:
    path = tmp_path / "videos" / "a.mp4"
    film = Mp4(path, (96, 64), 20.0)
    for picture in _pictures(30):
        film.add(picture)
    assert not path.exists()
    film.close()
    assert [file.name for file in path.parent.iterdir()] == ["a.mp4"]
    reader = imageio_ffmpeg.read_frames(str(path))
    meta = next(reader)
    assert (meta["size"], meta["fps"], meta["codec"]) == ((96, 64), 20.0, "h264")
    assert meta["pix_fmt"].startswith("yuv420p")
    frames = [np.frombuffer(frame, np.uint8).mean() for frame in reader]
    np.testing.assert_allclose(frames, [picture.mean() for picture in _pictures(30)], atol=4)
    content = path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")  # a browser plays it while it is loaded


def test_a_film_that_is_discarded_leaves_no_file(tmp_path: Path) -> None:
    film = Mp4(tmp_path / "a.mp4", (96, 64), 20.0)
    film.add(_pictures(1)[0])
    film.discard()
    assert list(tmp_path.iterdir()) == []


def test_a_film_that_cannot_be_written_is_an_error_of_the_user(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot be written.*--output"):
        Mp4(tmp_path / "file" / "a.mp4", (96, 64), 20.0)


def test_a_film_that_ffmpeg_did_not_finish_gets_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "ffmpeg"
    program.write_text('#!/bin/sh\nfor last; do :; done\ncat > /dev/null\necho broken > "$last"\n')
    program.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(program))
    film = Mp4(tmp_path / "videos" / "a.mp4", (96, 64), 20.0)
    film.add(_pictures(1)[0])
    with pytest.raises(UserError, match="did not finish it"):
        film.close()
    film.discard()
    assert list((tmp_path / "videos").iterdir()) == []


def test_a_gif_is_as_long_as_the_film_and_loops(tmp_path: Path) -> None:
    film = Gif(tmp_path / "a.gif", (96, 64), 50.0, 10**6)
    for picture in _pictures(50):
        film.add(picture)
    film.close()
    with Image.open(tmp_path / "a.gif") as image:
        frames: int = image.n_frames  # type: ignore[attr-defined]
        greys, milliseconds = [], 0
        for number in range(frames):
            image.seek(number)
            greys.append(np.asarray(image.convert("L")).mean())
            milliseconds += image.info["duration"]
        assert image.info["loop"] == 0
    assert frames == 13  # one of four: 12.5 a second
    assert milliseconds == pytest.approx(1000, abs=50)
    assert greys == sorted(greys)
    assert film.content == (tmp_path / "a.gif").read_bytes()


def test_a_gif_shrinks_until_it_fits() -> None:
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 256, (100, 200, 3), dtype=np.uint8) for _ in range(12)]
    sizes = []
    for most in (10**8, 10**5):
        film = Gif(None, (200, 100), 12.0, most)
        for picture in noise:
            film.add(picture)
        film.close()
        sizes.append(len(film.content))
        assert sizes[-1] <= most
    assert sizes[0] > 10**5


def test_a_gif_may_show_the_beginning_alone() -> None:
    film = Gif(None, (96, 64), 10.0, 10**6, seconds=1.0)
    for picture in _pictures(50):
        film.add(picture)
    film.close()
    with Image.open(io.BytesIO(film.content)) as image:
        assert image.n_frames == 10  # type: ignore[attr-defined]


def test_a_window_shows_pictures_at_their_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    """With SDL's driver that needs no screen."""
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    window = Window((96, 64), 50.0, "a title")
    since = time.monotonic()
    for picture in _pictures(10):
        window.add(picture)
    assert time.monotonic() - since >= 0.15
    window.close()
