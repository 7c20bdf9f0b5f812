"""The objects of a build, and what settings and templates make of them."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from prebuilt.core.errors import SettingError
from prebuilt.core.settings import Settings
from prebuilt.kaniko.certificates import Authorities
from prebuilt.kaniko.config import DEFAULT_IMAGE, KanikoConfig
from prebuilt.kaniko.job import KanikoBuild, config_map, job, new_name, secret
from prebuilt.kaniko.template import merge, read_template

FULL_ID = "a" * 40
OWNER = {"metadata": {"uid": "uid-1"}}


def _config(**settings: str) -> KanikoConfig:
    environ = {f"METAFLOW_PREBUILT_KANIKO_{name}": value for name, value in settings.items()}
    return KanikoConfig.from_settings(Settings(environ, {}))


@pytest.fixture
def build() -> KanikoBuild:
    """A build."""
    return KanikoBuild(
        name=new_name(FULL_ID),
        reference="r.example/i:t",
        image_id=FULL_ID,
        user="jürgen@example.com",
        platform="linux/arm64",
    )


def _spec(build: KanikoBuild, config: KanikoConfig, template: Any = None, **changes: Any) -> dict[str, Any]:
    made = job(build, config, **{"context": None, "has_logins": False, "template": template, **changes})
    spec: dict[str, Any] = made["spec"]["template"]["spec"]
    return spec


def test_job_says_whose_it_is(build: KanikoBuild) -> None:
    """User, image, place and version are on it; labels have the form that Kubernetes takes, whatever a user is called."""
    made = job(build, _config(), context=None, has_logins=False, template=None)
    for metadata in (made["metadata"], made["spec"]["template"]["metadata"]):
        assert metadata["annotations"]["metaflow-prebuilt/user"] == "jürgen@example.com"
        assert metadata["annotations"]["metaflow-prebuilt/image"] == FULL_ID
        assert metadata["annotations"]["metaflow-prebuilt/version"]
        for value in metadata["labels"].values():
            assert re.fullmatch(r"(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?", value)
    assert re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", made["metadata"]["name"])


def test_job_ends_by_itself(build: KanikoBuild) -> None:
    """It is tried once, for so long, and goes when nobody is left to delete it."""
    spec = job(build, _config(TIMEOUT="60", KEEP="30"), context=None, has_logins=False, template=None)["spec"]
    assert (spec["backoffLimit"], spec["activeDeadlineSeconds"], spec["ttlSecondsAfterFinished"]) == (0, 60, 30)


def test_pod_is_what_the_settings_say(build: KanikoBuild) -> None:
    """Image, resources, service account, nodes and tolerations; build steps get no token of the cluster."""
    spec = _spec(
        build,
        _config(
            IMAGE="r.example/kaniko:1",
            CPU="2",
            MEMORY="8Gi",
            DISK="20Gi",
            SERVICE_ACCOUNT="builder",
            NODE_SELECTOR="pool=builds",
            TOLERATIONS='[{"key": "builds", "operator": "Exists"}]',
            FLAGS="--verbosity=debug --label 'a=b c'",
        ),
    )
    [container] = spec["containers"]
    assert container["image"] == "r.example/kaniko:1"
    assert container["resources"] == {
        "requests": {"cpu": "2", "memory": "8Gi", "ephemeral-storage": "20Gi"},
        "limits": {"memory": "8Gi"},
    }
    assert container["args"][-3:] == ["--verbosity=debug", "--label", "a=b c"]
    assert spec["nodeSelector"] == {"kubernetes.io/os": "linux", "kubernetes.io/arch": "arm64", "pool": "builds"}
    assert spec["tolerations"] == [{"key": "builds", "operator": "Exists"}]
    assert (spec["serviceAccountName"], spec["automountServiceAccountToken"]) == ("builder", False)


def test_default_image_is_a_release() -> None:
    """Never latest, and never a digest that nobody has seen."""
    assert re.fullmatch(r"ghcr\.io/osscontainertools/kaniko:v[0-9]+\.[0-9]+\.[0-9]+", DEFAULT_IMAGE)
    assert _config().image == DEFAULT_IMAGE


def test_flags_follow_what_is_built(build: KanikoBuild) -> None:
    """Compression, cache, plain HTTP and the snapshot of our form are there where they are asked for, and nowhere else."""
    few = _spec(replace(build, platform=None), _config(), context="gs://b/k.tar.gz")
    arguments = few["containers"][0]["args"]
    assert "--context=gs://b/k.tar.gz" in arguments
    assert few["volumes"] == []
    assert not any(a.startswith(("--cache", "--comp", "--insec", "--snap", "--custom", "--repro")) for a in arguments)
    full = replace(
        build,
        compression="zstd",
        cache="r.example/c",
        image_labels={"owner": "$(WHO) 'x'"},
        insecure=("r.example",),
        is_ours=True,
    )
    assert {
        "--compression=zstd",
        "--cache=true",
        "--cache-repo=r.example/c",
        "--insecure-registry=r.example",
        "--label=owner=$$(WHO) 'x'",
        "--snapshot-mode=redo",
        "--custom-platform=linux/arm64",
    } <= set(_spec(full, _config())["containers"][0]["args"])


def test_secret_of_the_settings_is_mounted_as_documented(build: KanikoBuild) -> None:
    """Its key is Kaniko's configuration file; the build's own Secret, where there is none, is mounted in the same way."""
    for config, has_logins, name in ((_config(SECRET_NAME="regcred"), False, "regcred"), (_config(), True, build.name)):
        spec = _spec(build, config, has_logins=has_logins)
        [volume] = [volume for volume in spec["volumes"] if "secret" in volume]
        items = [{"key": ".dockerconfigjson", "path": "config.json"}]
        assert volume["secret"] == {"secretName": name, "items": items}
        assert {"name": volume["name"], "mountPath": "/kaniko/.docker", "readOnly": True} in spec["containers"][0][
            "volumeMounts"
        ]


def test_what_a_job_owns(build: KanikoBuild) -> None:
    """ConfigMap and Secret carry their owner from the first moment on; where there is nothing to hide, there is no Secret."""
    trusting = replace(build, authorities=Authorities(hosts=("r.example",), data=b"pem"))
    owned = [config_map(trusting, b"data", OWNER), secret(build, b"{}", OWNER)]
    for each in owned:
        assert each is not None
        [owner] = each["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["name"], owner["uid"]) == ("Job", build.name, "uid-1")
    assert owned[0] is not None
    files = {name: base64.b64decode(data) for name, data in owned[0]["binaryData"].items()}
    assert files == {"context.tar.gz": b"data", "authorities.pem": b"pem"}
    assert config_map(build, None, OWNER) is None
    assert secret(build, None, OWNER) is None


def test_authorities_are_named_for_each_registry(build: KanikoBuild) -> None:
    """They are mounted wherever the context is, and Kaniko is told of Docker Hub by the name that it has there."""
    trusting = replace(build, authorities=Authorities(hosts=("docker.io", "r.example:5000"), data=b"pem"))
    for context in None, "s3://b/k.tar.gz":
        spec = _spec(trusting, _config(), context=context)
        assert spec["volumes"] == [{"name": "files", "configMap": {"name": build.name}}]
        assert [flag for flag in spec["containers"][0]["args"] if "certificate" in flag] == [
            "--registry-certificate=index.docker.io=/kaniko/prebuilt/authorities.pem",
            "--registry-certificate=r.example:5000=/kaniko/prebuilt/authorities.pem",
        ]


def test_nodes_may_be_of_another_platform(build: KanikoBuild) -> None:
    """The image keeps its own."""
    spec = _spec(replace(build, built_on="linux/amd64"), _config())
    assert spec["nodeSelector"]["kubernetes.io/arch"] == "amd64"
    assert "--custom-platform=linux/arm64" in spec["containers"][0]["args"]


def test_template_is_laid_over_the_pod(build: KanikoBuild, tmp_path: Path) -> None:
    """Containers, variables and volumes are found by name and mounts by path; lists are joined; what is null goes."""
    path = tmp_path / "pod.yaml"
    path.write_text(
        """
        metadata: {annotations: {cluster-autoscaler.kubernetes.io/safe-to-evict: "false"}}
        spec:
          priorityClassName: builds
          nodeSelector: {kubernetes.io/arch: null, pool: builds}
          tolerations: [{key: other, operator: Exists}]
          containers:
            - name: kaniko
              env: [{name: FF, value: "1"}]
              args: [--verbosity=debug]
              resources: {requests: {cpu: "4"}}
              volumeMounts: [{name: certs, mountPath: /kaniko/certs}]
            - {name: proxy, image: proxy}
          volumes: [{name: certs, configMap: {name: certs}}]
        """
    )
    config = _config(TOLERATIONS='[{"key": "builds"}]', POD_TEMPLATE=str(path))
    assert config.pod_template == path
    made = job(build, config, context=None, has_logins=False, template=read_template(path))
    pod = made["spec"]["template"]
    spec = pod["spec"]
    assert "metaflow-prebuilt/user" in pod["metadata"]["annotations"]
    assert pod["metadata"]["annotations"]["cluster-autoscaler.kubernetes.io/safe-to-evict"] == "false"
    assert spec["nodeSelector"] == {"kubernetes.io/os": "linux", "pool": "builds"}
    assert [each["key"] for each in spec["tolerations"]] == ["builds", "other"]
    kaniko, proxy = spec["containers"]
    assert proxy == {"name": "proxy", "image": "proxy"}
    assert kaniko["image"] == DEFAULT_IMAGE
    assert kaniko["args"][-1] == "--verbosity=debug"
    assert kaniko["resources"]["requests"] == {"cpu": "4", "memory": "4Gi"}
    assert [each["mountPath"] for each in kaniko["volumeMounts"]] == ["/kaniko/prebuilt", "/kaniko/certs"]
    assert [each["name"] for each in spec["volumes"]] == ["files", "certs"]


def test_templates_of_other_kinds(tmp_path: Path) -> None:
    """A Pod and a PodTemplate serve as well as the bare parts of one."""
    path = tmp_path / "pod.yaml"
    for text in ("spec: {a: 1}", "kind: Pod\nspec: {a: 1}", "kind: PodTemplate\ntemplate: {spec: {a: 1}}"):
        path.write_text(text)
        assert read_template(path) == {"metadata": {}, "spec": {"a": 1}}


@pytest.mark.parametrize("text", [None, "- a", "kind: Pod", "spec: [1]", "spec: {", "spec: {a: 1}\n---\nspec: {}"])
def test_templates_that_are_none(tmp_path: Path, text: str | None) -> None:
    """A file that is missing, no YAML, or no pod is told with its path."""
    path = tmp_path / "pod.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SettingError, match="METAFLOW_PREBUILT_KANIKO_POD_TEMPLATE") as caught:
        read_template(path)
    assert caught.value.at == str(path)


def test_one_volume_at_two_places(build: KanikoBuild) -> None:
    """Mounts are told from each other by where they are, beside our own and over them."""
    mounts = [
        {"name": "company", "mountPath": "/kaniko/one", "subPath": "one"},
        {"name": "company", "mountPath": "/kaniko/two", "subPath": "two"},
        {"name": "company", "mountPath": "/kaniko/prebuilt", "subPath": "context"},
    ]
    template = {"spec": {"containers": [{"name": "kaniko", "volumeMounts": mounts}]}}
    made = _spec(build, _config(), template=template)["containers"][0]["volumeMounts"]
    assert {mount["mountPath"]: mount["name"] for mount in made} == {mount["mountPath"]: "company" for mount in mounts}
    assert len(made) == 3


def test_merging_changes_neither_side() -> None:
    """What is merged is new."""
    base, over = {"a": {"b": [{"name": "x", "v": 1}]}}, {"a": {"b": [{"name": "x", "v": 2}]}, "c": None}
    assert merge(base, over) == {"a": {"b": [{"name": "x", "v": 2}]}}
    assert base["a"]["b"] == [{"name": "x", "v": 1}]


def test_namespace_is_metaflows_where_none_is_set() -> None:
    """METAFLOW_PREBUILT_KANIKO_NAMESPACE comes first, then METAFLOW_KUBERNETES_NAMESPACE, then the default one."""
    metaflows = {"METAFLOW_KUBERNETES_NAMESPACE": "jobs"}
    assert KanikoConfig.from_settings(Settings({}, metaflows)).namespace == "jobs"
    own = {"METAFLOW_PREBUILT_KANIKO_NAMESPACE": "builds"}
    assert KanikoConfig.from_settings(Settings(own, metaflows)).namespace == "builds"
    assert _config().namespace == "default"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("NAMESPACE", "Not_A_Name"),
        ("SECRET_NAME", "a/b"),
        ("SERVICE_ACCOUNT", "-x"),
        ("MEMORY", "lots"),
        ("CPU", "-1"),
        ("DISK", "1 GB"),
        ("CONTEXT_BUCKET", "my-bucket"),
        ("CONTEXT_BUCKET", "https://my-bucket"),
        ("NODE_SELECTOR", "pool"),
        ("TOLERATIONS", "pool"),
        ("TOLERATIONS", '{"key": "a"}'),
        ("FLAGS", "'open"),
        ("CREDENTIALS", "mine"),
        ("BUILD_PLATFORM", "amd64"),
        ("CACHE", "ture"),
        ("CACHE", "team/cache"),
        ("CACHE", "r.example/c:tag"),
        ("CACHE", "oci:/folder"),
        ("TIMEOUT", "0"),
        ("PENDING_TIMEOUT", "soon"),
        ("KEEP", "-5"),
    ],
)
def test_malformed_settings(name: str, value: str) -> None:
    """Each is told by its name."""
    with pytest.raises(SettingError, match=f"METAFLOW_PREBUILT_KANIKO_{name}"):
        _config(**{name: value})


@pytest.mark.parametrize(("value", "cache"), [("on", "on"), ("", None), ("off", None), ("r.example/c", "r.example/c")])
def test_cache(value: str, cache: str | None) -> None:
    """It is beside the images, in a repository of its own, or nowhere."""
    assert _config(CACHE=value).cache == cache
