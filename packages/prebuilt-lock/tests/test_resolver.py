import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import pytest

from prebuilt.core.build_service import Cancellation
from prebuilt.core.errors import CancelledError, ResolveError, SettingError
from prebuilt.core.lock import Lock
from prebuilt.core.platforms import Platform
from prebuilt.core.requirements import Requirements, Target
from prebuilt.core.settings import Settings
from prebuilt.lock.beside import beside
from prebuilt.lock.resolver import LockResolver
from prebuilt.testing.python_index import PackageIndex, make_sdist, make_wheel
from prebuilt.testing.repodata import ListedPackage, write_repodata

SLIM = Target(platform=Platform.parse("linux/amd64"), glibc="2.36", base_python="3.11.7")
BARE = replace(SLIM, base_python=None)
RUNTIME = {"requests": ">=2.21.0"}


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings of a machine on which nothing is configured."""
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("CONDA_CHANNEL_ALIAS", raising=False)
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path / "home"),
        "XDG_CONFIG_DIRS": str(tmp_path / "etc"),
        "PIP_CONFIG_FILE": os.devnull,
        "UV_CACHE_DIR": str(tmp_path / "uv"),
        "METAFLOW_PREBUILT_CACHE_DIR": str(tmp_path / "cache"),
    }
    return Settings(environ, {})


@pytest.fixture
def index(tmp_path: Path) -> Iterator[PackageIndex]:
    """A package index with what runtime and users ask for."""
    dist = tmp_path / "dist"
    with PackageIndex().serving() as served:
        served.add(make_wheel(dist, "requests", "2.32.0", requires=["idna<4"]))
        served.add(make_wheel(dist, "requests", "2.99.0", requires=["idna<4"]))
        served.add(make_wheel(dist, "idna", "3.10"))
        served.add(make_wheel(dist, "idna", "3.7"))
        served.add(make_wheel(dist, "pandas", "2.2.3", requires=["numpy>=1.23", "idna>=3.10"]))
        served.add(make_wheel(dist, "numpy", "2.1.0", tag="cp311-cp311-manylinux_2_17_x86_64"))
        served.add(make_wheel(dist, "numpy", "1.26.4", tag="cp311-cp311-manylinux_2_17_x86_64"))
        yield served


@pytest.fixture
def channel(tmp_path: Path) -> str:
    """A conda channel with Python, runtime needs and numpy."""
    python = ["python >=3.11,<3.12.0a0"]
    packages = [
        ListedPackage(name="python", version="3.11.9", depends=["libffi"]),
        ListedPackage(name="libffi", version="3.4"),
        ListedPackage(name="requests", version="2.32.0", depends=["python", "idna"], subdir="noarch"),
        ListedPackage(name="requests", version="2.31.0", depends=["python", "idna"], subdir="noarch"),
        ListedPackage(name="idna", version="3.10", depends=["python"], subdir="noarch"),
        ListedPackage(name="idna", version="3.6", depends=["python"], subdir="noarch"),
        ListedPackage(name="numpy", version="1.26.4", build="py311_0", depends=python),
        ListedPackage(name="numpy", version="1.20.0", build="py311_0", depends=python),
        ListedPackage(name="weird", version="1_odd", build="py311_0", depends=python),
    ]
    return write_repodata(tmp_path / "channel", packages)


@pytest.fixture
def notes() -> list[str]:
    """What the resolver has told the user."""
    return []


@pytest.fixture
def resolve(
    settings: Settings, index: PackageIndex, channel: str, tmp_path: Path, notes: list[str]
) -> Callable[..., Lock]:
    """Resolve requirements of Python 3.11 with the index and the channel."""
    environ = {**settings.environ, "UV_DEFAULT_INDEX": index.url}
    resolver = LockResolver(Settings(environ, {}), note=notes.append, folder=tmp_path)

    def resolve(**asked: object) -> Lock:
        defaults = {"python": "3.11", "target": SLIM, "channels": (channel,)}
        return resolver.resolve(Requirements(**{**defaults, **asked}))  # type: ignore[arg-type]

    return resolve


Resolve = Callable[..., Lock]


def roles(lock: Lock) -> dict[str, tuple[str, str, str]]:
    """Return kind, version and role by name."""
    return {package.name: (package.kind, package.version, package.role) for package in lock.packages}


def test_a_base_without_python_is_the_reason_for_asking_conda(resolve: Resolve):
    """Who asked for wheels alone is told why a channel was wanted at all."""
    with pytest.raises(
        ResolveError, match=r"(?s)nowhere.*conda was asked because there is no Python 3\.11 in the base"
    ):
        resolve(target=BARE, pypi={"pandas": ""}, channels=("file:///nowhere",))


@pytest.fixture
def silent() -> Iterator[str]:
    """The URL of a server that accepts every connection and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:  # the system accepts; nobody reads
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("of", ["channel", "index", "source"])
def test_a_silent_server_is_not_waited_for_when_work_is_to_stop(
    settings: Settings, silent: str, tmp_path: Path, of: str
):
    """Whoever stops a resolution has it back at once, whatever it was waiting for."""
    stop = Cancellation()
    asked = {
        "channel": {"target": BARE, "conda": {"numpy": ""}, "channels": (silent,)},
        "index": {"target": SLIM, "pypi": {"pandas": ""}},
        "source": {"target": SLIM, "pypi": {"own": f"@ git+{silent}/own.git"}},
    }[of]
    timer = threading.Timer(1.0, stop.cancel)
    timer.start()
    began_s = time.monotonic()
    with pytest.raises(CancelledError):
        LockResolver(
            Settings({**settings.environ, "UV_DEFAULT_INDEX": f"{silent}/simple"}, {}), folder=tmp_path
        ).resolve(
            Requirements(python="3.11", **asked),  # type: ignore[arg-type]
            check=stop.check,
        )
    timer.join()
    assert time.monotonic() - began_s < 20


