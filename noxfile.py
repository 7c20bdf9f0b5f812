# /// script
# dependencies = ["nox[uv]>=2025.5.1", "tomli>=2; python_version < '3.11'"]
# ///
"""What is done to this repository: checks, builds, releases. `nox --list` shows it; `python3 tests` runs what CI runs."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import nox

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT))

from tools import engines, release, skeleton, venv, wheels  # noqa: E402 - after the path that makes them importable
from tools.packages import Package, all_packages, closure  # noqa: E402

nox.needs_version = ">=2025.5.1"
nox.options.default_venv_backend = "uv"
nox.options.reuse_existing_virtualenvs = True
nox.options.sessions = ["lint", "typing", "tests"]

PACKAGES = all_packages()
SUITES = PACKAGES["testing"]
BY_PACKAGE = nox.parametrize("package", [nox.param(package, id=short) for short, package in PACKAGES.items()])
BY_ENGINE = nox.parametrize("engine", [nox.param(engine, id=engine) for engine in engines.tested(ROOT)])
# What the tools of this repository import, and what its packaging tests run.
HOUSE = ("nox[uv]", "tomli; python_version < '3.11'", "import-linter", "towncrier")
PACKAGING = (*HOUSE, "mypy", "ruff", "setuptools")


def install_built(
    session: nox.Session, *packages: Package, needs: tuple[str, ...] = (), options: tuple[str, ...] = ()
) -> None:
    """Install the built wheels of `packages` and of what they need from this repository, then `needs`."""
    built = [wheels.build(package) for package in closure(packages, PACKAGES.values())]
    # By name and reinstalled: a wheel that was built again has the version of the one that it replaces.
    again = [f"--reinstall-package={each.package.name}" for each in built]
    session.install(*options, *again, *(str(each.wheel) for each in built), *needs)


def install_editable(session: nox.Session, *needs: str) -> None:
    """Install every package from its folder, then `needs`."""
    session.install(*(f"--editable={package.folder}" for package in PACKAGES.values()), *needs)


@nox.session
@BY_PACKAGE
def tests(session: nox.Session, package: Package) -> None:
    """Run the fast tests of one package on its built wheel: no network, no daemon."""
    install_built(session, package, SUITES, needs=package.test_needs)
    run_tests(session, str(package.folder / "tests"), *session.posargs)


@nox.session
@BY_PACKAGE
def minimums(session: nox.Session, package: Package) -> None:
    """Run the fast tests of one package on the oldest releases that it says it works with; on the oldest Metaflow whole flows, too."""
    third_party = tuple(need for need in package.dependencies if not need.startswith("prebuilt-"))
    install_built(
        session, package, SUITES, needs=(*third_party, *package.test_needs), options=("--resolution=lowest-direct",)
    )
    run_tests(session, str(package.folder / "tests"), *session.posargs)
    if package is PACKAGES["metaflow"] and not session.posargs:
        session.run("pytest", "-m", engines.ON_MINIMUMS, *map(str, engines.test_files(ROOT, engines.ON_MINIMUMS)))


def run_tests(session: nox.Session, *arguments: str) -> None:
    """Run pytest without the tests that need an engine."""
    session.run("pytest", "-m", engines.selection(ROOT, None), *arguments)


@nox.session
@BY_ENGINE
def integration(session: nox.Session, engine: str) -> None:
    """Run the tests that need one engine, and none that is listed after it; they start it themselves."""
    install_built(session, *PACKAGES.values(), needs=tuple(need for p in PACKAGES.values() for need in p.test_needs))
    files = map(str, engines.test_files(ROOT, engine))
    session.run("pytest", "--durations=10", "-m", engines.selection(ROOT, engine), *files, *session.posargs)


@nox.session
def packaging(session: nox.Session) -> None:
    """Look at the built wheels: contents, namespaces, discovery by Metaflow; and at the tools of this repository."""
    install_built(session, SUITES, needs=PACKAGING)
    session.run("pytest", *(session.posargs or ["tests/packaging"]))


@nox.session
def typing(session: nox.Session) -> None:
    """Check types, strictly, of the installed packages and of the tools of this repository."""
    install_built(session, *PACKAGES.values(), needs=(*HOUSE, "mypy", "tomli"))
    modules = [f"--package={package.module}" for package in PACKAGES.values()]
    mypy = ("mypy", f"--config-file={ROOT / 'pyproject.toml'}", f"--cache-dir={ROOT}/.nox/mypy")
    with session.chdir(session.create_tmp()):  # away from the sources: what is installed is what is checked
        session.run(*mypy, *modules)
    session.run(*mypy, "tools", "noxfile.py")


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, formatting, the import ladder, generated tables and changelog fragments."""
    install_editable(session, *HOUSE, "ruff")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("python", "-m", "tools.ladder")
    session.run("python", "-m", "tools.tables", "--check")
    session.run("python", "-m", "tools.release")


