import asyncio
import json
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from prebuilt.core import url_secrets
from prebuilt.core.credentials import Credentials
from prebuilt.core.errors import ResolveError
from prebuilt.core.lock import CondaPackage
from prebuilt.core.platforms import Platform
from prebuilt.core.requirements import Target
from prebuilt.core.url_secrets import remember_credentials, remembered_credentials
from prebuilt.lock.conda_distributions import CondaDistribution, distributions_of
from prebuilt.lock.conda_solver import CondaRequest, CondaSolution, CondaSolver, closure
from prebuilt.testing.conda_channel import CondaChannel, serve_channel
from prebuilt.testing.repodata import ListedPackage, write_repodata

AMD64 = Target(platform=Platform.parse("linux/amd64"), glibc="2.36")
PYTHON = ListedPackage(
    name="python",
    version="3.11.7",
    build="0_cpython",
    depends=["libffi >=3.4,<4"],
    more={"python_site_packages_path": "lib/python3.11/site-packages"},
)
BASICS = [
    PYTHON,
    ListedPackage(name="python", version="3.11.5", build="0_cpython", depends=["libffi"]),
    ListedPackage(name="python", version="3.12.1", build="0_cpython", depends=["libffi"]),
    ListedPackage(name="libffi", version="3.4"),
    ListedPackage(name="requests", version="2.32.0", depends=["python >=3.8", "idna"], subdir="noarch"),
    ListedPackage(name="idna", version="3.10", depends=["python"], subdir="noarch"),
    ListedPackage(name="numpy", version="1.26.4", build="py311_0", depends=["python >=3.11,<3.12.0a0", "blas"]),
    ListedPackage(name="numpy", version="2.1.0", build="py311_0", depends=["python >=3.11,<3.12.0a0", "blas"]),
    ListedPackage(name="blas", version="1.0"),
]

Solve = Callable[..., dict[str, CondaPackage]]


@pytest.fixture(autouse=True)
def no_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the user's rattler configuration and credentials out of it, and those of other tests, whose servers may have had the same port."""
    monkeypatch.setattr(url_secrets, "_by_url", {})
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("CONDA_CHANNEL_ALIAS", raising=False)


@pytest.fixture
def solver(tmp_path: Path) -> CondaSolver:
    """A solver with a cache of its own."""
    return CondaSolver(cache=tmp_path / "cache", priority="strict", folder=tmp_path)


@pytest.fixture
def channel(tmp_path: Path) -> str:
    """A channel of basic packages."""
    return write_repodata(tmp_path / "main", BASICS)


@pytest.fixture
def solve(solver: CondaSolver, channel: str) -> Solve:
    """Resolve with the basic channel; gives packages by name."""

    def solve(packages: dict[str, str], **more: object) -> dict[str, CondaPackage]:
        return {package.name: package for package in ask(solver, channel, packages, **more).packages}

    return solve


def ask(solver: CondaSolver, channel: str, packages: dict[str, str], **more: object) -> CondaSolution:
    """Resolve on linux/amd64 with Python 3.11, unless told otherwise."""
    defaults = {"python": "3.11", "runtime": {}, "limits": {}, "channels": (channel,), "target": AMD64}
    return solver.solve(CondaRequest(packages=packages, **{**defaults, **more}))  # type: ignore[arg-type]


def test_a_record_has_all_that_its_installation_needs(solve: Solve, channel: str):
    """A locked package carries what repodata says: file, hash, size, dependencies, where site-packages is."""
    record = PYTHON.record()
    assert solve({})["python"] == CondaPackage(
        name="python",
        version="3.11.7",
        build="0_cpython",
        build_number=0,
        subdir="linux-64",
        url=f"{channel}/linux-64/python-3.11.7-0_cpython.conda",
        sha256=record["sha256"],
        size_bytes=record["size"],
        role="python",
        depends=("libffi >=3.4,<4",),
        python_site_packages_path="lib/python3.11/site-packages",
    )


def test_roles(solve: Solve):
    """Python's closure is python, the rest of the runtime's is runtime, everything else is the user's."""
    packages = solve({"numpy": "", "idna": ""}, runtime={"requests": ">=2.21.0"})
    assert {name: package.role for name, package in packages.items()} == {
        "python": "python",
        "libffi": "python",
        "requests": "runtime",
        "idna": "runtime",
        "numpy": "user",
        "blas": "user",
    }
    assert packages["idna"].noarch == "python"
    assert packages["numpy"].noarch is None


