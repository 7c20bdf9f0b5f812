"""Documents say what the code does."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tools.packages import ROOT, all_packages

REFERENCE = ROOT / "docs" / "reference" / "settings.md"
_IN_CODE = re.compile(r"""["'`]+(?:METAFLOW_)?(PREBUILT_[A-Z0-9_]*[A-Z0-9])["'`]+""")
_DOCUMENTED = re.compile(r"^\| `METAFLOW_(PREBUILT_[A-Z0-9_]+)`", re.MULTILINE)
_LINK = re.compile(r"\]\((?!https?://|#|mailto:)([^)#\s]+)")
_RULE = re.compile(r"resources: \[([a-z/, ]+)\]\s+verbs: \[([a-z, ]+)\]")
_VERBS = "create|get|list|update|patch|delete"
_EXPLAINED = re.compile(rf"\| ((?:{_VERBS})(?:, (?:{_VERBS}))*) \| ([a-z/]+)")
# Set by the deploying process for its own children; not for users.
_INTERNAL = {"PREBUILT_IMAGE", "PREBUILT_IMAGES"}


def settings_in_code() -> dict[str, str]:
    """Return each setting that packages for users read or name, and one file that does."""
    return {
        name: file.relative_to(ROOT).as_posix()
        for package in all_packages().values()
        if package.short != "testing"
        for file in sorted((package.folder / "src").rglob("*.py"))
        for name in _IN_CODE.findall(file.read_text(encoding="utf-8"))
    }


def documented() -> set[str]:
    """Return the settings in the reference."""
    return set(_DOCUMENTED.findall(REFERENCE.read_text(encoding="utf-8")))


def test_every_setting_is_in_the_reference() -> None:
    """A setting that the code knows is one that users can look up."""
    missing = {name: file for name, file in settings_in_code().items() if name not in documented() | _INTERNAL}
    assert not missing


def test_the_reference_has_no_other() -> None:
    """A setting in the reference is one that the code knows."""
    assert not documented() - set(settings_in_code())


def _pages() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, check=True, text=True, capture_output=True).stdout
    return [ROOT / name for name in listed.splitlines() if not name.startswith("template/")]


@pytest.mark.parametrize("page", _pages(), ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    """A relative link leads to a file of the repository."""
    for target in _LINK.findall(page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize(("manifest", "page"), [("kaniko-role", "kaniko"), ("kubernetes-roles", "kubernetes")])
def test_roles_are_explained(manifest: str, page: str) -> None:
    """The table of a page says what each verb of its Roles is for, and has no others."""
    folder = ROOT / "docs" / "how-to"
    rules = _RULE.findall((folder / f"{manifest}.yaml").read_text(encoding="utf-8"))
    rows = _EXPLAINED.findall((folder / f"{page}.md").read_text(encoding="utf-8"))
    granted = {
        (each, verb) for resources, verbs in rules for each in resources.split(", ") for verb in verbs.split(", ")
    }
    assert granted == {(resource, verb) for verbs, resource in rows for verb in verbs.split(", ")}
    assert granted
