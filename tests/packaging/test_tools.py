"""The tools of this repository hold what they promise."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from _pytest.mark.expression import Expression  # of `-m`; pytest has no public one
from nox.command import CommandFailed

import noxfile
from tools import checks, engines, ladder, machine, release, tables, venv
from tools.floor import Floor
from tools.packages import ROOT, Package, all_packages, closure, name_of, read_toml
from tools.wheels import Built

PACKAGES = all_packages()


def test_packages_come_after_what_they_need() -> None:
    """Whoever installs them in order finds each one's needs installed."""
    order = [package.name for package in closure(PACKAGES.values(), PACKAGES.values())]
    for package in PACKAGES.values():
        needed = [name_of(need) for need in package.dependencies if name_of(need) in order]
        assert all(order.index(name) < order.index(package.name) for name in needed)


def test_ladder_covers_every_package() -> None:
    """A package that was added today is held to the ladder today."""
    contracts = ladder.contracts(list(PACKAGES.values()))
    assert {source for each in contracts for source in each.get("source_modules", ())} == {
        package.module for package in PACKAGES.values()
    }


@pytest.mark.parametrize(
    ("package", "line", "complaint"),
    [
        ("oci", "import prebuilt.lock", "prebuilt.oci is not allowed to import prebuilt.lock"),
        ("native", "import metaflow", "prebuilt.native is not allowed to import metaflow"),
        ("core", "import packaging", "prebuilt.core.wrong imports packaging, which prebuilt-core does not declare"),
    ],
)
def test_ladder_sees_a_wrong_import(package: str, line: str, complaint: str, tmp_path: Path) -> None:
    """An import that a package may not have breaks a contract, and the output names it."""
    for each in PACKAGES.values():
        shutil.copytree(each.folder / "src", tmp_path, dirs_exist_ok=True)
    wrong = tmp_path / "prebuilt" / package / "wrong.py"
    wrong.write_text(f"{line}\n")
    result = subprocess.run(
        [sys.executable, "-m", "tools.ladder"],
        check=False,
        cwd=ROOT,
        env={"PATH": "", "PYTHONPATH": str(tmp_path), "COLUMNS": "500"},
        text=True,
        capture_output=True,
    )
    assert result.returncode == 1
    assert complaint in result.stdout


def test_a_stale_table_is_renewed() -> None:
    """What stands between the marks is made anew, the rest is left alone."""
    renewed = tables.renewed("before\n<!-- packages -->\nold\n<!-- /packages -->\nafter\n", PACKAGES.values())
    assert renewed.startswith("before\n<!-- packages -->\n| package |")
    assert renewed.endswith("|\n<!-- /packages -->\nafter\n")
    assert tables.renewed(renewed, PACKAGES.values()) == renewed


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Return a repository with one released package, nothing changed since."""
    package = tmp_path / "packages" / "prebuilt-sample"
    (package / "src" / "prebuilt" / "sample").mkdir(parents=True)
    (package / "src" / "prebuilt" / "sample" / "_version.py").write_text('__version__ = "1.2.0"\n')
    (package / "pyproject.toml").write_text(
        '[project]\nname = "prebuilt-sample"\n[tool.hatch.version]\npath = "src/prebuilt/sample/_version.py"\n'
    )
    _git(tmp_path, "init", "--quiet")
    _commit(tmp_path)
    _git(tmp_path, "tag", "prebuilt-sample/v1.1.0")
    return tmp_path


def _git(folder: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=somebody", "-c", "user.email=somebody@example.com")
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True)


def _commit(folder: Path) -> None:
    _git(folder, "add", ".")
    _git(folder, "commit", "--quiet", "--message=Change")


def _say(package: Package) -> None:
    (package.folder / release.FRAGMENTS).mkdir(exist_ok=True)
    (package.folder / release.FRAGMENTS / "1.fixed.md").write_text("It works.\n")


def _write_changelog(package: Package, root: Path) -> None:
    """Do what `towncrier build` does, without it."""
    for fragment in release.fragments(package):
        fragment.unlink()
    (package.folder / release.CHANGELOG).write_text(
        f"# Changelog\n\n## {package.version} (2026-01-02)\n\n- It works.\n"
    )
    _commit(root)


def test_release_names_its_tag(repository: Path) -> None:
    """The tag carries the package and the version that main has."""
    package = all_packages(repository)["sample"]
    _write_changelog(package, repository)
    assert release.plan(package, repository).tag == "prebuilt-sample/v1.2.0"


def test_release_wants_a_clean_tree(repository: Path) -> None:
    """What is not committed would be in the release and not in its tag."""
    package = all_packages(repository)["sample"]
    _say(package)
    with pytest.raises(release.NotReadyError, match="not committed"):
        release.plan(package, repository)


def test_release_wants_a_new_version(repository: Path) -> None:
    """A version is released once."""
    package = all_packages(repository)["sample"]
    _write_changelog(package, repository)
    _git(repository, "tag", "prebuilt-sample/v1.2.0")
    with pytest.raises(release.NotReadyError, match="raise the version"):
        release.plan(package, repository)


def test_release_wants_a_changelog(repository: Path) -> None:
    """A release that changes nothing, or does not say what, is refused; an older version's entry does not count."""
    package = all_packages(repository)["sample"]
    (package.folder / release.CHANGELOG).write_text(
        "# Changelog\n\n## 1.2.0.dev1 (2026-01-02)\n\n## 1.1.0 (2026-01-01)\n"
    )
    _commit(repository)
    with pytest.raises(release.NotReadyError, match="say what this release changes"):
        release.plan(package, repository)