@pytest.mark.parametrize(
    ("spec", "version"),
    [
        ("1.26.4", "1.26.4"),
        ("==1.26.4", "1.26.4"),
        ("=1.26", "1.26.4"),
        ("1.26.*", "1.26.4"),
        (">=1.20,<2", "1.26.4"),
        ("1.26.4|1.20", "1.26.4"),
        ("1.26.4=py311_0", "1.26.4"),
        ("1.26.4 py311_0", "1.26.4"),
        ("", "2.1.0"),
        ("*", "2.1.0"),
    ],
)
def test_version_specs(solve: Solve, spec: str, version: str):
    """Exact versions, prefixes, ranges, alternatives, builds and nothing at all are understood as conda does."""
    assert solve({"numpy": spec})["numpy"].version == version


def test_python_version(solve: Solve):
    """X.Y takes the newest patch release, X.Y.Z that one."""
    assert solve({})["python"].version == "3.11.7"
    assert solve({}, python="3.11.5")["python"].version == "3.11.5"
    assert solve({}, python="3.12")["python"].version == "3.12.1"


class TestVirtualPackages:
    def test_glibc_and_cuda_are_the_targets(self, solver: CondaSolver, tmp_path: Path):
        """Builds for newer C libraries and for GPUs are taken where the target has them, and only there."""
        channel = write_repodata(
            tmp_path / "gpu",
            [
                *BASICS,
                ListedPackage(name="torch", version="2.0", build="cpu"),
                ListedPackage(name="torch", version="2.0", build="cuda", build_number=1, depends=["__cuda >=12"]),
                ListedPackage(name="fresh", version="1.0", depends=["__glibc >=2.17"]),
                ListedPackage(name="fresh", version="2.0", depends=["__glibc >=2.34"]),
            ],
        )

        def builds(target: Target) -> tuple[str, str]:
            found = {p.name: p for p in ask(solver, channel, {"torch": "", "fresh": ""}, target=target).packages}
            return found["torch"].build, found["fresh"].version

        assert builds(AMD64) == ("cpu", "2.0")
        assert builds(Target(platform=AMD64.platform, glibc="2.31", cuda="12.4")) == ("cuda", "1.0")
        assert builds(Target(platform=AMD64.platform)) == ("cpu", "1.0")

    def test_other_platforms(self, solver: CondaSolver, tmp_path: Path):
        """arm64 and macOS are resolved from anywhere, with their own virtual packages."""
        packages = []
        for subdir, needs in {
            "linux-aarch64": "__archspec 1 aarch64",
            "osx-arm64": "__osx >=11",
            "linux-64": "__archspec 1 x86_64",
        }.items():
            packages += [ListedPackage(name="python", version="3.11.7", subdir=subdir)]
            packages += [ListedPackage(name="tool", version="1.0", depends=["__unix", needs], subdir=subdir)]
        channel = write_repodata(tmp_path / "all", packages)
        for platform in ("linux/arm64", "darwin/arm64", "linux/amd64"):
            target = Target(platform=Platform.parse(platform))
            found = ask(solver, channel, {"tool": ""}, target=target).packages
            assert {package.subdir for package in found} == {target.platform.subdir}

    def test_gpu_package_without_gpu(self, solver: CondaSolver, tmp_path: Path):
        """A package that needs a GPU driver fails on a step without, and says what is missing."""
        channel = write_repodata(
            tmp_path / "gpu", [*BASICS, ListedPackage(name="cudf", version="1.0", depends=["__cuda >=12"])]
        )
        with pytest.raises(ResolveError, match=r"(?s)cudf.*__cuda >=12.*GPU"):
            ask(solver, channel, {"cudf": ""})


