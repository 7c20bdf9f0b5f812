"""The builder ``kaniko``."""

from __future__ import annotations

import base64
import gzip
import io
import json
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from prebuilt.core.build_service import BuildRequest, Cancellation
from prebuilt.core.credentials import Credentials
from prebuilt.core.descriptor import Descriptor
from prebuilt.core.errors import BuildError, CancelledError, EngineError
from prebuilt.core.plugins import BUILD_SERVICES
from prebuilt.core.settings import Settings
from prebuilt.kaniko import KanikoBuildService
from prebuilt.oci.media_types import OCI_CONFIG, OCI_MANIFEST
from prebuilt.testing.conformance.materials import RecordingProgress
from prebuilt.testing.registry import InMemoryRegistry
from prebuilt.testing.registry_auth import RegistryAuth
from prebuilt.testing.waiting import eventually

NewRequest = Callable[..., BuildRequest]


def _service(**settings: str) -> KanikoBuildService:
    return KanikoBuildService(Settings({f"METAFLOW_PREBUILT_{name}": value for name, value in settings.items()}, {}))


def _build(service: KanikoBuildService, said: list[str], **published: Any) -> bool:
    call: dict[str, Any] = {
        "dockerfile": "FROM scratch",
        "context_files": {"folder/file": "text"},
        "image_tag": "registry.example/team/image:tag",
        "push_credentials": {},
        "echo": said.append,
        "target_platform": None,
    }
    return service.build_and_push(**{**call, **published})


def _arguments(cluster: Any) -> list[str]:
    return list(cluster.made("jobs")[-1]["spec"]["template"]["spec"]["containers"][0]["args"])


def _context(cluster: Any) -> bytes:
    return base64.b64decode(cluster.made("configmaps")[-1]["binaryData"]["context.tar.gz"])


@pytest.fixture
def registry() -> Iterator[InMemoryRegistry]:
    """A registry on loopback."""
    with InMemoryRegistry() as server:
        yield server


def _reports(message: str) -> Callable[[Any, Any], None]:
    """Return the story of a Kaniko that reports `message` as its digest."""

    def story(fake: Any, job: Any) -> None:
        pod = fake.add_pod(job)
        fake.run(pod)
        fake.end(pod, message=message)

    return story


def _pushed(registry: InMemoryRegistry) -> str:
    """Push an image; return its digest."""
    config = registry.put_blob("team/image", b"{}", OCI_CONFIG)
    manifest = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config.to_json(), "layers": []}
    return registry.put_manifest("team/image", "tag", OCI_MANIFEST, json.dumps(manifest).encode()).digest


def test_is_found_by_its_name() -> None:
    """METAFLOW_PREBUILT_BUILD_SERVICE=kaniko selects it; it takes plain Dockerfiles, and its images are like any other's."""
    service = BUILD_SERVICES.get("kaniko")
    assert isinstance(service, KanikoBuildService)
    assert not service.dockerfile_build_options().buildkit_deferred_input_mounts
    assert service.image_identity_suffix() == ""


