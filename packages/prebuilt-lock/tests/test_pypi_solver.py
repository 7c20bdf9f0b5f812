import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from prebuilt.core.errors import DigestMismatchError, FetchError, ResolveError
from prebuilt.core.lock import Wheel
from prebuilt.core.platforms import Platform
from prebuilt.core.requirements import Target
from prebuilt.core.settings import Settings
from prebuilt.lock.conda_distributions import CondaDistribution
from prebuilt.lock.index_config import IndexConfig
from prebuilt.lock.pypi_solver import PypiSolver
from prebuilt.lock.pypi_specs import PypiSpec
from prebuilt.lock.targets import PythonTarget
from prebuilt.lock.wheelhouse import WheelHouse
from prebuilt.testing.python_index import PackageIndex, make_sdist, make_wheel

HOST_XY = f"{sys.version_info[0]}.{sys.version_info[1]}"
AMD64 = Target(platform=Platform.parse("linux/amd64"), glibc="2.36")
ARM64 = Target(platform=Platform.parse("linux/arm64"), glibc="2.36")

Solve = Callable[..., dict[str, Wheel]]


def on(target: Target, python: str = "3.11.7") -> PythonTarget:
    """Return a target with its Python."""
    return PythonTarget(target=target, python_version=python)


@pytest.fixture
def dist(tmp_path: Path) -> Path:
    """A folder for wheels and sdists."""
    return tmp_path / "dist"


@pytest.fixture
def index() -> Iterator[PackageIndex]:
    """An empty package index that is being served."""
    with PackageIndex().serving() as served:
        yield served


@pytest.fixture
def notes() -> list[str]:
    """What the solver has told the user."""
    return []


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """An environment in which neither pip nor uv is configured."""
    (tmp_path / "home").mkdir()
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path / "home"),
        "XDG_CONFIG_DIRS": str(tmp_path / "etc"),
        "PIP_CONFIG_FILE": os.devnull,
        "UV_CACHE_DIR": str(tmp_path / "uv"),
        "UV_HTTP_RETRIES": "0",
    }


@pytest.fixture
def solver(index: PackageIndex, tmp_path: Path, notes: list[str], environ: dict[str, str]) -> PypiSolver:
    """A solver that knows the index and nothing else."""
    return PypiSolver(
        config=IndexConfig.load(Settings({**environ, "UV_DEFAULT_INDEX": index.url}, {}), folder=tmp_path),
        wheelhouse=WheelHouse(tmp_path / "wheelhouse"),
        note=notes.append,
        folder=tmp_path,
    )


@pytest.fixture
def solve(solver: PypiSolver, tmp_path: Path) -> Solve:
    """Resolve name → spec; gives wheels by name."""

    def solve(
        packages: dict[str, str], target: PythonTarget | None = None, brought: tuple[CondaDistribution, ...] = ()
    ) -> dict[str, Wheel]:
        specs = [PypiSpec.parse(name, spec, folder=tmp_path) for name, spec in packages.items()]
        return {wheel.name: wheel for wheel in solver.solve(specs, target or on(AMD64), brought=brought)}

    return solve


def test_wheels_with_what_they_need(solve: Solve, index: PackageIndex, dist: Path):
    """A requirement brings its dependencies, each with URL, hash and size as the index states them."""
    index.add(make_wheel(dist, "Al.Pha", "1.0", requires=["beta>=1"]))
    index.add(make_wheel(dist, "beta", "1.5"))
    wheels = solve({"al_pha": "1.0"})
    assert sorted(wheels) == ["al-pha", "beta"]
    assert wheels["beta"] == Wheel(
        name="beta",
        version="1.5",
        filename="beta-1.5-py3-none-any.whl",
        url=index.url.removesuffix("/simple") + "/files/beta-1.5-py3-none-any.whl",
        sha256=index.project("beta")[0].stated_sha256,
        size_bytes=(dist / "beta-1.5-py3-none-any.whl").stat().st_size,
        role="user",
    )


