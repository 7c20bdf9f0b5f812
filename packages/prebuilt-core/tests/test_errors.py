"""Errors: their form, and that no secret gets into them."""

from __future__ import annotations

import pytest

from prebuilt.core.errors import (
    BakeError,
    BuildError,
    DigestMismatchError,
    PrebuiltError,
    RegistryError,
    redact,
    without_credentials,
)


def test_a_message_says_what_where_why_and_what_to_do() -> None:
    """The four parts come in one fixed form; empty ones leave no trace."""
    error = PrebuiltError("push a layer", at="reg.example/x", reason="it refused", remedy="log in")
    assert str(error) == "tried to push a layer at reg.example/x: it refused; log in"
    assert str(PrebuiltError("bake", reason="no")) == "tried to bake: no"


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("GET https://me:pw@reg.example/v2/", "GET https://reg.example/v2/"),
        ("GET https://me:p@ss@reg.example/v2/", "GET https://reg.example/v2/"),
        (
            "no answer (https://conda.example/t/tk-s3/team/noarch/a.zst)",
            "no answer (https://conda.example/t/***/team/noarch/a.zst)",
        ),
        ("https://s3/x?X-Amz-Signature=abc123&a=1", "https://s3/x?X-Amz-Signature=***&a=1"),
        ("https://s/x?sig=q%2Fw", "https://s/x?sig=***"),
        ("nothing secret", "nothing secret"),
    ],
)
def test_secrets_are_redacted_where_the_error_is_made(text: str, clean: str) -> None:
    """URL credentials and signatures are in no part of an error."""
    assert redact(text) == clean
    assert clean in str(RegistryError("ask", at=text, reason=text, status=500))


def test_credentials_are_taken_out_of_a_url_alone() -> None:
    """Host, port, path and query stay."""
    assert without_credentials("https://u:p@h:8/a?b=c") == "https://h:8/a?b=c"


def test_a_build_error_keeps_the_last_lines() -> None:
    """Fifty at most, oldest first."""
    error = BuildError("build", reason="exit 1", output=[f"line {n}" for n in range(60)])
    assert error.output[0] == "line 10"
    assert str(error).endswith("line 59")


def test_a_mismatch_names_both_digests() -> None:
    """Expected and actual are in the message and in fields."""
    error = DigestMismatchError("read", expected="sha256:a", actual="sha256:b")
    assert "expected sha256:a, got sha256:b" in str(error)


def test_a_bake_error_names_every_failure() -> None:
    """One failure reads as a line, several as a list."""
    one = BakeError({"train": PrebuiltError("resolve x", reason="unknown package")})
    assert str(one) == "tried to bake the image of train: tried to resolve x: unknown package"
    two = BakeError({"train": ValueError("a"), "score, test": ValueError("b")})
    assert "2 images" in str(two)
    assert "score, test: b" in str(two)


def test_images_that_fail_alike_are_named_together() -> None:
    """What is wrong with the machine is said once, however many images it is in the way of."""
    engine = {steps: PrebuiltError("reach Docker", reason="no such socket") for steps in ("train", "score, test")}
    assert (
        str(BakeError(engine))
        == "tried to bake the images of train, score, test: tried to reach Docker: no such socket"
    )
    mixed = str(BakeError({**engine, "end": ValueError("b")}))
    assert mixed.splitlines() == [
        "tried to bake 3 images: they failed",
        "  train, score, test: tried to reach Docker: no such socket",
        "  end: b",
    ]
