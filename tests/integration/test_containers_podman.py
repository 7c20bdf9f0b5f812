"""Containers by Podman, which needs no daemon."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence

import pytest

pytest.register_assert_rewrite("prebuilt.testing.container_contract")

from prebuilt.testing.container_contract import ContainerEngineContract, ContainerWorld, container_world  # noqa: E402
from prebuilt.testing.engines.podman import podman_storage  # noqa: E402

pytestmark = pytest.mark.container


@pytest.fixture(scope="module")
def world() -> Iterator[ContainerWorld]:
    """Podman with a storage of our own."""
    with podman_storage() as variables, pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        with container_world("podman") as world:
            yield world


class TestPodman(ContainerEngineContract):
    def leftovers(self) -> Sequence[str]:
        """Containers, running or not."""
        listed = subprocess.run(["podman", "ps", "--all", "--quiet"], check=True, capture_output=True, text=True)
        return listed.stdout.split()
