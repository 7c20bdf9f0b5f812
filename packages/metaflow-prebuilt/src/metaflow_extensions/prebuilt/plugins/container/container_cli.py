"""``container step``: runs one task in a container on this machine. Metaflow starts it for each task of such a step."""

from __future__ import annotations

import os
import shlex
import sys
import time
from typing import Any

from metaflow import util
from metaflow._vendor import click
from metaflow.exception import METAFLOW_EXIT_DISALLOW_RETRY, MetaflowException
from metaflow.unbounded_foreach import UBF_CONTROL, UBF_TASK

_MAX_VARIABLE = 30 * 1024  # characters of --input-paths in one variable, as in `batch step`


@click.group()
def cli() -> None:
    """Hold the commands."""


@cli.group(help="Commands related to containers on this machine.")
def container() -> None:
    """Hold the commands."""


@container.command(
    help="Execute a single task in a container on this machine. This command calls the top-level step command inside the "
    "container with the given options. Typically you do not call this command directly; it is used internally by Metaflow."
)
@click.argument("step-name")
@click.argument("code-package-metadata")
@click.argument("code-package-sha")
@click.argument("code-package-url")
@click.option("--image", required=True, help="Image to run in.")
@click.option("--cpu", type=float, default=1.0, help="CPU limit.")
@click.option("--gpu", type=float, default=0.0, help="Number of GPUs.")
@click.option("--memory", type=float, default=4096.0, help="Memory limit in MB.")
@click.option("--run-time-limit", type=int, default=5 * 24 * 60 * 60, help="Run time limit in seconds.")
@click.option("--run-id", help="Passed to the top-level 'step'.")
@click.option("--task-id", help="Passed to the top-level 'step'.")
@click.option("--input-paths", help="Passed to the top-level 'step'.")
@click.option("--split-index", help="Passed to the top-level 'step'.")
@click.option("--clone-path", help="Passed to the top-level 'step'.")
@click.option("--clone-run-id", help="Passed to the top-level 'step'.")
@click.option("--tag", multiple=True, default=None, help="Passed to the top-level 'step'.")
@click.option("--namespace", default=None, help="Passed to the top-level 'step'.")
@click.option("--retry-count", type=int, default=0, help="Passed to the top-level 'step'.")
@click.option("--max-user-code-retries", default=0, help="Passed to the top-level 'step'.")
@click.option(
    "--ubf-context",
    default=None,
    type=click.Choice(["none", UBF_CONTROL, UBF_TASK]),
    help="Passed to the top-level 'step'.",
)
@click.option("--num-parallel", type=int, default=None, help="Passed to the top-level 'step'.")
@click.pass_context
def step(
    ctx: Any,
    *,
    step_name: str,
    code_package_metadata: str,
    code_package_sha: str,
    code_package_url: str,
    image: str,
    cpu: float,
    gpu: float,
    memory: float,
    run_time_limit: int,
    **step_options: Any,
) -> None:
    """Run the task and end with its exit code."""
    state = ctx.obj
    node = state.graph[step_name]
    input_variables = _input_variables(step_options.get("input_paths"))
    if input_variables:
        step_options["input_paths"] = "".join(f"${{{name}}}" for name in input_variables)
    flow_file = os.path.basename(sys.argv[0])  # noqa: PTH119
    top_params = dict(ctx.parent.parent.params)
    if state.flow_datastore.TYPE == "local":  # it is mounted where it is here, and the task starts in another folder
        code_package_url = os.path.abspath(code_package_url)  # noqa: PTH100
        top_params["datastore_root"] = os.path.abspath(state.flow_datastore.datastore_root)  # noqa: PTH100
    top_options = " ".join(util.dict_to_cli_options(top_params))
    options = " ".join(util.dict_to_cli_options(step_options))
    executable = state.environment.executable(step_name)
    _wait_before_retry(node, step_options["retry_count"], state.echo_always)

    from metaflow_extensions.prebuilt.deploy.container_task import TIMED_OUT, ContainerTask
    from metaflow_extensions.prebuilt.deploy.errors import may_pass

    task = ContainerTask(
        step_name=step_name,
        step_command=f"{executable} -u {shlex.quote(flow_file)} {top_options} step {step_name} {options}",
        image=image,
        cpus=cpu,
        gpus=int(gpu),
        memory_mb=int(memory),
        time_limit_s=run_time_limit,
        code_package_metadata=code_package_metadata,
        code_package_sha=code_package_sha,
        code_package_url=code_package_url,
        variables={
            "METAFLOW_FLOW_FILENAME": flow_file,
            "METAFLOW_RUN_ID": step_options["run_id"],
            **_parallel_variables(step_options["ubf_context"]),
            **_declared_variables(node),
            **input_variables,
        },
    )
    try:
        exit_code = task.run(state.environment, state.flow_datastore, state.metadata)
    except MetaflowException as error:
        # The container failed, not the task: another attempt would end the same way, unless a registry was in the way.
        state.echo_always(f"{error.headline}: {error.message}", no_bold=True)
        sys.exit(1 if may_pass(error) else METAFLOW_EXIT_DISALLOW_RETRY)
    if exit_code == TIMED_OUT:
        state.echo_always(f"The task did not stop at its time limit of {run_time_limit} s and was killed.")
    sys.exit(exit_code)


def _input_variables(input_paths: str | None) -> dict[str, str]:
    """Return input paths in pieces that fit into environment variables: those of a join over a foreach can be long."""
    pieces = range(0, len(input_paths or ""), _MAX_VARIABLE)
    return {
        f"METAFLOW_INPUT_PATHS_{number}": (input_paths or "")[start : start + _MAX_VARIABLE]
        for number, start in enumerate(pieces)
    }


def _declared_variables(node: Any) -> dict[str, str]:
    variables: dict[str, str] = {}
    for deco in node.decorators:
        if deco.name == "environment":
            variables.update({name: str(value) for name, value in deco.attributes["vars"].items()})
    return variables


def _parallel_variables(ubf_context: str | None) -> dict[str, str]:
    """Return what has the first task of a ``@parallel`` step start the others: in its own container, as it would on this machine."""
    return {"METAFLOW_RUNTIME_ENVIRONMENT": "local"} if ubf_context == UBF_CONTROL else {}


def _wait_before_retry(node: Any, retry_count: int, echo: Any) -> None:
    retry = next((deco for deco in node.decorators if deco.name == "retry"), None)
    if retry_count and retry:
        minutes = int(retry.attributes.get("minutes_between_retries", 1))
        echo(f"Sleeping {minutes} minutes before the next retry")
        time.sleep(minutes * 60)
