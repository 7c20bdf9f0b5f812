"""What keeps a build from running: each is told early, by name, with what to do."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from prebuilt.core.errors import BuildError, EngineError
from prebuilt.core.settings import Settings
from prebuilt.kaniko import KanikoBuildService
from prebuilt.testing.conformance.materials import RecordingProgress
from prebuilt.testing.waiting import eventually

NewRequest = Callable[..., Any]


@pytest.fixture
def build(cluster: Any, make_request: NewRequest) -> Callable[..., Any]:
    """Return what builds with settings; `progress` is told what is said."""

    def run(progress: RecordingProgress | None = None, **settings: str) -> Any:
        environ = {f"METAFLOW_PREBUILT_{name}": value for name, value in settings.items()}
        request = make_request(reference="127.0.0.1:1/team/image:tag")
        return KanikoBuildService(Settings(environ, {})).build(request, progress or RecordingProgress())

    return run


def _waits(reason: str, message: str = "") -> Callable[[Any, Any], None]:
    def story(fake: Any, job: Any) -> None:
        pod = fake.add_pod(job)
        fake.set_status(pod, {"waiting": {"reason": reason, "message": message}}, phase="Pending")

    return story


@pytest.mark.parametrize(
    ("reason", "remedy"),
    [
        ("InvalidImageName", "METAFLOW_PREBUILT_KANIKO_IMAGE"),
        ("ImagePullBackOff", "METAFLOW_PREBUILT_KANIKO_IMAGE"),
        ("ErrImageNeverPull", "METAFLOW_PREBUILT_KANIKO_IMAGE"),
        ("CreateContainerConfigError", "the Secrets and ConfigMaps"),
        ("CreateContainerError", "the pod template"),
    ],
)
def test_containers_that_never_start(cluster: Any, build: Callable[..., Any], reason: str, remedy: str) -> None:
    """A reason that does not go away ends the build at once, and the Job is gone."""
    cluster.story = _waits(reason, "in the cluster's words")
    with pytest.raises(BuildError, match=reason) as caught:
        build()
    assert "in the cluster's words" in caught.value.reason
    assert remedy in caught.value.remedy
    assert cluster.left == []


def test_why_an_image_is_not_pulled(cluster: Any, build: Callable[..., Any]) -> None:
    """The cluster backs off without a reason: it is that of the attempt before."""

    def story(fake: Any, job: Any) -> None:
        pod = fake.add_pod(job)
        fake.happen(fake.pod(pod), "Failed", 'Failed to pull image "k": 403 Forbidden')
        fake.set_status(pod, {"waiting": {"reason": "ErrImagePull"}}, phase="Pending")
        fake.await_looks()
        fake.set_status(pod, {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off"}}, phase="Pending")

    cluster.story = story
    with pytest.raises(BuildError, match="403 Forbidden"):
        build(KANIKO_IMAGE="registry.example/k:1")


@pytest.mark.parametrize(
    ("message", "remedy"),
    [
        (
            'pods "p" is forbidden: error looking up service account default/x: serviceaccount "x" not found',
            "SERVICE_ACCOUNT",
        ),
        ('pods "p" is forbidden: exceeded quota: compute, requested: memory=4Gi', "ask for less"),
        ('pods "p" is forbidden: failed quota: q: must specify limits.cpu for: kaniko', "KANIKO_POD_TEMPLATE"),
        (
            'pods "p" is forbidden: maximum memory usage per Container is 1Gi, but limit is 4Gi',
            "set METAFLOW_PREBUILT_KANIKO_CPU, _MEMORY or _DISK",
        ),
        (
            'pods "p" is forbidden: maximum cpu usage per Pod is 2.  No limit is specified',
            "KANIKO_POD_TEMPLATE): a LimitRange",
        ),
        (
            'pods "p" is forbidden: memory max limit to request ratio per Container is 1, but provided ratio is 2.000000',
            "KANIKO_POD_TEMPLATE): a LimitRange",
        ),
        ('pods "p" is forbidden: violates PodSecurity "restricted:latest"', "Kaniko is root"),
        ('admission webhook "policy" denied the request', "runs the cluster"),
    ],
)
def test_pods_that_are_not_made(cluster: Any, build: Callable[..., Any], message: str, remedy: str) -> None:
    """Quota, service account and policies are told in the cluster's words, as soon as it says so."""
    cluster.story = lambda fake, job: fake.happen(job, "FailedCreate", f"Error creating: {message}")
    with pytest.raises(BuildError) as caught:
        build()
    assert message in caught.value.reason
    assert remedy in caught.value.remedy