def test_constructor_asks_nothing(cluster: Any) -> None:
    """Making it asks no cluster and imports nothing that takes time: a second deploy makes it, and needs no more."""
    program = (
        "import sys; from prebuilt.kaniko import KanikoBuildService; KanikoBuildService();"
        "print([name for name in ('kubernetes', 'yaml', 'urllib3', 'tarfile', 'httpx2', 'boto3') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    assert cluster.calls == []


def test_builds_in_a_job(cluster: Any, tmp_path: Path) -> None:
    """The log is passed on in order, and nothing is left in the cluster or in the folder for temporary files."""
    said: list[str] = []
    assert _build(_service(), said, target_platform="linux/arm64")
    assert said[1:3] == ["INFO[0000] Retrieving image manifest", "INFO[0009] Pushed"]
    assert cluster.left == []
    assert list((tmp_path / "scratch").iterdir()) == []
    assert {"--destination=registry.example/team/image:tag", "--custom-platform=linux/arm64"} <= set(
        _arguments(cluster)
    )


def test_descriptor_is_what_the_registry_has(
    cluster: Any, registry: InMemoryRegistry, make_request: NewRequest
) -> None:
    """The digest is of Kaniko's own report, media type and size of the registry, which is asked for that very digest."""
    digest = _pushed(registry)
    cluster.story = _reports(f"{digest}\n")
    request = make_request(reference=f"{registry.host}/team/image:tag")
    built = _service().build(request, RecordingProgress())
    assert isinstance(built, Descriptor)
    assert (built.digest, built.media_type) == (digest, OCI_MANIFEST)
    arguments = _arguments(cluster)
    assert {"--compression=zstd", "--custom-platform=linux/amd64", f"--insecure-registry={registry.host}"} <= set(
        arguments
    )
    assert "--digest-file=/dev/termination-log" in arguments


def test_image_that_is_not_there_is_an_error(
    cluster: Any, registry: InMemoryRegistry, make_request: NewRequest
) -> None:
    """A digest that the registry does not know was pushed to another registry of the same name: the deploy ends here."""
    cluster.story = _reports("sha256:" + "d" * 64)
    with pytest.raises(BuildError, match="the registry has no such image"):
        _service().build(make_request(reference=f"{registry.host}/team/image:tag"), RecordingProgress())


def test_registry_that_cannot_be_asked_from_here(
    cluster: Any, registry: InMemoryRegistry, make_request: NewRequest
) -> None:
    """Pods may reach what this machine does not: then it is said that the digest was not checked, which is all that is known."""
    registry.fail("*", "team/image", status=403, code="DENIED", times=100)
    cluster.story = _reports("sha256:" + "d" * 64)
    progress = RecordingProgress()
    built = _service().build(make_request(reference=f"{registry.host}/team/image:tag"), progress)
    assert built == "sha256:" + "d" * 64
    assert any("could not be checked" in text for text in progress.texts)


def test_login_of_this_machine_is_not_needed_where_the_pod_has_one(cluster: Any, tmp_path: Path) -> None:
    """An image that was pushed is good, also where nobody can log in from here to look at it: that is said."""
    (tmp_path / "docker").mkdir()
    (tmp_path / "docker" / "config.json").write_text("nonsense")
    said: list[str] = []
    environ = {"METAFLOW_PREBUILT_KANIKO_CREDENTIALS": "pod", "DOCKER_CONFIG": str(tmp_path / "docker")}
    service = KanikoBuildService(Settings(environ, {}))
    with InMemoryRegistry(auth=RegistryAuth(scheme="basic", users={"pod": "s3cret"})) as private:
        cluster.story = _reports(_pushed(private))
        assert _build(service, said, image_tag=f"{private.host}/team/image:tag")
    assert any("could not be checked" in line for line in said)


def test_report_that_is_none(cluster: Any, make_request: NewRequest) -> None:
    """A Kaniko that reports no digest may still have pushed: it is said that nothing was checked, and the registry has the word."""
    for message, words in ("", "reports no digest"), ("some text", "reports 'some text' as its digest"):
        cluster.story = _reports(message)
        progress = RecordingProgress()
        assert _service().build(make_request(), progress) is None
        assert any(words in text and "not checked" in text for text in progress.texts)


def test_published_form_checks_the_digest(cluster: Any, registry: InMemoryRegistry) -> None:
    """A Dockerfile that was built is as good as what the registry has of it."""
    tag = f"{registry.host}/team/image:tag"
    cluster.story = _reports(_pushed(registry))
    said: list[str] = []
    assert _build(_service(), said, image_tag=tag)
    cluster.story = _reports("sha256:" + "d" * 64)
    assert not _build(_service(), said, image_tag=tag)
    assert "the registry has no such image" in said[-1]


def test_context_travels_without_a_bucket(cluster: Any, make_request: NewRequest) -> None:
    """A small context is in a ConfigMap that the Job owns; the same request gives the same bytes."""
    contexts = []
    for _ in range(2):
        _service().build(
            make_request(reference="127.0.0.1:1/team/image:tag"),
            RecordingProgress(),
        )
        contexts.append(_context(cluster))
    assert contexts[0] == contexts[1]
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(contexts[0]))) as tar:
        assert {"Dockerfile", "materialise.pyz", "layers"} <= set(tar.getnames())
    [made] = cluster.made("configmaps")[-1]["metadata"]["ownerReferences"]
    assert made["kind"] == "Job"
    assert "--context=tar:///kaniko/prebuilt/context.tar.gz" in _arguments(cluster)


def test_large_context_without_a_bucket(cluster: Any, make_request: NewRequest) -> None:
    """The error has the size and the setting, and nothing was made in the cluster."""
    with pytest.raises(BuildError, match="METAFLOW_PREBUILT_KANIKO_CONTEXT_BUCKET") as caught:
        _service().build(make_request(size_bytes=1_000_000), RecordingProgress())
    assert "is 1,00" in caught.value.reason
    assert cluster.calls == []