@pytest.mark.parametrize(
    ("spec", "version"),
    [("1.0", "1.0"), (">=1,<2", "1.5"), ("", "2.0"), ("*", "2.0"), ("1.*", "1.5"), ("~=1.0", "1.5")],
)
def test_version_specs(solve: Solve, index: PackageIndex, dist: Path, spec: str, version: str):
    """A bare version means that one; ranges, prefixes and nothing at all mean the newest that fits."""
    for there in ("1.0", "1.5", "2.0"):
        index.add(make_wheel(dist, "alpha", there))
    assert solve({"alpha": spec})["alpha"].version == version


def test_extras_bring_their_packages(solve: Solve, index: PackageIndex, dist: Path):
    """name[extra] adds what the extra needs."""
    index.add(make_wheel(dist, "alpha", "1.0", extras={"more": ["beta"]}))
    index.add(make_wheel(dist, "beta", "1.0"))
    assert sorted(solve({"alpha": ""})) == ["alpha"]
    assert sorted(solve({"alpha[more]": ""})) == ["alpha", "beta"]


@pytest.mark.parametrize(
    ("target", "tag"),
    [
        (AMD64, "cp311-cp311-manylinux_2_34_x86_64"),
        (ARM64, "cp311-cp311-manylinux_2_17_aarch64"),
        (Target(platform=AMD64.platform, glibc="2.31"), "cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64"),
        (Target(platform=AMD64.platform), "cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64"),
        (Target(platform=Platform.parse("darwin/arm64")), "cp311-cp311-macosx_11_0_arm64"),
    ],
    ids=["new glibc", "arm64", "older glibc", "unknown glibc", "macOS"],
)
def test_the_wheel_is_the_targets(solve: Solve, index: PackageIndex, dist: Path, target: Target, tag: str):
    """The best wheel for platform and glibc of the target is taken, whatever the host is."""
    for there in (
        "cp311-cp311-manylinux_2_34_x86_64",
        "cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64",
        "cp311-cp311-manylinux_2_17_aarch64",
        "cp311-cp311-musllinux_1_2_x86_64",
        "cp311-cp311-macosx_11_0_arm64",
        "cp312-cp312-manylinux_2_17_x86_64",
    ):
        index.add(make_wheel(dist, "alpha", "1.0", tag=there))
    assert solve({"alpha": ""}, on(target))["alpha"].filename == f"alpha-1.0-{tag}.whl"


def test_stable_abi_fits_newer_pythons(solve: Solve, index: PackageIndex, dist: Path):
    """An abi3 wheel of an older Python fits, and yields to one of the exact version."""
    index.add(make_wheel(dist, "alpha", "1.0", tag="cp38-abi3-manylinux_2_17_x86_64"))
    assert solve({"alpha": ""})["alpha"].filename == "alpha-1.0-cp38-abi3-manylinux_2_17_x86_64.whl"


def test_markers_are_the_targets(solve: Solve, index: PackageIndex, dist: Path):
    """Environment markers are evaluated for the target's Python and platform, not for the host's."""
    for name in ("old", "new", "arm", "mac"):
        index.add(make_wheel(dist, name, "1.0"))
    requires = [
        "old; python_version < '3.9'",
        "new; python_full_version >= '3.13.2'",
        "arm; platform_machine == 'aarch64'",
        "mac; sys_platform == 'darwin'",
    ]
    index.add(make_wheel(dist, "alpha", "1.0", requires=requires))
    assert sorted(solve({"alpha": ""})) == ["alpha"]
    assert sorted(solve({"alpha": ""}, on(ARM64, "3.13.2"))) == ["alpha", "arm", "new"]
    assert sorted(solve({"alpha": ""}, on(Target(platform=Platform.parse("darwin/amd64")), "3.8.0"))) == [
        "alpha",
        "mac",
        "old",
    ]