class TestChannels:
    @pytest.fixture
    def two(self, tmp_path: Path, channel: str) -> tuple[str, str]:
        """The basic channel, and one with a package of its own and a newer requests."""
        newer = ListedPackage(name="requests", version="9.0", depends=["python"], subdir="noarch")
        own = ListedPackage(name="own", version="1.0", subdir="noarch")
        return channel, write_repodata(tmp_path / "team", [newer, own])

    def test_first_channel_wins(self, solver: CondaSolver, two: tuple[str, str]):
        """A package comes from the first channel that has it."""
        found = {p.name: p.version for p in ask(solver, "", {"requests": "", "own": ""}, channels=two).packages}
        assert (found["requests"], found["own"]) == ("2.32.0", "1.0")

    def test_priority_can_be_disabled(self, two: tuple[str, str], tmp_path: Path):
        """Without priorities the newest version of all channels is taken."""
        solver = CondaSolver(cache=tmp_path / "cache", priority="disabled", folder=tmp_path)
        found = {p.name: p.version for p in ask(solver, "", {"requests": ""}, channels=two).packages}
        assert found["requests"] == "9.0"

    def test_channel_of_one_package(self, solver: CondaSolver, two: tuple[str, str]):
        """channel::name takes a package from a channel that is not in the list."""
        found = {p.name: p for p in ask(solver, two[0], {f"{two[1]}::requests": ">=1"}).packages}
        assert found["requests"].url.startswith(two[1])

    @pytest.mark.usefixtures("channel")
    def test_paths(self, solver: CondaSolver, tmp_path: Path):
        """A channel may be a path, absolute or relative to the flow's folder."""
        for path in (str(tmp_path / "main"), "./main"):
            assert ask(solver, path, {"numpy": ""}).python_version == "3.11.7"

    def test_alias(self, solver: CondaSolver, tmp_path: Path, channel: str, monkeypatch: pytest.MonkeyPatch):
        """CONDA_CHANNEL_ALIAS is where channels by name are, as for conda."""
        monkeypatch.setenv("CONDA_CHANNEL_ALIAS", tmp_path.as_uri())
        assert ask(solver, "main", {}).packages[0].url.startswith(channel)

    def test_prefers_the_newer_format(self, solver: CondaSolver, tmp_path: Path):
        """Of two files of one build, the .conda one is taken."""
        old = ListedPackage(name="both", version="1.0", suffix=".tar.bz2")
        channel = write_repodata(tmp_path / "both", [*BASICS, old, ListedPackage(name="both", version="1.0")])
        urls = [package.url for package in ask(solver, channel, {"both": ""}).packages if package.name == "both"]
        assert urls == [f"{channel}/linux-64/both-1.0-0.conda"]

    def test_token_in_url_is_refused(self, solver: CondaSolver):
        """A channel URL with a token is refused without showing the token."""
        with pytest.raises(ResolveError, match="RATTLER_AUTH_FILE") as caught:
            ask(solver, "https://conda.example/t/tk-secret/team", {})
        assert "tk-secret" not in str(caught.value)

    def test_token_in_the_alias_is_refused(self, solver: CondaSolver, monkeypatch: pytest.MonkeyPatch):
        """So is the name of a channel where the alias has a token."""
        monkeypatch.setenv("CONDA_CHANNEL_ALIAS", "https://conda.example/t/tk-secret")
        with pytest.raises(ResolveError, match=r"https://conda\.example/t/\*\*\*/team.*RATTLER_AUTH_FILE") as caught:
            ask(solver, "team", {})
        assert "tk-secret" not in str(caught.value)

    def test_channel_that_is_not_there(self, solver: CondaSolver):
        """A channel that cannot be read is named."""
        with pytest.raises(ResolveError, match=r"file:///nowhere/channel.*could not be read"):
            ask(solver, "file:///nowhere/channel", {"numpy": ""})

    def test_package_without_hash(self, solver: CondaSolver, tmp_path: Path):
        """A channel that states no SHA-256 of a package is refused: the lock could not be verified."""
        nameless = ListedPackage(name="bare", version="1.0", more={"sha256": None})
        channel = write_repodata(tmp_path / "old", [*BASICS, nameless])
        with pytest.raises(ResolveError, match=r"bare-1\.0-0\.conda.*no SHA-256"):
            ask(solver, channel, {"bare": ""})


