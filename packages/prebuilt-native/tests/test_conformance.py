"""The native builder and the layout registry keep the contracts; and the builder suite finds each way of breaking its own."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from prebuilt.core.build_service import BuildRequest, Cancellation, DockerBuildService
from prebuilt.core.descriptor import Descriptor
from prebuilt.core.image_registry import ImageRegistry
from prebuilt.core.plan import LayerPlan
from prebuilt.core.progress import ImageProgress
from prebuilt.core.settings import Settings
from prebuilt.native.builder import NativeBuilder
from prebuilt.native.registry import LayoutRegistry
from prebuilt.oci.open import open_repository
from prebuilt.testing.conformance import BuilderContract, RegistryContract
from prebuilt.testing.conformance.materials import Materials, push_small_base
from prebuilt.testing.python_index import PackageIndex

_: tuple[type[DockerBuildService], type[ImageRegistry]] = (NativeBuilder, LayoutRegistry)

NewBuilder = Callable[[], NativeBuilder]


def builders_in(folder: Path, kind: type[NativeBuilder] = NativeBuilder) -> NewBuilder:
    """Return what makes builders with empty caches below `folder`."""
    numbers = itertools.count()
    return lambda: kind(Settings({"METAFLOW_PREBUILT_CACHE_DIR": str(folder / f"cache-{next(numbers)}")}, {}))


class TestNativeBuilder(BuilderContract):
    """Every clause for builders, in a layout and in a registry."""

    takes_dockerfiles = False
    writes_layouts = True
    writes_own_layers = True
    is_reproducible = True
    returns_descriptor = True
    takes_credentials = True

    @pytest.fixture
    def new_builder(self, tmp_path: Path) -> NewBuilder:
        """Return what makes native builders."""
        return builders_in(tmp_path)


class TestLayoutRegistry(RegistryContract):
    """Every clause for registries."""

    @pytest.fixture
    def new_registry(self, tmp_path: Path) -> Callable[[], ImageRegistry]:
        """Return what makes registries of one empty layout."""
        settings = Settings({"METAFLOW_PREBUILT_LAYOUT": str(tmp_path / "layout")}, {})
        return lambda: LayoutRegistry(settings)

    @pytest.fixture
    def broken_registry(self, tmp_path: Path) -> ImageRegistry:
        """Return one whose layout is damaged."""
        folder = tmp_path / "damaged"
        folder.mkdir()
        (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        (folder / "index.json").write_text("{")
        return LayoutRegistry(Settings({"METAFLOW_PREBUILT_LAYOUT": str(folder)}, {}))


class Forgetful(NativeBuilder):
    """Builds all layers but the last."""

    def build(self, request: BuildRequest, progress: ImageProgress) -> Descriptor:
        """Drop a layer of the plan."""
        return super().build(replace(request, plan=LayerPlan(layers=request.plan.layers[:-1])), progress)


class Backwards(NativeBuilder):
    """Puts the layers on in the wrong order."""

    def build(self, request: BuildRequest, progress: ImageProgress) -> Descriptor:
        """Turn the plan round."""
        return super().build(replace(request, plan=LayerPlan(layers=request.plan.layers[::-1])), progress)


class Elsewhere(NativeBuilder):
    """Pushes under a tag that nobody asked for."""

    def build(self, request: BuildRequest, progress: ImageProgress) -> Descriptor:
        """Change the tag."""
        return super().build(replace(request, reference=f"{request.reference}-x"), progress)


class Mistaken(NativeBuilder):
    """Returns the descriptor of something else."""

    def build(self, request: BuildRequest, progress: ImageProgress) -> Descriptor:
        """Spoil the digest."""
        return replace(super().build(request, progress), digest=f"sha256:{'0' * 64}")


class Plain(NativeBuilder):
    """Knows nothing of variables and labels."""

    def build(self, request: BuildRequest, progress: ImageProgress) -> Descriptor:
        """Drop them."""
        return super().build(replace(request, spec=replace(request.spec, env={}, labels={})), progress)


class Different(NativeBuilder):
    """Puts a number that grows into each image."""

    numbers = itertools.count()

    def build(self, request: BuildRequest, progress: ImageProgress) -> Descriptor:
        """Add a label."""
        labels = {**request.spec.labels, "number": str(next(self.numbers))}
        return super().build(replace(request, spec=replace(request.spec, labels=labels)), progress)


class Unstoppable(NativeBuilder):
    """Does not look at the flag."""

    def build(self, request: BuildRequest, progress: ImageProgress) -> Descriptor:
        """Take another flag."""
        return super().build(replace(request, cancellation=Cancellation()), progress)


class Stuck(NativeBuilder):
    """Builds the first image for ever."""

    first: BuildRequest | None = None

    def build(self, request: BuildRequest, progress: ImageProgress) -> Descriptor:
        """Take the spec and plan of the first request."""
        self.first = self.first or request
        return super().build(replace(self.first, reference=request.reference), progress)


class Silent(NativeBuilder):
    """Takes every failure for success."""

    def build(self, request: BuildRequest, progress: ImageProgress) -> Descriptor:
        """Return a descriptor, whatever happened."""
        try:
            return super().build(request, progress)
        except Exception:  # noqa: BLE001 - that is what is wrong with it
            return Descriptor(media_type="none", digest=f"sha256:{'0' * 64}", size=0)


class Willing(NativeBuilder):
    """Says that it built a Dockerfile."""

    def build_and_push(self, *args: Any, **kwargs: Any) -> bool:
        """Return True."""
        del args, kwargs
        return True


BROKEN: list[tuple[type[NativeBuilder], str]] = [
    (Elsewhere, "test_returns_what_is_served"),
    (Mistaken, "test_returns_what_is_served"),
    (Forgetful, "test_layers_are_those_of_the_plan"),
    (Backwards, "test_layers_are_those_of_the_plan"),
    (Forgetful, "test_every_file_of_every_package_is_there"),
    (Plain, "test_needs_no_activation"),
    (Different, "test_same_spec_gives_same_digest"),
    (Stuck, "test_another_spec_gives_another_image"),
    (Unstoppable, "test_cancelled_build_stops"),
    (Silent, "test_wrong_bytes_are_refused"),
    (Willing, "test_dockerfiles_are_refused_with_a_remedy"),
]


@pytest.fixture
def materials(tmp_path: Path) -> Iterator[Materials]:
    """Return materials that are pushed into a layout."""
    with PackageIndex().serving() as index:
        base = push_small_base(open_repository(f"oci:{tmp_path / 'base'}"))
        target = open_repository(f"oci:{tmp_path / 'images'}")
        yield Materials(index=index, folder=tmp_path / "wheels", target=target, base=base)


@pytest.mark.parametrize(("kind", "clause"), BROKEN, ids=lambda value: getattr(value, "__name__", value))
def test_a_broken_builder_fails(kind: type[NativeBuilder], clause: str, materials: Materials, tmp_path: Path) -> None:
    """Each way of breaking the contract is found by the clause that forbids it."""
    test = getattr(TestNativeBuilder(), clause)
    wanted = {"new_builder": builders_in(tmp_path, kind), "materials": materials}
    with pytest.raises((AssertionError, LookupError, pytest.fail.Exception)):
        test(**{name: wanted[name] for name in inspect.signature(test).parameters})
