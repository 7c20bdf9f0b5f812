"""The suite for builders that take specs: clauses B-1 and on of ``docs/reference/contracts.md``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from prebuilt.core.build_service import BuildRequest, Cancellation, DockerBuildService, DockerfileBuildOptions
from prebuilt.core.credentials import Credentials
from prebuilt.core.descriptor import Descriptor
from prebuilt.core.errors import BuildError, CancelledError, PrebuiltError
from prebuilt.core.plan import LARGE_BYTES
from prebuilt.core.spec import PREFIX
from prebuilt.oci.open import open_repository
from prebuilt.oci.repository import Repository
from prebuilt.testing.conformance.materials import (
    BASE_FILE,
    BASE_VARIABLE,
    PLATFORM,
    SITE_PACKAGES,
    Materials,
    RecordingProgress,
    push_small_base,
)
from prebuilt.testing.image_tree import subtree, tree_differences
from prebuilt.testing.python_index import PackageIndex
from prebuilt.testing.registry import InMemoryRegistry
from prebuilt.testing.registry_auth import RegistryAuth
from prebuilt.testing.validate import ImageReport, inspect_image, validate

NewBuilder = Callable[[], DockerBuildService]

_ENVIRONMENT = PREFIX.lstrip("/")
_SECRET = "s3cret-of-the-suite"  # noqa: S105 - made up, so that it can be looked for


class BuilderContract:
    """What every builder that overrides ``build`` does. Subclass it, and give :meth:`new_builder`.

    Attributes:
        writes_layouts: Whether references to image layouts (``oci:/folder:tag``) are taken, beside those to registries.
        takes_dockerfiles: Whether ``build_and_push`` works; B-15 asks for an error if not.
    """

    writes_layouts = True
    takes_dockerfiles = False

    @pytest.fixture
    def new_builder(self) -> NewBuilder:
        """Return what makes builders, each as a new process would: its caches are its own and empty."""
        raise NotImplementedError("give the fixture new_builder")

    @pytest.fixture
    def index(self) -> Iterator[PackageIndex]:
        """Return the index that serves the wheels."""
        with PackageIndex().serving() as index:
            yield index

    @pytest.fixture
    def registry(self) -> Iterator[InMemoryRegistry]:
        """Return an empty registry."""
        with InMemoryRegistry() as registry:
            yield registry

    @pytest.fixture(params=["layout", "registry"])
    def materials(
        self, request: pytest.FixtureRequest, index: PackageIndex, registry: InMemoryRegistry, tmp_path: Path
    ) -> Materials:
        """Return materials for each kind of place."""
        if request.param == "registry":
            return _materials(index, tmp_path, registry.repository("team/image"), registry.repository("base"))
        if not self.writes_layouts:
            pytest.skip("this builder writes no layouts")
        return _materials(index, tmp_path, f"oci:{tmp_path / 'images'}", f"oci:{tmp_path / 'base'}")

    @pytest.fixture
    def registry_materials(self, index: PackageIndex, registry: InMemoryRegistry, tmp_path: Path) -> Materials:
        """Return materials for a registry."""
        return _materials(index, tmp_path, registry.repository("team/image"), registry.repository("base"))

    def test_is_made_without_arguments(self, new_builder: NewBuilder) -> None:
        """B-1: The class is called with no arguments."""
        builder = new_builder()
        assert isinstance(builder, DockerBuildService)
        inspect.signature(type(builder)).bind()

    def test_returns_what_is_served(self, new_builder: NewBuilder, materials: Materials) -> None:
        """B-2: When ``build`` returns, the image is served under the reference; a returned descriptor is that of its manifest."""
        built = _build(new_builder(), materials.request(materials.spec(materials.wheel("one"))))
        served = materials.target.resolve("image")
        assert served is not None
        assert built in {None, served}

    def test_image_is_valid(self, new_builder: NewBuilder, materials: Materials) -> None:
        """B-3: Digests, sizes, diff_ids and history are right; layers are normalised, none is empty, no two are equal."""
        spec = materials.spec(materials.wheel("one"), materials.wheel("two", size_bytes=LARGE_BYTES))
        _build(new_builder(), materials.request(spec))
        _validated(materials)

    def test_base_is_below(self, new_builder: NewBuilder, materials: Materials) -> None:
        """B-4: The base's layers are the lowest, unchanged; its files, variables and labels are there; the platform is its own."""
        _build(new_builder(), materials.request(materials.spec(materials.wheel("one"))))
        report = _validated(materials)
        assert report.tree[BASE_FILE].layer == 0
        assert report.config.env[BASE_VARIABLE] == "1"
        assert report.config.labels["of-the-base"] == "1"

    def test_layers_are_those_of_the_plan(self, new_builder: NewBuilder, materials: Materials) -> None:
        """B-5: The plan's layers are above the base, one for each, in its order, with the files of its packages."""
        spec = materials.spec(materials.wheel("small"), materials.wheel("large", size_bytes=LARGE_BYTES))
        request = materials.request(spec)
        _build(new_builder(), request)
        report = _validated(materials)
        assert len(report.layers) == spec.base.layer_count + len(request.plan.layers)
        for number, planned in enumerate(request.plan.layers, spec.base.layer_count):
            for package in planned.packages:
                assert report.tree[f"{_ENVIRONMENT}/{SITE_PACKAGES}/{package.name}/__init__.py"].layer == number

    def test_every_file_of_every_package_is_there(self, new_builder: NewBuilder, materials: Materials) -> None:
        """B-6: The union of the layers is the environment: each file of each package, below the prefix, and nothing beside it."""
        odd: dict[str, str | bytes] = {
            "one/ä b.txt": "x",
            "one/empty": "",
            "one/deep/er/file.bin": b"\0\1",
            f"one/{'n' * 120}.txt": "long",
        }
        _build(
            new_builder(), materials.request(materials.spec(materials.wheel("one", files=odd), materials.wheel("two")))
        )
        report = _validated(materials)
        wanted = {f"{SITE_PACKAGES}/{path}" for path in ("one/__init__.py", "two/__init__.py", *odd)}
        assert wanted <= subtree(report.tree, PREFIX).keys()
        parents = {"opt", "opt/prebuilt", _ENVIRONMENT}
        above = {path for path, node in report.tree.items() if node.layer >= 1}
        assert {path for path in above - parents if not path.startswith(f"{_ENVIRONMENT}/")} == set()

    def test_needs_no_activation(self, new_builder: NewBuilder, materials: Materials) -> None:
        """B-7: PATH begins with the environment's ``bin``; the spec's variables and labels are set, over the base's."""
        spec = materials.spec(materials.wheel("one"), env={"A": "1", BASE_VARIABLE: "2"}, labels={"team": "ml"})
        _build(new_builder(), materials.request(spec))
        config = _validated(materials).config
        assert config.env["PATH"] == f"{PREFIX}/bin:/usr/bin"
        assert (config.env["A"], config.env[BASE_VARIABLE]) == ("1", "2")
        assert config.labels["team"] == "ml"

    def test_same_spec_gives_same_digest(self, new_builder: NewBuilder, materials: Materials) -> None:
        """B-8: The same spec gives the same manifest digest, from empty caches too, and under any tag."""
        spec = materials.spec(materials.wheel("one"), materials.wheel("two"))
        for tag in ("first", "second"):
            _build(new_builder(), materials.request(spec, tag=tag))
        assert materials.target.resolve("first") == materials.target.resolve("second")

    def test_another_spec_gives_another_image(self, new_builder: NewBuilder, materials: Materials) -> None:
        """B-9: One instance builds several specs, and each image is that of its own spec."""
        builder = new_builder()
        for name in ("one", "two"):
            _build(builder, materials.request(materials.spec(materials.wheel(name)), tag=name))
        trees = [subtree(_validated(materials, name).tree, f"{PREFIX}/{SITE_PACKAGES}") for name in ("one", "two")]
        assert {line.split("/")[0].split(":")[0].split("-")[0] for line in tree_differences(*trees)} == {"one", "two"}

    def test_builds_at_once(self, new_builder: NewBuilder, materials: Materials) -> None:
        """B-10: ``build`` may be called from several threads at once, also for one and the same image."""
        builder, shared = new_builder(), materials.wheel("shared")
        specs = [materials.spec(shared, materials.wheel(name)) for name in ("one", "two")]
        requests = [materials.request(spec, tag=f"tag-{n % 2}") for n, spec in enumerate([*specs, *specs])]
        with ThreadPoolExecutor(len(requests)) as pool:
            list(pool.map(lambda request: _build(builder, request), requests))
        for tag in ("tag-0", "tag-1"):
            _validated(materials, tag)

    def test_cancelled_build_stops(self, new_builder: NewBuilder, materials: Materials) -> None:
        """B-11: A request that is cancelled ends with CancelledError, and nothing is tagged."""
        cancellation = Cancellation()
        cancellation.cancel()
        request = materials.request(materials.spec(materials.wheel("one")), cancellation=cancellation)
        with pytest.raises(CancelledError):
            _build(new_builder(), request)
        assert materials.target.resolve("image") is None

    def test_wrong_bytes_are_refused(self, new_builder: NewBuilder, materials: Materials) -> None:
        """B-12: A package whose bytes are not those of the lock is refused by an error that names it, and nothing is tagged."""
        wheel = replace(materials.wheel("tampered"), sha256="0" * 64)
        with pytest.raises(PrebuiltError, match="tampered"):
            _build(new_builder(), materials.request(materials.spec(wheel)))
        assert materials.target.resolve("image") is None

    def test_refused_push_is_an_error(
        self, new_builder: NewBuilder, registry_materials: Materials, registry: InMemoryRegistry
    ) -> None:
        """B-13: A registry that refuses is a PrebuiltError that names it, nothing is tagged, and a later build works."""
        request = registry_materials.request(registry_materials.spec(registry_materials.wheel("one")))
        registry.fail("*", "team/image/(blobs/uploads|manifests)", status=403, code="DENIED", times=1000)
        with pytest.raises(PrebuiltError, match="team/image"):
            _build(new_builder(), request)
        registry.faults.clear()
        assert registry_materials.target.resolve("image") is None
        _build(new_builder(), request)
        _validated(registry_materials)

    def test_secrets_stay_secret(
        self, new_builder: NewBuilder, index: PackageIndex, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """B-14: The request's credentials are used, and are in no output, progress, error or image; nothing is printed."""
        with InMemoryRegistry(auth=RegistryAuth(scheme="basic", users={"me": _SECRET})) as guarded:
            credentials, wrong = (Credentials(username="me", secret=secret) for secret in (_SECRET, f"{_SECRET}-wrong"))
            base = open_repository(f"oci:{tmp_path / 'base'}")
            target = open_repository(guarded.repository("team/image"), credentials)
            materials = Materials(index=index, folder=tmp_path, target=target, base=push_small_base(base))
            spec, progress = materials.spec(materials.wheel("one")), RecordingProgress()
            with pytest.raises(PrebuiltError) as caught:
                new_builder().build(materials.request(spec, credentials=wrong), progress)
            new_builder().build(materials.request(spec, credentials=credentials), progress)
            report = inspect_image(target, "image")
        printed = capfd.readouterr()
        assert (printed.out, printed.err) == ("", "")
        for text in (
            *progress.texts,
            str(caught.value),
            repr(caught.value),
            str(report.config.data),
            str(report.manifest),
        ):
            assert _SECRET not in text

    def test_dockerfiles_are_refused_with_a_remedy(self, new_builder: NewBuilder) -> None:
        """B-15: A builder that takes no Dockerfiles says so from ``build_and_push``, and names the setting to change."""
        if self.takes_dockerfiles:
            pytest.skip("this builder takes Dockerfiles")
        with pytest.raises(BuildError) as caught:
            new_builder().build_and_push("FROM scratch\n", {}, "host/image:tag", {}, lambda *_, **__: None)
        assert "METAFLOW_PREBUILT_BUILD_SERVICE" in caught.value.remedy

    def test_optional_methods_answer(self, new_builder: NewBuilder) -> None:
        """B-16: Optional methods have answers: a suffix that never changes, and what Dockerfiles may use."""
        builder = new_builder()
        assert builder.image_identity_suffix() == new_builder().image_identity_suffix()
        assert isinstance(builder.image_identity_suffix(), str)
        assert isinstance(builder.dockerfile_build_options(), DockerfileBuildOptions)


def _materials(index: PackageIndex, folder: Path, target: str, base: str) -> Materials:
    return Materials(
        index=index,
        folder=folder / "wheels",
        target=open_repository(target),
        base=push_small_base(open_repository(base)),
    )


def _build(builder: DockerBuildService, request: BuildRequest) -> Descriptor | None:
    return builder.build(request, RecordingProgress())


def _validated(materials: Materials, tag: str = "image") -> ImageReport:
    base: Repository = open_repository(materials.base.repository)
    lowest = inspect_image(base, materials.base.digest)
    return validate(materials.target, tag, base=lowest, platform=PLATFORM)
