"""BuildKit through the ``docker`` command; a script in its place records how it is called."""

from __future__ import annotations

import io
import json
import os
import stat
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prebuilt.core.build_service import Cancellation
from prebuilt.core.credentials import Credentials
from prebuilt.core.errors import StorageError
from prebuilt.core.tree import BytesContent, PathContent
from prebuilt.docker.buildkit import BuildKitCommand, BuildKitError, NoBuildKit, find_command, major
from prebuilt.docker.endpoint import Endpoint, TlsFiles
from prebuilt.docker.image_build import DeadlineError, ImageBuild, Limits
from prebuilt.oci.docker_config import Login

_DOCKER = """#!{python}
import json, os, sys, time
if sys.argv[1:] == ["buildx", "version"]:
    {buildx}
if sys.argv[1:] == ["--version"]:
    print("Docker version {version}, build 297e128")
    raise SystemExit
data = sys.stdin.buffer.read()
with open({folder!r} + "/archive.tar", "wb") as file:
    file.write(data)
with open({folder!r} + "/call.json", "w") as file:
    json.dump([sys.argv[1:], dict(os.environ)], file)
if os.path.exists(os.environ.get("DOCKER_CONFIG", "") + "/config.json"):
    os.link(os.environ["DOCKER_CONFIG"] + "/config.json", {folder!r} + "/seen-config.json")
print("#1 building", file=sys.stderr, flush=True)
{end}
"""
_HAS_BUILDX = 'print("github.com/docker/buildx v0.29.1 abc"); raise SystemExit'
_NO_BUILDX = 'print("docker: unknown command: docker buildx", file=sys.stderr); raise SystemExit(1)'
HERE = Endpoint(host="unix:///run/mine.sock", origin="DOCKER_HOST")

NewCommand = Callable[..., "dict[str, str]"]


@pytest.fixture
def command(tmp_path: Path) -> NewCommand:
    """Return what puts a ``docker`` command into a folder and gives the environment in which it is found."""

    def make(*, buildx: bool = True, version: str = "28.5.2", end: str = "") -> dict[str, str]:
        program = tmp_path / "docker"
        text = _DOCKER.format(
            python=sys.executable,
            buildx=_HAS_BUILDX if buildx else _NO_BUILDX,
            version=version,
            folder=str(tmp_path),
            end=end,
        )
        program.write_text(text)
        program.chmod(0o755)
        return {"PATH": f"{tmp_path}:{os.defpath}", "DOCKER_CONTEXT": "theirs", "BUILDX_BUILDER": "theirs"}

    return make


def image_build(said: list[str], **fields: Any) -> ImageBuild:
    """Return a small build."""
    given = {
        "dockerfile": "FROM base\n",
        "context": {"layers/a.json": BytesContent(b"{}")},
        "platform": "linux/arm64",
        "arguments": {"HTTPS_PROXY": "http://me:s3cret@proxy"},
        "network": "host",
        "limits": Limits.start(Cancellation(), 60),
        "output": said.append,
        **fields,
    }
    return ImageBuild(**given)


def found(environ: dict[str, str], endpoint: Endpoint = HERE) -> BuildKitCommand:
    """Return the command."""
    command = find_command(environ, endpoint)
    assert isinstance(command, BuildKitCommand), command
    return command


def test_builds_with_buildx(command: NewCommand, tmp_path: Path) -> None:
    """The builder of our engine is used whatever is in use; the context is its input, and secrets are no arguments."""
    said: list[str] = []
    build = image_build(said)
    found(command()).build(build)
    arguments, environ = json.loads((tmp_path / "call.json").read_text())
    assert arguments == [
        "buildx",
        "build",
        "--builder=default",
        "--load",
        "--progress=plain",
        f"--tag={build.name}",
        "--platform=linux/arm64",
        "--network=host",
        "--build-arg=SOURCE_DATE_EPOCH=0",
        "--build-arg=BUILDKIT_DOCKERFILE_CHECK=skip=FromPlatformFlagConstDisallowed",
        "--build-arg=HTTPS_PROXY",
        "-",
    ]
    assert environ["HTTPS_PROXY"] == "http://me:s3cret@proxy"
    assert environ["DOCKER_HOST"] == HERE.host
    assert not {"DOCKER_CONTEXT", "BUILDX_BUILDER"} & environ.keys()
    with tarfile.open(fileobj=io.BytesIO((tmp_path / "archive.tar").read_bytes())) as archive:
        assert archive.getnames() == ["Dockerfile", "layers", "layers/a.json"]
    assert said == ["#1 building"]