def test_a_failed_part_stops_the_other():
    """Where two parts of a resolution run side by side, the failure of one ends the wait for the other."""

    def wait(check: Callable[[], None]) -> None:
        while True:
            check()
            time.sleep(0.01)

    with pytest.raises(ResolveError), beside(1, lambda: None) as (pool, check):
        pool.submit(wait, check)
        raise ResolveError("resolve", reason="there is none")


def test_wheels_on_the_bases_python(resolve: Resolve):
    """On a base that has the Python, everything is a wheel; the runtime's closure is runtime, also where users share it."""
    lock = resolve(pypi={"pandas": "2.2.3"}, runtime=RUNTIME)
    assert (lock.python_source, lock.python_version) == ("base", "3.11.7")
    assert roles(lock) == {
        "pandas": ("wheel", "2.2.3", "user"),
        "numpy": ("wheel", "2.1.0", "user"),
        "requests": ("wheel", "2.99.0", "runtime"),
        "idna": ("wheel", "3.10", "runtime"),
    }


def test_runtime_alone(resolve: Resolve):
    """A step without requirements of its own gets the runtime's."""
    lock = resolve(runtime=RUNTIME)
    assert {role for _, _, role in roles(lock).values()} == {"runtime"}


def test_nothing_at_all(resolve: Resolve, index: PackageIndex):
    """Nothing asked, nothing locked, nobody bothered."""
    assert resolve().packages == ()
    assert index.requests == []


def test_user_pins_what_the_runtime_needs(resolve: Resolve):
    """The user's version of a runtime package is the one version there is."""
    assert roles(resolve(pypi={"requests": "2.32.0"}, runtime=RUNTIME))["requests"] == ("wheel", "2.32.0", "runtime")


def test_users_own_wheel_of_a_runtime_package(resolve: Resolve, tmp_path: Path):
    """A runtime package may be the user's own build, given by path."""
    wheel = make_wheel(tmp_path / "own", "idna", "3.9+patched")
    lock = resolve(pypi={"idna": f"@ {wheel}"}, runtime=RUNTIME)
    assert roles(lock)["idna"] == ("wheel", "3.9+patched", "runtime")


def test_conda_alone(resolve: Resolve, index: PackageIndex):
    """A conda step gets Python, runtime and its own packages from the channel; no index is asked."""
    lock = resolve(conda={"numpy": ""}, runtime=RUNTIME)
    assert (lock.python_source, lock.python_version) == ("conda", "3.11.9")
    assert roles(lock) == {
        "python": ("conda", "3.11.9", "python"),
        "libffi": ("conda", "3.4", "python"),
        "requests": ("conda", "2.32.0", "runtime"),
        "idna": ("conda", "3.10", "runtime"),
        "numpy": ("conda", "1.26.4", "user"),
    }
    assert index.requests == []


def test_conda_and_pypi_agree(resolve: Resolve):
    """Wheels stand on conda's packages: what those bring is not installed twice."""
    lock = resolve(conda={"numpy": ""}, pypi={"pandas": "2.2.3"}, runtime=RUNTIME)
    assert [package.name for package in lock.packages if package.kind == "wheel"] == ["pandas"]
    assert roles(lock)["numpy"] == ("conda", "1.26.4", "user")


