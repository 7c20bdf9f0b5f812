"""The builder suite finds each way in which a builder of Dockerfiles breaks the contract, and the suite's stage makes layers.

That it passes for builders that keep it is tested with real engines; so are builders of specs, beside the native one.
"""

from __future__ import annotations

import inspect
import itertools
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from prebuilt.core.build_service import BuildRequest, DockerBuildService
from prebuilt.core.dockerfile import PROGRAM
from prebuilt.core.errors import BuildError, DigestMismatchError
from prebuilt.core.progress import ImageProgress
from prebuilt.core.spec import PREFIX
from prebuilt.oci.open import open_repository
from prebuilt.testing.conformance import BuilderContract
from prebuilt.testing.conformance import stage as stage_module
from prebuilt.testing.conformance.materials import SITE_PACKAGES, Materials, RecordingProgress, push_small_base
from prebuilt.testing.conformance.stage import SuiteStage
from prebuilt.testing.python_index import PackageIndex
from prebuilt.testing.registry import InMemoryRegistry


class Boastful(DockerBuildService):
    """Says that it pushed."""

    def build_and_push(self, *_: Any, **__: Any) -> bool:
        """Return True."""
        return True


class Silent(DockerBuildService):
    """Does not say why."""

    def build_and_push(self, *_: Any, **__: Any) -> bool:
        """Return False."""
        return False


class Raising(DockerBuildService):
    """Raises where it should return False."""

    def build_and_push(self, *_: Any, **__: Any) -> bool:
        """Raise."""
        raise OSError("not-there")


class Printing(DockerBuildService):
    """Writes past the echo."""

    def build_and_push(self, *_: Any, **__: Any) -> bool:
        """Print and fail."""
        print("step 1")  # noqa: T201 - that is what is wrong with it
        return False


class Revealing(DockerBuildService):
    """Shows what it was given, in a way that nobody looks through."""

    def build_and_push(self, *_: Any, **__: Any) -> bool:
        """Fail."""
        return False

    def build(self, request: BuildRequest, progress: ImageProgress) -> None:
        """Say the password, and fail."""
        progress.state(f"docker login --password {request.push_credentials['password']}")
        super().build(request, progress)


class Untidy(DockerBuildService):
    """Leaves its folder behind."""

    def build_and_push(self, dockerfile: str, context_files: dict[str, Any], *_: Any, **__: Any) -> bool:
        """Make a folder; fail where the stage would."""
        tempfile.mkdtemp()
        return b"went wrong" not in context_files[PROGRAM]


class Terse(DockerBuildService):
    """Keeps what the stage said to itself."""

    def build_and_push(self, *_: Any, **__: Any) -> bool:
        """Never called."""
        raise AssertionError

    def build(self, request: BuildRequest, progress: ImageProgress) -> None:
        """Fail."""
        raise BuildError("build", at=request.reference, reason="it failed")


class Careless(Terse):
    """Does not look whether it was stopped, nor at what it is given."""

    def build(self, request: BuildRequest, progress: ImageProgress) -> None:
        """Succeed."""


class Configured(Boastful):
    """Cannot be made without arguments."""

    def __init__(self, host: str) -> None:
        self.host = host


_NUMBERS = itertools.count()


class Changing(Boastful):
    """Has a new identity each time."""

    def image_identity_suffix(self) -> str:
        """Return a number that grows."""
        return str(next(_NUMBERS))


BROKEN: list[tuple[type[DockerBuildService], str]] = [
    (Boastful, "test_returns_what_is_served"),
    (Boastful, "test_any_dockerfile_is_built"),
    (Boastful, "test_a_failed_dockerfile_is_false"),
    (Boastful, "test_a_failed_stage_shows_what_it_said"),
    (Boastful, "test_refused_push_is_an_error"),
    (Silent, "test_a_failed_dockerfile_is_false"),
    (Silent, "test_a_failed_stage_shows_what_it_said"),
    (Raising, "test_a_failed_dockerfile_is_false"),
    (Printing, "test_secrets_stay_secret"),
    (Revealing, "test_secrets_stay_secret"),
    (Untidy, "test_nothing_is_left_behind"),
    (Terse, "test_a_failed_stage_shows_what_it_said"),
    (Careless, "test_cancelled_build_stops"),
    (Careless, "test_wrong_bytes_are_refused"),
    (Changing, "test_optional_methods_answer"),
]


