"""Run by the Python that has Airflow: ``pods`` or ``run``, the DAG's file, where the answer goes, parameters."""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main(what: str, dag_file: str, answer_file: str, parameters: str) -> None:
    """Write the pod of each task, or the state in which a run of the DAG has ended, as JSON."""
    from airflow.models import DagBag
    from kubernetes.client import ApiClient

    bag = DagBag(dag_file, include_examples=False)
    if bag.import_errors:
        sys.exit("\n".join(bag.import_errors.values()))
    (dag,) = bag.dags.values()
    if what == "pods":
        as_json = ApiClient().sanitize_for_serialization
        answer = {task.task_id: as_json(task.build_pod_request_obj()) for task in dag.tasks}
    else:
        answer = dag.test(run_conf=json.loads(parameters)).state
    Path(answer_file).write_text(json.dumps(answer), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