def test_index_without_hashes_and_sizes(solve: Solve, index: PackageIndex, dist: Path):
    """Where the index states neither hash nor size, the file itself is asked."""
    wheel = make_wheel(dist, "alpha", "1.0")
    index.add(wheel, has_hash=False)
    locked = solve({"alpha": ""})["alpha"]
    assert locked.sha256 == index.project("alpha")[0].stated_sha256
    assert locked.size_bytes == wheel.stat().st_size


def test_yanked_version_that_is_pinned_is_told(solve: Solve, index: PackageIndex, dist: Path, notes: list[str]):
    """A yanked version is taken if it alone was asked for, with a note that gives the reason."""
    index.add(make_wheel(dist, "alpha", "1.0"), yanked="deletes your home")
    assert solve({"alpha": "1.0"})["alpha"].version == "1.0"
    assert notes == ['prebuilt: `alpha==1.0` is yanked (reason: "deletes your home")']


def test_yanked_version_is_not_chosen(solve: Solve, index: PackageIndex, dist: Path):
    """A yanked version is passed over."""
    index.add(make_wheel(dist, "alpha", "1.0"))
    index.add(make_wheel(dist, "alpha", "2.0"), yanked="")
    assert solve({"alpha": ""})["alpha"].version == "1.0"


class TestLocalAndDirect:
    def test_local_wheel_goes_to_the_wheelhouse(
        self, solve: Solve, solver: PypiSolver, index: PackageIndex, dist: Path
    ):
        """A wheel given by path has no URL in the lock; its bytes are kept by hash."""
        index.add(make_wheel(dist, "beta", "1.0"))
        path = make_wheel(dist, "alpha", "1.0", requires=["beta"])
        wheels = solve({"alpha": f"@ {path}"})
        locked = wheels["alpha"]
        assert (locked.url, sorted(wheels)) == ("", ["alpha", "beta"])
        kept = solver.wheelhouse.path(locked.sha256, locked.filename)
        assert kept is not None
        assert kept.read_bytes() == path.read_bytes()

    def test_relative_path(self, solve: Solve, tmp_path: Path):
        """A relative path is relative to the folder of the flow, and may be given as file URL."""
        path = make_wheel(tmp_path / "my wheels", "alpha", "1.0+local.1")
        assert solve({"alpha": "@ my wheels/alpha-1.0+local.1-py3-none-any.whl"})["alpha"].version == "1.0+local.1"
        assert solve({"alpha": f"@ {path.as_uri()}"})["alpha"].url == ""

    def test_wheel_by_url(self, solve: Solve, index: PackageIndex, dist: Path):
        """A wheel given by URL keeps its URL."""
        index.add(make_wheel(dist, "alpha", "1.0"))
        url = index.url.removesuffix("/simple") + "/files/alpha-1.0-py3-none-any.whl"
        locked = solve({"alpha": f"@ {url}"})["alpha"]
        assert locked.url == url
        assert locked.size_bytes == (dist / "alpha-1.0-py3-none-any.whl").stat().st_size

    def test_names_of_wheels_with_two_underscores(self, solve: Solve, index: PackageIndex, dist: Path, tmp_path: Path):
        """What old tools wrote and uv takes is taken, from an index and from a folder."""
        index.add(make_wheel(dist, "al_pha", "1.0").rename(dist / "al__pha-1.0-py3-none-any.whl"))
        local = make_wheel(tmp_path, "be_ta", "2.0").rename(tmp_path / "be__ta-2.0-py3-none-any.whl")
        wheels = solve({"al_pha": "", "be_ta": f"@ {local}"})
        assert {name: (wheel.version, wheel.filename) for name, wheel in wheels.items()} == {
            "al-pha": ("1.0", "al__pha-1.0-py3-none-any.whl"),
            "be-ta": ("2.0", "be__ta-2.0-py3-none-any.whl"),
        }

    def test_missing_local_wheel(self, solve: Solve):
        """A path with nothing there is named."""
        with pytest.raises(ResolveError, match=r"nowhere/alpha-1\.0-py3-none-any\.whl"):
            solve({"alpha": "@ nowhere/alpha-1.0-py3-none-any.whl"})

    def test_find_links_of_the_user(self, tmp_path: Path, environ: dict[str, str], notes: list[str]):
        """Wheels in a find-links folder of pip's configuration are used, and kept like local ones."""
        make_wheel(tmp_path / "links", "alpha", "1.0")
        environ |= {"PIP_FIND_LINKS": str(tmp_path / "links"), "PIP_NO_INDEX": "1"}
        solver = PypiSolver(
            config=IndexConfig.load(Settings(environ, {}), folder=tmp_path),
            wheelhouse=WheelHouse(tmp_path / "wheelhouse"),
            note=notes.append,
            folder=tmp_path,
        )
        (locked,) = solver.solve([PypiSpec.parse("alpha", "")], on(AMD64))
        assert locked.url == ""


