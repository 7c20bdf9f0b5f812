"""Containers by Podman, which needs no daemon."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence

import pytest

pytest.register_assert_rewrite("prebuilt.testing.container_contract")

from prebuilt.testing.container_contract import ContainerEngineContract, ContainerWorld, container_world  # noqa: E402

pytestmark = pytest.mark.container


_STORAGE = """\
[storage]
driver = "overlay"
graphroot = "{folder}/images"
runroot = "{folder}/runs"
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ContainerWorld]:
    """Podman with a storage of our own."""
    folder = tmp_path_factory.mktemp("podman")
    storage = folder / "storage.conf"
    storage.write_text(_STORAGE.format(folder=folder))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONTAINERS_STORAGE_CONF", str(storage))
        with container_world("podman") as world:
            yield world
            subprocess.run(["podman", "rmi", "--all", "--force"], check=True, capture_output=True)
    for mounted in (folder / "images" / "overlay", folder / "images"):  # Podman keeps its storage mounted on itself
        if mounted.is_mount():
            subprocess.run(["umount", mounted], check=True)


class TestPodman(ContainerEngineContract):
    def leftovers(self) -> Sequence[str]:
        """Containers, running or not."""
        listed = subprocess.run(["podman", "ps", "--all", "--quiet"], check=True, capture_output=True, text=True)
        return listed.stdout.split()
