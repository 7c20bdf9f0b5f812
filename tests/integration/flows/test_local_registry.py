"""Flows whose images are in the registry ``local``, built by default: with Docker, since an engine answers."""

from __future__ import annotations

import json

import pytest

from prebuilt.core.platforms import Platform
from prebuilt.core.settings import Settings
from prebuilt.docker import LocalRegistry
from prebuilt.docker.registry_container import NAME
from prebuilt.oci.open import open_repository
from prebuilt.testing.base_image import push_base_image
from prebuilt.testing.engines.machine_image import import_registry_image
from prebuilt.testing.engines.process import free_port
from prebuilt.testing.engines.wanted import wanted_engine

pytestmark = [pytest.mark.docker, pytest.mark.metaflow, pytest.mark.slow]

RUN = ("run", "--with", "container", "--with", 'pypi:packages={"six":"1.16.0"}')


@pytest.fixture(scope="module")
def at_docker(docker_bridged, shared, tmp_path_factory):
    """Return the settings of a user with Docker, the registry local, a base image in it, and no builder chosen."""
    with wanted_engine():
        image = import_registry_image(docker_bridged)
    settings = {
        **docker_bridged.environ,
        "METAFLOW_PREBUILT_CONTAINER_ENGINE": "docker",
        "METAFLOW_PREBUILT_IMAGE_REGISTRY": "local",
        "METAFLOW_PREBUILT_LOCAL_REGISTRY_IMAGE": image,
        "METAFLOW_PREBUILT_LOCAL_REGISTRY_PORT": str(free_port()),
        "METAFLOW_PREBUILT_CACHE_DIR": str(tmp_path_factory.mktemp("cache")),
    }
    place = LocalRegistry(Settings(settings, {})).repository.partition("/")[0]
    base = push_base_image(open_repository(f"{place}/base"), platforms=[Platform.parse("linux/amd64")])
    yield settings | {"METAFLOW_PREBUILT_BASE_IMAGE": base}
    docker_bridged.ask("rm", "--force", NAME)
    docker_bridged.ask("volume", "rm", NAME)


def images_of(client, place):
    """Return the image that each task of the latest run says it ran in."""
    run = client("BareFlow", place)
    assert run.successful
    return {task.metadata_dict["prebuilt-image"] for step in run for task in step}


def test_built_by_docker_and_run_by_docker(place, client, docker_bridged, at_docker):
    """Nothing but the registry is chosen: images are built with Docker, kept in its container, and run from there."""
    first = place.run("bare", *RUN, **at_docker)
    assert first.code == 0, first.text
    assert "image pushed" in first.text
    assert "without Docker" not in first.text
    (image,) = images_of(client, place)
    assert image.startswith(f"127.0.0.1:{at_docker['METAFLOW_PREBUILT_LOCAL_REGISTRY_PORT']}/metaflow-prebuilt@sha256:")
    published = json.loads(docker_bridged.ask("inspect", "--format={{json .HostConfig.PortBindings}}", NAME))
    assert [each["HostIp"] for each in published["5000/tcp"]] == ["127.0.0.1"]

    second = place.run("bare", *RUN, **at_docker)
    assert second.code == 0, second.text
    assert "image is there" in second.text
    assert images_of(client, place) == {image}


def test_built_without_docker_where_the_base_is_a_folder(place, client, shared, at_docker):
    """A base image in a folder is no business of an engine: one line says so, and the image is in the same registry."""
    base = {"METAFLOW_PREBUILT_BASE_IMAGE": shared["METAFLOW_PREBUILT_BASE_IMAGE"]}
    elsewhere = {"METAFLOW_PREBUILT_IMAGE_NAMESPACE": "folder"}  # the base is the same: the image would be there
    outcome = place.run("bare", *RUN, **at_docker | base | elsewhere)
    assert outcome.code == 0, outcome.text
    assert "images are built without Docker: the base image is in oci:" in outcome.text
    assert len(images_of(client, place)) == 1
