"""The log of the classic builder, from streams that real engines sent."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import cast

import docker
import docker.errors
import pytest

from prebuilt.core.credentials import Credentials
from prebuilt.docker.classic import ClassicBuildError, ClassicLog, _remove_steps, is_pinned
from prebuilt.docker.engine_login import log_in
from prebuilt.docker.engine_stream import Event
from prebuilt.oci.docker_config import Login

DOCKER_20_10: list[Event] = [
    {"stream": "Step 1/5 : FROM registry:5000/base@sha256:4ed5 AS environment"},
    {"stream": "\n"},
    {"status": "Pulling from base", "id": "registry:5000/base@sha256:4ed5"},
    {"status": "Pulling fs layer", "progressDetail": {}, "id": "3d611dd738de"},
    {"status": "Downloading", "progressDetail": {"current": 1, "total": 35671633}, "id": "3d611dd738de"},
    {"status": "Digest: sha256:4ed5"},
    {"stream": " ---> eebccc602a26\n"},
    {"stream": "Step 2/5 : COPY . /prebuilt"},
    {"stream": "\n"},
    {"stream": " ---> 017d6378b161\n"},
    {"stream": 'Step 3/5 : RUN ["python3"]'},
    {"stream": "\n"},
    {"stream": " ---> Running in a8a53465a308\n"},
    {"stream": "hal"},
    {"stream": "lo\nwor"},
    {"stream": "ld\n"},
    {"stream": "Removing intermediate container a8a53465a308\n"},
    {"stream": " ---> 0401bd222f43\n"},
    {"aux": {"ID": "sha256:0401bd222f43badc90e32b09232eba74d6ac6dab0dc97d92d2c8c1464e411e73"}},
    {"stream": "Step 4/5 : FROM registry:5000/base@sha256:752a"},
    {"stream": "\n"},
    {"stream": " ---> eebccc602a26\n"},
    {"stream": "Step 5/5 : COPY --from=environment /prebuilt/made/k/ /"},
    {"stream": "\n"},
    {"stream": " ---> 5b0d64ae0cff\n"},
    {"aux": {"ID": "sha256:5b0d64ae0cff6a09dcf794e9423cae2fd02d7041165c5a9bd9c8e3086f895edb"}},
    {"stream": "Successfully built 5b0d64ae0cff\n"},
]
PODMAN_4_3: list[Event] = [
    {"stream": "[1/2] STEP 1/2: FROM registry:5000/base@sha256:4ed5 AS environment\n"},
    {"stream": "Trying to pull registry:5000/base@sha256:4ed5...\n"},
    {"stream": "[1/2] STEP 2/2: COPY . /prebuilt\n"},
    {"stream": "--> 88cdb5b7b6d\n"},
    {"stream": "[2/2] STEP 1/2: FROM registry:5000/base@sha256:752a\n"},
    {"stream": "[2/2] STEP 2/2: COPY --from=environment /prebuilt/made/k/ /\n"},
    {"stream": "[2/2] COMMIT docker.io/library/metaflow-prebuilt-build:1\n"},
    {"stream": "--> a2a3b524d4e\n"},
    {"stream": "a2a3b524d4ef4be7b8b6b794d75ef98f359e1cdb326de6ff07aa930e7ed6204e\n"},
]


def test_lines_are_whole() -> None:
    """What steps write becomes lines, however it was cut; the bytes of pulls are left out."""
    lines = list(ClassicLog().lines(iter(DOCKER_20_10)))
    assert lines[:5] == [
        "Step 1/5 : FROM registry:5000/base@sha256:4ed5 AS environment",
        "registry:5000/base@sha256:4ed5: Pulling from base",
        "3d611dd738de: Pulling fs layer",
        "Digest: sha256:4ed5",
        " ---> eebccc602a26",
    ]
    assert lines[8:11] == [" ---> Running in a8a53465a308", "hallo", "world"]


@pytest.mark.parametrize(
    ("events", "steps"),
    [(DOCKER_20_10, ["017d6378b161", "0401bd222f43", "5b0d64ae0cff"]), (PODMAN_4_3, ["88cdb5b7b6d", "a2a3b524d4e"])],
)
def test_bases_are_not_steps(events: list[Event], steps: list[str]) -> None:
    """The images that a build made are known, to be removed; what it was built on is never among them."""
    log = ClassicLog()
    list(log.lines(iter(events)))
    assert log.steps == steps


@pytest.mark.parametrize(
    "failure",
    [
        {"errorDetail": {"code": 3, "message": "exit 3"}, "error": "exit 3"},
        {"error": "exit 3\n"},
        {"message": "exit 3"},
    ],
)
def test_failure_ends_the_log(failure: Event) -> None:
    """The engine's error is raised after the lines that came before it, also a last one without an end."""
    log, lines = ClassicLog(), []
    with pytest.raises(ClassicBuildError, match=r"^exit 3$"):
        for line in log.lines(iter([{"stream": "one\n"}, failure])):
            lines.append(line)  # noqa: PERF402 - what came before the error is wanted
    assert lines == ["one"]