class TestPrivateChannels:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> CondaChannel:
        """The basic channel, to be served."""
        write_repodata(tmp_path / "private", BASICS)
        return CondaChannel(folder=tmp_path / "private")

    def test_password_from_rattlers_file(
        self, solver: CondaSolver, folder: CondaChannel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        """RATTLER_AUTH_FILE opens a channel that wants a password; the lock has none."""
        with serve_channel(folder, user="me", password="s3cret") as served:
            login = {"127.0.0.1": {"BasicHTTP": {"username": "me", "password": "s3cret"}}}
            (tmp_path / "auth.json").write_text(json.dumps(login))
            monkeypatch.setenv("RATTLER_AUTH_FILE", str(tmp_path / "auth.json"))
            urls = [package.url for package in ask(solver, served.url, {"numpy": ""}).packages]
        assert all(url.startswith(f"{served.url}/") for url in urls)

    def test_token_from_rattlers_file(
        self, solver: CondaSolver, folder: CondaChannel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        """RATTLER_AUTH_FILE opens a channel that wants a token in its path; the lock has none."""
        with serve_channel(folder, token="tk-s3cret") as served:
            (tmp_path / "auth.json").write_text(json.dumps({"127.0.0.1": {"CondaToken": "tk-s3cret"}}))
            monkeypatch.setenv("RATTLER_AUTH_FILE", str(tmp_path / "auth.json"))
            urls = [package.url for package in ask(solver, served.url, {"numpy": ""}).packages]
        assert all(url.startswith(f"{served.url}/") for url in urls)

    def test_token_of_a_host_that_does_not_answer(
        self, solver: CondaSolver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        """The token, which rattler puts into the URL that it could not reach, is not told."""
        (tmp_path / "auth.json").write_text(json.dumps({"127.0.0.1": {"CondaToken": "tk-s3cret"}}))
        monkeypatch.setenv("RATTLER_AUTH_FILE", str(tmp_path / "auth.json"))
        with pytest.raises(ResolveError, match="could not be read") as caught:
            ask(solver, "http://127.0.0.1:9/gone", {"numpy": ""})
        assert "tk-s3cret" not in str(caught.value)

    def test_password_of_its_url(
        self, solver: CondaSolver, folder: CondaChannel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        """A password that its URL was named with opens it, beside what other channels are opened with; neither is kept on the disk."""
        write_repodata(tmp_path / "other", [ListedPackage(name="other", version="1.0")])
        other = CondaChannel(folder=tmp_path / "other")
        (tmp_path / ".netrc").write_text("machine localhost login me password n3trc")
        monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
        with (
            serve_channel(folder, user="me", password="s3cret") as served,
            serve_channel(other, user="me", password="n3trc") as by_netrc,
        ):
            url = remember_credentials(served.url.replace("://", "://me:s3cret@"))
            channels = (url, by_netrc.url.replace("127.0.0.1", "localhost"))
            packages = ask(solver, "", {"numpy": "", "other": ""}, channels=channels).packages
        assert {"numpy", "other"} <= {package.name for package in packages}
        assert all(package.url.startswith("http://127.0.0.1") or package.name == "other" for package in packages)
        kept = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
        assert kept
        assert not [path for path in kept if b"s3cret" in path.read_bytes() or b"n3trc" in path.read_bytes()]

    def test_password_of_the_alias(
        self, solver: CondaSolver, folder: CondaChannel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        """A password in the alias opens the channels below it, and is neither in the lock nor kept on the disk."""
        with serve_channel(folder, user="me", password="al1as") as served:
            monkeypatch.setenv("CONDA_CHANNEL_ALIAS", served.url_with_credentials.removesuffix("/channel"))
            packages = ask(solver, "channel", {"numpy": ""}).packages
            assert remembered_credentials(packages[0].url) == Credentials(username="me", secret="al1as")
        assert all(package.url.startswith(f"{served.url}/") for package in packages)
        kept = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
        assert not [path for path in kept if b"al1as" in path.read_bytes()]

    def test_no_credentials(self, solver: CondaSolver, folder: CondaChannel):
        """Without credentials the channel is named, its answer, and where rattler looks for them."""
        with (
            serve_channel(folder, user="me", password="s3cret") as served,
            pytest.raises(ResolveError, match=r"(?s)127\.0\.0\.1.*401.*RATTLER_AUTH_FILE"),
        ):
            ask(solver, served.url, {"numpy": ""})

    def test_host_that_is_not_there(self, solver: CondaSolver):
        """A host that cannot be reached is named."""
        with pytest.raises(ResolveError, match=r"http://127\.0\.0\.1:9/gone.*could not be read"):
            ask(solver, "http://127.0.0.1:9/gone", {"numpy": ""})


class TestNoSolution:
    def test_unknown_package(self, solve: Solve, channel: str):
        """Package and channels are named."""
        with pytest.raises(ResolveError) as caught:
            solve({"nosuch": ">=1"})
        assert "No candidates were found for nosuch >=1" in str(caught.value)
        assert channel in str(caught.value)

    def test_clash(self, solver: CondaSolver, tmp_path: Path):
        """The solver's explanation is given."""
        packages = [*BASICS, ListedPackage(name="old", version="1.0", depends=["numpy <1.20"])]
        channel = write_repodata(tmp_path / "clash", packages)
        with pytest.raises(ResolveError, match=r"(?s)resolve old , numpy|numpy <1\.20"):
            ask(solver, channel, {"old": "", "numpy": "2.1.0"})

    def test_malformed_spec(self, solve: Solve):
        """A spec that is none is quoted."""
        with pytest.raises(ResolveError, match="numpy: '>>2'"):
            solve({"numpy": ">>2"})


class TestLimits:
    def test_limits_choose_versions_without_adding_packages(self, solve: Solve):
        """What PyPI was asked for limits what conda brings, and brings nothing by itself."""
        found = solve({}, runtime={"numpy": ""}, limits={"numpy": "<2", "pandas": ">=2"})
        assert found["numpy"].version == "1.26.4"
        assert "pandas" not in found

    def test_limits_that_cannot_be_kept_are_left_to_the_next_stage(self, solve: Solve):
        """Where conda has nothing within the limits it brings what it has; resolving wheels then tells of the clash."""
        assert solve({"numpy": "2.1.0"}, limits={"numpy": "<2"})["numpy"].version == "2.1.0"


def test_from_a_running_event_loop(solve: Solve):
    """A notebook's thread, in which a loop runs, can resolve."""

    async def notebook() -> str:
        return str(solve({})["python"].version)

    assert asyncio.run(notebook()) == "3.11.7"


def test_from_many_threads(solve: Solve):
    """Threads may resolve at once with one solver."""
    with ThreadPoolExecutor(max_workers=4) as pool:
        found = list(pool.map(lambda spec: solve({"numpy": spec})["numpy"].version, ["1.26.4", "2.1.0"] * 4))
    assert found == ["1.26.4", "2.1.0"] * 4


def test_closure_ends_in_circles():
    """Packages that need each other are found once."""
    assert closure(["a"], {"a": ["b", "__glibc"], "b": ["a"], "c": []}) == {"a", "b"}


def test_rattler_is_not_loaded_by_import():
    """Importing the resolver does not load rattler, which pure PyPI steps never need."""
    import subprocess

    code = "import sys, prebuilt.lock.resolver; sys.exit('rattler' in sys.modules or 'httpx2' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


class TestDistributions:
    @staticmethod
    def package(name: str, version: str = "1.0", **more: object) -> CondaPackage:
        """Return a noarch Python package, unless told otherwise."""
        facts: dict[str, object] = {"noarch": "python", "depends": ("python >=3.8",), "build": "0", **more}
        return CondaPackage(
            name=name,
            version=version,
            build_number=0,
            subdir="noarch",
            url="file:///x.conda",
            sha256="0" * 64,
            size_bytes=1,
            role="user",
            **facts,  # type: ignore[arg-type]
        )

    @pytest.mark.parametrize(
        ("conda", "pypi"),
        [("Typing_Extensions".lower(), "typing-extensions"), ("pytorch", "torch"), ("msgpack-python", "msgpack")],
    )
    def test_by_name(self, conda: str, pypi: str):
        """Without purls the name tells, by the table where it differs."""
        assert distributions_of(self.package(conda)) == (CondaDistribution(name=pypi, version="1.0"),)

    def test_by_purl(self):
        """A purl tells more than the name; one without a version means the package's own."""
        purls = ["pkg:pypi/real-name", "pkg:pypi/other@2.0?x=y", "pkg:github/a/b"]
        assert distributions_of(self.package("conda-name"), purls) == (
            CondaDistribution(name="real-name", version="1.0"),
            CondaDistribution(name="other", version="2.0"),
        )

    def test_compiled_for_python(self):
        """A package that is built for a Python counts; one that merely runs it does not."""
        assert distributions_of(self.package("numpy", noarch=None, build="py311h64a7726_0"))
        assert distributions_of(self.package("numpy", noarch=None, build="np2py311h64a7726_0"))
        assert distributions_of(self.package("left", depends=("python>=3.9",)))
        assert not distributions_of(self.package("tool", noarch=None, build="h64a7726_0"))
        assert not distributions_of(self.package("lib", noarch="generic", depends=()))
        assert not distributions_of(self.package("tzdata"))

    @pytest.mark.parametrize(
        ("conda", "public"), [("1.0.post1", "1.0.post1"), ("1!2.0", "1!2.0"), ("2024.1", "2024.1")]
    )
    def test_versions(self, conda: str, public: str):
        """Versions that both worlds read are taken over."""
        assert distributions_of(self.package("alpha", conda))[0].version == public

    def test_version_that_pypi_cannot_read(self):
        """A version in conda's own style cannot be spoken of to uv."""
        assert distributions_of(self.package("alpha", "1.1.1w_2x")) == ()
