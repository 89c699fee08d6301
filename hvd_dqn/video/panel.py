"""Draws one picture of a film: the frame, and next to it the action values, the chosen action, return and step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from PIL import Image, ImageDraw

PANEL_WIDTH = 300
"""Pixels of the panel at the right."""
BACKGROUND, TRACK = (16, 20, 27), (33, 40, 51)
TEXT, MUTED = (236, 240, 245), (139, 150, 165)
BAR, CHOSEN, INVALID = (86, 142, 196), (240, 178, 41), (74, 82, 94)
"""Blue, amber and grey: distinct for all eyes, and in shades of grey."""
_MARGIN, _GAP = 20, 10
_LEAST_HEIGHT, _MOST_HEIGHT, _MOST_WIDTH = 360, 480, 760
_SMALL_IMAGE = 240
"""Rows up to which a frame is enlarged by whole pixels, which stay sharp."""
_LEAST_CELL = 16
"""Pixels of an enlarged one from which a grid separates them: they are the cells of a board."""
_HEADER, _CURVE = 122, 66
_LEAST_ROW, _TALLEST_ROW = 10, 40
"""Pixels of a row, of which a name in the smallest font needs 9."""
_LABEL, _VALUE = 78, 58
_LONGEST_NAME = 14


class Moment(NamedTuple):
    """One step of an episode."""

    frame: np.ndarray
    """uint8 [H, W, 3], before the step."""
    values: np.ndarray
    """float32 [R], one row each: action values, or those of all joints' bins; -inf for what a mask does not allow."""
    chosen: tuple[int, ...]
    """Rows of the action that was chosen: one, or one of each joint."""
    episode_return: float
    """Up to here, without this step's reward."""
    step: int
    """Steps before this one."""
    over: bool = False
    """Whether the episode has ended: `values` and `chosen` are those of its last step."""


class Scale(NamedTuple):
    """What stays the same over an episode, so that bars of different steps compare."""

    low: float
    high: float
    """Range of all valid action values of the episode."""
    best: np.ndarray
    """float [T], the value of each step's greedy action."""

    @classmethod
    def of(cls, values: np.ndarray, best: np.ndarray) -> Scale:
        """Returns the scale of an episode.

        Args:
          values: float [T, R], of all rows; -inf where a mask does not allow the action.
          best: float [T], the value of each step's greedy action.
        """
        valid = values[np.isfinite(values)]
        low, high = (float(valid.min()), float(valid.max())) if valid.size else (0.0, 1.0)
        room = max(0.05 * (high - low), 1e-6)
        return cls(low - room, high + room, best)