def test_no_pod_for_a_passing_reason(cluster: Any, build: Callable[..., Any], clock: Any) -> None:
    """What may pass is shown and waited for, as long as the setting says."""

    def story(fake: Any, job: Any) -> None:
        fake.happen(job, "FailedCreate", "Internal error: webhook timed out")
        fake.let_pass(2)

    cluster.story = story
    progress = RecordingProgress()
    with pytest.raises(BuildError, match="makes no pod"):
        build(progress, KANIKO_PENDING_TIMEOUT="1")
    assert any("webhook timed out" in text for text in progress.texts)


def test_no_node(cluster: Any, build: Callable[..., Any], clock: Any) -> None:
    """A pod that no node takes waits for an autoscaler, as long as the setting says; then the scheduler's words are told."""

    def story(fake: Any, job: Any) -> None:
        condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes: cpu"}
        pod = fake.add_pod(job)
        with fake.changed:
            fake.pod(pod)["status"] = {"phase": "Pending", "conditions": [condition]}
        fake.let_pass(2)

    cluster.story = story
    with pytest.raises(BuildError, match="0/3 nodes: cpu") as caught:
        build(KANIKO_PENDING_TIMEOUT="1")
    assert "METAFLOW_PREBUILT_KANIKO_PENDING_TIMEOUT" in caught.value.remedy


def test_no_node_of_the_platform(cluster: Any, build: Callable[..., Any], clock: Any) -> None:
    """The platform is named, and the setting that has other nodes build for it."""

    def story(fake: Any, job: Any) -> None:
        message = "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector."
        condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
        pod = fake.add_pod(job)
        with fake.changed:
            fake.pod(pod)["status"] = {"phase": "Pending", "conditions": [condition]}
        fake.let_pass(2)

    cluster.story = story
    with pytest.raises(BuildError, match="didn't match") as caught:
        build(KANIKO_PENDING_TIMEOUT="1")
    assert caught.value.remedy.startswith("have nodes of linux/amd64, set METAFLOW_PREBUILT_KANIKO_BUILD_PLATFORM")


def test_what_happened_before_the_first_look(cluster: Any, build: Callable[..., Any]) -> None:
    """A pod that runs at once has been scheduled and its image pulled, which is shown, before its log and once."""

    def story(fake: Any, job: Any) -> None:
        with fake.changed:
            pod = fake.add_pod(job)
            fake.happen(fake.pod(pod), "Pulled", "Successfully pulled image")
            fake.run(pod)
        fake.say(pod, "INFO[0000] Retrieving")
        time.sleep(0.3)
        fake.end(pod)

    cluster.story = story
    progress = RecordingProgress()
    build(progress)
    assert [text for text in progress.texts if text.startswith(("Pulled", "INFO"))] == [
        "Pulled: Successfully pulled image",
        "INFO[0000] Retrieving",
    ]


def test_a_node_that_comes(cluster: Any, build: Callable[..., Any], clock: Any) -> None:
    """A pod that is scheduled after all builds."""

    def story(fake: Any, job: Any) -> None:
        condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes: cpu"}
        pod = fake.add_pod(job)
        with fake.changed:
            fake.pod(pod)["status"] = {"phase": "Pending", "conditions": [condition]}
        fake.let_pass(4)
        fake.await_looks()
        fake.run(pod)
        fake.end(pod)

    cluster.story = story
    assert build(KANIKO_PENDING_TIMEOUT="5") is None


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ('MountVolume.SetUp failed for volume "logins" : secret "regcred" not found', "there is no Secret regcred"),
        ("MountVolume.SetUp failed: references non-existent secret key: .dockerconfigjson", "kubernetes.io/dockerconfigjson"),
    ],
)  # fmt: skip
def test_secret_of_the_settings(cluster: Any, build: Callable[..., Any], message: str, words: str) -> None:
    """A Secret that is missing, or of another type, is told by name."""

    def story(fake: Any, job: Any) -> None:
        fake.happen(fake.pod(fake.add_pod(job)), "FailedMount", message)

    cluster.story = story
    with pytest.raises(BuildError, match="regcred") as caught:
        build(KANIKO_SECRET_NAME="regcred")
    assert words in caught.value.reason


