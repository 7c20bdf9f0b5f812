"""What lies behind a path is part of what was asked for."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from prebuilt.core.local_sources import local_digests, local_path


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of source, in no repository, on a machine whose user ignores no files of all repositories."""
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
        monkeypatch.setenv(name, os.devnull)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    folder = tmp_path / "own"
    (folder / "own" / "build").mkdir(parents=True)
    (folder / "pyproject.toml").write_text("[project]\n")
    (folder / "own" / "build" / "__init__.py").write_text("")
    return folder


def of(folder: Path) -> str:
    """Return the digest of what is in the folder."""
    return local_digests({"own": f"@ {folder}"}, folder)["own"]


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        ("@ ./dist/a.whl", "/work/dist/a.whl"),
        ("@../a b", "/a b"),
        ("@ /x/a.whl", "/x/a.whl"),
        ("@ file:///x/a%20b.whl", "/x/a b.whl"),
        ("@ https://host/a.whl", None),
        ("@ git+file:///x", None),
        ("1.0", None),
        ("", None),
    ],
)
def test_paths_are_told_from_urls_and_versions(spec: str, path: str | None) -> None:
    """Only what is on this machine has a path, and it is absolute."""
    assert local_path(spec, Path("/work")) == (Path(path) if path else None)


def test_a_wheel_is_its_bytes(tmp_path: Path) -> None:
    """Other bytes under the same path are another wheel; what is absent, and what is not local, has no digest."""
    wheel = tmp_path / "a.whl"
    packages = {"a": "@ ./a.whl", "b": "@ ./b.whl", "c": "1.0"}
    wheel.write_bytes(b"one")
    one = local_digests(packages, tmp_path)
    wheel.write_bytes(b"two")
    assert list(one) == ["a"]
    assert one != local_digests(packages, tmp_path)


def test_a_folder_is_its_names_links_and_bytes(project: Path) -> None:
    """Each of them counts, and times do not."""
    seen = [of(project)]
    os.utime(project / "pyproject.toml", (1, 1))
    assert of(project) == seen[0]
    (project / "pyproject.toml").write_text("[project] #\n")
    seen.append(of(project))
    (project / "pyproject.toml").rename(project / "setup.py")
    seen.append(of(project))
    (project / "own" / "build" / "more.py").write_text("")
    seen.append(of(project))
    (project / "link").symlink_to("own")
    seen.append(of(project))
    assert len(set(seen)) == len(seen)


@pytest.mark.parametrize("made", ["build/x", "own.egg-info/x", "own/__pycache__/x.pyc", ".git/x", ".venv/bin/x"])
def test_what_was_made_in_a_folder_does_not_count(project: Path, made: str) -> None:
    """Building or importing a package does not make another of it."""
    before = of(project)
    (project / made).parent.mkdir(parents=True)
    (project / made).write_text("made")
    assert of(project) == before


def test_what_git_ignores_does_not_count(project: Path) -> None:
    """In a repository its own word decides, for files that were not added yet too."""
    (project / ".gitignore").write_text("data/\n")
    outside = of(project)
    subprocess.run(["git", "init", "--quiet", str(project)], check=True)
    assert of(project) == outside
    (project / "data").mkdir()
    (project / "data" / "x").write_text("x")
    assert of(project) == outside
    (project / "new.py").write_text("x")
    assert of(project) != outside
