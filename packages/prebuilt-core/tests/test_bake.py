"""The bake: once for equal things, at once for different ones, and every failure by name."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent import futures
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from prebuilt.core.bake import Baker, StepImage, pinned
from prebuilt.core.build_service import BuildRequest, Cancellation, DockerBuildService
from prebuilt.core.descriptor import Descriptor
from prebuilt.core.documents import FolderDocuments
from prebuilt.core.errors import (
    BakeError,
    BaseImageError,
    BuildError,
    CancelledError,
    EngineError,
    PrebuiltError,
    RegistryError,
    ResolveError,
)
from prebuilt.core.image_registry import ImageRegistry
from prebuilt.core.lock import Lock, Wheel
from prebuilt.core.platforms import Platform
from prebuilt.core.progress import LineProgress
from prebuilt.core.requirements import Requirements
from prebuilt.core.spec import BaseImage, EnvId


@dataclass
class Shelf(ImageRegistry):
    """A registry in memory."""

    images: dict[str, Descriptor] = field(default_factory=dict)
    down: bool = False

    def image_tag(self, env_id: EnvId) -> str:
        """Name an image."""
        return f"reg.example:5000/env:{env_id.full_id}"

    def push_credentials(self) -> dict[str, Any]:
        """Need none."""
        return {}

    def pull_config(self, pull_tag: str) -> dict[str, Any]:
        """Say what was pulled."""
        return {"image_pull_secrets": [pull_tag[:3]]}

    def resolve(self, reference: str) -> Descriptor | None:
        """Look on the shelf."""
        if self.down:
            raise RegistryError("ask", at=reference, reason="it is down", status=500)
        return self.images.get(reference)


@dataclass
class Maker(DockerBuildService):
    """A builder that puts a descriptor on the shelf, or does what a test says."""

    shelf: Shelf
    act: Callable[[BuildRequest], None] = lambda _: None
    built: list[str] = field(default_factory=list)

    def build_and_push(self, *_: Any, **__: Any) -> bool:
        """Never called: `build` is overridden."""
        raise AssertionError

    def build(self, request: BuildRequest, progress: Any) -> Descriptor:
        """Put a descriptor on the shelf."""
        del progress
        self.act(request)
        self.built.append(request.spec.full_id)
        digest = "sha256:" + request.spec.full_id.ljust(64, "0")
        self.shelf.images[request.reference] = Descriptor(media_type="m", digest=digest, size=1)
        return self.shelf.images[request.reference]


@dataclass
class Bakery:
    """A baker with all its collaborators in reach."""

    baker: Baker
    shelf: Shelf
    maker: Maker
    resolved: list[str]
    lines: list[str]


@pytest.fixture
def bakery(tmp_path: Path, base: BaseImage, lock_of: Callable[..., Lock], wheel: Callable[..., Wheel]) -> Bakery:
    """Return a bakery in which everything works."""
    resolved: list[str] = []
    lines: list[str] = []

    class Resolver:
        def resolve(self, requirements: Requirements, *, check: Callable[[], None] = lambda: None) -> Lock:
            resolved.append(requirements.req_id)
            if "endless" in requirements.pypi:
                while True:
                    check()
                    time.sleep(0.01)
            if "nosuch" in requirements.pypi:
                raise ResolveError("resolve nosuch", reason="unknown package")
            packages = [wheel(name) for name in requirements.pypi]
            return lock_of(*packages, req_id=requirements.req_id, target=requirements.target)

    class Bases:
        def get(self, reference: str, platform: Platform, *, check: Callable[[], None] = lambda: None) -> BaseImage:
            check()
            if reference == "absent":
                raise BaseImageError("find the base image", at=reference, reason="there is none")
            return replace(base, reference=reference, platform=platform)

    shelf = Shelf()
    maker = Maker(shelf)
    baker = Baker(
        resolver=Resolver(),
        bases=Bases(),
        registry=shelf,
        builder=maker,
        documents=FolderDocuments(tmp_path),
        progress=LineProgress(lines.append),
    )
    return Bakery(baker, shelf, maker, resolved, lines)


@pytest.fixture
def step(requirements: Requirements) -> Callable[..., StepImage]:
    """Return a maker of steps that want the named packages."""

    def make(name: str, *packages: str, base_image: str = "python:3.11-slim") -> StepImage:
        wanted = replace(requirements, pypi=dict.fromkeys(packages, ""))
        return StepImage(step=name, requirements=wanted, base_image=base_image)

    return make


def test_equal_images_are_built_once(bakery: Bakery, step: Callable[..., StepImage]) -> None:
    """Three steps, two environments: two locks, two builds, and each step gets its digest."""
    images = bakery.baker.bake([step("a", "x"), step("b", "x"), step("c", "y")])
    assert len(bakery.resolved) == len(bakery.maker.built) == 2
    assert images["a"] == images["b"] != images["c"]
    assert images["a"].reference.startswith("reg.example:5000/env@sha256:")
    assert images["a"].pull_config == {"image_pull_secrets": ["reg"]}
    assert any(line.startswith("a, b: building") for line in bakery.lines)


def test_a_second_bake_resolves_and_builds_nothing(bakery: Bakery, step: Callable[..., StepImage]) -> None:
    """The kept lock and the image that is there are used, and the lock's date is said."""
    bakery.baker.bake([step("a", "x")])
    again = bakery.baker.bake([step("a", "x")])
    assert again["a"].reused
    assert len(bakery.resolved) == len(bakery.maker.built) == 1
    assert "locked 2026-11-23: image is there" in bakery.lines[-1]