@pytest.mark.parametrize(
    "said",
    [
        'secret "builder-identity" not found',
        'configmap "certs" not found',
        '[secret "builder-identity" not found, configmap "{own}" not found]',
        "references non-existent secret key: key.json",
        "references non-existent config key: key.json",
    ],
)
def test_volumes_of_a_template(cluster: Any, build: Callable[..., Any], said: str) -> None:
    """What a template mounts and is not there ends the build at once, in the cluster's words."""

    def story(fake: Any, job: Any) -> None:
        message = f'MountVolume.SetUp failed for volume "v" : {said.format(own=job["metadata"]["name"])}'
        fake.happen(fake.pod(fake.add_pod(job)), "FailedMount", message, "Warning")

    cluster.story = story
    with pytest.raises(BuildError, match=r"MountVolume\.SetUp failed") as caught:
        build()
    assert "METAFLOW_PREBUILT_KANIKO_POD_TEMPLATE" in caught.value.remedy
    assert cluster.left == []


def test_pod_that_has_a_node_and_does_not_start(cluster: Any, build: Callable[..., Any], clock: Any) -> None:
    """It is waited for as long as the setting says; then the last of the cluster's warnings is told."""

    def story(fake: Any, job: Any) -> None:
        pod = fake.pod(fake.add_pod(job))
        fake.happen(pod, "FailedMount", f'secret "{job["metadata"]["name"]}" not found', "Warning")
        fake.happen(pod, "FailedCreatePodSandBox", "no address left", "Warning")
        time.sleep(0.01)
        fake.happen(pod, "FailedCreatePodSandBox", "the network plugin is not ready", "Warning")
        fake.happen(pod, "Scheduled", "Successfully assigned")
        fake.let_pass(2)

    cluster.story = story
    with pytest.raises(BuildError, match="FailedCreatePodSandBox: the network plugin is not ready") as caught:
        build(KANIKO_PENDING_TIMEOUT="1")
    assert "METAFLOW_PREBUILT_KANIKO_PENDING_TIMEOUT" in caught.value.remedy


@pytest.mark.parametrize("first", ["an image", "a container"])
def test_pod_that_is_on_its_way(cluster: Any, build: Callable[..., Any], clock: Any, first: str) -> None:
    """While a large image is pulled, or what a template puts first runs, nobody's patience ends."""

    def story(fake: Any, job: Any) -> None:
        pod = fake.add_pod(job)
        if first == "an image":
            fake.happen(fake.pod(pod), "Pulling", 'Pulling image "kaniko"')
        else:
            running = {
                "name": "first",
                "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
                "image": "first",
                "imageID": "",
                "ready": False,
                "restartCount": 0,
            }
            fake.set_status(pod, {"waiting": {"reason": "PodInitializing"}}, initContainerStatuses=[running])
        fake.let_pass(2)
        fake.await_looks()
        fake.run(pod)
        fake.end(pod)

    cluster.story = story
    assert build(KANIKO_PENDING_TIMEOUT="1") is None


def test_our_own_objects_may_come_late(cluster: Any, build: Callable[..., Any]) -> None:
    """A pod that is quicker than its ConfigMap or Secret looks again: nothing is said, and nothing ends."""
    progress = RecordingProgress()

    def story(fake: Any, job: Any) -> None:
        pod, name = fake.add_pod(job), job["metadata"]["name"]
        fake.happen(
            fake.pod(pod),
            "FailedMount",
            f'MountVolume.SetUp failed for volume "context" : configmap "{name}" not found',
        )
        fake.await_looks()
        waiting = {"reason": "CreateContainerConfigError", "message": f'secret "{name}" not found'}
        fake.set_status(pod, {"waiting": waiting}, phase="Pending")
        fake.happen(fake.pod(pod), "Failed", f'Error: secret "{name}" not found')
        fake.await_looks()
        fake.run(pod)
        fake.end(pod)

    cluster.story = story
    assert build(progress) is None
    assert not any("not found" in text for text in progress.texts)