class TestSource:
    def test_pure_python_is_built(self, solve: Solve, solver: PypiSolver, index: PackageIndex, dist: Path):
        """A package with nothing but pure source is built here, for any target, the same each time."""
        index.add(make_sdist(dist, "pure", "1.0", requires=["beta"]))
        index.add(make_wheel(dist, "beta", "1.0"))
        wheels = solve({"pure": ""}, on(ARM64, f"{HOST_XY}.1"))
        assert sorted(wheels) == ["beta", "pure"]
        assert wheels["pure"].url == ""
        assert wheels["pure"].filename == "pure-1.0-py3-none-any.whl"
        assert solver.wheelhouse.path(wheels["pure"].sha256, wheels["pure"].filename)
        assert solve({"pure": ""}, on(ARM64, f"{HOST_XY}.1")) == wheels

    def test_wheels_are_preferred_to_newer_source(self, solve: Solve, index: PackageIndex, dist: Path):
        """An older version with a wheel is taken over a newer one of source alone: nothing is executed unless it must."""
        index.add(make_wheel(dist, "alpha", "1.0"))
        index.add(make_sdist(dist, "alpha", "2.0", fails_with="executed"))
        assert solve({"alpha": ""})["alpha"].version == "1.0"

    def test_python_that_is_not_here(self, solve: Solve, index: PackageIndex, dist: Path):
        """Source is built by whatever Python is here, for one that is not."""
        index.add(make_sdist(dist, "pure", "1.0"))
        assert solve({"pure": ""}, on(AMD64, "3.99.0"))["pure"].version == "1.0"

    def test_compiled_source_is_refused(self, solve: Solve, index: PackageIndex, dist: Path):
        """Source that gives a wheel of one platform is refused, with what to do."""
        index.add(make_sdist(dist, "native", "1.0", tag=f"cp{HOST_XY.replace('.', '')}-abi3-linux_x86_64"))
        index.add(make_wheel(dist, "native", "1.0", tag="cp37-cp37m-manylinux_2_17_x86_64"))
        with pytest.raises(ResolveError, match=r"native 1\.0 for linux/amd64.*needs compiling.*@conda"):
            solve({"native": "1.0"})

    def test_compiled_source_is_not_even_tried(self, solve: Solve, index: PackageIndex, dist: Path):
        """Source that says it will be compiled is refused before it is built."""
        setup = "from setuptools import Extension, setup\nsetup(ext_modules=[Extension('a', ['a.c'])])\n"
        index.add(make_sdist(dist, "native", "1.0", files={"setup.py": setup}, fails_with="was built"))
        index.add(make_wheel(dist, "native", "1.0", tag="cp37-cp37m-manylinux_2_17_x86_64"))
        with pytest.raises(ResolveError, match=r"needs compiling: its setup\.py makes extension modules"):
            solve({"native": "1.0"})

    def test_failed_build_says_why(self, solve: Solve, index: PackageIndex, dist: Path):
        """Source that cannot be built is named, with the last words of its build."""
        index.add(make_sdist(dist, "broken", "1.0", fails_with="cc: command not found"))
        with pytest.raises(ResolveError, match=r"(?s)broken==1\.0.*cannot be built.*cc: command not found") as raised:
            solve({"broken": ""})
        assert "constraints.txt" not in str(raised.value)

    def test_changed_source_is_refused(self, solve: Solve, index: PackageIndex, dist: Path):
        """Source that is not what the index announces is not built."""
        index.add(make_sdist(dist, "pure", "1.0"), sha256="0" * 64)
        with pytest.raises((DigestMismatchError, ResolveError), match="0" * 64):
            solve({"pure": ""})

    def test_local_project_and_sdist(self, solve: Solve, dist: Path, tmp_path: Path):
        """A folder and an sdist given by path are built."""
        import tarfile

        sdist = make_sdist(dist, "pure", "1.0")
        with tarfile.open(sdist) as tar:
            tar.extractall(tmp_path / "src")  # noqa: S202 - made three lines above
        assert solve({"pure": f"@ {sdist}"})["pure"].version == "1.0"
        assert solve({"pure": "@ src/pure-1.0"})["pure"].version == "1.0"

    def test_source_that_a_local_wheel_names(self, solve: Solve, dist: Path):
        """What a wheel given by path requires by URL may be source."""
        sdist = make_sdist(dist, "pure", "1.0")
        wheel = make_wheel(dist, "alpha", "1.0", requires=[f"pure @ {sdist.as_uri()}"])
        assert solve({"alpha": f"@ {wheel}"})["pure"].filename == "pure-1.0-py3-none-any.whl"

    def test_names_of_what_needs_the_users_own_source(self, solver: PypiSolver, dist: Path):
        """What is needed may be source that somebody else asks for."""
        own = PypiSpec.parse("pure", f"@ {make_sdist(dist, 'pure', '1.0')}")
        assert solver.names([PypiSpec.parse("pure", ">=1")], on(AMD64), brought=(), direct=[own]) == {"pure"}

    @pytest.mark.parametrize("form", ["gztar", "zip"])
    def test_folder_of_an_archive(self, solve: Solve, index: PackageIndex, dist: Path, tmp_path: Path, form: str):
        """A project that is not at the top of an archive is built where ``#subdirectory=`` says."""
        import shutil
        import tarfile

        top = tmp_path / "all" / "pure-main"
        with tarfile.open(make_sdist(dist, "pure", "1.0")) as tar:
            tar.extractall(tmp_path)  # noqa: S202 - made one line above
        shutil.copytree(tmp_path / "pure-1.0", top / "python")
        archive = Path(shutil.make_archive(str(dist / "pure-main"), form, top.parent, top.name))
        index.add(archive)
        url = index.url.removesuffix("/simple") + f"/files/{archive.name}#subdirectory=python"
        assert solve({"pure": f"@ {url}"})["pure"].filename == "pure-1.0-py3-none-any.whl"

    @pytest.mark.parametrize("revision", ["v1", "refs/pull/1/head", "commit"])
    def test_git_repository(self, solve: Solve, dist: Path, tmp_path: Path, revision: str):
        """A commit of a repository is built, also one that no branch and no tag leads to."""
        import subprocess
        import tarfile

        with tarfile.open(make_sdist(dist, "pure", "1.0")) as tar:
            tar.extractall(tmp_path)  # noqa: S202 - made one line above
        repository = tmp_path / "pure-1.0"

        def git(*command: str) -> str:
            identity = ["-c", "user.name=me", "-c", "user.email=me@example.com"]
            environ = {
                **os.environ,
                "GIT_CONFIG_GLOBAL": os.devnull,
                "GIT_CONFIG_SYSTEM": os.devnull,
            }  # nothing is signed
            done = subprocess.run(
                ["git", *identity, *command], cwd=repository, check=True, capture_output=True, env=environ
            )
            return done.stdout.decode().strip()

        for command in (["init"], ["add", "."], ["commit", "-m", "first"], ["tag", "v1"]):
            git(*command)
        if revision != "v1":
            git("commit", "--allow-empty", "-m", "of a pull request")
            git("update-ref", "refs/pull/1/head", "HEAD")
            git("reset", "--hard", "v1")
        revision = git("rev-parse", "refs/pull/1/head") if revision == "commit" else revision
        built = solve({"pure": f"@ git+{repository.as_uri()}@{revision}"})["pure"]
        assert built.filename == "pure-1.0-py3-none-any.whl"


