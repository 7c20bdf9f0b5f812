"""Settings that are not what they should be, in the environment and in the Metaflow profile."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytestmark = [pytest.mark.metaflow, pytest.mark.slow]

PREFIX = "METAFLOW_PREBUILT_"


@pytest.fixture(params=["environment", "profile"])
def set_in(request, place):
    """Return a function that puts settings where users do."""

    def put(**settings: str) -> None:
        named = {f"{PREFIX}{name}": value for name, value in settings.items()}
        if request.param == "environment":
            place.variables.update(named)
            return
        for name in named:
            place.variables.pop(name, None)
        home = Path(place.variables["METAFLOW_HOME"])
        home.mkdir()
        (home / "config.json").write_text(json.dumps(named))

    return put


@pytest.mark.parametrize(
    ("setting", "value", "told"),
    [
        (
            "BUILD_SERVICE",
            "dokcer",
            ["builder 'dokcer'", "docker, kaniko, native; set METAFLOW_PREBUILT_BUILD_SERVICE"],
        ),
        ("BUILD_SERVICE", "kaniko", ["a folder of this machine", "set METAFLOW_PREBUILT_IMAGE_REGISTRY to a registry"]),
        (
            "IMAGE_REGISTRY",
            "nowhere",
            ["registry 'nowhere'", "gcr, layout, local, oci", "set METAFLOW_PREBUILT_IMAGE_REG"],
        ),
        ("IMAGE_REGISTRY", "dockerhub", ["METAFLOW_PREBUILT_DOCKERHUB_USER", "it is not set"]),
        ("BUILD_WORKERS", "many", ["'many' is not a whole number above 0"]),
        ("LAYER_WORKERS", "-1", ["'-1' is not a whole number above 0"]),
        ("COMPRESSION", "lz4", ["'lz4' is not one of zstd, gzip"]),
        ("REGISTRY_CACHE", "perhaps", ["'perhaps' is neither on nor off; set it to 1 or 0"]),
        ("REFRESH", "perhaps", ["'perhaps' is neither on nor off"]),
        ("KEEP_DOWNLOADS", "perhaps", ["'perhaps' is neither on nor off"]),
        ("LINK_SCRIPTS", "run", ["'run' is not one of"]),
        ("CONDA_CHANNEL_PRIORITY", "lax", ["'lax' is not one of strict, disabled"]),
        ("CONTAINER_ENGINE", "dokcer", ["'dokcer' is not one of docker, podman, rootless"]),
        ("BASE_IMAGE", "Upper case", ["at Upper case: this is no image reference", "METAFLOW_PREBUILT_BASE_IMAGE"]),
        ("BASE_IMAGE", "oci:relative:tag", ["at oci:relative:tag: this is no image reference"]),
        ("LAYOUT", "/dev/null", ["/dev/null: Not a directory", "METAFLOW_PREBUILT_LAYOUT"]),
        ("CACHE_DIR", "/dev/null", ["Not a directory", "METAFLOW_PREBUILT_CACHE_DIR"]),
    ],
)
def test_a_malformed_setting_is_named(place, set_in, setting, value, told):
    """One message names the setting, what is wrong with it, and what it may be."""
    set_in(**{setting: value})
    message = place.run(pypi={"fine": "2.32"}).message
    if setting not in {"BUILD_SERVICE", "IMAGE_REGISTRY", "BASE_IMAGE", "LAYOUT", "CACHE_DIR"}:
        assert f"read the setting {PREFIX}{setting}" in message
    for words in told:
        assert words in message


@pytest.mark.parametrize(
    ("setting", "value", "told"),
    [
        ("INSECURE_REGISTRIES", "http://registry.example/x", "is not a host; write host or host:port"),
        ("CA_BUNDLE", "/not/there.pem", "/not/there.pem: no such file or folder; name a PEM file"),
    ],
)
def test_a_malformed_setting_of_the_network_is_named(in_registry, set_in, setting, value, told):
    """As soon as a registry is to be asked."""
    set_in(**{setting: value})
    message = in_registry.run(pypi={"fine": "2.32"}).message
    assert f"read the setting {PREFIX}{setting}" in message
    assert told in message


def test_a_gpu_step_wants_a_cuda_version(place, set_in):
    """The highest CUDA version is one."""
    set_in(CUDA_VERSION="newest")
    message = place.run("run", "--with", "container", "--with", "resources:gpu=1", pypi={"fine": "2.32"}).message
    assert f"read the setting {PREFIX}CUDA_VERSION: 'newest' is not a version; write one as 12.4" in message


def test_all_settings_may_be_in_the_profile(place, base, tmp_path):
    """Builder, registry, folders and base image are those of the profile where the environment is silent."""
    settings = {
        "BUILD_SERVICE": "native",
        "IMAGE_REGISTRY": "layout",
        "LAYOUT": str(tmp_path / "elsewhere"),
        "CACHE_DIR": str(tmp_path / "cache"),
        "BASE_IMAGE": base,
        "COMPRESSION": "gzip",
        "CONTAINER_ENGINE": "rootless",
    }
    for name in settings:
        place.variables.pop(PREFIX + name, None)
    home = Path(place.variables["METAFLOW_HOME"])
    home.mkdir()
    (home / "config.json").write_text(json.dumps({PREFIX + name: value for name, value in settings.items()}))
    outcome = place.run(pypi={"fine": "2.32"}, XDG_CACHE_HOME="/nowhere")
    assert outcome.deployed
    assert "images are" not in outcome.text  # nothing was chosen for the user
    assert "-gzip" in (tmp_path / "elsewhere" / "index.json").read_text()


def test_a_cluster_is_refused_a_folder_of_this_machine(place):
    """Before anything is resolved or built, with the setting to change."""
    message = place.run(
        *("--datastore=s3", "run", "--with", "batch"),
        pypi={"nosuch": "1.0"},
        METAFLOW_DATASTORE_SYSROOT_S3="s3://nowhere/metaflow",
        METAFLOW_BATCH_JOB_QUEUE="queue",
        METAFLOW_ECS_S3_ACCESS_IAM_ROLE="arn:aws:iam::123456789012:role/x",
        AWS_EC2_METADATA_DISABLED="true",
        AWS_DEFAULT_REGION="us-east-1",
    ).message
    assert f"read the setting {PREFIX}IMAGE_REGISTRY" in message
    assert "steps start, end cannot pull them" in message
    assert "or run with --with container" in message
    assert not place.cache.exists()
