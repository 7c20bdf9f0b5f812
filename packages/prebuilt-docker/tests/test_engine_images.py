"""Asking for images and removing them, where an engine fails as real ones did."""

from __future__ import annotations

import logging
from typing import Any, cast

import docker
import docker.errors
import pytest
import requests

from prebuilt.core.retry import Backoff
from prebuilt.docker import engine_images
from prebuilt.docker.engine_images import image_facts, remove_image

DISTURBED = (500, "failed to convert ImageData to ImageInspect: locating image with ID: image not known")
IN_CONTAINER = (
    409,
    "conflict: unable to delete 5b0d64ae0cff (must be forced) - image is being used by stopped container a8a5",
)
HAS_CHILDREN = (409, "conflict: unable to delete 5b0d64ae0cff (cannot be forced) - image has dependent child images")
NOT_THERE = (404, "No such image: one")

Answer = tuple[int, str]


class FakeClient:
    """Answers each call with the next of `answers`; then as an engine does that has the image."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)

    def inspect_image(self, image: str) -> dict[str, Any]:
        """Describe it."""
        self._answer()
        return {"Id": image}

    def remove_image(self, image: str) -> None:
        """Remove it."""
        self._answer()

    def _answer(self) -> None:
        if self.answers:
            response = requests.Response()
            response.status_code, said = self.answers.pop(0)
            kind = docker.errors.NotFound if response.status_code == 404 else docker.errors.APIError
            raise kind(said, response=response, explanation=said)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is waited for."""
    monkeypatch.setattr(engine_images, "_DISTURBED_BACKOFF", Backoff(attempts=4, base_s=0.0))
    monkeypatch.setattr(engine_images, "_LOOK_S", 0.0)


def asking(*answers: Answer) -> docker.APIClient:
    """Return a client of an engine that answers so."""
    return cast("docker.APIClient", FakeClient(*answers))


def test_what_another_removal_disturbed_is_asked_again() -> None:
    """Podman fails to describe an image while another build removes one: that passes."""
    assert image_facts(asking(DISTURBED, DISTURBED), "one") == {"Id": "one"}
    assert image_facts(asking(DISTURBED, NOT_THERE), "one") is None


@pytest.mark.parametrize("answers", [[DISTURBED] * 4, [(500, "the database is locked")]])
def test_what_an_engine_cannot_say_is_an_error(answers: list[Answer]) -> None:
    """A failure that stays, or that is of another kind, is not taken for an image that is not there."""
    with pytest.raises(docker.errors.APIError):
        image_facts(asking(*answers), "one")


@pytest.mark.parametrize(
    ("answers", "stays"),
    [
        ([DISTURBED, DISTURBED], False),
        ([IN_CONTAINER] * 6, False),
        ([NOT_THERE], False),
        ([HAS_CHILDREN], True),
        ([DISTURBED] * 4, True),
    ],
)
def test_removal(caplog: pytest.LogCaptureFixture, answers: list[Answer], *, stays: bool) -> None:
    """A removal outlasts what passes; where that is not enough the image stays, and the log says why."""
    client = FakeClient(*answers)
    with caplog.at_level(logging.INFO):
        remove_image(cast("docker.APIClient", client), "one", outlasts_container=True)
    assert client.answers == []
    assert ("one stays in the engine" in caplog.text) is stays


@pytest.mark.parametrize(
    ("answers", "is_said"), [([(500, "the database is locked")], True), ([HAS_CHILDREN], False), ([NOT_THERE], False)]
)
def test_the_user_is_told_what_stays(answers: list[Answer], *, is_said: bool) -> None:
    """An image that the engine fails to remove is said; one that somebody uses is theirs."""
    said: list[str] = []
    remove_image(asking(*answers), "one", note=said.append)
    assert said == (["one stays in the engine: the database is locked"] if is_said else [])


def test_container_is_not_waited_for_unasked(caplog: pytest.LogCaptureFixture) -> None:
    """An image that a container of somebody's uses stays."""
    client = FakeClient(IN_CONTAINER, NOT_THERE)
    with caplog.at_level(logging.INFO):
        remove_image(cast("docker.APIClient", client), "one")
    assert client.answers == [NOT_THERE]
    assert "one stays in the engine" in caplog.text
