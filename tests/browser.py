"""A headless Chromium that opens one page, without any network."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from functools import cached_property
from html.parser import HTMLParser
from pathlib import Path

import pytest

_NAMES = ("chromium", "google-chrome", "google-chrome-stable", "chromium-browser")
_SECONDS = 120
"""How long one opening of a page may take, on a machine that is busy."""
_FLAGS = (
    "--headless",
    # Browsers refuse their own sandbox to root, whom tests in containers often are.
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    # Scripts have run and timers of so many milliseconds have passed before the page is looked at.
    "--virtual-time-budget=10000",
)


@dataclass(frozen=True)
class Element:
    """An element of a page after its scripts have run."""

    tag: str
    attributes: dict[str, str]
    text: str
    """All text inside it, white space folded."""


@dataclass(frozen=True)
class Rendered:
    """A page after its scripts have run."""

    dom: str
    console: str
    """What the browser wrote, messages of scripts among it."""

    @cached_property
    def elements(self) -> list[Element]:
        """All elements in the order of the document."""
        reader = _Reader()
        reader.feed(self.dom)
        reader.close()
        return [
            Element(tag, attributes, " ".join("".join(text).split()))
            for tag, attributes, text in reader.found
        ]

    def having(self, name: str, value: str | None = None) -> list[Element]:
        """Elements with an attribute, or with this value of it (of `class`: among others)."""
        return [
            element
            for element in self.elements
            if name in element.attributes
            and (
                value is None
                or element.attributes[name] == value
                or (name == "class" and value in element.attributes[name].split())
            )
        ]

    @property
    def body(self) -> dict[str, str]:
        """Attributes of the body."""
        return next(element.attributes for element in self.elements if element.tag == "body")


class Browser:
    """The browser of this machine."""

    def __init__(self, program: str, directory: Path) -> None:
        self._program = program
        self._directory = directory

    def render(self, page: Path, *, width: int = 1600, height: int = 1000, anchor: str = "") -> Rendered:
        """Opens a page and returns what it has become; `anchor` is what follows # in its address."""
        done = self._run(page, anchor, width, height, "--dump-dom", "--enable-logging=stderr")
        return Rendered(done.stdout, done.stderr)

    def screenshot(self, page: Path, image: Path, *, width: int = 1600, height: int = 1000) -> None:
        """Writes a picture of a page as PNG."""
        image.parent.mkdir(parents=True, exist_ok=True)
        self._run(page, "", width, height, f"--screenshot={image}")
        assert image.exists(), f"{self._program} wrote no {image}"

    def _run(
        self, page: Path, anchor: str, width: int, height: int, *options: str
    ) -> subprocess.CompletedProcess[str]:
        address = page.resolve().as_uri() + (f"#{anchor}" if anchor else "")
        size = f"--window-size={width},{height}"
        # A profile of its own: nothing of the user is read, and two at once do not meet.
        profile = f"--user-data-dir={self._directory}"
        command = [self._program, *_FLAGS, size, profile, *options, address]
        try:
            return subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=True)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            raise AssertionError(f"{error} It wrote:\n{error.stderr!s}") from error


def find(directory: Path) -> Browser:
    """The browser that $CHROME or PATH names; `directory` takes its profile.

    Without one the calling test is skipped, saying so, except in CI, where it fails.
    """
    chosen = os.environ.get("CHROME")
    program = shutil.which(chosen) if chosen else next(filter(None, map(shutil.which, _NAMES)), None)
    if program is not None:
        return Browser(program, directory)
    missing = f"$CHROME={chosen} is no program" if chosen else f"no browser on PATH ({', '.join(_NAMES)})"
    remedy = "apt-get install chromium, or set CHROME"
    if os.environ.get("CI"):
        pytest.fail(f"{missing}: {remedy}")
    pytest.skip(f"{missing}: pages are not looked at; {remedy}")


class _Reader(HTMLParser):
    """Elements with their texts; those that never end hold nothing."""

    _EMPTY = frozenset({"br", "hr", "img", "input", "link", "meta", "source", "wbr"})

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, dict[str, str], list[str]]] = []
        self._open: list[tuple[str, list[str]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        text: list[str] = []
        self.found.append((tag, {name: value or "" for name, value in attrs}, text))
        if tag not in self._EMPTY:
            self._open.append((tag, text))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {name: value or "" for name, value in attrs}, []))

    def handle_endtag(self, tag: str) -> None:
        if any(tag == other for other, _ in self._open):
            while self._open.pop()[0] != tag:
                pass

    def handle_data(self, data: str) -> None:
        if any(tag in ("script", "style") for tag, _ in self._open):
            return
        for _, text in self._open:
            text.append(data)