def test_logins_travel_in_a_secret(cluster: Any, make_request: NewRequest) -> None:
    """Credentials of the request are in a Secret that the Job owns, and neither in the Job nor in what is said."""
    login, progress = Credentials(username="me", secret="s3cret"), RecordingProgress()
    _service().build(make_request(reference="127.0.0.1:1/team/image:tag", credentials=login), progress)
    [secret] = cluster.made("secrets")
    config = json.loads(base64.b64decode(secret["data"][".dockerconfigjson"]))
    assert base64.b64decode(config["auths"]["127.0.0.1:1"]["auth"]) == b"me:s3cret"
    assert secret["type"] == "kubernetes.io/dockerconfigjson"
    assert secret["metadata"]["ownerReferences"][0]["kind"] == "Job"
    [job] = cluster.made("jobs")
    assert "s3cret" not in json.dumps(job)
    assert not any("s3cret" in text for text in progress.texts)
    volumes = {volume["name"]: volume for volume in job["spec"]["template"]["spec"]["volumes"]}
    assert volumes["logins"]["secret"]["secretName"] == job["metadata"]["name"]


@pytest.mark.parametrize("settings", [{"KANIKO_SECRET_NAME": "regcred"}, {"KANIKO_CREDENTIALS": "pod"}])
def test_logins_that_are_in_the_cluster(cluster: Any, settings: dict[str, str]) -> None:
    """With a Secret that is there, or an identity of the pod, no credential leaves this machine."""
    said: list[str] = []
    assert _build(_service(**settings), said, push_credentials={"username": "me", "password": "s3cret"})
    assert cluster.made("secrets") == []
    volumes = cluster.made("jobs")[0]["spec"]["template"]["spec"]["volumes"]
    assert [volume["secret"]["secretName"] for volume in volumes if "secret" in volume] == (
        ["regcred"] if "KANIKO_SECRET_NAME" in settings else []
    )


def test_docker_logins_go_along(cluster: Any, tmp_path: Path, make_request: NewRequest) -> None:
    """What `docker login` left here serves for pushing and for the base image, and no other registry's login leaves."""
    auths = {
        "127.0.0.1:1": {"auth": base64.b64encode(b"me:one").decode()},
        "https://index.docker.io/v1/": {"auth": base64.b64encode(b"me:two").decode()},
        "ghcr.io": {"auth": base64.b64encode(b"me:three").decode()},
    }
    (tmp_path / "docker").mkdir()
    (tmp_path / "docker" / "config.json").write_text(json.dumps({"auths": auths}))
    settings = Settings({"DOCKER_CONFIG": str(tmp_path / "docker"), "HOME": str(tmp_path)}, {})
    KanikoBuildService(settings).build(make_request(reference="127.0.0.1:1/team/image:tag"), RecordingProgress())
    [secret] = cluster.made("secrets")
    sent = json.loads(base64.b64decode(secret["data"][".dockerconfigjson"]))["auths"]
    assert sorted(sent) == ["127.0.0.1:1", "https://index.docker.io/v1/"]


