"""What moto's Step Functions lack for state machines that are Metaflow's: names, and the way to Batch and back."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_UNION = re.compile(r"\$\.?\[('[^']*'(?:\s*,\s*'[^']*')+)\]")
_KEPT = frozenset({"parameters", "tags"})
"""Maps whose keys are the user's own."""


def complete_step_functions() -> None:
    """Have this process's moto execute state machines. It calls Batch at ``localhost:$MOTO_PORT``."""
    from moto.core.config import default_user_config

    default_user_config["stepfunctions"]["execute_state_machine"] = True
    _refuse_names_that_are_taken()
    _name_executions()
    _read_unions()
    _spell_as_batch_does()


def _refuse_names_that_are_taken() -> None:
    """Refuse another state machine of the same name, upon which Metaflow updates it; moto would leave it as it was.

    Source: https://docs.aws.amazon.com/step-functions/latest/apireference/API_CreateStateMachine.html
    """
    from moto.stepfunctions.exceptions import AWSError
    from moto.stepfunctions.parser.models import StepFunctionsParserBackend as Backend

    refusal = type("StateMachineAlreadyExists", (AWSError,), {"TYPE": "StateMachineAlreadyExists", "STATUS": 400})
    theirs = Backend.create_state_machine

    def create_state_machine(backend: Any, **asked: Any) -> Any:  # noqa: ANN401 - moto has no types
        for machine in backend.state_machines:
            if machine.name == asked["name"] and machine.definition != asked["definition"]:
                raise refusal(f"State Machine Already Exists: '{machine.arn}'")
        return theirs(backend, **asked)

    Backend.create_state_machine = create_state_machine


def _name_executions() -> None:
    """Make up a name for an execution that was given none, as AWS does."""
    from moto.stepfunctions.parser.models import StepFunctionsParserBackend as Backend

    theirs = Backend.start_execution

    def start_execution(backend: Any, state_machine_arn: str, name: str | None = None, *rest: Any, **more: Any) -> Any:  # noqa: ANN401 - moto has no types
        return theirs(backend, state_machine_arn, name or str(uuid.uuid4()), *rest, **more)

    Backend.start_execution = start_execution


@dataclass(frozen=True)
class _Union:
    """The path ``$.['A','B']``: of an object, those of these members that it has."""

    names: tuple[str, ...]

    def find(self, data: Any) -> list[_Found]:  # noqa: ANN401 - any JSON
        return [_Found({name: data[name] for name in self.names if name in data})]


@dataclass(frozen=True)
class _Found:
    value: Any
    path: None = None
    context: None = None


def _read_unions() -> None:
    """Read the path of several members, with which Metaflow cuts down what Batch answers."""
    from moto.stepfunctions.parser.asl.utils import json_path

    theirs = json_path.parse

    def parse(path: str) -> Any:  # noqa: ANN401 - moto has no types
        union = _UNION.fullmatch(path)
        return _Union(tuple(re.findall(r"'([^']*)'", union[1]))) if union else theirs(path)

    json_path.parse = parse


def _spell_as_batch_does() -> None:
    """Say ``jobName`` to Batch where the state machine says ``JobName``, and the other way round with the answer."""
    from moto.stepfunctions.parser.asl.component.state.exec.state_task.service import state_task_service_batch as module

    service = module.StateTaskServiceBatch
    theirs = service._build_sync_resolver  # noqa: SLF001 - moto has no public place for it

    def submit(task: Any, env: Any, **context: Any) -> None:  # noqa: ANN401 - as above
        del task
        region, credentials = context["resource_runtime_part"].region, context["state_credentials"]
        batch = module.boto_client_for(region=region, service="batch", state_credentials=credentials)
        answer = batch.submit_job(**_respelled(context["normalised_parameters"], str.lower))
        del answer["ResponseMetadata"]
        env.stack.append(_respelled(answer, str.upper))

    def build_sync_resolver(task: Any, **context: Any) -> Callable[[], Any]:  # noqa: ANN401 - as above
        look = theirs(task, **context)
        return lambda: _respelled(look(), str.upper)

    service._eval_service_task = submit  # noqa: SLF001 - as above
    service._build_sync_resolver = build_sync_resolver  # noqa: SLF001 - as above


def _respelled(value: Any, spell: Callable[[str], str]) -> Any:  # noqa: ANN401 - any JSON
    """Return `value` with the first letter of each key changed by `spell`, in all depths but where keys are the user's own."""
    if isinstance(value, list):
        return [_respelled(each, spell) for each in value]
    if isinstance(value, dict):
        return {
            spell(key[:1]) + key[1:]: each if key.lower() in _KEPT else _respelled(each, spell)
            for key, each in value.items()
        }
    return value
