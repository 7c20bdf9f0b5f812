"""The suite for builders: clauses B-1 and on of ``docs/reference/contracts.md``."""

from __future__ import annotations

import inspect
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from prebuilt.core.build_service import BuildRequest, Cancellation, DockerBuildService, DockerfileBuildOptions
from prebuilt.core.credentials import Credentials
from prebuilt.core.descriptor import Descriptor
from prebuilt.core.errors import BuildError, CancelledError, PrebuiltError
from prebuilt.core.plan import LARGE_BYTES
from prebuilt.core.spec import DEFAULT_PATH, PREFIX
from prebuilt.oci.open import open_repository
from prebuilt.oci.repository import Repository
from prebuilt.testing.conformance.builder_world import BuilderWorld, NewBuilder, not_asked
from prebuilt.testing.conformance.materials import SITE_PACKAGES, Materials, RecordingProgress
from prebuilt.testing.conformance.stage import SuiteStage
from prebuilt.testing.image_tree import TreeNode, subtree, tree_differences
from prebuilt.testing.registry import InMemoryRegistry
from prebuilt.testing.registry_auth import RegistryAuth
from prebuilt.testing.validate import ImageReport, inspect_image, validate

_ENVIRONMENT = PREFIX.lstrip("/")
_PARENTS = {"", ".", "opt", "opt/prebuilt", _ENVIRONMENT}
_SECRET = "s3cret-of-the-suite"  # noqa: S105 - made up, so that it can be looked for