class TestOnConda:
    NUMPY = CondaDistribution(name="numpy", version="1.26.4")

    def test_what_conda_brings_is_taken_as_it_is(self, solve: Solve, index: PackageIndex, dist: Path):
        """A package that conda brings satisfies wheels, is not locked again and not asked of the index."""
        index.add(make_wheel(dist, "alpha", "1.0", requires=["numpy>=1.20,<=1.26.4", "beta"]))
        index.add(make_wheel(dist, "beta", "1.0", requires=["numpy==1.26.4"]))
        index.add(make_wheel(dist, "numpy", "1.26.3"))
        assert sorted(solve({"alpha": "", "numpy": ">=1.26"}, brought=(self.NUMPY,))) == ["alpha", "beta"]
        assert not [request for request in index.requests if "numpy" in request]

    def test_older_wheel_that_agrees_is_found(self, solve: Solve, index: PackageIndex, dist: Path):
        """The newest version that agrees with conda's packages is taken."""
        index.add(make_wheel(dist, "alpha", "1.0", requires=["numpy<2"]))
        index.add(make_wheel(dist, "alpha", "2.0", requires=["numpy>=2"]))
        assert solve({"alpha": ""}, brought=(self.NUMPY,))["alpha"].version == "1.0"

    def test_clash_names_both_sides(self, solve: Solve, index: PackageIndex, dist: Path):
        """A wheel that does not agree with conda's package: the error names the two."""
        index.add(make_wheel(dist, "alpha", "1.0", requires=["numpy>=2"]))
        with pytest.raises(ResolveError, match=r"alpha.*depend on numpy>=2.*conda brings numpy 1\.26\.4"):
            solve({"alpha": ""}, brought=(self.NUMPY,))

    def test_missing_extra_is_told(self, solve: Solve, index: PackageIndex, dist: Path, notes: list[str]):
        """An extra of a package that conda brings cannot be seen from here, which is said."""
        index.add(make_wheel(dist, "alpha", "1.0", requires=["numpy[fast]"]))
        solve({"alpha": ""}, brought=(self.NUMPY,))
        assert "does not have an extra named `fast`" in notes[0]