@pytest.mark.parametrize("what", ["secret", "configmap"])
def test_node_that_reads_late(cluster: Any, build: Callable[..., Any], what: str) -> None:
    """A busy node that has yet to read a Secret or a ConfigMap looks again: the build waits, as for every start."""

    def story(fake: Any, job: Any) -> None:
        pod = fake.add_pod(job)
        message = f"failed to sync {what} cache: timed out waiting for the condition"
        waiting = {"reason": "CreateContainerConfigError", "message": message}
        fake.set_status(pod, {"waiting": waiting}, phase="Pending")
        fake.await_looks()
        fake.run(pod)
        fake.end(pod)

    cluster.story = story
    assert build() is None


def test_job_that_somebody_deletes(cluster: Any, build: Callable[..., Any]) -> None:
    """It is said that somebody else did it."""
    progress = RecordingProgress()

    def story(fake: Any, job: Any) -> None:
        pod = fake.add_pod(job)
        fake.run(pod)
        fake.say(pod, "INFO[0000] half way")
        eventually(lambda: "INFO[0000] half way" in progress.texts)
        fake.delete_job(job["metadata"]["name"])

    cluster.story = story
    with pytest.raises(BuildError, match="somebody else deleted the Job") as caught:
        build(progress)
    assert caught.value.output == ("INFO[0000] half way",)


def test_time_that_is_up(cluster: Any, build: Callable[..., Any]) -> None:
    """The cluster ends a Job that takes too long; the setting is named."""
    cluster.story = lambda fake, job: fake.fail_job(job, "DeadlineExceeded")
    with pytest.raises(BuildError, match="longer than 7 s") as caught:
        build(KANIKO_TIMEOUT="7")
    assert "METAFLOW_PREBUILT_KANIKO_TIMEOUT" in caught.value.remedy
    assert cluster.made("jobs")[0]["spec"]["activeDeadlineSeconds"] == 7