def test_pypi_on_condas_python(resolve: Resolve):
    """On a base without the Python, conda brings Python and runtime, PyPI the rest."""
    lock = resolve(pypi={"pandas": "2.2.3"}, runtime=RUNTIME, target=BARE)
    kinds = {name: kind for name, (kind, _, _) in roles(lock).items()}
    assert kinds == {
        "python": "conda",
        "libffi": "conda",
        "requests": "conda",
        "idna": "conda",
        "pandas": "wheel",
        "numpy": "wheel",
    }


def test_pypi_pins_steer_conda(resolve: Resolve):
    """Conda chooses versions that agree with what the user asks of PyPI."""
    lock = resolve(pypi={"idna": "<3.7"}, runtime=RUNTIME, target=BARE)
    assert roles(lock)["idna"] == ("conda", "3.6", "runtime")


def test_runtime_package_that_the_user_asks_of_pypi(resolve: Resolve):
    """A runtime package that the user pins on PyPI comes from there, even if conda has no such version."""
    lock = resolve(pypi={"requests": "2.99.0"}, runtime=RUNTIME, target=BARE)
    assert roles(lock)["requests"] == ("wheel", "2.99.0", "runtime")


def test_runtime_yields_to_the_users_wheels(resolve: Resolve, index: PackageIndex, tmp_path: Path):
    """Where the user's wheels do not agree with conda's runtime packages, those come from PyPI too, and agree."""
    index.add(make_wheel(tmp_path / "dist", "pinned", "1.0", requires=["idna==3.7"]))
    lock = resolve(conda={"numpy": ""}, pypi={"pinned": ""}, runtime=RUNTIME)
    assert roles(lock) == {
        "python": ("conda", "3.11.9", "python"),
        "libffi": ("conda", "3.4", "python"),
        "numpy": ("conda", "1.26.4", "user"),
        "pinned": ("wheel", "1.0", "user"),
        "idna": ("wheel", "3.7", "runtime"),
        "requests": ("wheel", "2.99.0", "runtime"),
    }


def test_same_package_on_both_sides(resolve: Resolve):
    """Asked of both, a package comes from conda if the versions agree."""
    lock = resolve(conda={"numpy": "1.26.4"}, pypi={"numpy": ">=1.26,<2"})
    assert roles(lock)["numpy"] == ("conda", "1.26.4", "user")


def test_clash_between_conda_and_pypi(resolve: Resolve):
    """Both sides of a clash are named."""
    with pytest.raises(ResolveError, match=r"you require numpy==2\.1\.0.*conda brings numpy 1\.26\.4"):
        resolve(conda={"numpy": "1.26.4"}, pypi={"numpy": "2.1.0"})


def test_source_for_condas_python(resolve: Resolve, index: PackageIndex, tmp_path: Path):
    """Source may stand on conda's packages too."""
    index.add(make_sdist(tmp_path / "dist", "pure", "1.0", requires=["numpy<2"]))
    lock = resolve(conda={"numpy": ""}, pypi={"pure": ""})
    assert roles(lock)["pure"] == ("wheel", "1.0", "user")
    assert roles(lock)["numpy"][0] == "conda"


def test_version_that_pypi_cannot_read(resolve: Resolve):
    """A conda package whose version only conda can read is in the lock like any other."""
    assert roles(resolve(conda={"weird": ""}, pypi={"numpy": "1.26.4"}))["weird"] == ("conda", "1_odd", "user")


def test_lock_says_when_and_by_what(resolve: Resolve, channel: str):
    """A lock is a whole one: identity, target, time, tools; and it survives being written and read."""
    asked = {"pypi": {"numpy": "1.26.4"}, "channels": (channel,)}
    lock = resolve(**asked)
    assert lock.req_id == Requirements(python="3.11", target=SLIM, **asked).req_id  # type: ignore[arg-type]
    assert abs((datetime.now(timezone.utc) - lock.resolved_at).total_seconds()) < 60
    assert lock.resolver.startswith("py-rattler ")
    assert ", uv " in lock.resolver
    assert Lock.parse(lock.to_bytes()) == lock


def test_same_again(resolve: Resolve):
    """Resolved twice, the content is the same."""
    one, two = (resolve(conda={"numpy": ""}, pypi={"pandas": ""}, runtime=RUNTIME) for _ in range(2))
    assert one.content_id == two.content_id


def test_malformed_priority(settings: Settings):
    """A channel priority that is none is refused at once."""
    environ = {**settings.environ, "METAFLOW_PREBUILT_CONDA_CHANNEL_PRIORITY": "flexible"}
    with pytest.raises(SettingError, match="CHANNEL_PRIORITY"):
        LockResolver(Settings(environ, {}))