def test_logins_are_in_a_private_folder(command: NewCommand, tmp_path: Path) -> None:
    """Logins for base images are there beside the user's own while the command runs, and for nobody else."""
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "config.json").write_text('{"auths": {"ghcr.io": {}}}')
    environ = {**command(), "DOCKER_CONFIG": str(tmp_path / "own")}
    login = Login.explicit(Credentials(username="AWS", secret="t0ken"))
    found(environ).build(image_build([], logins={"b.example": login}))
    seen = json.loads((tmp_path / "seen-config.json").read_text())
    assert seen["auths"] == {"ghcr.io": {}, "b.example": login.entry}
    assert stat.S_IMODE((tmp_path / "seen-config.json").stat().st_mode) == 0o600
    arguments, called_with = json.loads((tmp_path / "call.json").read_text())
    assert not Path(called_with["DOCKER_CONFIG"]).exists()
    assert not any("t0ken" in text for text in (*arguments, *called_with.values()))
    assert (tmp_path / "own" / "config.json").read_text() == '{"auths": {"ghcr.io": {}}}'


@pytest.mark.parametrize(("version", "is_there"), [("20.10.24+dfsg1", True), ("23.0.0", False), ("28.5.2", False)])
def test_commands_with_a_client_of_their_own(command: NewCommand, version: str, *, is_there: bool) -> None:
    """Without buildx, only commands before 23 can have BuildKit build; for others the reason is said."""
    answer = find_command(command(buildx=False, version=version), HERE)
    if is_there:
        assert isinstance(answer, BuildKitCommand)
        assert answer.words[1:] == ("build", "--progress=plain")
        assert answer.environ["DOCKER_BUILDKIT"] == "1"
    else:
        assert isinstance(answer, NoBuildKit)
        assert answer.reason == f"the docker command {version} has no plugin buildx, which it needs"


def test_no_command(tmp_path: Path) -> None:
    """Without a docker command that is the reason."""
    answer = find_command({"PATH": str(tmp_path)}, HERE)
    assert isinstance(answer, NoBuildKit)
    assert "not on the PATH" in answer.reason


@pytest.mark.parametrize(("verifies", "name"), [(True, "DOCKER_TLS_VERIFY"), (False, "DOCKER_TLS")])
def test_certificates(command: NewCommand, tmp_path: Path, *, verifies: bool, name: str) -> None:
    """The certificates of a context reach the command."""
    endpoint = Endpoint(host="tcp://far:2376", origin="x", tls=TlsFiles(folder=tmp_path, verifies=verifies))
    environ = found(command(), endpoint).environ
    assert (environ["DOCKER_CERT_PATH"], environ[name]) == (str(tmp_path), "1")
    assert len({"DOCKER_TLS_VERIFY", "DOCKER_TLS"} & environ.keys()) == 1


def test_failure_is_what_the_command_says(command: NewCommand) -> None:
    """The reason is the line that names the error, else the status."""
    end = 'print("ERROR: failed to solve: no space left on device", file=sys.stderr); raise SystemExit(1)'
    with pytest.raises(BuildKitError, match=r"^failed to solve: no space left on device$") as caught:
        found(command(end=end)).build(image_build([]))
    assert caught.value.output == ("#1 building", "ERROR: failed to solve: no space left on device")
    with pytest.raises(BuildKitError, match=r"^docker build ended with status 7$"):
        found(command(end="raise SystemExit(7)")).build(image_build([]))


def test_full_disk_here_is_said(command: NewCommand, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no temporary folder can be made, the error names the place, and not the engine."""
    monkeypatch.setattr("tempfile.tempdir", "/nowhere")
    with pytest.raises(StorageError, match="at /nowhere"):
        found(command()).build(image_build([]))


def test_context_that_cannot_be_read_is_said(command: NewCommand, tmp_path: Path) -> None:
    """A package of the context that is gone is an error of this machine, and not of the engine."""
    with pytest.raises(StorageError, match=r"read a\.whl for a build context"):
        found(command()).build(image_build([], context={"packages/a.whl": PathContent(tmp_path / "a.whl")}))


def test_time_is_up(command: NewCommand) -> None:
    """A command that takes too long is stopped."""
    with pytest.raises(DeadlineError):
        found(command(end="time.sleep(60)")).build(image_build([], limits=Limits.start(Cancellation(), 0.7)))


def test_names_differ() -> None:
    """Each build has a name of its own in the engine, so that builds of one image do not disturb each other."""
    assert image_build([]).name != image_build([]).name


@pytest.mark.parametrize(("version", "number"), [("28.5.2+dfsg4", 28), ("v23.0", 23), ("library-import", 0)])
def test_major(version: str, number: int) -> None:
    """The first number of a version."""
    assert major(version) == number
