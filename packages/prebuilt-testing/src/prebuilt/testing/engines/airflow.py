"""A real Airflow in an environment of its own: it reads a DAG file, and runs the DAG, each task as a pod of a cluster."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prebuilt.testing.engines.cache import kept
from prebuilt.testing.engines.process import EngineError

VERSION = "2.11.2"
# The last ones with the module that Metaflow's DAG files import.
_PROVIDER = "apache-airflow-providers-cncf-kubernetes<10"
_NEWEST_PYTHON = (3, 12)
# For the Python that has Airflow: what to do, the DAG's file, where the answer goes, parameters.
_PROGRAM = """\
import json, pathlib, sys
from airflow.models import DagBag
from kubernetes.client import ApiClient

what, file, answer, parameters = sys.argv[1:]
bag = DagBag(file, include_examples=False)
if bag.import_errors:
    sys.exit("\\n".join(bag.import_errors.values()))
(dag,) = bag.dags.values()
if what == "pods":
    as_json = ApiClient().sanitize_for_serialization
    found = {task.task_id: as_json(task.build_pod_request_obj()) for task in dag.tasks}
else:
    found = dag.test(run_conf=json.loads(parameters)).state
pathlib.Path(answer).write_text(json.dumps(found), encoding="utf-8")
"""
_DATABASE = "airflow.db"
_TIMEOUT_S = 1200.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AirflowRun:
    """A run of a DAG that has ended: its state, and what Airflow and the pods printed."""

    state: str
    log: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Airflow:
    """An Airflow with one DAG file and a database of its own. There is no server, and nothing to stop.

    Attributes:
        python: The interpreter that has it.
        dag: The file.
        home: Its folder.
        sidecar: Image, with a shell, of the container beside each task that takes what the task hands on.
    """

    python: Path
    dag: Path
    home: Path
    sidecar: str

    def pods(self) -> dict[str, Any]:
        """Return the pod that Airflow makes of each task, by the task's name.

        Raises:
            EngineError: It cannot read the file.
        """
        pods, _ = self._do("pods", {})
        return dict(pods)

    def run(self, **parameters: object) -> AirflowRun:
        """Run the DAG to its end.

        Raises:
            EngineError: It cannot read the file, or does not end.
        """
        state, log = self._do("run", parameters)
        return AirflowRun(state=state, log=log)

    def _do(self, what: str, parameters: Mapping[str, object]) -> tuple[Any, str]:
        answer = self.home / "answer.json"
        command: list[str | Path] = [self.python, "-I", "-c", _PROGRAM, what, self.dag, answer, json.dumps(parameters)]
        log = _ended(command, self._environ, f"have Airflow {VERSION} do {what} for {self.dag}")
        return json.loads(answer.read_text(encoding="utf-8")), log

    @property
    def _environ(self) -> dict[str, str]:
        connection = {"conn_type": "kubernetes", "extra": {"xcom_sidecar_container_image": self.sidecar}}
        return {
            **_plain_environ(self.home),
            "AIRFLOW_CONN_KUBERNETES_DEFAULT": json.dumps(connection),
        }


def airflow_environment() -> Path:
    """Return the folder of a Python environment that has Airflow; it is installed from the package index the first time.

    Raises:
        EngineError: It cannot be installed.
    """
    if sys.version_info[:2] > _NEWEST_PYTHON:
        newest = ".".join(map(str, _NEWEST_PYTHON))
        raise EngineError("install Airflow", reason=f"release {VERSION} needs Python {newest} or older")
    return kept(f"airflow-{VERSION}-python{sys.version_info[0]}.{sys.version_info[1]}", _install)


def airflow(home: Path, *, dag: Path, sidecar: str) -> Airflow:
    """Return an Airflow that has run nothing.

    Raises:
        EngineError: It cannot be installed.
    """
    installed = airflow_environment()
    home.mkdir()
    shutil.copy(installed / _DATABASE, home)
    return Airflow(python=installed / "bin" / "python", dag=dag, home=home, sidecar=sidecar)


def _install(folder: Path) -> None:
    from uv import find_uv_bin

    uv, python = find_uv_bin(), folder / "bin" / "python"
    for command in (
        (uv, "venv", "--quiet", "--relocatable", "--allow-existing", f"--python={sys.executable}", folder),
        (uv, "pip", "install", "--quiet", f"--python={python}", f"apache-airflow=={VERSION}", _PROVIDER),
        (python, "-m", "airflow", "db", "migrate"),
    ):
        _ended(command, _plain_environ(folder), "install Airflow")


def _ended(command: Sequence[str | Path], environ: Mapping[str, str], tried: str) -> str:
    """Return what a command printed that has ended well."""
    try:
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        raise EngineError(tried, reason=f"it did not end in {_TIMEOUT_S:.0f} s: {error.stdout!r}") from error
    if done.returncode:
        raise EngineError(tried, reason=f"{done.stdout}{done.stderr}"[-4000:])
    return done.stdout + done.stderr


def _plain_environ(home: Path) -> dict[str, str]:
    """Return the variables of an Airflow that nobody has configured."""
    others = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW_", "PYTHON", "KUBE"))}
    return {
        **others,
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home / _DATABASE}",
    }