@pytest.mark.parametrize(
    ("steps", "pulled"),
    [
        (["Step 1/5 : FROM python:3.12-slim AS environment\n"], "python:3.12-slim"),
        (["[1/2] STEP 1/4: FROM --platform=linux/amd64 r.example/base@sha256:1 AS a\n"], "r.example/base@sha256:1"),
        (["Step 1/5 : FROM python:3.12-slim AS environment\n", "Step 2/5 : COPY . /prebuilt\n"], None),
    ],
)
def test_the_image_that_could_not_be_pulled(steps: list[str], pulled: str | None) -> None:
    """A failure under ``FROM`` is that image's; one in another step is not."""
    events: list[Event] = [*({"stream": step} for step in steps), {"error": "no"}]
    with pytest.raises(ClassicBuildError) as caught:
        list(ClassicLog().lines(iter(events)))
    assert caught.value.pulled == pulled


@pytest.mark.parametrize(
    ("dockerfile", "pinned"),
    [
        ("FROM python:3.11 AS a\nRUN x\nFROM base@sha256:1\nCOPY --from=a /x /\n", True),
        ("FROM --platform=linux/arm64 base@sha256:1\n", True),
        ("FROM base@sha256:1 AS a\nfrom python:3.11-slim\n", False),
        ("# nothing\n", False),
    ],
)
def test_what_decides_the_platform(dockerfile: str, *, pinned: bool) -> None:
    """The base of the final stage does if it is named by its digest."""
    assert is_pinned(dockerfile) is pinned


def test_logins_are_shown_to_the_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The header that goes with a build has the logins for base images beside those of Docker's configuration."""
    users = {"ghcr.io": {"auth": base64.b64encode(b"me:mine").decode()}}
    (tmp_path / "config.json").write_text(json.dumps({"auths": users}))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    client = docker.APIClient(base_url="http://127.0.0.1:1", version="1.41")
    password = Login.explicit(Credentials(username="AWS", secret="s3cret"))
    log_in(client, {"b.example": password, "docker.io": Login.explicit(Credentials(username="", secret="token"))})
    headers: dict[str, bytes] = {}
    client._set_auth_headers(headers)
    client.close()
    shown = json.loads(base64.urlsafe_b64decode(headers["X-Registry-Config"]))
    assert shown["b.example"] == {"username": "AWS", "password": "s3cret"}
    assert shown["https://index.docker.io/v1/"] == {"identitytoken": "token"}
    assert shown["ghcr.io"]["password"] == "mine"


def test_one_image_that_fails_keeps_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images of steps are removed one by one: what the engine cannot say of one does not leave the others."""
    removed: list[str] = []

    def facts(_: object, image: str) -> dict[str, str]:
        if image == "two":
            raise docker.errors.APIError("500: the database is locked")
        return {}

    monkeypatch.setattr("prebuilt.docker.classic.image_facts", facts)
    monkeypatch.setattr("prebuilt.docker.classic.remove_image", lambda _, image, **__: removed.append(image))
    _remove_steps(cast("docker.APIClient", None), ["one", "two", "three"], print)
    assert removed == ["three", "one"]