class BuilderContract(BuilderWorld):
    """What every builder does, of specs or of Dockerfiles. Subclass it, give :meth:`new_builder`, claim what it can."""

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
        assert built == served if self.returns_descriptor else built in {None, served}

    def test_image_is_valid(self, new_builder: NewBuilder, materials: Materials) -> None:
        """B-3: Digests, sizes, diff_ids and history are right; no two layers are equal; own ones are normalised, none is empty."""
        spec = materials.spec(materials.wheel("one"), materials.wheel("two", size_bytes=LARGE_BYTES))
        _build(new_builder(), materials.request(spec))
        self._validated(materials)

    def test_base_is_below(self, new_builder: NewBuilder, materials: Materials) -> None:
        """B-4: The base's layers are the lowest, unchanged; its files, variables and labels are there; the platform is its own."""
        _build(new_builder(), materials.request(materials.spec(materials.wheel("one"))))
        report, base = self._validated(materials), _base_of(materials)
        assert {path for path, node in base.tree.items() if not self._is_left(node, report.tree.get(path))} <= _PARENTS
        assert {**base.config.env, "PATH": ""}.items() <= {**report.config.env, "PATH": ""}.items()
        assert base.config.labels.items() <= report.config.labels.items()

    def test_layers_are_those_of_the_plan(self, new_builder: NewBuilder, materials: Materials) -> None:
        """B-5: The plan's layers are above the base, one for each, in its order, with the files of its packages."""
        spec = materials.spec(materials.wheel("small"), materials.wheel("large", size_bytes=LARGE_BYTES))
        request = materials.request(spec)
        _build(new_builder(), request)
        report = self._validated(materials)
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
        spec = materials.spec(materials.wheel("one", files=odd), materials.wheel("two"))
        _build(new_builder(), materials.request(spec))
        report = self._validated(materials)
        wanted = {f"{SITE_PACKAGES}/{path}" for path in ("one/__init__.py", "two/__init__.py", *odd)}
        assert wanted <= subtree(report.tree, PREFIX).keys()
        above = {path for path, node in report.tree.items() if node.layer >= spec.base.layer_count}
        if self.repeats_linked_files:
            base = _base_of(materials).tree
            above = {path for path in above if path not in base or base[path].content != report.tree[path].content}
        assert {path for path in above - _PARENTS if not path.startswith(f"{_ENVIRONMENT}/")} == set()

    def test_needs_no_activation(self, new_builder: NewBuilder, materials: Materials) -> None:
        """B-7: PATH begins with the environment's ``bin``; the spec's variables and labels are set, over the base's, literally."""
        of_base = _base_of(materials).config.env
        over = next(name for name in of_base if name != "PATH")
        odd = 'say "$HOME" \\ ü'
        spec = materials.spec(materials.wheel("one"), env={"A": odd, over: "2"}, labels={"team": "ml", "odd": odd})
        _build(new_builder(), materials.request(spec))
        config = self._validated(materials).config
        assert config.env["PATH"] == f"{PREFIX}/bin:{of_base.get('PATH', DEFAULT_PATH)}"
        assert (config.env["A"], config.env[over]) == (odd, "2")
        assert {"team": "ml", "odd": odd}.items() <= config.labels.items()
        assert spec.identity_labels.items() <= config.labels.items()

    def test_same_spec_gives_same_digest(self, new_builder: NewBuilder, materials: Materials) -> None:
        """B-8: The same spec gives the same manifest digest, or at least the same files, from empty caches too, under any tag."""
        spec = materials.spec(materials.wheel("one"), materials.wheel("two"))
        for tag in ("first", "second"):
            self.forget()
            _build(new_builder(), materials.request(spec, tag=tag))
        first, second = (self._validated(materials, tag) for tag in ("first", "second"))
        assert list(tree_differences(first.tree, second.tree)) == []
        assert (first.config.env, first.config.labels) == (second.config.env, second.config.labels)
        assert first.descriptor == second.descriptor or not self.is_reproducible

    def test_another_spec_gives_another_image(self, new_builder: NewBuilder, materials: Materials) -> None:
        """B-9: One instance builds several specs, and each image is that of its own spec."""
        builder = new_builder()
        for name in ("one", "two"):
            _build(builder, materials.request(materials.spec(materials.wheel(name)), tag=name))
        trees = [subtree(self._validated(materials, name).tree, f"{PREFIX}/{SITE_PACKAGES}") for name in ("one", "two")]
        assert {line.split("/")[0].split(":")[0].split("-")[0] for line in tree_differences(*trees)} == {"one", "two"}

    def test_builds_at_once(self, new_builder: NewBuilder, materials: Materials) -> None:
        """B-10: ``build`` may be called from several threads at once, also for one and the same image."""
        builder, shared = new_builder(), materials.wheel("shared")
        specs = [materials.spec(shared, materials.wheel(name)) for name in ("one", "two")]
        requests = [materials.request(spec, tag=f"tag-{n % 2}") for n, spec in enumerate([*specs, *specs])]
        with ThreadPoolExecutor(len(requests)) as pool:
            list(pool.map(lambda request: _build(builder, request), requests))
        for tag, name in (("tag-0", "one"), ("tag-1", "two")):
            installed = subtree(self._validated(materials, tag).tree, f"{PREFIX}/{SITE_PACKAGES}")
            assert {"one", "two"} & {path.split("/")[0] for path in installed} == {name}

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
        self._validated(registry_materials)

    def test_secrets_stay_secret(
        self, new_builder: NewBuilder, registry_materials: Materials, address: str, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """B-14: The request's credentials are used, and are in no output, progress, error or image; nothing is printed."""
        users = {"me": _SECRET}
        spec, progress = registry_materials.spec(registry_materials.wheel("one")), RecordingProgress()

        def build(registry: InMemoryRegistry, secret: str) -> Repository:
            target = open_repository(registry.repository("team/image"), Credentials(username="me", secret=_SECRET))
            request = replace(registry_materials, target=target).request(spec, **_login(secret))
            new_builder().build(request, progress)
            return target

        # The wrong one by tokens: engines ask a registry of the Basic scheme five times, with a minute of waits.
        asks_once = InMemoryRegistry(auth=RegistryAuth(scheme="token", users=users), address=address)
        with asks_once as guarded, pytest.raises(PrebuiltError) as caught:
            build(guarded, f"{_SECRET}-wrong")
        shown = [str(caught.value), repr(caught.value)]
        if self.takes_credentials:
            with InMemoryRegistry(auth=RegistryAuth(scheme="basic", users=users), address=address) as guarded:
                report = inspect_image(build(guarded, _SECRET), "image", foreign=True)
            shown += [str(report.config.data), str(report.manifest)]
        printed = capfd.readouterr()
        assert (printed.out, printed.err) == ("", "")
        assert [text for text in (*shown, *progress.texts) if _SECRET in text] == []

    def test_dockerfiles_are_refused_with_a_remedy(self, new_builder: NewBuilder) -> None:
        """B-15: A builder that takes no Dockerfiles says so from ``build_and_push``, and names the setting to change."""
        if self.takes_dockerfiles:
            not_asked("it takes Dockerfiles")
        with pytest.raises(BuildError) as caught:
            new_builder().build_and_push("FROM scratch\n", {}, "host/image:tag", {}, lambda *_, **__: None)
        assert "METAFLOW_PREBUILT_BUILD_SERVICE" in caught.value.remedy

    def test_optional_methods_answer(self, new_builder: NewBuilder) -> None:
        """B-16: Optional methods have answers: a suffix that never changes, and what Dockerfiles may use."""
        builder = new_builder()
        assert builder.image_identity_suffix() == new_builder().image_identity_suffix()
        assert isinstance(builder.image_identity_suffix(), str)
        assert isinstance(builder.dockerfile_build_options(), DockerfileBuildOptions)

    def test_nothing_is_left_behind(
        self, new_builder: NewBuilder, materials: Materials, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """B-17: A build leaves nothing in the folder for temporary files, nor in its engine, whether it works or fails."""
        temporary = tmp_path / "temporary"
        temporary.mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(temporary))
        monkeypatch.setenv("TMPDIR", str(temporary))
        before = set(self.leftovers())
        _build(new_builder(), materials.request(materials.spec(materials.wheel("one"))))
        with pytest.raises(PrebuiltError):
            _build(new_builder(), self._failing(materials))
        assert list(temporary.iterdir()) == []
        assert set(self.leftovers()) - before == set()

    def test_any_dockerfile_is_built(self, new_builder: NewBuilder, registry_materials: Materials) -> None:
        """B-18: ``build_and_push`` takes text and bytes in folders, any ``echo``, and returns True once the image is served."""
        said: list[str] = []
        built = self._published(
            new_builder(),
            registry_materials,
            "COPY some/ /copied/",
            {"some/text": "ü\n", "some/more/bytes": b"\0"},
            said,
        )
        assert built is True
        report = self._validated(registry_materials)
        assert {"text", "more/bytes"} <= subtree(report.tree, "/copied").keys()
        assert report.config.env["OF_THE_FILE"] == "1"
        assert said != []

    def test_a_failed_dockerfile_is_false(self, new_builder: NewBuilder, registry_materials: Materials) -> None:
        """B-19: A Dockerfile that fails is False, why was passed to ``echo``, and nothing is tagged."""
        said: list[str] = []
        assert self._published(new_builder(), registry_materials, "COPY not-there /", {}, said) is False
        assert "not-there" in "\n".join(said)
        assert registry_materials.target.resolve("image") is None

    def test_a_failed_stage_shows_what_it_said(self, new_builder: NewBuilder, registry_materials: Materials) -> None:
        """B-20: A build stage that fails is a BuildError with what it said, after the user has seen it; nothing is tagged."""
        if not self.takes_dockerfiles:
            not_asked("it has no build stages")
        progress = RecordingProgress()
        with pytest.raises(BuildError) as caught:
            new_builder().build(self._failing(registry_materials), progress)
        for place in ("\n".join(caught.value.output), "\n".join(progress.texts)):
            assert "the stage went wrong" in place
        assert registry_materials.target.resolve("image") is None

    def _validated(self, materials: Materials, tag: str = "image") -> ImageReport:
        return validate(
            materials.target,
            tag,
            base=_base_of(materials),
            platform=materials.base.platform,
            foreign=not self.writes_own_layers,
        )

    def _is_left(self, of_base: TreeNode, now: TreeNode | None) -> bool:
        """Return whether something of the base is in an image as it was."""
        if self.repeats_linked_files and now is not None:
            return now.content == of_base.content
        return now == of_base

    def _failing(self, materials: Materials) -> BuildRequest:
        """Return a request whose build fails in the middle."""
        if not self.takes_dockerfiles:
            return materials.request(materials.spec(replace(materials.wheel("bad"), sha256="0" * 64)), tag="failing")
        broken = SuiteStage(program="raise SystemExit('the stage went wrong')\n")
        return materials.request(materials.spec(materials.wheel("bad")), materials=broken)

    def _published(
        self, builder: DockerBuildService, materials: Materials, line: str, context: dict[str, Any], said: list[str]
    ) -> bool:
        """Call ``build_and_push`` as it was published, with `line` above the base."""
        if not self.takes_dockerfiles:
            not_asked("it takes no Dockerfiles")

        def echo(message: object = "", **_: object) -> None:
            said.append(str(message))

        base = f"{materials.base.repository}@{materials.base.digest}"
        dockerfile = f"FROM {base}\n{line}\nENV OF_THE_FILE=1\n"
        return builder.build_and_push(dockerfile, context, f"{materials.target.name}:image", {}, echo)


_bases: dict[tuple[str, str], ImageReport] = {}


def _base_of(materials: Materials) -> ImageReport:
    """Return the report of the base, which clauses have in common and is read for the first of them."""
    base = materials.base
    known = base.digest, str(base.platform)
    if known not in _bases:
        _bases[known] = inspect_image(open_repository(base.repository), base.digest, platform=base.platform)
    return _bases[known]


def _login(secret: str) -> dict[str, Any]:
    """Return what a request needs to push with `secret`: ours, and what was published."""
    published = {"username": "me", "password": secret}
    return {"credentials": Credentials(username="me", secret=secret), "push_credentials": published}


def _build(builder: DockerBuildService, request: BuildRequest) -> Descriptor | None:
    built = builder.build(request, RecordingProgress())
    assert not isinstance(built, str), "the suite's registry can be asked, so that more is known than a digest"
    return built
