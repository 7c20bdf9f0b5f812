"""The registry suite passes for registries that keep the contract, and fails for each way of breaking it."""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from prebuilt.core.credentials import Credentials
from prebuilt.core.descriptor import Descriptor
from prebuilt.core.documents import DocumentStore, FolderDocuments
from prebuilt.core.image_registry import ImageRegistry
from prebuilt.core.settings import Settings
from prebuilt.core.spec import EnvId
from prebuilt.oci.registry import RepositoryRegistry
from prebuilt.testing.conformance import RegistryContract
from prebuilt.testing.conformance.registry_contract import ENV_ID
from prebuilt.testing.registry import InMemoryRegistry

SETTINGS = Settings({}, {})


def registry_at(repository: str, kind: type[RepositoryRegistry] = RepositoryRegistry) -> type[RepositoryRegistry]:
    """Return a class that is called with no arguments, as a backend is."""

    class Registry(kind):  # type: ignore[misc,valid-type]
        def __init__(self) -> None:
            super().__init__(repository, settings=SETTINGS)

    return Registry


class TestLayout(RegistryContract):
    """Images in a folder."""

    @pytest.fixture
    def new_registry(self, tmp_path: Path) -> Callable[[], ImageRegistry]:
        """Return the class for an empty layout."""
        return registry_at(f"oci:{tmp_path / 'layout'}")

    @pytest.fixture
    def broken_registry(self, tmp_path: Path) -> ImageRegistry:
        """Return one whose index is damaged."""
        folder = tmp_path / "broken"
        folder.mkdir()
        (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        (folder / "index.json").write_text("{")
        return registry_at(f"oci:{folder}")()


class TestOverHttp(RegistryContract):
    """Images behind the distribution API."""

    @pytest.fixture
    def new_registry(self) -> Iterator[Callable[[], ImageRegistry]]:
        """Return the class for an empty registry."""
        with InMemoryRegistry() as server:
            yield registry_at(server.repository("team/images"))

    @pytest.fixture
    def broken_registry(self) -> Iterator[ImageRegistry]:
        """Return one that answers with 401 and nobody to log in."""
        with InMemoryRegistry() as server:
            server.fail("*", "/v2/", status=401, code="UNAUTHORIZED", times=1000)
            yield registry_at(server.repository("team/images"))()


class WithArguments(RepositoryRegistry):
    """Cannot be called with no arguments."""


class WithTime(RepositoryRegistry):
    """Names images by something else than their identity."""

    def image_tag(self, env_id: EnvId) -> str:
        """Return another tag each time."""
        return f"{super().image_tag(env_id)[:-20]}{random.random()}"  # noqa: S311 - not a secret


class WithoutArch(RepositoryRegistry):
    """Forgets the platform."""

    def image_tag(self, env_id: EnvId) -> str:
        """Return the same tag for all platforms."""
        return super().image_tag(env_id).replace(env_id.arch, "")


class WithoutTag(RepositoryRegistry):
    """Leaves the tag to the default."""

    def image_tag(self, env_id: EnvId) -> str:
        """Return a repository."""
        return super().image_tag(env_id).rpartition(":")[0] + "/" + "-".join(env_id)


class PulledElsewhere(RepositoryRegistry):
    """Pushes one image and pulls another."""

    def pull_tag(self, env_id: EnvId) -> str:
        """Return a tag that nobody pushes."""
        return f"{super().pull_tag(env_id)}-pulled"


class OneDict(RepositoryRegistry):
    """Hands its own state out."""

    _credentials: dict[str, Any] = {}  # noqa: RUF012 - that is what is wrong with it

    def push_credentials(self) -> dict[str, Any]:
        """Return the same dict each time."""
        return self._credentials


class OddConfig(RepositoryRegistry):
    """Gives the decorator what cannot be written down."""

    def pull_config(self, pull_tag: str) -> dict[str, Any]:
        """Return a value that JSON does not know."""
        return {"image": pull_tag.encode()}


class Optimist(RepositoryRegistry):
    """Believes that everything is there."""

    def image_exists(self, push_tag: str) -> bool:
        """Return True."""
        del push_tag
        return True


class Pessimist(RepositoryRegistry):
    """Reads every failure as absence."""

    def resolve(self, reference: str) -> Descriptor | None:
        """Return None if anything is wrong."""
        try:
            return super().resolve(reference)
        except Exception:  # noqa: BLE001 - that is what is wrong with it
            return None


class Rememberer(RepositoryRegistry):
    """Asks once."""

    def resolve(self, reference: str) -> Descriptor | None:
        """Return what was served when first asked."""
        seen: dict[str, Descriptor | None] = self.__dict__.setdefault("seen", {})
        if reference not in seen:
            seen[reference] = super().resolve(reference)
        return seen[reference]


class ByName(RepositoryRegistry):
    """Takes the name of a base image, and a number of its own, for its identity."""

    def base_image_identity(self, base_image: str, arch: str) -> str:
        """Return something that is never the same."""
        return f"{base_image}-{arch}-{id(object())}-{random.random()}"  # noqa: S311 - not a secret


class Forgetful(RepositoryRegistry):
    """Keeps documents for itself."""

    def documents(self) -> DocumentStore:
        """Return documents in a folder of this instance."""
        import tempfile

        return FolderDocuments(Path(tempfile.mkdtemp()))


class Unchecked(RepositoryRegistry):
    """Takes any name for a document."""

    def documents(self) -> DocumentStore:
        """Return documents without checks."""

        class Store:
            kept: dict[str, bytes]

            def __init__(self) -> None:
                self.kept = {}

            def get(self, name: str) -> bytes | None:
                return self.kept.get(name)

            def put(self, name: str, data: bytes) -> None:
                self.kept[name] = data

        return Store()


class Talkative(RepositoryRegistry):
    """Shows its secret, and prints."""

    def __repr__(self) -> str:
        """Return too much."""
        return "Talkative(secret='hush')"

    def credentials(self, reference: str) -> Credentials | None:
        """Return credentials."""
        del reference
        return Credentials(username="me", secret="hush")

    def image_exists(self, push_tag: str) -> bool:
        """Print and return."""
        print("asking")  # noqa: T201 - that is what is wrong with it
        return super().image_exists(push_tag)


class HalfNamed(RepositoryRegistry):
    """Names environments for pushing only."""

    def push_tag_for_named(self, name: str) -> str:
        """Return a tag."""
        return f"{self.repository}:{name}"


class Everywhere(RepositoryRegistry):
    """Takes a folder for something that a cluster sees."""

    def is_reachable_from_cluster(self) -> bool:
        """Return True."""
        return True


BROKEN: list[tuple[type[RepositoryRegistry], str]] = [
    (WithTime, "test_tag_is_a_function_of_the_identity"),
    (WithoutArch, "test_tag_is_a_function_of_the_identity"),
    (WithoutTag, "test_tag_is_a_reference"),
    (PulledElsewhere, "test_pushed_is_what_is_pulled"),
    (OneDict, "test_push_credentials_are_a_dict"),
    (OddConfig, "test_pull_config_is_for_the_decorator"),
    (Optimist, "test_absent_image_is_absent"),
    (Rememberer, "test_pushed_image_is_there"),
    (Rememberer, "test_moved_tag_is_followed"),
    (ByName, "test_base_image_identity_is_stable"),
    (Forgetful, "test_documents_are_kept"),
    (Unchecked, "test_document_names_are_checked"),
    (Talkative, "test_credentials_are_kept_secret"),
    (Talkative, "test_nothing_is_printed"),
    (HalfNamed, "test_named_environments_are_there_or_not"),
    (Everywhere, "test_says_whether_a_cluster_reaches_it"),
]


@pytest.mark.parametrize(("kind", "clause"), BROKEN, ids=lambda value: getattr(value, "__name__", value))
def test_a_broken_registry_fails(
    kind: type[RepositoryRegistry], clause: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Each way of breaking the contract is found by the clause that forbids it."""
    test = getattr(RegistryContract(), clause)
    wanted = {"new_registry": registry_at(f"oci:{tmp_path / 'layout'}", kind), "capfd": capfd}
    with pytest.raises((AssertionError, TypeError, pytest.fail.Exception)):
        test(**{name: wanted[name] for name in inspect.signature(test).parameters})


def test_a_registry_that_needs_arguments_fails(tmp_path: Path) -> None:
    """The selected class is called with none."""
    with pytest.raises(TypeError, match="missing"):
        RegistryContract().test_is_made_without_arguments(lambda: WithArguments(f"oci:{tmp_path}"))


def test_a_registry_that_reads_failure_as_absence_fails() -> None:
    """It would build, and push, what is there already."""
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        RegistryContract().test_failure_to_ask_is_an_error(registry_at("127.0.0.1:1/nobody", Pessimist)())


def test_a_class_that_implements_only_what_is_published_keeps_what_it_can(tmp_path: Path) -> None:
    """The three abstract methods are enough for every clause that needs no storage."""

    class Published(ImageRegistry):
        def image_tag(self, env_id: EnvId) -> str:
            return f"registry.example/team/images:{'-'.join(env_id)}"

        def push_credentials(self) -> dict[str, Any]:
            return {"username": "me"}

        def pull_config(self, pull_tag: str) -> dict[str, Any]:
            return {"image": pull_tag}

    suite = RegistryContract()
    for clause in (
        "made_without_arguments",
        "a_function_of_the_identity",
        "is_a_reference",
        "what_is_pulled",
        "a_dict",
    ):
        [test] = [name for name in dir(suite) if name.startswith("test_") and name.endswith(clause)]
        getattr(suite, test)(Published)
    suite.test_absent_image_is_absent(Published)
    assert Published().image_tag(ENV_ID).count("-") == 3
