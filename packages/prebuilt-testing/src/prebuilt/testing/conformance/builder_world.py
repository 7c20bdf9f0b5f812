"""What the suite for builders stands on: what a builder says of itself, and the fixtures that a backend may override."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import pytest

from prebuilt.core.build_service import DockerBuildService
from prebuilt.core.dockerfile import MaterialsSource
from prebuilt.core.spec import BaseImage
from prebuilt.oci.open import open_repository
from prebuilt.testing.conformance.materials import Materials, push_runnable_base, push_small_base
from prebuilt.testing.conformance.stage import SuiteStage
from prebuilt.testing.python_index import PackageIndex
from prebuilt.testing.registry import InMemoryRegistry

NewBuilder = Callable[[], DockerBuildService]


def not_asked(why: str) -> NoReturn:
    """Skip a clause that does not apply; nothing is missing on this machine."""
    pytest.skip(f"not asked of this one: {why}")


class BuilderWorld:
    """Registries, base images and materials for one builder.

    Attributes:
        takes_dockerfiles: Whether ``build_and_push`` builds Dockerfiles; False for builders that take specs alone.
        writes_layouts: Whether references to image layouts (``oci:/folder:tag``) are taken, beside those to registries.
        writes_own_layers: Whether it writes layers and config itself, normalised, and leaves the base's blobs as they are. A
            builder that hands Dockerfiles to an engine gets what the engine makes of them.
        is_reproducible: Whether the same spec gives the same digest, or else the same files only.
        returns_descriptor: Whether ``build`` always says what it pushed.
        takes_credentials: Whether it pushes with the request's credentials, or ``username`` and ``password`` of the published
            dict; False for one that leaves logins to a tool's own configuration.
        repeats_linked_files: Whether a file of the base may be in a layer of its own once more, as it was: Kaniko takes what a
            link leads to with the link.
    """

    takes_dockerfiles = True
    writes_layouts = False
    writes_own_layers = False
    is_reproducible = False
    returns_descriptor = False
    takes_credentials = False
    repeats_linked_files = False

    @pytest.fixture
    def new_builder(self) -> NewBuilder:
        """Return what makes builders, each as a new process would: its caches are its own and empty."""
        raise NotImplementedError("give the fixture new_builder")

    @pytest.fixture
    def address(self) -> str:
        """Return where the suite's registries listen: an address of this machine that the builder's engine reaches, too."""
        return "127.0.0.1"

    @pytest.fixture
    def stage(self) -> MaterialsSource | None:
        """Return what gathers the materials of build stages; None for builders of specs."""
        return SuiteStage() if self.takes_dockerfiles else None

    def leftovers(self) -> Sequence[str]:
        """Return what an engine holds of earlier builds that it should not: containers, images, jobs, uploads."""
        return ()

    def forget(self) -> None:
        """Empty the caches of the engine behind the builder, for builds that must be equal whatever was built before."""

    @pytest.fixture
    def index(self) -> Iterator[PackageIndex]:
        """Return the index that serves the wheels."""
        with PackageIndex().serving() as index:
            yield index

    @pytest.fixture
    def registry(self, address: str) -> Iterator[InMemoryRegistry]:
        """Return an empty registry."""
        with InMemoryRegistry(address=address) as registry:
            yield registry

    @pytest.fixture
    def runnable_base(self, registry: InMemoryRegistry, tmp_path_factory: pytest.TempPathFactory) -> BaseImage:
        """Return a base image in which build stages can run."""
        kept = tmp_path_factory.getbasetemp() / "runnable-base"
        return push_runnable_base(open_repository(registry.repository("base")), kept)

    @pytest.fixture(params=["layout", "registry"])
    def materials(
        self,
        request: pytest.FixtureRequest,
        index: PackageIndex,
        stage: MaterialsSource | None,
        tmp_path: Path,
    ) -> Materials:
        """Return materials for each kind of place."""
        if request.param == "registry":
            return request.getfixturevalue("registry_materials")  # type: ignore[no-any-return]
        if not self.writes_layouts:
            not_asked("it writes no layouts")
        base = self._base(request, f"oci:{tmp_path / 'base'}")
        target = open_repository(f"oci:{tmp_path / 'images'}")
        return Materials(index=index, folder=tmp_path / "wheels", target=target, base=base, stage=stage)

    @pytest.fixture
    def registry_materials(
        self,
        request: pytest.FixtureRequest,
        index: PackageIndex,
        registry: InMemoryRegistry,
        stage: MaterialsSource | None,
        tmp_path: Path,
    ) -> Materials:
        """Return materials for a registry."""
        base = self._base(request, registry.repository("base"))
        target = open_repository(registry.repository("team/image"))
        return Materials(index=index, folder=tmp_path / "wheels", target=target, base=base, stage=stage)

    def _base(self, request: pytest.FixtureRequest, repository: str) -> BaseImage:
        if self.takes_dockerfiles:
            return request.getfixturevalue("runnable_base")  # type: ignore[no-any-return]
        return push_small_base(open_repository(repository))