def test_proxies(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are build arguments; one with a password is referred to, and the password is in the Secret."""
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("HTTPS_PROXY", "http://me:s3cret@proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert _build(_service(), [])
    arguments = _arguments(cluster)
    assert "--build-arg=HTTP_PROXY=http://proxy.example:3128" in arguments
    assert "--build-arg=HTTPS_PROXY=$(PREBUILT_HTTPS_PROXY)" in arguments
    assert "s3cret" not in json.dumps(cluster.made("jobs"))
    assert base64.b64decode(cluster.made("secrets")[0]["data"]["HTTPS_PROXY"]).startswith(b"http://me:s3cret@")


def test_a_build_that_fails(cluster: Any, make_request: NewRequest) -> None:
    """The error has Kaniko's last word and its last lines, and a remedy where the cause is known."""

    def story(fake: Any, job: Any) -> None:
        pod = fake.add_pod(job)
        fake.run(pod)
        fake.say(
            pod, "\x1b[36mINFO\x1b[0m[0000] Retrieving", "error pushing image: POST https://r/v2: UNAUTHORIZED: no"
        )
        fake.end(pod, 1, message="sha256:" + "e" * 64)

    cluster.story = story
    with pytest.raises(BuildError) as caught:
        _service().build(make_request(), RecordingProgress())
    assert caught.value.reason == "error pushing image: POST https://r/v2: UNAUTHORIZED: no"
    assert "METAFLOW_PREBUILT_KANIKO_SECRET_NAME" in caught.value.remedy
    assert "INFO[0000] Retrieving" in caught.value.output
    assert cluster.left == []


def test_a_log_that_cannot_be_read(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the cluster kept of it stands for it."""
    from prebuilt.kaniko.cluster import Cluster

    def away(*_: object) -> None:
        raise OSError("no route to the node")

    monkeypatch.setattr(Cluster, "open_log", away)
    monkeypatch.setattr("prebuilt.kaniko.watch._DRAIN_S", 0.2)

    def story(fake: Any, job: Any) -> None:
        pod = fake.add_pod(job)
        fake.run(pod)
        fake.end(pod, 1, message="INFO[0000] Retrieving\nerror building image: MANIFEST_UNKNOWN")

    cluster.story = story
    said: list[str] = []
    assert not _build(_service(), said)
    assert "INFO[0000] Retrieving" in said
    assert any("log could not be read" in line for line in said)
    assert "METAFLOW_PREBUILT_BASE_IMAGE" in said[-1]


@pytest.mark.parametrize(
    ("reason", "exit_code", "message"),
    [
        ("OOMKilled", 137, ""),
        ("Error", 137, ""),
        ("OOMKilled", 1, ""),
        ("StartError", 128, "unable to start container process: container init was OOM-killed (memory limit too low?)"),
    ],
)
def test_memory_that_ran_out(cluster: Any, reason: str, exit_code: int, message: str) -> None:
    """137 is explained, with what the build had and the setting; so is a limit in which nothing starts."""

    def story(fake: Any, job: Any) -> None:
        pod = fake.add_pod(job)
        fake.run(pod)
        fake.end(pod, exit_code, message=message, reason=reason)

    cluster.story = story
    said: list[str] = []
    assert not _build(_service(KANIKO_MEMORY="512Mi"), said)
    assert "it ran out of memory: it had 512Mi" in said[-1]
    assert "METAFLOW_PREBUILT_KANIKO_MEMORY" in said[-1]


def test_eight_builds_at_once(cluster: Any) -> None:
    """Each has a Job, a context and a log of its own, also where they build the same image."""
    service = _service()
    outputs: list[list[str]] = [[] for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda said: _build(service, said), outputs))
    names = [job["metadata"]["name"] for job in cluster.made("jobs")]
    assert len(set(names)) == 8
    assert max(map(len, names)) <= 63
    assert all(said[1:3] == ["INFO[0000] Retrieving image manifest", "INFO[0009] Pushed"] for said in outputs)
    assert cluster.left == []


@pytest.mark.parametrize("in_log", [False, True])
def test_cancelled(cluster: Any, make_request: NewRequest, *, in_log: bool) -> None:
    """A request that is cancelled while its pod waits or runs ends soon, and the Job is deleted with all that it owns."""
    cancellation, progress = Cancellation(), RecordingProgress()

    def story(fake: Any, job: Any) -> None:
        pod = fake.add_pod(job)
        if in_log:
            fake.run(pod)
            fake.say(pod, "working")
            eventually(lambda: "working" in progress.texts)
        fake.await_looks()
        cancellation.cancel()

    cluster.story = story
    began_s = time.monotonic()
    with pytest.raises(CancelledError):
        _service().build(make_request(cancellation=cancellation), progress)
    assert time.monotonic() - began_s < 60
    assert cluster.left == []
    for thread in [thread for thread in threading.enumerate() if thread.name == "kaniko-log"]:
        thread.join(60)  # the product waits for two seconds, and then leaves it to itself
        assert not thread.is_alive()


def test_interrupted(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C, wherever it strikes, deletes the Job with all that it owns."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("prebuilt.kaniko.watch.JobWatch._look", interrupt)
    with pytest.raises(KeyboardInterrupt):
        _build(_service(), [])
    assert cluster.made("jobs")
    assert cluster.left == []


def test_nothing_outlives_a_failed_creation(cluster: Any, make_request: NewRequest) -> None:
    """A Secret that must not be made takes the Job and the context with it."""
    cluster.denied.add(("create", "secrets"))
    login = Credentials(username="me", secret="s3cret")
    with pytest.raises(EngineError, match="create secrets"):
        _service().build(make_request(credentials=login), RecordingProgress())
    assert cluster.left == []


def test_layouts_are_refused(cluster: Any) -> None:
    """A folder of this machine is no registry that a pod could push to."""
    said: list[str] = []
    assert not _build(_service(), said, image_tag="oci:/folder:tag")
    assert "METAFLOW_PREBUILT_IMAGE_REGISTRY" in said[0]
    assert cluster.calls == []