@pytest.fixture
def registry() -> Iterator[InMemoryRegistry]:
    """Return an empty registry."""
    with InMemoryRegistry() as registry:
        yield registry


@pytest.fixture
def materials(registry: InMemoryRegistry, tmp_path: Path) -> Iterator[Materials]:
    """Return materials for a builder of Dockerfiles; nothing here runs the base."""
    base = push_small_base(open_repository(registry.repository("base")))
    target = open_repository(registry.repository("team/image"))
    with PackageIndex().serving() as index:
        yield Materials(index=index, folder=tmp_path / "wheels", target=target, base=base, stage=SuiteStage())


@pytest.mark.parametrize(("kind", "clause"), BROKEN, ids=lambda value: getattr(value, "__name__", value))
def test_a_broken_builder_fails(
    kind: type[DockerBuildService],
    clause: str,
    materials: Materials,
    registry: InMemoryRegistry,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Each way of breaking the contract is found by the clause that forbids it."""
    test = getattr(BuilderContract(), clause)
    wanted = {
        "new_builder": kind,
        "materials": materials,
        "registry_materials": materials,
        "registry": registry,
        "address": "127.0.0.1",
        "tmp_path": tmp_path,
        "monkeypatch": monkeypatch,
        "capfd": capfd,
    }
    with pytest.raises((AssertionError, LookupError, OSError, pytest.fail.Exception)):
        test(**{name: wanted[name] for name in inspect.signature(test).parameters})


def test_tidiness_is_what_the_untidy_one_lacks(materials: Materials, tmp_path: Path) -> None:
    """The same builder without the folder passes: the clause asks for nothing else."""

    class Tidy(Untidy):
        def build_and_push(self, dockerfile: str, context_files: dict[str, Any], *_: Any, **__: Any) -> bool:
            return b"went wrong" not in context_files[PROGRAM]

    with pytest.MonkeyPatch.context() as patch:
        BuilderContract().test_nothing_is_left_behind(Tidy, materials, tmp_path, patch)


def test_a_builder_that_needs_arguments_fails() -> None:
    """The selected class is called with none."""
    with pytest.raises(TypeError, match="missing"):
        BuilderContract().test_is_made_without_arguments(Configured)


def test_a_clause_that_does_not_apply_is_skipped_with_its_reason(materials: Materials) -> None:
    """What a class does not claim is not asked of it."""

    class OfSpecs(BuilderContract):
        takes_dockerfiles = False

    with pytest.raises(pytest.skip.Exception, match="not asked of this one: it takes no Dockerfiles"):
        OfSpecs().test_any_dockerfile_is_built(Boastful, materials)


def test_the_suites_stage_makes_the_layers(materials: Materials, tmp_path: Path) -> None:
    """Its program is run by a Python that has nothing installed, once for all layers, and makes what they hold."""
    request = materials.request(materials.spec(materials.wheel("one", files={"one/ä.txt": "x"})))
    program = Path(stage_module.__file__).with_name("stage_program.py").read_text(encoding="utf-8")
    stage = SuiteStage(program=program.replace('"/prebuilt"', repr(str(tmp_path / "stage"))))
    with materials.request(request.spec, materials=stage).as_dockerfile("plain", RecordingProgress()) as rendered:
        for name, content in rendered.context.items():
            path = tmp_path / "stage" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.open().read())
    for _ in range(2):
        subprocess.run([sys.executable, "-I", tmp_path / "stage" / PROGRAM], check=True)
    interpreter, packages = (tmp_path / "stage" / "made" / layer.key for layer in request.plan.layers)
    base_python = request.spec.base.python
    assert base_python is not None
    assert (interpreter / PREFIX.lstrip("/") / "bin" / "python3").readlink() == Path(base_python.path)
    assert (packages / PREFIX.lstrip("/") / SITE_PACKAGES / "one" / "ä.txt").read_text() == "x"


def test_the_suites_stage_refuses_other_bytes(materials: Materials) -> None:
    """It does what the real one must: names the package, and gives nothing."""
    spec = materials.spec(replace(materials.wheel("tampered"), sha256="0" * 64))
    with (
        pytest.raises(DigestMismatchError, match="tampered"),
        SuiteStage().gather(spec, RecordingProgress(), check=lambda: None),
    ):
        raise AssertionError
