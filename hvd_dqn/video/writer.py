"""Writes pictures as a film: MP4 through ffmpeg, an animated GIF through Pillow, or to a window."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import shutil
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from hvd_dqn.errors import UserError
from hvd_dqn.files import check_no_links, write_file

if TYPE_CHECKING:
    import numpy as np

_ENCODING = ["-crf", "20", "-preset", "fast", "-threads", "2", "-movflags", "+faststart", "-f", "mp4"]
_HEAD_BYTES = 4096
"""In which a finished MP4 has its index."""
_MOST_GIF_PICTURES = 300
_GIF_PICTURES_PER_SECOND = 12.5
_GIF_WIDTH = 640
_GIF_COLOURS = 192
_LEAST_GIF_WIDTH = 120


class Film(Protocol):
    """Takes pictures of one size, one after another."""

    def add(self, picture: np.ndarray) -> None:
        """Takes the next picture, uint8 [height, width, 3].

        Raises:
          UserError: if it cannot be written.
        """

    def close(self) -> None:
        """Finishes the film.

        Raises:
          UserError: if it cannot be written.
        """

    def discard(self) -> None:
        """Ends the film before its end; no file is left."""


def require_video(asked: str) -> None:
    """Checks that the extra of films is installed.

    Raises:
      UserError: if it is not.
    """
    missing = [name for name in ("PIL", "imageio_ffmpeg") if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"{asked} needs the extra [video]: pip install 'hvd-dqn[video]' (no {', '.join(missing)} here)")


def find_ffmpeg() -> str:
    """Returns ffmpeg's path.

    Raises:
      UserError: if there is none.
    """
    import imageio_ffmpeg  # type: ignore[import-untyped]

    try:
        path = imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError:
        path = ""
    if not path or shutil.which(path) is None:
        named = f" (IMAGEIO_FFMPEG_EXE is {path})" if os.environ.get("IMAGEIO_FFMPEG_EXE") else ""
        raise UserError(
            f"no ffmpeg was found{named}, which MP4 needs: give --format gif, or reinstall it with "
            "pip install --force-reinstall imageio-ffmpeg, or set IMAGEIO_FFMPEG_EXE to an ffmpeg of yours"
        )
    return str(path)


class Mp4:
    """An MP4 in H.264 that browsers play, written under a temporary name."""

    def __init__(self, path: Path, size: tuple[int, int], pictures_per_second: float) -> None:
        """Starts ffmpeg.

        Args:
          path: of the film; a file in its place is replaced.
          size: width and height, even.
          pictures_per_second: speed at which the film is played.

        Raises:
          UserError: if there is no ffmpeg, or the folder cannot be written to.
        """
        import imageio_ffmpeg

        find_ffmpeg()
        self._path = path
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        with _writing(path):
            check_no_links(path)
            path.parent.mkdir(parents=True, exist_ok=True)
            self._frames = imageio_ffmpeg.write_frames(
                str(self._temporary),
                size,
                fps=pictures_per_second,
                codec="libx264",
                macro_block_size=2,
                quality=None,
                ffmpeg_log_level="error",
                output_params=_ENCODING,
            )
            self._frames.send(None)

    def add(self, picture: np.ndarray) -> None:
        """Encodes the next picture."""
        with _writing(self._path):
            self._frames.send(picture.tobytes())

    def close(self) -> None:
        """Ends ffmpeg and gives the film its name."""
        with _writing(self._path):
            self._frames.close()
            with open(self._temporary, "rb") as file:  # ffmpeg's exit code is not known here
                if b"moov" not in file.read(_HEAD_BYTES):
                    raise OSError("ffmpeg did not finish it, perhaps because the disk is full")
            self._temporary.replace(self._path)

    def discard(self) -> None:
        """Ends ffmpeg and removes what it has written."""
        with contextlib.suppress(OSError):
            self._frames.close()
        with contextlib.suppress(OSError):
            self._temporary.unlink(missing_ok=True)


class Gif:
    """An animated GIF of bounded size: pictures are left out and made smaller until it fits."""

    def __init__(
        self,
        path: Path | None,
        size: tuple[int, int],
        pictures_per_second: float,
        most_bytes: int,
        seconds: float = 0.0,
    ) -> None:
        """Begins without pictures.

        Args:
          path: of the film; a file in its place is replaced. None: no file, `content` alone.
          size: width and height of the pictures.
          pictures_per_second: speed at which they are shown.
          most_bytes: of the file.
          seconds: of the film's beginning that are shown; 0 for all.
        """
        self._path, self._rate, self._most_bytes = path, pictures_per_second, most_bytes
        shrink = min(1.0, _GIF_WIDTH / size[0])
        self._size = round(shrink * size[0]), round(shrink * size[1])
        self._every = max(1, round(pictures_per_second / _GIF_PICTURES_PER_SECOND))
        self._last = round(seconds * pictures_per_second)
        self._seen = 0
        self._kept: list[bytes] = []
        self.content = b""
        """The GIF, once it is closed."""

    def add(self, picture: np.ndarray) -> None:
        """Keeps one of several pictures; once there are many, every second of those."""
        from PIL import Image

        if self._seen % self._every == 0 and (self._seen < self._last or not self._last):
            image = Image.fromarray(picture).resize(self._size, Image.Resampling.LANCZOS)
            self._kept.append(zlib.compress(image.tobytes(), 1))
            if len(self._kept) > _MOST_GIF_PICTURES:
                self._kept, self._every = self._kept[::2], 2 * self._every
        self._seen += 1

    def close(self) -> None:
        """Encodes the pictures and writes the file."""
        kept, every, shrink = self._kept, self._every, 1.0
        content = self._encoded(kept, every, shrink)
        while len(content) > self._most_bytes:
            if every < self._rate / 5 and len(kept) > 2:  # at least five pictures a second, as long as it is large
                kept, every = kept[::2], 2 * every
            elif shrink * self._size[0] > _LEAST_GIF_WIDTH:
                shrink *= 0.8
            elif len(kept) > 2:
                kept, every = kept[::2], 2 * every
            else:
                break
            content = self._encoded(kept, every, shrink)
        self.content = content
        if self._path is not None:
            with _writing(self._path):
                write_file(self._path, content, durable=False)

    def discard(self) -> None:
        """Does nothing: there is no file before the end."""

    def _encoded(self, kept: list[bytes], every: int, shrink: float) -> bytes:
        from PIL import Image

        size = round(shrink * self._size[0]), round(shrink * self._size[1])
        images = [Image.frombytes("RGB", self._size, zlib.decompress(one)) for one in kept]
        if size != self._size:
            images = [image.resize(size, Image.Resampling.LANCZOS) for image in images]
        samples = images[:: max(1, len(images) // 6)]
        montage = Image.new("RGB", (size[0], size[1] * len(samples)))
        for index, image in enumerate(samples):
            montage.paste(image, (0, index * size[1]))
        palette = montage.quantize(_GIF_COLOURS, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        flat = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
        file = io.BytesIO()
        flat[0].save(
            file,
            "GIF",
            save_all=True,
            append_images=flat[1:],
            duration=max(20, 10 * round(100 * every / self._rate)),
            loop=0,
            optimize=True,
        )
        return file.getvalue()


class Window:
    """A window that shows the pictures as they come."""

    def __init__(self, size: tuple[int, int], pictures_per_second: float, title: str) -> None:
        """Opens the window.

        Raises:
          UserError: if there is no display, or pygame is missing.
        """
        require_display()
        import pygame

        self._pygame: Any = pygame
        self._period, self._next = 1.0 / pictures_per_second, time.monotonic()
        try:
            pygame.display.init()
            self._screen = pygame.display.set_mode(size)
        except pygame.error as error:
            raise UserError(f"no window can be opened ({error}): {_NO_WINDOW}") from None
        pygame.display.set_caption(title)

    def add(self, picture: np.ndarray) -> None:
        """Shows a picture for its time.

        Raises:
          UserError: once the window was closed.
        """
        surface = self._pygame.surfarray.make_surface(picture.swapaxes(0, 1))
        self._screen.blit(surface, (0, 0))
        self._pygame.display.flip()
        if any(event.type == self._pygame.QUIT for event in self._pygame.event.get()):
            raise UserError("the window was closed before the end")
        self._next = max(self._next + self._period, time.monotonic())
        time.sleep(max(0.0, self._next - time.monotonic()))

    def close(self) -> None:
        """Closes the window."""
        self._pygame.display.quit()

    def discard(self) -> None:
        """Closes the window."""
        self.close()


_NO_WINDOW = "leave --human out, which writes a file, or log in with ssh -X, or start this on a machine with a screen"


def draw_without_display() -> None:
    """Sets the variables by which pygame and MuJoCo draw where there is no screen; before either is imported."""
    os.environ |= {"SDL_VIDEODRIVER": "dummy", "SDL_AUDIODRIVER": "dummy"}
    os.environ.setdefault("MUJOCO_GL", "egl")


def require_display() -> None:
    """Checks that a window can be shown.

    Raises:
      UserError: if there is no display, or pygame is missing.
    """
    if not any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER")):
        raise UserError(f"--human needs a display, and neither DISPLAY nor WAYLAND_DISPLAY is set: {_NO_WINDOW}")
    if importlib.util.find_spec("pygame") is None:
        raise UserError("--human needs pygame: pip install 'gymnasium[classic-control]'")


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turns what cannot be written into a UserError."""
    try:
        yield
    except OSError as error:
        why = (error.strerror or str(error)).strip()
        raise UserError(f"{path} cannot be written: {why[-500:]}: give another place with --output") from None
