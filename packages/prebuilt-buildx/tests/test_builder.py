"""The builder ``buildx``."""

from __future__ import annotations

import base64
import io
import json
import os
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from prebuilt.buildx import BuildxBuildService
from prebuilt.buildx.failure import find_cause
from prebuilt.core.build_service import BuildRequest, Cancellation, DockerBuildService
from prebuilt.core.credentials import Credentials
from prebuilt.core.descriptor import Descriptor
from prebuilt.core.errors import BuildError, CancelledError, EngineError, StorageError
from prebuilt.core.plugins import BUILD_SERVICES
from prebuilt.core.settings import Settings
from prebuilt.oci import logins
from prebuilt.testing.conformance.materials import RecordingProgress

NewRequest = Callable[..., BuildRequest]

_FAILED = """\
#0 building with "r0" instance using remote driver

#5 [tools 2/2] RUN ["python3","-I","/prebuilt/materialise.pyz"]
#5 DONE 1.2s

#6 [layer-00 1/1] RUN ["python3","-I","/prebuilt/materialise.pyz"]
#6 0.213 the index does not answer
#7 [layer-01 1/1] RUN ["python3","-I","/prebuilt/materialise.pyz"]
{others}#6 ERROR: process "python3 -I /prebuilt/materialise.pyz" did not complete successfully: exit code: 3
#7 CANCELED
------
 > [layer-00 1/1] RUN ["python3","-I","/prebuilt/materialise.pyz"]:
0.213 the index does not answer
------
ERROR: failed to build: failed to solve: {why}
"""


def _failed(why: str, others: int = 0) -> str:
    return _FAILED.format(why=why, others="".join(f"#7 0.{n:03} unpacking {n}\n" for n in range(others)))


def _service(**settings: str) -> BuildxBuildService:
    given = {f"METAFLOW_PREBUILT_{name}": value for name, value in settings.items()}
    return BuildxBuildService(Settings({**os.environ, **given}, {}))


def _option(options: list[str], name: str) -> str:
    return options[options.index(name) + 1]


def _scratch(folder: Path) -> list[Path]:
    return list((folder / "scratch").iterdir())


def test_is_found_by_its_name() -> None:
    """METAFLOW_PREBUILT_BUILD_SERVICE=buildx selects it; it is a BuildKit, and its images are like any other's."""
    service = BUILD_SERVICES.get("buildx")
    assert isinstance(service, BuildxBuildService)
    assert service.dockerfile_build_options().buildkit_deferred_input_mounts
    assert service.image_identity_suffix() == ""