class TestNoSolution:
    def test_unknown_package(self, solve: Solve):
        """A package that no index has is named."""
        with pytest.raises(ResolveError, match=r"nosuch was not found.*check the name"):
            solve({"nosuch": ""})

    def test_missing_version(self, solve: Solve, index: PackageIndex, dist: Path):
        """A version that does not exist is named."""
        index.add(make_wheel(dist, "alpha", "1.0"))
        with pytest.raises(ResolveError, match=r"no version of alpha==9"):
            solve({"alpha": "9"})

    def test_clash(self, solve: Solve, index: PackageIndex, dist: Path):
        """Requirements that exclude each other are explained."""
        index.add(make_wheel(dist, "alpha", "1.0", requires=["beta<1"]))
        index.add(make_wheel(dist, "beta", "2.0"))
        with pytest.raises(ResolveError, match=r"alpha.*beta<1"):
            solve({"alpha": "", "beta": "2.0"})

    @pytest.mark.parametrize(
        ("tag", "told"),
        [
            ("cp311-cp311-macosx_11_0_arm64", "macosx_11_0_arm64"),
            ("cp39-cp39-manylinux_2_17_x86_64", "cp39"),
            ("cp311-cp311-musllinux_1_2_x86_64", "musllinux_1_2_x86_64"),
        ],
    )
    def test_no_wheel_for_the_target(self, solve: Solve, index: PackageIndex, dist: Path, tag: str, told: str):
        """Package, version and platform are named, and the platforms and Pythons that there are wheels for."""
        index.add(make_wheel(dist, "alpha", "1.0", tag=tag))
        with pytest.raises(ResolveError) as caught:
            solve({"alpha": "1.0"})
        for part in ("alpha==1.0", "linux/amd64", "Python 3.11.7", told, "@conda"):
            assert part in str(caught.value)

    def test_python_too_old(self, solve: Solve, index: PackageIndex, dist: Path):
        """A package for newer Pythons is explained."""
        index.add(make_wheel(dist, "alpha", "1.0", requires_python=">=3.12"))
        with pytest.raises(ResolveError, match=r"Python ?>=3\.12"):
            solve({"alpha": ""})

    def test_malformed_spec(self, solve: Solve):
        """A spec that is none is quoted."""
        with pytest.raises(ResolveError, match=r"read the requirement alpha: 'about 3'"):
            solve({"alpha": "about 3"})

    def test_ancient_glibc(self, solve: Solve):
        """A base whose C library is older than any wheel's is refused."""
        with pytest.raises(ResolveError, match="newer base image"):
            solve({"alpha": ""}, on(Target(platform=AMD64.platform, glibc="2.12")))


