"""What users read of a build by BuildKit."""

from __future__ import annotations

from prebuilt.core.buildkit_output import BuildKitOutput, pulled_host, pulled_image

DIGEST = "sha256:" + "a" * 64
LAYER = "layers/" + "b" * 40 + ".json"


def said(*lines: str) -> tuple[list[str], BuildKitOutput]:
    """Return what is shown of `lines`, and the output that took them."""
    shown: list[str] = []
    output = BuildKitOutput(shown.append)
    for line in lines:
        output(line)
    return shown, output


def test_noise_is_left_out() -> None:
    """Blobs by bytes, switches between steps and colours are not shown; neither are passwords in URLs."""
    shown, _ = said(
        "#4 resolve host/base@" + DIGEST + " 0.0s done",
        f"#4 {DIGEST} 29.36MB / 35.67MB 0.1s",
        f"#4 extracting {DIGEST} 0.1s",
        "#9 ...",
        "#9 DONE 0.0s",
        "",
        "\x1b[33m#9 0.1 https://me:s3cret@index.example/simple\x1b[0m",
        "#9 DONE 12.1s",
    )
    assert shown == ["#9 0.1 https://index.example/simple", "#9 DONE 12.1s"]


def test_what_a_step_is_given_is_left_out() -> None:
    """The heading of a step that makes a layer fits a line: what it mounts are long names that say nothing."""
    shown, _ = said(f'#9 [layer-01 1/1] RUN --mount=type=bind,source={LAYER},target=/prebuilt/{LAYER} ["python3", "x"]')
    assert shown == ['#9 [layer-01 1/1] RUN ["python3", "x"]']


def test_the_failed_step_comes_first() -> None:
    """Its last lines and the summary are 50 lines together, whatever other steps say meanwhile."""
    failing = [f"#6 0.{number} line {number}" for number in range(80)]
    others = [f"#7 0.{number} busy" for number in range(80)]
    ending = ["#6 ERROR: exit code: 3", "------", " > [layer-01 1/1] RUN x:", "------", "ERROR: exit code: 3"]
    _, output = said(*failing, *others, *ending)
    assert len(output.lines) == 50
    assert output.lines[-4:] == tuple(ending[1:])
    assert output.lines[:46] == (*failing[-45:], ending[0])


def test_a_step_that_was_stopped_has_not_failed() -> None:
    """Other steps end when one fails; they are not the cause."""
    _, output = said("#6 one", "#6 ERROR: context canceled", "#7 two", "#7 ERROR: exit code: 3", "ERROR: exit code: 3")
    assert output.lines == ("#7 two", "#7 ERROR: exit code: 3", "ERROR: exit code: 3")
    assert said("#6 one", "ERROR: no such builder")[1].lines == ("#6 one", "ERROR: no such builder")


def test_the_image_that_could_not_be_pulled() -> None:
    """It is named by the error, or by the step that failed; a step that runs something pulls nothing."""
    reason = "failed to resolve source metadata for docker.io/library/python:3.12-slim: 429 Too Many Requests"
    assert pulled_image(reason) == "docker.io/library/python:3.12-slim"
    assert pulled_host(reason) == "docker.io"
    steps = [
        "#2 [internal] load metadata for docker.io/library/python:3.12-slim",
        "#2 DONE 0.4s",
        f"#5 [tools 1/3] FROM r.example/base@{DIGEST}",
        "#5 ERROR: failed to copy: httpReadSeeker: failed open: 429 Too Many Requests",
        "ERROR: failed to solve: 429 Too Many Requests",
    ]
    assert pulled_image("failed to solve: 429 Too Many Requests", steps) == f"r.example/base@{DIGEST}"
    assert pulled_image("exit code: 3", [*steps[:2], "#6 [layer-01 1/1] RUN x", "#6 ERROR: exit code: 3"]) is None
    assert pulled_image("it stopped", steps[:3]) is None