def test_the_builder_is_asked_before_anything_is_resolved(
    bakery: Bakery, step: Callable[..., StepImage], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once for all images; what it lacks is said before a resolution, which takes long, begins."""
    asked: list[int] = []

    def fail(_: Maker) -> None:
        raise EngineError("find buildx", reason="it is not installed")

    monkeypatch.setattr(Maker, "prepare", fail)
    with pytest.raises(BakeError, match="find buildx"):
        bakery.baker.bake([step("a", "x"), step("b", "y")])
    assert bakery.resolved == []
    monkeypatch.setattr(Maker, "prepare", lambda _: asked.append(len(bakery.resolved)))
    bakery.baker.bake([step("a", "x"), step("b", "y")])
    assert asked == [0]
    monkeypatch.setattr(Maker, "prepare", fail)
    assert bakery.baker.bake([step("a", "x")])["a"].reused  # a kept lock: it is not asked


def test_refresh_resolves_anew_and_no_reuse_builds_anew(bakery: Bakery, step: Callable[..., StepImage]) -> None:
    """A refreshed lock with the same content still finds its image."""
    bakery.baker.bake([step("a", "x")])
    replace(bakery.baker, refresh=True).bake([step("a", "x")])
    assert (len(bakery.resolved), len(bakery.maker.built)) == (2, 1)
    replace(bakery.baker, reuse=False).bake([step("a", "x")])
    assert (len(bakery.resolved), len(bakery.maker.built)) == (2, 2)


def test_a_damaged_kept_lock_is_said_and_resolved_anew(
    bakery: Bakery, step: Callable[..., StepImage], tmp_path: Path
) -> None:
    """It is not used, and not silently."""
    bakery.baker.bake([step("a", "x")])
    next(tmp_path.glob("lock-*")).write_bytes(b"{")
    bakery.baker.bake([step("a", "x")])
    assert len(bakery.resolved) == 2
    assert any("kept lock is not used" in line for line in bakery.lines)


class Pythons:
    """Pythons from somewhere, of 3.11 alone."""

    def __init__(self, *versions: str) -> None:
        self.versions = versions

    def can_get(self, python_xy: str, *, check: Callable[[], None] = lambda: None) -> bool:
        """Know without asking."""
        check()
        return python_xy in self.versions

    def get(self, python_xy: str, progress: Any, cancellation: Cancellation) -> Path:
        """Be somewhere."""
        return Path(f"/python{python_xy}")


@pytest.mark.parametrize(("there", "got", "bytecode"), [(True, (), True), (False, ("3.11",), True), (False, (), False)])
def test_bytecode_wherever_a_python_can_be_had(
    bakery: Bakery, step: Callable[..., StepImage], *, there: bool, got: tuple[str, ...], bytecode: bool
) -> None:
    """A machine without the image's Python makes the same image as one that has it, if it can get one; the builder is handed it."""
    requests: list[BuildRequest] = []
    bakery.maker.act = requests.append
    pythons = Pythons(*got)
    baked = replace(bakery.baker, has_bytecode=lambda _: there, interpreters=pythons).bake([step("a", "x")])
    assert baked["a"].spec.bytecode is bytecode
    assert requests[0].interpreters is pythons


def test_images_are_baked_at_once(bakery: Bakery, step: Callable[..., StepImage]) -> None:
    """Two different images wait for each other, which only works if both are under way."""
    barrier = threading.Barrier(2, timeout=60)
    bakery.maker.act = lambda _: (barrier.wait(), None)[1]
    assert len(bakery.baker.bake([step("a", "x"), step("b", "y")])) == 2


def test_the_first_failure_stops_the_rest_and_every_failure_is_named(
    bakery: Bakery, step: Callable[..., StepImage]
) -> None:
    """One image fails; the one under way sees the cancellation; the queued ones never start."""
    started = threading.Event()

    def act(request: BuildRequest) -> None:
        if request.spec.lock.packages[0].name == "bad":
            assert started.wait(30)
            raise BuildError("build bad", reason="compiler broke")
        started.set()
        assert request.cancellation.wait(30)
        request.cancellation.check()

    bakery.maker.act = act
    steps = [step("good", "x"), step("bad", "bad"), *[step(f"later{n}", f"p{n}") for n in range(5)]]
    with pytest.raises(BakeError, match="bad: tried to build bad: compiler broke") as failure:
        replace(bakery.baker, workers=2).bake(steps)
    assert list(failure.value.failures) == ["bad"]
    assert bakery.maker.built == []
    assert any("good: failed: stopped" in line for line in bakery.lines)
    assert "bad: failed: build bad" in bakery.lines  # why is in the error, and is not said twice


@pytest.mark.parametrize("to", ["the process", "another thread than the main one"])
def test_ctrl_c_stops_what_is_under_way(
    to: str, bakery: Bakery, step: Callable[..., StepImage], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user hears at once that it was noticed; images under way stop, the next one is not begun.

    The system may give the signal to any thread, which does not wake the main one.
    """
    waits = threading.Event()

    def note_wait(*arguments: Any, **options: Any) -> Any:
        waits.set()
        return futures.wait(*arguments, **options)

    monkeypatch.setattr("prebuilt.core.bake.wait", note_wait)

    def act(request: BuildRequest) -> None:
        waits.clear()
        assert waits.wait(30)  # the main thread has begun all, and looks for what is done
        if to == "the process":
            os.kill(os.getpid(), signal.SIGINT)
        else:
            signal.pthread_kill(threading.get_ident(), signal.SIGINT)
        assert request.cancellation.wait(30)
        request.cancellation.check()

    bakery.maker.act = act
    with pytest.raises(KeyboardInterrupt):
        replace(bakery.baker, workers=1).bake([step("a", "x"), step("b", "y")])
    assert {"prebuilt: stopping what is under way", "a: failed: stopped"} == set(bakery.lines[-2:])
    assert bakery.maker.built == []


def test_a_failed_resolution_names_its_steps_and_builds_nothing(bakery: Bakery, step: Callable[..., StepImage]) -> None:
    """The package and both steps are in the message."""
    with pytest.raises(BakeError, match="a, b: tried to resolve nosuch"):
        bakery.baker.bake([step("a", "nosuch"), step("b", "nosuch")])
    assert bakery.maker.built == []


def test_a_failed_resolution_stops_one_under_way(bakery: Bakery, step: Callable[..., StepImage]) -> None:
    """What no longer matters is not waited for."""
    with pytest.raises(BakeError, match="b: tried to resolve nosuch") as failure:
        replace(bakery.baker, workers=2).bake([step("a", "endless"), step("b", "nosuch")])
    assert list(failure.value.failures) == ["b"]


def test_an_absent_base_image_is_named_before_anything_is_resolved(
    bakery: Bakery, step: Callable[..., StepImage]
) -> None:
    """Nothing was resolved for the others."""
    with pytest.raises(BakeError, match="a: tried to find the base image at absent"):
        bakery.baker.bake([step("a", "x", base_image="absent"), step("b", "x")])
    assert bakery.resolved == []


def test_a_registry_that_cannot_be_asked_is_not_read_as_empty(bakery: Bakery, step: Callable[..., StepImage]) -> None:
    """The bake fails instead of building again."""
    bakery.shelf.down = True
    with pytest.raises(BakeError, match="it is down"):
        bakery.baker.bake([step("a", "x")])
    assert bakery.maker.built == []


def test_a_registry_that_serves_something_else_than_was_pushed_is_an_error(
    bakery: Bakery, step: Callable[..., StepImage]
) -> None:
    """The digest that was built and the one that is served must agree."""

    class Liar(Maker):
        def build(self, request: BuildRequest, progress: Any) -> Descriptor:
            built = super().build(request, progress)
            self.shelf.images[request.reference] = replace(built, digest="sha256:" + "f" * 64)
            return built

    with pytest.raises(BakeError, match="was pushed, the registry serves"):
        replace(bakery.baker, builder=Liar(bakery.shelf)).bake([step("a", "x")])


class TestAnotherDeployOfTheSame:
    """What two make of one spec by builders that are not reproducible has two digests and one tag."""

    OTHER = Descriptor(media_type="m", digest="sha256:" + "f" * 64, size=2)

    @dataclass
    class Labelled(Shelf):
        """A registry that can say what an image is."""

        said: dict[str, str] = field(default_factory=dict)

        def labels(self, reference: str, platform: Platform) -> dict[str, str]:
            """Say it of the image of the other deploy."""
            del platform
            return self.said if reference.endswith(TestAnotherDeployOfTheSame.OTHER.digest) else {}

    @pytest.fixture
    def shelf(self) -> Labelled:
        """Return the registry of both."""
        return self.Labelled()

    def bake(self, bakery: Bakery, shelf: Labelled, step: StepImage, *, refuses: bool, reuse: bool = True) -> Any:
        """Bake while another deploy pushes the same; the push of this one is refused, or comes first and is replaced."""

        class Racer(Maker):
            def build(self, request: BuildRequest, progress: Any) -> Descriptor:
                shelf.said = shelf.said or dict(request.spec.identity_labels)
                built = super().build(request, progress)
                shelf.images[request.reference] = TestAnotherDeployOfTheSame.OTHER
                if refuses:
                    raise BuildError("push an image", at=request.reference, reason="the tag exists, and is immutable")
                return built

        baker = replace(bakery.baker, registry=shelf, builder=Racer(shelf), reuse=reuse)
        return baker.bake([step])[step.step]

    @pytest.mark.parametrize("refuses", [False, True])
    def test_its_image_is_taken(
        self, bakery: Bakery, shelf: Labelled, step: Callable[..., StepImage], *, refuses: bool
    ) -> None:
        """Where the tag was there when we came to push, and where it was moved after, tasks get what is served."""
        image = self.bake(bakery, shelf, step("a", "x"), refuses=refuses)
        assert image.descriptor == self.OTHER
        assert image.reference.endswith(self.OTHER.digest)
        assert image.reused is refuses
        assert any("the image is there by now" in line for line in bakery.lines) is refuses

    @pytest.mark.parametrize("refuses", [False, True])
    def test_an_image_of_something_else_is_not(
        self, bakery: Bakery, shelf: Labelled, step: Callable[..., StepImage], *, refuses: bool
    ) -> None:
        """An image that says that it is another one, or nothing of ours, is never taken for ours."""
        shelf.said = {"metaflow-prebuilt.image": "0" * 40}
        with pytest.raises(BakeError, match="the tag exists" if refuses else "was pushed, the registry serves"):
            self.bake(bakery, shelf, step("a", "x"), refuses=refuses)

    def test_a_failure_stays_one_where_all_is_to_be_baked_anew(
        self, bakery: Bakery, shelf: Labelled, step: Callable[..., StepImage]
    ) -> None:
        """Without reuse the image may have been there all along: that the build failed is the answer."""
        with pytest.raises(BakeError, match="the tag exists"):
            self.bake(bakery, shelf, step("a", "x"), refuses=True, reuse=False)

    def test_why_a_build_failed_is_not_hidden_by_a_registry(
        self, bakery: Bakery, shelf: Labelled, step: Callable[..., StepImage]
    ) -> None:
        """A registry that does not answer then is not what is told."""

        def act(request: BuildRequest) -> None:
            shelf.down = True
            raise BuildError("build", at=request.reference, reason="the disk is full")

        with pytest.raises(BakeError, match="the disk is full"):
            replace(bakery.baker, registry=shelf, builder=Maker(shelf, act)).bake([step("a", "x")])


def test_a_registry_without_an_api_is_taken_at_its_word(bakery: Bakery, step: Callable[..., StepImage]) -> None:
    """With image_exists alone the tag itself is used, since no digest can be known."""

    class Mute(Shelf):
        def resolve(self, reference: str) -> None:
            del reference

        def image_exists(self, push_tag: str) -> bool:
            return push_tag in self.images

    mute = Mute()
    baker = replace(bakery.baker, registry=mute, builder=Maker(mute))
    first = baker.bake([step("a", "x")])["a"]
    assert not first.reused
    assert first.reference.startswith("reg.example:5000/env@sha256:")
    second = baker.bake([step("a", "x")])["a"]
    assert second.reused
    assert second.reference.startswith("reg.example:5000/env:")


def test_a_digest_is_enough_to_pin_an_image(bakery: Bakery, step: Callable[..., StepImage]) -> None:
    """A builder that pushed where nobody here can ask knows the digest alone: tasks get that, and no tag that may move."""

    class Unseen(Shelf):
        def resolve(self, reference: str) -> None:
            del reference

    class Distant(Maker):
        def build(self, request: BuildRequest, progress: Any) -> Any:
            return super().build(request, progress).digest

    class Liar(Distant):
        def build(self, request: BuildRequest, progress: Any) -> str:
            super().build(request, progress)
            return "sha256:" + "f" * 64

    shelf = Unseen()
    baked = replace(bakery.baker, registry=shelf, builder=Distant(shelf)).bake([step("a", "x")])["a"]
    [pushed] = shelf.images.values()
    assert baked.reference == f"reg.example:5000/env@{pushed.digest}"
    assert baked.descriptor is None
    with pytest.raises(BakeError, match="was pushed, the registry serves"):
        replace(bakery.baker, builder=Liar(bakery.shelf)).bake([step("a", "x")])


def test_an_image_that_tasks_cannot_pull_ends_the_bake(bakery: Bakery, step: Callable[..., StepImage]) -> None:
    """Where tasks pull from another address, that one is asked for what was built and for what was there already."""
    asked: list[str] = []

    class TwoAddresses(Shelf):
        def pull_tag(self, env_id: EnvId) -> str:
            return self.image_tag(env_id).replace("reg.example", "elsewhere.example")

        def check_pull(self, reference: str) -> None:
            asked.append(reference)
            if len(asked) > 1:
                raise RegistryError("find the image where tasks pull it", at=reference, reason="it is not there")

    shelf = TwoAddresses()
    baker = replace(bakery.baker, registry=shelf, builder=Maker(shelf))
    assert baker.bake([step("a", "x")])["a"].reference == asked[0]
    assert asked[0].startswith("elsewhere.example:5000/env@sha256:")
    with pytest.raises(BakeError, match=r"elsewhere\.example:5000.*it is not there"):
        baker.bake([step("a", "x")])
    assert len(shelf.images) == 1


def test_a_registry_that_lost_what_was_pushed_is_asked_whether_it_can_be_pulled(
    bakery: Bakery, step: Callable[..., StepImage]
) -> None:
    """A builder that says it pushed is not believed where the registry knows better."""

    class Forgetful(Shelf):
        def resolve(self, reference: str) -> None:
            del reference

        def check_pull(self, reference: str) -> None:
            raise RegistryError("find the image where tasks pull it", at=reference, reason="it is not there")

    shelf = Forgetful()
    with pytest.raises(BakeError, match="it is not there"):
        replace(bakery.baker, registry=shelf, builder=Maker(shelf)).bake([step("a", "x")])


def test_what_a_builder_says_of_itself_is_part_of_the_identity(bakery: Bakery, step: Callable[..., StepImage]) -> None:
    """Images of a builder with a suffix of its own have tags of their own, and are reused like any other."""

    class Special(Maker):
        def image_identity_suffix(self) -> str:
            return "squashed"

    usual = bakery.baker.bake([step("a", "x")])["a"]
    special = replace(bakery.baker, builder=Special(bakery.shelf))
    baked = special.bake([step("a", "x")])["a"]
    assert (baked.spec.variant, baked.reused) == ("squashed", False)
    assert baked.spec.full_id != usual.spec.full_id
    assert baked.spec.lock == usual.spec.lock
    assert special.bake([step("a", "x")])["a"].reused


def test_a_builder_gets_what_the_registry_gives_for_pushing(bakery: Bakery, step: Callable[..., StepImage]) -> None:
    """The published dict as it is, and the same as credentials; and what gathers materials."""

    class Guarded(Shelf):
        def push_credentials(self) -> dict[str, Any]:
            return {"username": "me", "password": "hush"}

    requests: list[BuildRequest] = []
    guarded, materials = Guarded(), object()
    baker = replace(
        bakery.baker,
        registry=guarded,
        builder=Maker(guarded, act=requests.append),
        materials=materials,  # type: ignore[arg-type]
    )
    baker.bake([step("a", "x")])
    [request] = requests
    assert request.push_credentials == {"username": "me", "password": "hush"}
    assert request.credentials is not None
    assert (request.credentials.username, request.credentials.secret) == ("me", "hush")
    assert request.materials is materials
    assert "hush" not in repr(request)


@pytest.mark.parametrize("method", ["push_credentials", "pull_config"])
def test_none_of_an_outside_registry_is_nothing(
    method: str, bakery: Bakery, step: Callable[..., StepImage], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A method that has nothing to give may as well end without a return."""
    monkeypatch.setattr(Shelf, method, lambda *_: None)
    requests: list[BuildRequest] = []
    bakery.maker.act = requests.append
    [image] = bakery.baker.bake([step("a", "x")]).values()
    assert (requests[0].credentials, requests[0].push_credentials) == (None, {})
    assert image.pull_config == ({} if method == "pull_config" else {"image_pull_secrets": ["reg"]})


def test_the_published_identity_of_bases_is_not_asked(bakery: Bakery, step: Callable[..., StepImage]) -> None:
    """Bases are pinned by digest, which says more; a registry that looks them up over the network costs nothing."""

    class Slow(Shelf):
        def base_image_identity(self, base_image: str, arch: str) -> str:
            raise AssertionError

    slow = Slow()
    replace(bakery.baker, registry=slow, builder=Maker(slow)).bake([step("a", "x")])
    assert slow.images


def test_a_programming_error_is_not_dressed_up(
    bakery: Bakery, step: Callable[..., StepImage], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is not one of our errors comes out of our classes as it is."""

    def act(_: BuildRequest) -> None:
        raise ZeroDivisionError

    bakery.maker.act = act
    monkeypatch.setattr(Maker, "__module__", "prebuilt.maker.builder")
    with pytest.raises(ZeroDivisionError):
        bakery.baker.bake([step("a", "x")])


@pytest.mark.parametrize(
    "method", ["image_tag", "push_tag", "image_exists", "push_credentials", "credentials", "pull_config"]
)
@pytest.mark.parametrize("error", [ZeroDivisionError("by zero"), SystemExit("gone")])
def test_an_exception_of_an_outside_registry_names_it(
    method: str,
    error: BaseException,
    bakery: Bakery,
    step: Callable[..., StepImage],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Class, method and setting are in an error of ours; the exception is its cause."""

    def fail(*_: Any) -> None:
        raise error

    fail.__name__ = method
    monkeypatch.setattr(Shelf, method, fail)
    said = f"call {method}() of the registry Shelf at {Shelf.__module__}: {type(error).__name__}: {error}; mend it, or"
    with pytest.raises(BakeError) as caught:
        bakery.baker.bake([step("a", "x")])
    assert f"{said} choose another with METAFLOW_PREBUILT_IMAGE_REGISTRY" in str(caught.value)
    [failure] = caught.value.failures.values()
    assert failure.__cause__ is error


@pytest.mark.parametrize("method", ["image_identity_suffix", "build"])
def test_an_exception_of_an_outside_builder_names_it(
    method: str, bakery: Bakery, step: Callable[..., StepImage], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever of its methods raised."""

    def fail(*_: Any) -> None:
        raise ZeroDivisionError

    fail.__name__ = method
    monkeypatch.setattr(Maker, method, fail)
    with pytest.raises(
        PrebuiltError, match=rf"call {method}\(\) of the builder Maker.*METAFLOW_PREBUILT_BUILD_SERVICE"
    ):
        bakery.baker.bake([step("a", "x")])


def test_a_class_of_another_metaflow_extension_is_an_outside_one(
    bakery: Bakery, step: Callable[..., StepImage], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sites keep their backends beside their own decorators."""

    def act(_: BuildRequest) -> None:
        raise ZeroDivisionError

    bakery.maker.act = act
    monkeypatch.setattr(Maker, "__module__", "metaflow_extensions.site.plugins.builder")
    with pytest.raises(BakeError, match=r"call build\(\) of the builder Maker at metaflow_extensions\.site"):
        bakery.baker.bake([step("a", "x")])


def test_an_error_for_users_passes(
    bakery: Bakery, step: Callable[..., StepImage], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an outside class raises for Metaflow to print is printed as it is."""

    class MetaflowException(Exception):  # noqa: N818 - its name
        pass

    def fail(*_: Any) -> None:
        raise MetaflowException("log in first")

    monkeypatch.setattr(Shelf, "image_tag", fail)
    with pytest.raises(MetaflowException, match=r"^log in first$"):
        bakery.baker.bake([step("a", "x")])


def test_baking_nothing_gives_nothing(bakery: Bakery) -> None:
    """A flow without requirements costs nothing."""
    assert bakery.baker.bake([]) == {}


@pytest.mark.parametrize(
    ("tag", "expected"),
    [
        ("host:5000/repo:tag", "host:5000/repo@sha256:x"),
        ("repo:tag", "repo@sha256:x"),
        ("oci:/folder/layout:tag", "oci:/folder/layout@sha256:x"),
        ("host:5000/repo", "host:5000/repo@sha256:x"),
    ],
)
def test_a_reference_is_pinned_by_replacing_its_tag(tag: str, expected: str) -> None:
    """A port is no tag."""
    assert pinned(tag, "sha256:x") == expected


def test_cancelled_work_says_so() -> None:
    """The flag is looked at, waited for and raised."""
    cancellation = Cancellation()
    cancellation.check()
    assert not cancellation.wait(0)
    cancellation.cancel()
    with pytest.raises(CancelledError):
        cancellation.check()


def test_dates_are_those_of_the_lock(
    bakery: Bakery, step: Callable[..., StepImage], lock_of: Callable[..., Lock], wheel: Callable[..., Wheel]
) -> None:
    """A lock that somebody else kept last year is used, and its date shown."""
    wanted = step("a", "x")
    requirements = wanted.requirements.on(bakery.baker.bases.get("python:3.11-slim", Platform.parse("linux/amd64")))
    old = lock_of(wheel("x"), req_id=requirements.req_id, resolved_at=datetime(2025, 1, 2, tzinfo=timezone.utc))
    bakery.baker.documents.put(f"lock-{requirements.req_id}", old.to_bytes())
    bakery.baker.bake([wanted])
    assert bakery.resolved == []
    assert "locked 2025-01-02" in bakery.lines[-1]


def test_a_registry_is_asked_no_more_than_it_takes(bakery: Bakery, step: Callable[..., StepImage]) -> None:
    """For an image that is not there: before and after it is built, and once for what to push with."""
    asked: list[str] = []

    class Counting(Shelf):
        def push_credentials(self) -> dict[str, Any]:
            asked.append("credentials")
            return {"username": "me", "password": "hush"}

        def resolve(self, reference: str) -> Descriptor | None:
            asked.append("image")
            return super().resolve(reference)

    shelf = Counting()
    replace(bakery.baker, registry=shelf, builder=Maker(shelf)).bake([step("a", "x")])
    assert asked == ["image", "credentials", "image"]


def test_a_registry_that_answers_otherwise_is_asked_that_way(bakery: Bakery, step: Callable[..., StepImage]) -> None:
    """An outside class that only knows whether an image is there need not know its digest."""

    class Knowing(Shelf):
        def image_exists(self, push_tag: str) -> bool:
            return True

    shelf = Knowing()
    assert replace(bakery.baker, registry=shelf, builder=Maker(shelf)).bake([step("a", "x")])["a"].reused