def test_constructor_asks_nothing(docker: Any) -> None:
    """Making it runs no command and imports nothing that takes time: a second deploy makes it, and needs no more."""
    program = (
        "import sys; from prebuilt.buildx import BuildxBuildService; BuildxBuildService();"
        "print([name for name in ('tarfile', 'tempfile', 'prebuilt.core.tool_process', 'httpx2') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    assert docker.calls == []


def test_builds_what_was_asked_for(docker: Any, make_request: NewRequest, tmp_path: Path) -> None:
    """Builder, platform, compression, annotations and a digest that lasts are on one command line; the context is fed to it."""
    request = make_request("linux/arm64", reference="registry.example/team/image:tag")
    built = _service(BUILDX_BUILDER="r0").build(request, RecordingProgress())
    assert built == Descriptor(
        media_type="application/vnd.oci.image.manifest.v1+json",
        digest="sha256:bb4204b1259558f20bd17ec93003ad48962b036dc6e17cb306f8b54faee2bd1a",
        size=782,
    )
    options = docker.options
    assert options[:2] == ["buildx", "build"]
    assert (options[-1], _option(options, "--builder"), _option(options, "--platform")) == ("-", "r0", "linux/arm64")
    assert {"--provenance=false", "--sbom=false", "--progress=plain"} <= set(options)
    output = _option(options, "--output").split(",")
    assert output[:4] == ["type=image", "name=registry.example/team/image:tag", "push=true", "oci-mediatypes=true"]
    assert {"compression=zstd", "rewrite-timestamp=true"} <= set(output)
    assert f"annotation.metaflow-prebuilt.image={request.spec.full_id}" in output
    assert f"annotation.org.opencontainers.image.base.digest={request.spec.base.digest}" in output
    assert docker.build["environ"]["SOURCE_DATE_EPOCH"] == "0"
    assert _scratch(tmp_path) == []


def test_context_is_an_archive(docker: Any, make_request: NewRequest) -> None:
    """Dockerfile, program and layers arrive; the same request sends the same bytes."""
    contexts = []
    for _ in range(2):
        _service().build(make_request(), RecordingProgress())
        contexts.append(docker.context)
    assert contexts[0] == contexts[1]
    with tarfile.open(fileobj=io.BytesIO(contexts[0])) as tar:
        names = {member.name for member in tar if member.isfile()}
        dockerfile = tar.extractfile("Dockerfile")
        assert dockerfile is not None
        assert b"COPY --link" in dockerfile.read()
    assert {"Dockerfile", "materialise.pyz"} < names


def test_settings_reach_the_command(docker: Any, make_request: NewRequest) -> None:
    """Attestations, options and compression are on the command line where they are asked for."""
    service = _service(BUILDX_PROVENANCE="1", BUILDX_SBOM="1", BUILDX_OPTIONS="--network=host --label 'a=b c'")
    service.build(make_request(spec={"compression": "gzip"}), RecordingProgress())
    assert {"--provenance=true", "--sbom=true", "--network=host", "a=b c"} <= set(docker.options)
    assert "compression=gzip" in _option(docker.options, "--output")


def test_proxies_are_named_and_not_shown(
    docker: Any, make_request: NewRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Proxies become build arguments whose values, which may hold a password, are in the environment alone."""
    monkeypatch.setenv("HTTPS_PROXY", "http://me:s3cret@proxy.example:3128")
    _service().build(make_request(), RecordingProgress())
    assert "--build-arg=HTTPS_PROXY" in docker.options
    assert not any("s3cret" in option for option in docker.options)


def test_login_is_in_a_private_folder(docker: Any, make_request: NewRequest, tmp_path: Path) -> None:
    """The request's login is in a folder for its owner only, gone afterwards; the user's is as it was, and nothing shows it."""
    login = Credentials(username="AWS", secret="s3cret-token")
    before = (tmp_path / "own" / "config.json").read_bytes()
    _service().build(make_request(credentials=login), RecordingProgress())
    build = docker.build
    assert set(build["config"]["auths"]) == {"ghcr.io", "registry.example"}
    assert build["config"]["credHelpers"] == {"registry.example": ""}
    assert build["modes"] == ["0o700", "0o600"]
    assert "contexts" in build["entries"]
    assert build["environ"]["BUILDX_CONFIG"] == str(tmp_path / "own" / "buildx")
    assert not any("s3cret-token" in text for text in (*build["arguments"], *build["environ"].values()))
    assert (tmp_path / "own" / "config.json").read_bytes() == before
    assert _scratch(tmp_path) == []


def test_users_logins_are_used_as_they_are(docker: Any, make_request: NewRequest, tmp_path: Path) -> None:
    """Without a login of the request's, the command has the user's own folder."""
    _service().build(make_request(), RecordingProgress())
    assert docker.build["environ"]["DOCKER_CONFIG"] == str(tmp_path / "own")


def test_login_for_the_base_goes_along(
    docker: Any, make_request: NewRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A login that Docker has not, Podman's or that of a cloud, is there for the base image's registry and the cache's."""
    (tmp_path / "auth.json").write_text(json.dumps({"auths": {"docker.io": {"auth": "bWU6eA=="}}}))
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "auth.json"))
    asked: list[str] = []
    monkeypatch.setattr(logins, "find_source", lambda host, _: asked.append(host))
    monkeypatch.setenv("METAFLOW_PREBUILT_BUILDX_CACHE", "cache.example/team/cache:all")
    _service().build(make_request(), RecordingProgress())
    assert docker.build["config"]["auths"] == {"ghcr.io": {}, "https://index.docker.io/v1/": {"auth": "bWU6eA=="}}
    assert docker.build["config"]["credHelpers"] == {"https://index.docker.io/v1/": ""}
    assert set(asked) == {"registry.example", "cache.example"}
    assert _scratch(tmp_path) == []