def test_release_wants_its_changelog_written_first(repository: Path) -> None:
    """The changelog is in what is uploaded, so it comes before; the command that writes it is said, and makes it ready."""
    (repository / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    package = all_packages(repository)["sample"]
    (package.folder / release.CHANGELOG).write_text("# Changelog\n")
    _say(package)
    _commit(repository)
    with pytest.raises(release.NotReadyError, match="towncrier build") as refused:
        release.plan(package, repository)
    command = str(refused.value).splitlines()[-1].split()
    subprocess.run([sys.executable, "-m", *command], cwd=repository, check=True)
    _commit(repository)
    assert "- It works." in (package.folder / release.CHANGELOG).read_text()
    assert release.plan(package, repository).tag == "prebuilt-sample/v1.2.0"


class PublishingSession:
    """A nox session in which the index does as it is told, and git is the real one."""

    posargs = ("--publish",)

    def __init__(self, root: Path, *, index_works: bool) -> None:
        self.root, self.index_works = root, index_works

    def run(self, *command: str, external: bool = False) -> None:
        """Run git; take the checks for passed."""
        if external:
            _git(self.root, *command[1:])
        elif command[:2] == ("twine", "upload") and not self.index_works:
            raise CommandFailed(reason="the index is down")

    def log(self, _: str) -> None:
        """Say nothing."""


def test_a_failed_upload_leaves_no_tag(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tag says that a version is out, so it comes last, and the next try finds the release to be made."""
    package = all_packages(repository)["sample"]
    _write_changelog(package, repository)
    monkeypatch.setattr(noxfile, "ROOT", repository)
    monkeypatch.setattr(noxfile, "install_built", lambda *_, **__: None)
    monkeypatch.setattr(
        noxfile.wheels, "build", lambda it: Built(package=it, wheel=Path("a.whl"), sdist=Path("a.tar.gz"))
    )
    with pytest.raises(CommandFailed):
        noxfile.release_package.func(PublishingSession(repository, index_works=False), package)
    assert release.plan(package, repository).tag == "prebuilt-sample/v1.2.0"
    noxfile.release_package.func(PublishingSession(repository, index_works=True), package)
    with pytest.raises(release.NotReadyError, match="there already"):
        release.plan(package, repository)


def test_a_change_wants_a_fragment(repository: Path) -> None:
    """Sources that changed since the last release need a line in the changelog."""
    package = all_packages(repository)["sample"]
    assert release.untold([package], repository) == []
    _change(package, repository, "new")
    assert release.untold([package], repository) == [package]
    _say(package)
    assert release.untold([package], repository) == []


def _change(package: Package, root: Path, name: str) -> None:
    (package.folder / "src" / "prebuilt" / "sample" / f"{name}.py").write_text("")
    _commit(root)


def test_an_entry_of_the_changelog_tells_what_came_before_it(repository: Path) -> None:
    """Between the changelog and the tag nothing is untold but what was changed after the entry, nor is the version that is raised."""
    package = all_packages(repository)["sample"]
    _change(package, repository, "new")
    _write_changelog(package, repository)
    assert release.untold([package], repository) == []
    _git(repository, "tag", "prebuilt-sample/v1.2.0")
    (package.folder / "src" / "prebuilt" / "sample" / "_version.py").write_text('__version__ = "1.3.0"\n')
    _commit(repository)
    package = all_packages(repository)["sample"]
    assert release.untold([package], repository) == []
    _change(package, repository, "newer")
    assert release.untold([package], repository) == [package]


def test_uv_is_told_what_pip_was_told() -> None:
    """A company's index, set up for pip in a file or in the environment, is used by uv."""
    listing = (
        "global.index-url='https://packages.example.com/simple'\n"
        "global.timeout='60'\n"
        ":env:.extra-index-url='https://a.example.com/simple https://b.example.com/simple'\n"
        ":env:.find-links='/nowhere/at/all'\n"
    )
    assert venv.as_uv(listing) == {
        "UV_DEFAULT_INDEX": "https://packages.example.com/simple",
        "UV_INDEX": "https://a.example.com/simple https://b.example.com/simple",
    }


@pytest.fixture
def without_mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Be root on a machine that lacks a program, and whose apt-get reaches nothing."""
    apt_get = tmp_path / "apt-get"
    apt_get.write_text("#!/bin/sh\nexit 100\n")
    apt_get.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(machine, "APT_PACKAGES", {"no-such-program": "no-such-package"})
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.delenv("CI", raising=False)


@pytest.mark.usefixtures("without_mirror")
def test_what_cannot_be_installed_is_skipped(capfd: pytest.CaptureFixture[str]) -> None:
    """The other tests run, and the reader is told what is missing and why."""
    machine.install_engines()
    said = capfd.readouterr().out
    assert "returned non-zero exit status 100. Some integration tests will be skipped" in said
    assert "apt-get install no-such-package" in said


@pytest.mark.usefixtures("without_mirror")
def test_what_cannot_be_installed_ends_a_run_of_ci(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """There it is a failure of one line: nothing may be skipped."""
    monkeypatch.setenv("CI", "1")
    monkeypatch.setattr(venv, "ensure", lambda *_: venv.Environment(tmp_path, {}))
    monkeypatch.setattr(checks, "_names", lambda *_: ["lint"])
    assert checks.main(["lint"]) == 1
    assert "exit status 100" in capfd.readouterr().out


def test_summary_counts_all_sessions() -> None:
    """The last line of a run has the sum of pytest's counts, in pytest's own form; above it is what failed."""
    core, oci = checks.Session("tests(core)", "success", 1.4), checks.Session("tests(oci)", "failed", 2.0)
    core.see("============ 107 passed in 0.34s ============\n")
    oci.see("FAILED packages/prebuilt-oci/tests/test_tar.py::test_order - assert 1 == 2\n")
    oci.see("====== 1 failed, 52 passed, 2 skipped in 1.10s ======\n")
    lines = list(checks.summary([core, oci, checks.Session("docs")], 3.25))
    assert lines[0].split() == ["tests(core)", "success", "1", "s", "107", "passed", "in", "0.34s"]
    assert lines[1].split()[:2] == ["tests(oci)", "failed"]
    assert lines[2].split()[:3] == ["docs", "not", "run"]
    assert lines[3] == "tests(oci): FAILED packages/prebuilt-oci/tests/test_tar.py::test_order - assert 1 == 2"
    assert lines[-1] == "==== 159 passed, 1 failed, 2 skipped in 3.25s ===="


def test_a_session_that_fails_is_told_from_one_that_works(tmp_path: Path) -> None:
    """The exit status of nox decides; all that it prints is shown."""
    nox = tmp_path / "bin" / "nox"
    nox.parent.mkdir()
    nox.write_text("#!/bin/sh\necho running $2; echo trouble >&2; test $2 = works\n")
    nox.chmod(0o755)
    said: list[str] = []
    results = []
    for name in ("works", "fails"):
        session = checks.Session(name)
        session.run(venv.Environment(tmp_path, {"PATH": os.defpath}), Floor(said.append))
        results.append(session.result)
    assert results == ["success", "failed"]
    assert said[:2] == ["running works", "trouble"]
    assert re.fullmatch(r"---- fails: failed after \d+ s", said[-1])


def test_who_came_first_speaks_first() -> None:
    """Lines of several sessions that run at once are not mixed; that one has ended is told when it happens."""
    said: list[str] = []
    floor = Floor(said.append)
    for name in ("long", "short", "late"):
        floor.enter(name)
    floor.say("short", "s1")
    floor.say("long", "l1")
    floor.ask_round()
    floor.leave("short", "short: failed")
    floor.say("late", "t1")
    floor.say("long", "l2")
    assert said == ["l1", "---- short, meanwhile: s1", "short: failed", "(what it said follows in its turn)", "l2"]
    floor.leave("long", "long: success")
    floor.say("late", "t2")
    assert said[5:] == ["long: success", "s1", "short: failed", "t1", "t2"]


def test_every_script_runs_on_the_oldest_python() -> None:
    """What runs before anything is installed needs the standard library alone."""
    modules = ["tools.venv", "tools.machine", "tools.checks"]
    code = f"import sys, importlib; [importlib.import_module(name) for name in {modules!r}]; import json; "
    code += "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules} - sys.stdlib_module_names)))"
    printed = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); {code}"],
        check=True,
        text=True,
        capture_output=True,
    ).stdout
    assert set(json.loads(printed)) <= {"__main__", "tools"}


def test_every_test_is_of_one_session() -> None:
    """Whatever engines a test wants, one session runs it: that of the marker listed last; without one, the fast tests."""
    names = engines.marked(ROOT)
    sessions = {name: Expression.compile(engines.selection(ROOT, name)) for name in (None, *names)}
    for wanted in (set(some) for count in range(4) for some in itertools.combinations(names, count)):
        running = [name for name, chosen in sessions.items() if chosen.evaluate(_is_one_of(wanted))]
        assert running == [max(wanted, key=names.index, default=None)]


def _is_one_of(names: set[str]) -> Callable[..., bool]:
    return lambda name, **_: name in names


def test_every_integration_test_has_a_session() -> None:
    """A file without an engine's marker would be run by nothing."""
    files = {file for engine in engines.tested(ROOT) for file in engines.test_files(ROOT, engine)}
    assert set((ROOT / "tests" / "integration").rglob("test_*.py")) <= files


def test_markers_are_explained() -> None:
    """Each engine's marker says what it is for, and CONTRIBUTING shows how to run one."""
    markers = read_toml(ROOT / "pyproject.toml")["tool"]["pytest"]["ini_options"]["markers"]
    assert all(": " in marker for marker in markers)
