"""The suite for registries: clauses R-1 and on of ``docs/reference/contracts.md``."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from prebuilt.core.bake import pinned
from prebuilt.core.canonical import canonical_json
from prebuilt.core.credentials import Credentials
from prebuilt.core.descriptor import Descriptor
from prebuilt.core.documents import DocumentStore
from prebuilt.core.errors import InvalidValueError, RegistryError, StorageError
from prebuilt.core.image_registry import ImageRegistry
from prebuilt.core.spec import EnvId
from prebuilt.oci.image import ImageManifest
from prebuilt.oci.media_types import OCI_CONFIG, OCI_MANIFEST
from prebuilt.oci.open import open_repository
from prebuilt.oci.reference import Reference, parse_reference
from prebuilt.testing.blobs import push_bytes
from prebuilt.testing.conformance.builder_world import not_asked

NewRegistry = Callable[[], ImageRegistry]

ENV_ID = EnvId("1" * 40, "2" * 40, "linux-64")
_OTHERS = (
    EnvId("3" * 40, "2" * 40, "linux-64"),
    EnvId("1" * 40, "3" * 40, "linux-64"),
    EnvId("1" * 40, "2" * 40, "linux-aarch64"),
)


class RegistryContract:
    """What every registry does. Subclass it, and give :meth:`new_registry`; and, where there is one, :meth:`broken_registry`.

    Attributes:
        resolves: Whether ``resolve`` says what is served.
        answers: Whether ``image_exists`` says what is there; False for one that only names images, for which each deploy builds.
    """

    resolves = True
    answers = True

    @pytest.fixture
    def new_registry(self) -> NewRegistry:
        """Return what makes registries that are one and the same place, empty when the test begins."""
        raise NotImplementedError("give the fixture new_registry")

    @pytest.fixture
    def broken_registry(self) -> ImageRegistry:
        """Return a registry that cannot be asked: its host refuses connections, or its folder is damaged."""
        not_asked("no broken_registry was given")

    def store(self, registry: ImageRegistry, reference: str, content: str = "1") -> Descriptor:
        """Push a small image; return its manifest's descriptor. Override it where :mod:`prebuilt.oci` cannot push."""
        parsed = parse_reference(reference)
        repository = open_repository(parsed.repository, registry.credentials(reference))
        config = canonical_json(
            {"os": "linux", "architecture": "amd64", "rootfs": {"diff_ids": []}, "content": content}
        )
        manifest = ImageManifest(config=push_bytes(repository, config, OCI_CONFIG), layers=())
        return repository.put_manifest(parsed.identifier, OCI_MANIFEST, manifest.to_bytes())

    def test_is_made_without_arguments(self, new_registry: NewRegistry) -> None:
        """R-1: The class is called with no arguments."""
        registry = new_registry()
        assert isinstance(registry, ImageRegistry)
        inspect.signature(type(registry)).bind()

    def test_tag_is_a_function_of_the_identity(self, new_registry: NewRegistry) -> None:
        """R-2: ``image_tag`` is a pure function of the environment's identity: equal ones meet, different ones never do."""
        registry, again = new_registry(), new_registry()
        assert registry.image_tag(ENV_ID) == again.image_tag(EnvId(*ENV_ID))
        assert len({registry.image_tag(env_id) for env_id in (ENV_ID, *_OTHERS)}) == 1 + len(_OTHERS)

    def test_tag_is_a_reference(self, new_registry: NewRegistry) -> None:
        """R-3: Every tag is a whole reference, ``host/repository:tag`` or ``oci:/folder:tag``, that registries accept."""
        registry = new_registry()
        for reference in (registry.image_tag(ENV_ID), registry.push_tag(ENV_ID), registry.pull_tag(ENV_ID)):
            parsed = _parsed(reference)
            assert parsed.digest is None
            assert reference.endswith(f":{parsed.tag}")
            assert "/" in parsed.repository

    def test_pushed_is_what_is_pulled(self, new_registry: NewRegistry) -> None:
        """R-4: ``push_tag`` and ``pull_tag`` name one image: places may differ, the tag does not."""
        registry = new_registry()
        assert _parsed(registry.push_tag(ENV_ID)).tag == _parsed(registry.pull_tag(ENV_ID)).tag

    def test_push_credentials_are_a_dict(self, new_registry: NewRegistry) -> None:
        """R-5: ``push_credentials`` returns a dict with text keys, a new one for each call."""
        registry = new_registry()
        first = registry.push_credentials()
        assert all(isinstance(key, str) for key in first)
        first["spoiled"] = "by the caller"
        assert "spoiled" not in registry.push_credentials()

    def test_pull_config_is_for_the_decorator(self, new_registry: NewRegistry) -> None:
        """R-6: ``pull_config`` returns attributes for the compute decorator: text keys, JSON values; it takes tags and digests."""
        registry = new_registry()
        tag = registry.pull_tag(ENV_ID)
        for reference in (tag, pinned(tag, "sha256:" + "4" * 64)):
            config = registry.pull_config(reference)
            assert all(isinstance(key, str) for key in config)
            json.dumps(config)

    def test_absent_image_is_absent(self, new_registry: NewRegistry) -> None:
        """R-7: An image that is not there: ``resolve`` returns None, ``image_exists`` False, however often they are asked."""
        for _ in range(2):
            registry = new_registry()
            assert registry.resolve(registry.push_tag(ENV_ID)) is None
            assert registry.image_exists(registry.push_tag(ENV_ID)) is False

    def test_pushed_image_is_there(self, new_registry: NewRegistry) -> None:
        """R-8: A pushed image is there at once, for who asked before and for who asks anew, with its manifest's digest."""
        registry = new_registry()
        tag = registry.push_tag(ENV_ID)
        registry.image_exists(tag)
        stored = self.store(registry, tag)
        for asked in (registry, new_registry()):
            assert asked.image_exists(tag) is self.answers
            assert getattr(asked.resolve(tag), "digest", None) == (stored.digest if self.resolves else None)
            assert (asked.resolve(pinned(tag, stored.digest)) is not None) is self.resolves
        assert registry.image_exists(registry.push_tag(_OTHERS[0])) is False
        assert registry.resolve(registry.push_tag(_OTHERS[0])) is None

    def test_moved_tag_is_followed(self, new_registry: NewRegistry) -> None:
        """R-9: ``resolve`` says what is served now, not what was served once."""
        if not self.resolves:
            not_asked("it does not say what is served")
        registry = new_registry()
        tag = registry.push_tag(ENV_ID)
        for content in ("1", "2"):
            stored = self.store(registry, tag, content)
            found = registry.resolve(tag)
            assert found is not None
            assert found.digest == stored.digest

    def test_failure_to_ask_is_an_error(self, broken_registry: ImageRegistry) -> None:
        """R-10: "Could not ask" is an error, never "not there"."""
        tag = broken_registry.push_tag(ENV_ID)
        asked = ((broken_registry.resolve, self.resolves), (broken_registry.image_exists, self.answers))
        for ask in (ask for ask, has_answers in asked if has_answers):
            with pytest.raises((RegistryError, StorageError)):
                ask(tag)

    def test_base_image_identity_is_stable(self, new_registry: NewRegistry) -> None:
        """R-11: ``base_image_identity`` gives the same for the same image, and something else when the image changed."""
        registry = new_registry()
        base = registry.push_tag(ENV_ID)
        self.store(registry, base)
        first = registry.base_image_identity(base, "linux-64")
        assert isinstance(first, str)
        assert new_registry().base_image_identity(base, "linux-64") == first
        if first != base:
            self.store(registry, base, "changed")
            assert registry.base_image_identity(base, "linux-64") != first

    def test_documents_are_kept(self, new_registry: NewRegistry) -> None:
        """R-12: Documents, where they can be kept: absent ones are None, kept ones come back as they were, the last one wins."""
        kept = _documents(new_registry())
        assert kept.get("lock-1") is None
        for data in (b"{}", b"\0binary\xff" * 300_000, b""):
            kept.put("lock-1", data)
            assert kept.get("lock-1") == data
            assert _documents(new_registry()).get("lock-1") == data
        assert kept.get("lock-2") is None

    def test_document_names_are_checked(self, new_registry: NewRegistry) -> None:
        """R-13: A document's name has at most 120 of ``a-z 0-9 . _ -``; others are refused before anything is asked."""
        kept = _documents(new_registry())
        kept.put("a" * 120, b"long")
        assert kept.get("a" * 120) == b"long"
        for name in ("", "../x", "A", "a" * 121, "a/b"):
            with pytest.raises(InvalidValueError):
                kept.put(name, b"")

    def test_documents_are_no_images(self, new_registry: NewRegistry) -> None:
        """R-14: A document does not make an image exist, nor an image a document."""
        registry = new_registry()
        _documents(registry).put("lock-1", b"{}")
        self.store(registry, registry.push_tag(ENV_ID))
        assert registry.resolve(registry.push_tag(_OTHERS[0])) is None
        assert _documents(registry).get("lock-1") == b"{}"

    def test_credentials_are_kept_secret(self, new_registry: NewRegistry) -> None:
        """R-15: ``credentials`` returns Credentials or None; no secret is in the registry's repr."""
        registry = new_registry()
        credentials = registry.credentials(registry.push_tag(ENV_ID))
        assert credentials is None or isinstance(credentials, Credentials)
        assert credentials is None or credentials.secret not in repr(registry) + repr(credentials)

    def test_asked_at_once(self, new_registry: NewRegistry) -> None:
        """R-16: All methods may be called from several threads at once."""
        registry = new_registry()
        tag = registry.push_tag(ENV_ID)
        stored = self.store(registry, tag)
        with ThreadPoolExecutor(8) as pool:
            found = set(pool.map(lambda _: getattr(registry.resolve(tag), "digest", None), range(16)))
            there = set(pool.map(lambda _: registry.image_exists(tag), range(16)))
        assert found == {stored.digest if self.resolves else None}
        assert there == {self.answers}

    def test_named_environments_are_there_or_not(self, new_registry: NewRegistry) -> None:
        """R-17: ``image_tag_for_named`` and its two forms name one reference, or all raise NotImplementedError."""
        registry = new_registry()
        forms = (registry.image_tag_for_named, registry.push_tag_for_named, registry.pull_tag_for_named)
        tags = {_tag_for_named(form) for form in forms}
        assert len(tags) == 1

    def test_says_whether_a_cluster_reaches_it(self, new_registry: NewRegistry) -> None:
        """R-18: ``is_reachable_from_cluster`` is False where other machines cannot pull: for folders of this machine."""
        registry = new_registry()
        is_folder = registry.pull_tag(ENV_ID).startswith("oci:")
        assert registry.is_reachable_from_cluster() is not is_folder

    def test_nothing_is_printed(self, new_registry: NewRegistry, capfd: pytest.CaptureFixture[str]) -> None:
        """R-19: Nothing is printed."""
        registry = new_registry()
        registry.image_exists(registry.push_tag(ENV_ID))
        printed = capfd.readouterr()
        assert (printed.out, printed.err) == ("", "")


def _documents(registry: ImageRegistry) -> DocumentStore:
    kept = registry.documents()
    if kept is None:
        not_asked("it keeps no documents")
    return kept


def _parsed(reference: str) -> Reference:
    try:
        return parse_reference(reference)
    except InvalidValueError as error:
        pytest.fail(f"{reference!r} is no reference: {error}")


def _tag_for_named(form: Callable[[str], str]) -> str | None:
    try:
        return _parsed(form("team-env")).tag
    except NotImplementedError:
        return None
