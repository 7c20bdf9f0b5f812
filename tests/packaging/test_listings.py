"""Files that the documentation shows are the files that the tests run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tools.packages import ROOT

PAGES = sorted(page for page in (ROOT / "docs").rglob("*.md") if "<!-- tests/" in page.read_text(encoding="utf-8"))
_LISTING = re.compile(r"^<!-- (tests/\S+) -->\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_listings_are_the_files(page: Path) -> None:
    """Each listing is the whole file that the comment above it names, to the letter."""
    text = page.read_text(encoding="utf-8")
    listings = dict(_LISTING.findall(text))
    assert len(listings) == text.count("<!-- tests/")
    for name, shown in listings.items():
        assert shown == (ROOT / name).read_text(encoding="utf-8"), name


def test_the_example_is_shown_whole() -> None:
    """No part of the example package is left out but its empty ones."""
    page = (ROOT / "docs" / "how-to" / "write-a-backend.md").read_text(encoding="utf-8")
    files = (path for path in (ROOT / "tests" / "example_backend").rglob("*") if path.suffix in {".py", ".toml"})
    names = {path.relative_to(ROOT).as_posix() for path in files if path.name != "__init__.py"}
    assert names == set(dict(_LISTING.findall(page)))
