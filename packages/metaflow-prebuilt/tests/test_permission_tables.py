"""The permission tables of Batch and Step Functions, against what Metaflow calls."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

_CALL = re.compile(r'_client\.(?:get_paginator\(\s*"(\w+)"|(\w+)\()')
_OF_CLIENTS = {"get_paginator", "close"}


def calls(module: str) -> set[str]:
    """Return the calls of AWS that a module of Metaflow's makes by its client, as actions: ``SubmitJob``."""
    spec = find_spec(f"metaflow.plugins.aws.{module}")
    assert spec is not None
    assert spec.origin is not None
    found = {paged or plain for paged, plain in _CALL.findall(Path(spec.origin).read_text(encoding="utf-8"))}
    return {"".join(part.capitalize() for part in name.split("_")) for name in found - _OF_CLIENTS}


@pytest.mark.parametrize(
    ("module", "service", "page"),
    [
        ("batch.batch_client", "batch", "batch"),
        ("step_functions.step_functions_client", "states", "step-functions"),
        ("step_functions.event_bridge_client", "events", "step-functions"),
        ("step_functions.dynamo_db_client", "dynamodb", "step-functions"),
    ],
)
def test_each_call_of_metaflow_is_in_the_tables(module: str, service: str, page: str) -> None:
    """Whoever sets up roles by the page finds every action that the installed Metaflow asks for."""
    docs = next(parent / "docs/how-to" for parent in Path(__file__).parents if (parent / "docs").is_dir())
    text = (docs / f"{page}.md").read_text(encoding="utf-8")
    called = calls(module)
    assert called
    assert {action for action in called if f"`{service}:{action}`" not in text} == set()