@nox.session(default=False)
def format(session: nox.Session) -> None:  # noqa: A001 - the name of the session
    """Format the code, mend what ruff can mend, make generated tables anew."""
    session.install("ruff", "tomli; python_version < '3.11'")
    session.run("ruff", "check", "--fix")
    session.run("ruff", "format")
    session.run("python", "-m", "tools.tables")


@nox.session(name="wheels", default=False)
def build_wheels(session: nox.Session) -> None:
    """Build every package into dist/ and check what an index would check."""
    session.install("twine")
    dist = ROOT / "dist"
    dist.mkdir(exist_ok=True)
    made = [shutil.copy(file, dist) for built in wheels.build_all().values() for file in (built.wheel, built.sdist)]
    session.run("twine", "check", "--strict", *map(str, made))


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation; a broken link is an error. `-- serve` shows it while you write."""
    session.install("mkdocs>=1.6")
    action = session.posargs or ["build", "--strict", "--site-dir", str(ROOT / "site")]
    session.run("mkdocs", *action)


@nox.session(name="release", default=False)
@BY_PACKAGE
def release_package(session: nox.Session, package: Package) -> None:
    """Build and check one package for release; `-- --publish` also uploads and tags it."""
    try:
        ready = release.plan(package, ROOT)
    except release.NotReadyError as error:
        session.error(str(error))
    install_built(session, SUITES, needs=(*PACKAGING, "twine"))
    built = wheels.build(package)
    files = (str(built.wheel), str(built.sdist))
    session.run("pytest", "tests/packaging")
    session.run("twine", "check", "--strict", *files)
    if "--publish" not in session.posargs:
        session.log(
            f"ready: add `-- --publish` to upload {built.wheel.name} and {built.sdist.name}, and tag {ready.tag}"
        )
        return
    session.run("twine", "upload", *files)  # before the tag, which says that it is out: what failed can be tried again
    session.run("git", "tag", "--annotate", ready.tag, f"--message={package.name} {package.version}", external=True)
    session.log(f"next: git push origin {ready.tag}; raise the version in _version.py")


@nox.session(name="new-package", venv_backend="none", default=False)
def new_package(session: nox.Session) -> None:
    """Start a backend package: `nox -s new-package -- ecr registry`, or `-- kaniko builder`, or both."""
    if not session.posargs:
        session.error("name it: nox -s new-package -- NAME [registry] [builder]")
    name, *kinds = session.posargs
    folder = skeleton.write(ROOT, name, kinds or ["registry"])
    session.log(f"made {folder.relative_to(ROOT)}")
    session.notify("format")


@nox.session(venv_backend="none", default=False)
def dev(session: nox.Session) -> None:
    """Make .venv with every package editable and the tools beside them."""
    python = str(ROOT / ".venv" / ("Scripts" if os.name == "nt" else "bin") / "python")
    uv = venv.uv_program()
    session.run(uv, "venv", "--allow-existing", "--python", sys.executable, str(ROOT / ".venv"), external=True)
    editables = [f"--editable={package.folder}" for package in PACKAGES.values()]
    session.run(uv, "pip", "install", "--python", python, *editables, *HOUSE, "ruff", "mypy", "mkdocs", external=True)


@nox.session(venv_backend="none", default=False)
def demo(session: nox.Session) -> None:
    """Run the demo of the README."""
    session.run(sys.executable, "demo", *session.posargs, external=True)


@nox.session(default=False)
def benchmarks(session: nox.Session) -> None:
    """Measure what the README's figures come from, and print the table."""
    install_built(session, *PACKAGES.values(), options=("--compile-bytecode",))  # as pip does when users install
    session.run("python", "benchmarks", *session.posargs)


if __name__ == "__main__":
    nox.main()