def test_login_of_yesterday_is_replaced(
    docker: Any, make_request: NewRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `docker login` kept of Amazon ends after 12 hours, and the command cannot ask for another: it gets one of today."""
    host = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
    pair = base64.b64encode(b"AWS:yesterday").decode()
    (tmp_path / "own" / "config.json").write_text(json.dumps({"auths": {host: {"auth": pair}, "ghcr.io": {}}}))
    today = Credentials(username="AWS", secret="today")
    monkeypatch.setattr(logins, "find_source", lambda name, _: (lambda _: today) if name == host else None)
    monkeypatch.setenv("METAFLOW_PREBUILT_BUILDX_CACHE", f"{host}/cache")
    _service().build(make_request(), RecordingProgress())
    shown = docker.build["config"]["auths"][host]["auth"]
    assert base64.b64decode(shown) == b"AWS:today"


def test_digest_alone_is_not_believed(docker: Any, make_request: NewRequest) -> None:
    """The driver docker may give the configuration's digest: what is pushed is not known then."""
    docker.has_builder("default", "docker", buildkit="v0.8+unknown")
    docker.plays("build", metadata={"containerimage.digest": "sha256:" + "4" * 64})
    progress = RecordingProgress()
    assert _service().build(make_request(), progress) is None
    said = (
        "layers are gzip, what is built anew has another digest, there is no cache in a registry, and the image stays"
    )
    assert any(f"default (driver docker), {said}" in text for text in progress.texts)


def test_old_buildkits_get_the_plain_form(docker: Any, make_request: NewRequest) -> None:
    """A BuildKit before 0.10 is given a Dockerfile without what it does not know."""
    docker.has_builder("default", "docker", buildkit="v0.8+unknown")
    _service().build(make_request(), RecordingProgress())
    assert b"--link" not in docker.context


@pytest.mark.parametrize(
    ("value", "places"),
    [
        ("on", ["registry.example/team/image:buildcache-KEY", "registry.example/team/image:buildcache"]),
        ("r.example/cache", ["r.example/cache:buildcache-KEY", "r.example/cache:buildcache"]),
        ("r.example:5000/cache:ours", ["r.example:5000/cache:ours-KEY", "r.example:5000/cache:ours"]),
        ("off", []),
    ],
)
def test_cache_is_in_a_registry(docker: Any, make_request: NewRequest, value: str, places: list[str]) -> None:
    """A cache of this environment, and one of whichever was last, are read and written, in a form that all registries take."""
    request = make_request()
    _service(BUILDX_CACHE=value).build(request, RecordingProgress())
    options = docker.options
    read = [options[n + 1] for n, option in enumerate(options) if option == "--cache-from"]
    written = [options[n + 1] for n, option in enumerate(options) if option == "--cache-to"]
    wanted = [place.replace("KEY", request.spec.cache_key) for place in places]
    assert read == [f"type=registry,ref={place}" for place in wanted]
    assert [text.split(",")[1] for text in written] == [f"ref={place}" for place in wanted]
    assert all({"mode=max", "image-manifest=true", "oci-mediatypes=true"} <= set(text.split(",")) for text in written)


def test_output_is_live_and_readable(docker: Any, make_request: NewRequest) -> None:
    """Lines are passed on without colours, byte counts, blank lines and passwords in URLs."""
    docker.plays(
        "build",
        stderr="#1 [internal] load\n\n#1 sha256:" + "a" * 64 + " 1.05MB / 35.67MB 0.1s\n#1 DONE 0.0s\n"
        "\x1b[33m#2 0.1 https://me:s3cret@index.example/simple\x1b[0m\n#2 DONE 12.1s\n",
    )
    progress = RecordingProgress()
    _service().build(make_request(), progress)
    assert progress.texts[-3:] == ["#1 [internal] load", "#2 0.1 https://index.example/simple", "#2 DONE 12.1s"]


def test_failed_step_is_in_the_error(docker: Any, make_request: NewRequest, tmp_path: Path) -> None:
    """What the failed step said is in the error, also where another one said more; the last line is the reason."""
    docker.plays("build", stderr=_failed("did not complete successfully: exit code: 3", others=80), status=1)
    with pytest.raises(BuildError) as caught:
        _service().build(make_request(), RecordingProgress())
    error = caught.value
    assert error.at == "registry.example/team/image:tag"
    assert error.reason == "failed to build: failed to solve: did not complete successfully: exit code: 3"
    assert "#6 0.213 the index does not answer" in error.output
    assert len(error.output) <= 50
    assert _scratch(tmp_path) == []


@pytest.mark.parametrize(
    ("said", "remedy"),
    [
        ("write /var/lib/buildkit/x: no space left on device", "docker buildx prune --builder r0"),
        ("denied: User: me is not authorized to perform: ecr:PutImage on resource: x", "allow ecr:PutImage"),
        ("unexpected status from POST request to https://r/v2/: 401 Unauthorized", "docker login registry.example"),
        ("push access denied, repository does not exist or may require authorization", "may push"),
        ("unexpected status from HEAD request to https://r/v2/x: 403 Forbidden", "may push"),
        ("toomanyrequests: You have reached your pull rate limit", "docker login"),
        ('failed to list workers: Unavailable: connection error: desc = "transport: …"', "docker buildx inspect r0"),
        ("fork/exec /bin/sh: exec format error", "emulation"),
        ("http: server gave HTTP response to HTTPS client", '[registry."registry.example"] http = true'),
        ("tls: failed to verify certificate: x509: certificate signed by unknown authority", "ca = "),
        ("Cache export is not supported for the docker driver.", "METAFLOW_PREBUILT_BUILDX_BUILDER"),
        ("dial tcp 10.0.0.1:5000: connect: connection refused", "reaches that address"),
        (
            "failed to resolve source metadata for r.example/base:1: r.example/base:1: not found",
            "reaches the same r.example",
        ),
        (
            "failed to resolve source metadata for r.example/base@sha256:0: no match for platform in manifest: not found",
            "METAFLOW_PREBUILT_BUILD_IMAGE",
        ),
        ("failed to resolve source metadata for r.example/base:1: 401 Unauthorized", "docker login r.example"),
        ("something new", "see what it said"),
    ],
)
def test_known_causes_have_a_remedy(docker: Any, make_request: NewRequest, said: str, remedy: str) -> None:
    """What BuildKit and registries are known to say comes with what to do about it."""
    docker.plays("build", stderr=_failed(said), status=1)
    with pytest.raises(BuildError) as caught:
        _service().build(make_request(), RecordingProgress())
    assert said in caught.value.reason
    assert remedy in caught.value.remedy


@pytest.mark.parametrize(
    "said",
    [
        "429 Too Many Requests - toomanyrequests",
        "pull access denied, repository does not exist or may require authorization: insufficient_scope",
        "python:3.12-slim: not found",
        "failed to do request: dial tcp: lookup registry-1.docker.io: no such host",
        "net/http: request canceled (Client.Timeout exceeded while awaiting headers)",
    ],
)
@pytest.mark.parametrize(
    ("image", "setting"), [("docker.io/library/python:3.12-slim", "BUILD_IMAGE"), ("r.example/base:1", "BASE_IMAGE")]
)
def test_the_setting_is_that_of_the_image(said: str, image: str, setting: str) -> None:
    """Of base image and build stage's image, the one that could not be pulled is the one to change."""
    lines = [f"ERROR: failed to solve: failed to resolve source metadata for {image}: {said}"]
    _, remedy = find_cause(lines, host="registry.example", builder="r0", stage_image="python:3.12-slim")
    assert f"METAFLOW_PREBUILT_{setting}" in remedy
    assert "registry.example" not in remedy


def test_what_steps_say_is_theirs(docker: Any, make_request: NewRequest) -> None:
    """A package index that refuses is not taken for the registry; a full disk is the builder's wherever it is met."""
    for said, remedy in (("401 Unauthorized", "see what it said"), ("No space left on device", "docker buildx prune")):
        stderr = _failed("exit code: 3").replace("the index does not answer", said)
        docker.plays("build", stderr=stderr, status=1)
        with pytest.raises(BuildError) as caught:
            _service().build(make_request(), RecordingProgress())
        assert remedy in caught.value.remedy


def test_full_disk_here_is_said(docker: Any, make_request: NewRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no temporary folder can be made, the error names the place."""
    monkeypatch.setattr("tempfile.tempdir", "/nowhere")
    with pytest.raises(StorageError, match="at /nowhere"):
        _service().build(make_request(), RecordingProgress())


def test_time_is_up(docker: Any, make_request: NewRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A build that takes longer than the setting says is stopped, and the error names the setting."""
    docker.plays("build", stderr="#1 busy\n", sleep_s=60)
    progress = RecordingProgress()
    clock = SimpleNamespace(monotonic=lambda: 31.0 if "#1 busy" in progress.texts else 0.0)
    monkeypatch.setattr("prebuilt.core.tool_process.time", clock)
    with pytest.raises(BuildError, match="longer than 30 s") as caught:
        _service(BUILDX_TIMEOUT="30").build(make_request(), progress)
    assert "METAFLOW_PREBUILT_BUILDX_TIMEOUT" in caught.value.remedy
    assert caught.value.output[0] == "#1 busy"


def test_cancelled_build_stops(docker: Any, make_request: NewRequest, tmp_path: Path) -> None:
    """A cancellation stops the command; nothing is left of it."""
    docker.plays("build", stderr="#1 busy\n", sleep_s=60)
    cancellation = Cancellation()

    class Cancelling(RecordingProgress):
        def output(self, line: str) -> None:
            cancellation.cancel()

    began_s, threads = time.monotonic(), set(threading.enumerate())
    login = Credentials(username="me", secret="s3cret")
    with pytest.raises(CancelledError):
        _service().build(make_request(credentials=login, cancellation=cancellation), Cancelling())
    assert time.monotonic() - began_s < 40
    assert set(threading.enumerate()) <= threads
    assert _scratch(tmp_path) == []


def test_cancelled_before_it_starts(docker: Any, make_request: NewRequest) -> None:
    """A request that is cancelled already runs no command."""
    cancellation = Cancellation()
    cancellation.cancel()
    with pytest.raises(CancelledError):
        _service().build(make_request(cancellation=cancellation), RecordingProgress())
    assert docker.calls == []


def test_layouts_are_refused(docker: Any, make_request: NewRequest) -> None:
    """A folder of this machine is no place that buildx pushes to; the settings to change are named."""
    with pytest.raises(BuildError) as caught:
        _service().build(make_request(reference="oci:/images:tag"), RecordingProgress())
    assert "METAFLOW_PREBUILT_IMAGE_REGISTRY" in caught.value.remedy
    assert docker.calls == []


def test_builder_is_asked_once(docker: Any, make_request: NewRequest) -> None:
    """Several images ask for the version and the builder once."""
    service = _service()
    for _ in range(3):
        service.build(make_request(), RecordingProgress())
    assert [call["arguments"][1] for call in docker.calls] == ["version", "inspect", "build", "build", "build"]


def test_is_asked_before_anything_starts(
    docker: Any, make_request: NewRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """``prepare`` asks for command and builder, and says what is missing; what it has found is not asked for again."""
    service = _service()
    service.prepare()
    service.build(make_request(), RecordingProgress())
    assert [call["arguments"][1] for call in docker.calls] == ["version", "inspect", "build"]
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineError, match="find docker"):
        _service().prepare()


def test_published_signature(docker: Any, tmp_path: Path) -> None:
    """``build_and_push`` feeds text and bytes as the context, echoes what is said, and returns whether it went well."""
    said: list[str] = []
    docker.plays("build", stderr="#1 [internal] load\n")
    files = {"a/b": "ä", "c": b"\0"}
    assert BuildxBuildService().build_and_push("FROM scratch", files, "r.example/i:t", {"region": "x"}, said.append)
    assert said == ["#1 [internal] load"]
    assert "--platform" not in docker.options
    with tarfile.open(fileobj=io.BytesIO(docker.context)) as tar:
        assert {member.name for member in tar if member.isfile()} == {"Dockerfile", "a/b", "c"}


def test_published_login_is_used(docker: Any) -> None:
    """A registry's ``username`` and ``password`` push; its other words mean nothing here."""
    given = {"username": "me", "password": "s3cret", "region": "x"}
    assert _service().build_and_push("FROM scratch", {}, "r.example/i:t", given, print)
    assert set(docker.build["config"]["auths"]) == {"ghcr.io", "r.example"}


def test_published_signature_fails_softly(docker: Any) -> None:
    """A failure of any kind is False, with the reason and the remedy echoed last."""
    said: list[str] = []
    docker.plays("build", stderr=_failed("denied: no"), status=1)
    build = _service().build_and_push
    assert build("FROM scratch", {}, "r.example/i:t", {}, said.append, "linux/arm64") is False
    assert "denied: no; use an account" in said[-1]
    assert build("FROM scratch", {"a": 1}, "r.example/i:t", {}, said.append) is False
    assert "context file a" in said[-1]


def test_subclass_may_take_dockerfiles_itself(docker: Any, make_request: NewRequest) -> None:
    """A class of somebody's that overrides ``build_and_push`` is called there."""

    class Own(BuildxBuildService):
        def build_and_push(self, *arguments: Any, **named: Any) -> bool:
            return True

    assert Own.build is DockerBuildService.build
    assert docker.calls == []


def test_missing_docker_is_said(make_request: NewRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without Docker's command line the error says what to install."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineError, match="find docker") as caught:
        _service().build(make_request(), RecordingProgress())
    assert "METAFLOW_PREBUILT_BUILD_SERVICE" in caught.value.remedy
