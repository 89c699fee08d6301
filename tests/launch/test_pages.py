"""Laws of the page of a report in a real browser: no request, no error, by keyboard and on a phone."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from launching import GENERAL, ROOT, run_well
from playwright.sync_api import Browser, Page, sync_playwright

pytestmark = pytest.mark.launch

CHROMIUM = "/usr/bin/chromium"
QUIET = ("--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync")
SHORT = ("--total-env-steps", "2000", "--evaluation-period", "400", "--final-evaluation-episodes", "5", *GENERAL)
DESKTOP, PHONE = (1280, 900), (390, 844)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the page of two short runs, one of them on two ranks."""
    folder = tmp_path_factory.mktemp("pages")
    for how, ranks, flags in (("python", 1, ()), ("mpirun", 2, ("--double",))):
        run_well(how, ranks, *SHORT, *flags, "--runs-dir", folder, "--name", f"np{ranks}")
    runs = sorted((folder / "CartPole-v1").iterdir())
    command = [Path(sys.executable).with_name("hvd-dqn"), "report", *runs, "--output", folder / "report.html"]
    subprocess.run(list(map(str, command)), cwd=ROOT, check=True)
    return folder / "report.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless Chromium; as root it has no sandbox."""
    with sync_playwright() as playwright:
        sandbox = ("--no-sandbox",) * (os.geteuid() == 0)
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*QUIET, *sandbox])
        yield browser
        browser.close()


def opened(browser: Browser, report: Path, size: tuple[int, int], scheme: str = "light", scripts: bool = True) -> Page:
    """Opens a page, which must ask for nothing but its own file, and say nothing."""
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]},
        color_scheme=scheme,  # type: ignore[arg-type]
        java_script_enabled=scripts,
    )
    page = context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto(report.as_uri())
    assert requests == [report.as_uri()]
    assert said == []
    page.on("console", lambda message: pytest.fail(message.text))
    return page


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_nothing_is_wider_than_the_screen(browser: Browser, report: Path, size: tuple[int, int], scheme: str) -> None:
    page = opened(browser, report, size, scheme)
    assert page.evaluate("document.documentElement.scrollWidth") == size[0]
    elements = "[...document.querySelectorAll('main *')].filter(element => !element.closest('.scroll, svg'))"
    right = page.evaluate(f"Math.max(...{elements}.map(element => element.getBoundingClientRect().right))")
    assert right <= size[0]
    assert page.locator("figure").count() >= 8
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, paper[4:-1].split(","))) > 3 * 128) == (scheme == "light")


@pytest.mark.parametrize("scripts", [True, False])
def test_a_group_is_hidden_and_shown_by_the_space_bar(browser: Browser, report: Path, scripts: bool) -> None:
    page = opened(browser, report, DESKTOP, scripts=scripts)
    page.keyboard.press("Tab")
    lines = page.locator("#return .g0").first
    assert lines.is_visible()
    page.keyboard.press("Space")
    assert not lines.is_visible()
    assert page.locator("#return .g1").first.is_visible()
    page.keyboard.press("Space")
    assert lines.is_visible()


def test_a_cursor_shows_the_values_by_pointer_and_by_keyboard(browser: Browser, report: Path) -> None:
    """Both groups at the first evaluation, and one that is left; Escape hides them."""
    page = opened(browser, report, DESKTOP)
    plot, tip = page.locator("#return .plot"), page.locator("#return .tip")
    plot.focus()
    page.keyboard.press("Home")
    assert "400 env steps" in tip.inner_text()
    assert tip.locator("b").count() == 2
    page.keyboard.press("ArrowRight")
    assert "800 env steps" in tip.inner_text()
    page.keyboard.press("Escape")
    assert not tip.is_visible()
    page.locator("#group1").uncheck()
    box = plot.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] - 15, box["y"] + 60)
    assert "2,000 env steps" in tip.inner_text()
    assert tip.locator("b").count() == 1


def test_the_numbers_of_a_figure_open_by_keyboard(browser: Browser, report: Path) -> None:
    page = opened(browser, report, PHONE)
    page.locator("#return summary").focus()
    page.keyboard.press("Enter")
    assert page.locator("#return table").is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE[0]


def test_the_page_is_printed_in_dark_ink(browser: Browser, report: Path) -> None:
    page = opened(browser, report, DESKTOP, "dark")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.pdf()[:4] == b"%PDF"