def test_pod_that_was_killed_because_time_is_up(cluster: Any, build: Callable[..., Any]) -> None:
    """Its container fails first, and the Job says why a moment later."""

    def story(fake: Any, job: Any) -> None:
        pod = fake.add_pod(job)
        fake.run(pod)
        with fake.changed:
            fake.pod(pod)["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        fake.end(pod, 143)
        fake.await_looks()
        fake.fail_job(job, "DeadlineExceeded")

    cluster.story = story
    with pytest.raises(BuildError, match="longer than 7 s"):
        build(KANIKO_TIMEOUT="7")


def test_time_that_the_cluster_forgets(
    cluster: Any, build: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cluster whose controllers stand still is not waited for for ever."""
    monkeypatch.setattr("prebuilt.kaniko.watch._LATE_S", 0.2)
    cluster.story = lambda *_: None
    with pytest.raises(BuildError, match="longer than 1 s"):
        build(KANIKO_TIMEOUT="1")
    assert cluster.left == []


def test_pod_that_is_taken_away(cluster: Any, build: Callable[..., Any]) -> None:
    """An eviction, and a node that is gone, are told in the cluster's words."""

    def evicted(fake: Any, job: Any) -> None:
        pod = fake.add_pod(job)
        with fake.changed:
            fake.pod(pod)["status"] = {"phase": "Failed", "reason": "Evicted", "message": "The node was low on memory"}

    cluster.story = evicted
    with pytest.raises(BuildError, match="Evicted: The node was low on memory"):
        build()
    cluster.story = lambda fake, job: fake.fail_job(job, "BackoffLimitExceeded", "Job has reached the limit")
    with pytest.raises(BuildError, match="BackoffLimitExceeded: Job has reached the limit"):
        build()


@pytest.mark.parametrize(
    ("reason", "message", "exit_code", "remedy"),
    [
        ("Evicted", "The node was low on resource: ephemeral-storage.", 137, "METAFLOW_PREBUILT_KANIKO_DISK"),
        (
            "Evicted",
            "Pod ephemeral local storage usage exceeds the total limit of containers 1Gi.",
            137,
            "METAFLOW_PREBUILT_KANIKO_DISK",
        ),
        ("Terminated", "Pod was terminated in response to imminent node shutdown.", 143, "build again"),
    ],
)
def test_pod_that_is_taken_away_while_it_builds(
    cluster: Any, build: Callable[..., Any], reason: str, message: str, exit_code: int, remedy: str
) -> None:
    """Kaniko was killed, and not for want of memory: the pod says why, and for want of disk the setting is named."""

    def story(fake: Any, job: Any) -> None:
        pod = fake.add_pod(job)
        fake.run(pod)
        fake.say(pod, "INFO[0000] half way")
        state = {"terminated": {"exitCode": exit_code, "reason": "Error"}}
        fake.set_status(pod, state, phase="Failed", reason=reason, message=message)

    cluster.story = story
    with pytest.raises(BuildError) as caught:
        build()
    assert caught.value.reason == f"{reason}: {message}"
    assert remedy in caught.value.remedy
    assert caught.value.output == ("INFO[0000] half way",)


@pytest.mark.parametrize(
    ("verb", "resource"),
    [
        ("create", "jobs"),
        ("get", "jobs"),
        ("list", "pods"),
        ("get", "pods/log"),
        ("list", "events"),
        ("create", "configmaps"),
    ],
)
def test_verbs_that_are_denied(cluster: Any, build: Callable[..., Any], verb: str, resource: str) -> None:
    """The error names verb, resource, namespace and Role, and nothing is left."""
    cluster.denied.add((verb, resource))
    if (verb, resource) == ("list", "events"):
        cluster.story = _waits("ContainerCreating")
    with pytest.raises(EngineError, match=f"{verb} {resource}") as caught:
        build()
    assert (
        f"grant the verb {verb} on {resource} in the namespace default: the Role prebuilt-kaniko" in caught.value.remedy
    )
    assert "cannot" in caught.value.reason
    assert cluster.left == []


@pytest.mark.parametrize(
    ("message", "remedy"),
    [
        ("exceeded quota: builds, requested: count/jobs.batch=1", "ask for less, wait for others to end"),
        (
            "unable to create new content in namespace default because it is being terminated",
            "METAFLOW_PREBUILT_KANIKO_NAMESPACE to another",
        ),
    ],
)
def test_jobs_that_are_refused(cluster: Any, build: Callable[..., Any], message: str, remedy: str) -> None:
    """What is forbidden to everybody is no matter of the Role, and is told in the cluster's words."""
    cluster.passing["create", "jobs"] = [(403, "Forbidden", f'jobs.batch "x" is forbidden: {message}')]
    with pytest.raises(EngineError) as caught:
        build()
    assert message in caught.value.reason
    assert remedy in caught.value.remedy


def test_delete_that_is_denied(cluster: Any, build: Callable[..., Any]) -> None:
    """The image is there: the build is good, and one line says what stays, for how long, and which verb is missing."""
    cluster.denied.add(("delete", "jobs"))
    progress = RecordingProgress()
    assert build(progress) is None
    [note] = [text for text in progress.texts if "delete jobs" in text]
    assert "grant the verb delete on jobs" in note
    assert "after 300 s" in note


def test_namespace_that_is_missing(cluster: Any, build: Callable[..., Any]) -> None:
    """It is told by its setting."""
    with pytest.raises(EngineError, match="there is no such namespace") as caught:
        build(KANIKO_NAMESPACE="nowhere")
    assert caught.value.at == "namespace nowhere"
    assert "METAFLOW_PREBUILT_KANIKO_NAMESPACE" in caught.value.remedy


def test_namespace_that_is_mistyped(cluster: Any, build: Callable[..., Any]) -> None:
    """Whoever has a Role of one namespace is told of any other that it is forbidden, be it there or not: the setting is named, too."""
    cluster.denied.add(("create", "jobs"))
    with pytest.raises(EngineError, match="403") as caught:
        build(KANIKO_NAMESPACE="nowhere")
    assert "or set METAFLOW_PREBUILT_KANIKO_NAMESPACE to the namespace where it is granted" in caught.value.remedy