class Panel:
    """Draws the pictures of a film, all of one size."""

    def __init__(self, title: str, subtitle: str, action_names: Sequence[str], frame_shape: tuple[int, ...]) -> None:
        """Lays the pictures out.

        Args:
          title: the environment.
          subtitle: which agent plays.
          action_names: of the R rows.
          frame_shape: [H, W, 3] of the frames.
        """
        from PIL import ImageFont

        self._title, self._subtitle, self._names = title, subtitle, list(action_names)
        self._frame_size = frame_size(*frame_shape[:2])
        self._fonts: dict[int, Any] = {size: ImageFont.load_default(size) for size in (9, 11, 13, 15, 19, 28)}
        self._curve: tuple[Scale, Image.Image] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Returns width and height of the pictures in pixels; both are even, as films need them."""
        return self._frame_size[0] + PANEL_WIDTH, max(_LEAST_HEIGHT, self._frame_size[1])

    def draw(self, moment: Moment, scale: Scale) -> np.ndarray:
        """Returns the picture of a moment, uint8 [height, width, 3]."""
        from PIL import Image, ImageDraw

        picture = Image.new("RGB", self.size, BACKGROUND)
        picture.paste(self._enlarged(moment.frame), (0, (self.size[1] - self._frame_size[1]) // 2))
        draw = ImageDraw.Draw(picture)
        draw.line((self._frame_size[0], 0, self._frame_size[0], self.size[1]), TRACK)
        left, right = self._frame_size[0] + _MARGIN, self.size[0] - _MARGIN
        self._draw_header(draw, moment, left, right)
        self._draw_bars(draw, moment, scale, left, right)
        self._draw_curve(picture, moment, scale, left, right)
        if moment.over:
            self._draw_end(picture, moment)
        return np.asarray(picture)

    @property
    def _height_of_rows(self) -> int:
        return self.size[1] - _MARGIN - _CURVE - _GAP - _HEADER

    def bar_box(self, row: int, rows: int) -> tuple[float, float, float, float]:
        """Returns the left, top, right and bottom of the track of a row's bar in pixels."""
        left, right = self._frame_size[0] + _MARGIN + _LABEL, self.size[0] - _MARGIN - _VALUE
        pitch = min(_TALLEST_ROW, self._height_of_rows / rows)
        start = _HEADER + row * pitch
        thickness = max(1.0, 0.62 * pitch)
        return left, start + (pitch - thickness) / 2, right, start + (pitch + thickness) / 2

    def shown(self, values: np.ndarray, chosen: Sequence[int]) -> list[int]:
        """Returns the rows that are shown: all, or of many the chosen ones and those with the largest values."""
        most = self._height_of_rows // _LEAST_ROW
        if len(values) <= most:
            return list(range(len(values)))
        largest = [row for row in np.argsort(-values, kind="stable").tolist() if row not in chosen]
        return sorted([*chosen, *largest][:most])

    def _enlarged(self, frame: np.ndarray) -> Image.Image:
        from PIL import Image

        nearest = frame.shape[0] <= _SMALL_IMAGE
        how = Image.Resampling.NEAREST if nearest else Image.Resampling.LANCZOS
        image = Image.fromarray(np.ascontiguousarray(frame))
        if image.size != self._frame_size:
            image = image.resize(self._frame_size, how)
        cell = self._frame_size[1] / frame.shape[0]
        return _with_grid(image, cell) if nearest and cell >= _LEAST_CELL else image

    def _draw_header(self, draw: ImageDraw.ImageDraw, moment: Moment, left: int, right: int) -> None:
        draw.text((left, 16), self._fitting(self._title, right - left), TEXT, self._fonts[19])
        draw.text((left, 41), self._subtitle, MUTED, self._fonts[13])
        middle = (left + right) // 2
        for x, label, value in (
            (left, "RETURN", f"{moment.episode_return:,.{0 if float(moment.episode_return).is_integer() else 1}f}"),
            (middle, "STEP", f"{moment.step:,}"),
        ):
            draw.text((x, 66), label, MUTED, self._fonts[11])
            draw.text((x, 80), value, TEXT, self._fonts[28])

    def _fitting(self, text: str, width: int) -> str:
        while len(text) > 1 and self._fonts[19].getlength(text) > width:
            text = text[:-2] + "…"
        return text

    def _draw_bars(self, draw: ImageDraw.ImageDraw, moment: Moment, scale: Scale, left: int, right: int) -> None:
        rows = self.shown(moment.values, moment.chosen)
        pitch = self.bar_box(1, len(rows))[1] - self.bar_box(0, len(rows))[1] if len(rows) > 1 else _TALLEST_ROW
        largest = max(-scale.low, scale.high)
        digits = 3 if largest < 1 else 2 if largest < 1000 else 0
        font = self._font_of([self._names[action] for action in rows], pitch)
        for row, action in enumerate(rows):
            x0, y0, x1, y1 = self.bar_box(row, len(rows))
            value, chosen = float(moment.values[action]), action in moment.chosen
            middle = (y0 + y1) / 2
            valid = np.isfinite(value)
            colour = CHOSEN if chosen else BAR
            draw.rectangle((x0, y0, x1, y1), TRACK)
            if valid:
                zero, end = (x0 + (x1 - x0) * scaled(at, scale) for at in (0.0, value))
                draw.rectangle((min(zero, end), y0, max(zero, end), y1), colour)
                if scale.low < 0 < scale.high:
                    draw.line((zero, y0 - 1, zero, y1 + 1), MUTED)
            else:
                draw.line((x0, middle, x1, middle), INVALID)
            ink = CHOSEN if chosen else TEXT if valid else INVALID
            draw.text((x0 - 8, middle), self._names[action][:_LONGEST_NAME], ink, font, anchor="rm")
            draw.text((right, middle), f"{value:.{digits}f}" if valid else "masked", ink, font, anchor="rm")
            if chosen:
                arm = min(5.0, (y1 - y0) / 2)
                draw.polygon(
                    [(left - 8, middle - arm), (left - 8, middle + arm), (left - 8 + 1.4 * arm, middle)], CHOSEN
                )

    def _font_of(self, names: Sequence[str], pitch: float) -> Any:
        """Returns the largest font in which the names fit into their column, and a row."""
        fitting = [
            font
            for size, font in self._fonts.items()
            if size <= min(15.0, 0.75 * pitch)
            and max(font.getlength(name[:_LONGEST_NAME]) for name in names) <= _LABEL - 16
        ]
        return fitting[-1] if fitting else self._fonts[9]

    def _draw_curve(self, picture: Image.Image, moment: Moment, scale: Scale, left: int, right: int) -> None:
        """Draws the largest action value over the whole episode, and where in it this moment is."""
        from PIL import ImageDraw

        if self._curve is None or self._curve[0] is not scale:
            self._curve = scale, _curve(scale, right - left, _CURVE)
        top = self.size[1] - _MARGIN - _CURVE
        picture.paste(self._curve[1], (left, top))
        draw = ImageDraw.Draw(picture)
        draw.text((left + 6, top + 4), "VALUE OVER THE EPISODE", MUTED, self._fonts[9])
        at = min(moment.step, len(scale.best) - 1)
        x, y = _points(scale, right - left, _CURVE)[at]
        draw.line((left + x, top, left + x, top + _CURVE - 1), INVALID)
        draw.ellipse((left + x - 3, top + y - 3, left + x + 3, top + y + 3), CHOSEN)

    def _draw_end(self, picture: Image.Image, moment: Moment) -> None:
        from PIL import Image, ImageDraw

        width, height = self._frame_size[0], self.size[1]
        strip = Image.new("RGB", (width, 44), BACKGROUND)
        below = picture.crop((0, height - 44, width, height))
        picture.paste(Image.blend(below, strip, 0.85), (0, height - 44))
        text = f"episode over: return {moment.episode_return:,.1f} in {moment.step:,} steps"
        font = self._fonts[19 if self._fonts[19].getlength(text) < width - 20 else 13]
        ImageDraw.Draw(picture).text((width / 2, height - 22), text, TEXT, font, anchor="mm")