class TestIndexFailures:
    def test_private_index_without_credentials(self, solve: Solve, index: PackageIndex, dist: Path):
        """An index that wants a login is named, with where to put it."""
        index.add(make_wheel(dist, "alpha", "1.0"))
        index.username, index.password = "me", "pw"
        with pytest.raises(ResolveError, match=r"127\.0\.0\.1.*401.*netrc"):
            solve({"alpha": ""})

    def test_private_index_leaves_no_secret(
        self, index: PackageIndex, dist: Path, tmp_path: Path, environ: dict[str, str]
    ):
        """Credentials from the user's configuration open the index, and none gets into the lock."""
        index.add(make_wheel(dist, "alpha", "1.0"), has_hash=False)
        index.username, index.password = "me", "p@ss"
        environ["PIP_INDEX_URL"] = index.url.replace("://", "://me:p%40ss@")
        config = IndexConfig.load(Settings(environ, {}), folder=tmp_path)
        solver = PypiSolver(config=config, wheelhouse=WheelHouse(tmp_path), note=print, folder=tmp_path)
        (locked,) = solver.solve([PypiSpec.parse("alpha", "")], on(AMD64))
        assert locked.url.startswith("http://127.0.0.1")
        assert "ss@" not in locked.url

    @pytest.mark.parametrize(("status", "told"), [(503, "503.*try again later"), (403, "403")])
    def test_failing_index(self, solve: Solve, index: PackageIndex, status: int, told: str):
        """What an index answers instead of packages is told."""
        index.failing_with = status
        with pytest.raises(ResolveError, match=told):
            solve({"alpha": ""})

    def test_index_that_is_not_there(self, tmp_path: Path, environ: dict[str, str]):
        """A host that cannot be reached is named."""
        config = IndexConfig.load(
            Settings({**environ, "UV_DEFAULT_INDEX": "http://127.0.0.1:9/simple"}, {}), folder=tmp_path
        )
        solver = PypiSolver(config=config, wheelhouse=WheelHouse(tmp_path), note=print, folder=tmp_path)
        with pytest.raises(ResolveError, match=r"127\.0\.0\.1:9 could not be reached"):
            solver.solve([PypiSpec.parse("alpha", "")], on(AMD64))

    def test_file_that_is_gone(self, solve: Solve, index: PackageIndex, dist: Path):
        """A file that the index lists but does not have is an error that names it."""
        make_wheel(dist, "alpha", "1.0")
        url = index.url.removesuffix("/simple") + "/files/alpha-1.0-py3-none-any.whl"
        with pytest.raises((ResolveError, FetchError), match=r"alpha-1\.0-py3-none-any\.whl.*404"):
            solve({"alpha": f"@ {url}"})
