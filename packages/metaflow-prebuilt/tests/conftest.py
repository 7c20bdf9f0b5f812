"""Flows as Metaflow's launch process has them, and the command line of flow files."""

from __future__ import annotations

import copy
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from metaflow import decorators

from metaflow_extensions.prebuilt.plugins.conda.environment import PrebuiltCondaEnvironment
from prebuilt.testing.user_settings import forget_user_settings

FLOWS = Path(__file__).parent / "flows"


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what users have configured out of the tests, and what tests leave out of the users' folders."""
    forget_user_settings(monkeypatch)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("METAFLOW_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("METAFLOW_USER", "tester")
    monkeypatch.setenv("METAFLOW_PREBUILT_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> Callable[[type], Any]:
    """Return a function that makes a flow; its decorators, which belong to the class, are as they were written."""

    def make(flow_class: type) -> Any:
        flow = flow_class(use_cli=False)
        for step in flow:
            written = [deco for deco in step.decorators if deco.statically_defined]
            monkeypatch.setattr(step, "decorators", [_copied(deco) for deco in written])
        return flow

    return make


def _announce(flow: Any, environment: PrebuiltCondaEnvironment) -> None:
    """Tell newer releases of Metaflow what their command line tells them."""
    if importlib.util.find_spec("metaflow.system_context"):
        from metaflow.system_context import system_context

        system_context._update(flow=flow, graph=flow._graph, environment=environment)


def _copied(deco: Any) -> Any:
    attributes = {name: copy.deepcopy(deco.attributes[name]) for name in deco._user_defined_attributes}
    return type(deco)(attributes=attributes, statically_defined=True)


@pytest.fixture
def prepared(fresh: Callable[[type], Any]) -> Callable[..., tuple[Any, PrebuiltCondaEnvironment]]:
    """Return a function that brings a flow to where Metaflow calls ``init_environment``."""

    def prepare(flow_class: type, *specs: str) -> tuple[Any, PrebuiltCondaEnvironment]:
        flow = fresh(flow_class)
        environment = PrebuiltCondaEnvironment(flow)
        environment.validate_environment(print, "local")
        datastore = SimpleNamespace(TYPE="local")
        _announce(flow, environment)
        flow_hooks = (flow, flow._graph, environment, datastore, None, print, print)
        decorators._init_flow_decorators(*flow_hooks, {})
        if specs:
            decorators._attach_decorators(flow, list(specs))
            flow.__class__._init_graph()
        for deco in (deco for step in flow for deco in step.decorators):
            deco.external_init()  # older releases have their command line do it
        decorators._init_step_decorators(flow, flow._graph, environment, datastore, print)
        return flow, environment

    return prepare


@dataclass(frozen=True)
class Outcome:
    """What a command printed, both streams together, and how it ended."""

    text: str
    code: int


@pytest.fixture
def run_flow(tmp_path: Path) -> Callable[..., Outcome]:
    """Return a function that runs a flow file of ``flows/`` with arguments, in an empty folder."""

    def run(name: str, *arguments: str, **variables: str) -> Outcome:
        done = subprocess.run(
            [sys.executable, FLOWS / f"{name}.py", *arguments],
            cwd=tmp_path,
            env=os.environ | {"METAFLOW_DATASTORE_SYSROOT_LOCAL": str(tmp_path)} | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )
        return Outcome(done.stdout, done.returncode)

    return run