def frame_size(height: int, width: int) -> tuple[int, int]:
    """Returns the even width and height at which frames of some pixels are shown."""
    factor = min(max(1.0, _LEAST_HEIGHT / height), _MOST_HEIGHT / height, _MOST_WIDTH / width)
    if height <= _SMALL_IMAGE:
        factor = max(1, min(_MOST_HEIGHT // height, _MOST_WIDTH // width)) if width <= _MOST_WIDTH else factor
    return 2 * max(1, round(factor * width / 2)), 2 * max(1, round(factor * height / 2))


def _with_grid(image: Image.Image, cell: float) -> Image.Image:
    """Returns a board with lines between its cells."""
    from PIL import ImageDraw

    draw = ImageDraw.Draw(image)
    for axis in (0, 1):
        for line in range(1, round(image.size[axis] / cell)):
            at = round(line * cell)
            ends = ((at, 0), (at, image.size[1])) if axis == 0 else ((0, at), (image.size[0], at))
            draw.line(ends, BACKGROUND)
    return image


def scaled(value: float, scale: Scale) -> float:
    """Returns where a value lies in the range of an episode, from 0 to 1."""
    return min(1.0, max(0.0, (value - scale.low) / (scale.high - scale.low)))


def _points(scale: Scale, width: int, height: int) -> list[tuple[float, float]]:
    """Returns the points (x, y) of the curve, one for each step."""
    last = max(1, len(scale.best) - 1)
    return [
        (4 + (width - 9) * step / last, height - 8 - (height - 28) * scaled(float(value), scale))
        for step, value in enumerate(scale.best)
    ]


def _curve(scale: Scale, width: int, height: int) -> Image.Image:
    """Draws the curve, smooth at its edges."""
    from PIL import Image, ImageDraw

    factor = 3
    image = Image.new("RGB", (factor * width, factor * height), TRACK)
    points = [(factor * x, factor * y) for x, y in _points(scale, width, height)]
    if len(points) > 1:
        ImageDraw.Draw(image).line(points, BAR, 2 * factor, joint="curve")
    return image.resize((width, height), Image.Resampling.LANCZOS)
