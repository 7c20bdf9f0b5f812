"""``python -m prebuilt.testing.engines.aws_server``: Amazon's cloud in one process. :mod:`prebuilt.testing.engines.aws` starts it.

moto plays the APIs, on an address that jobs reach and on loopback. A registry is behind ECR's host names, and opens for the passwords
that ECR's API hands out.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import signal
import ssl
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from prebuilt.testing.amazon_ecr import REGION, Passwords, ecr_of_moto, has_repository
from prebuilt.testing.ecr_front import ECRFront
from prebuilt.testing.engines.aws import COMPUTE_ENVIRONMENT
from prebuilt.testing.engines.aws_batch import complete_batch
from prebuilt.testing.engines.aws_step_functions import complete_step_functions

LOOPBACK = "127.0.0.1"


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--address", required=True, help="where jobs reach the APIs")
    parser.add_argument("--port", type=int, required=True, help="of the APIs, there and on loopback")
    parser.add_argument("--network", required=True, help="Docker's network of the jobs")
    parser.add_argument("--registry", required=True, help="host:port of the registry behind ECR's host names")
    parser.add_argument("--certificate", type=Path, required=True, help="of these names, with its key beside it")
    parser.add_argument("--door", type=int, required=True, help="port of loopback where these names are served")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, _stop)
    logging.basicConfig(level=logging.WARNING)  # moto says there why a container does not start
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # not each request
    with _front(asked.registry, asked.certificate, asked.door) as passwords:
        endpoint = f"http://{asked.address}:{asked.port}"
        os.environ.update({"MOTO_PORT": str(asked.port), "MOTO_DOCKER_NETWORK_NAME": asked.network})

        def log_in() -> Mapping[str, str]:
            password, _ = passwords.hand_out()
            return {"username": "AWS", "password": password}

        complete_batch(job_variables=_of_a_job(endpoint), log_in=log_in)
        complete_step_functions()
        _serve_apis([asked.address, LOOPBACK], asked.port)


def _of_a_job(endpoint: str) -> dict[str, str]:
    """Return what stands for the node of a job, its role, and the network's way to AWS; its log shows what its shells run."""
    return {
        "AWS_BATCH_CE_NAME": COMPUTE_ENVIRONMENT,
        "AWS_ACCESS_KEY_ID": "job",
        "AWS_SECRET_ACCESS_KEY": "job",
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ENDPOINT_URL": endpoint,
        "SHELLOPTS": "xtrace",  # each bash says what it starts, and those that it starts do
    }


@contextlib.contextmanager
def _front(registry: str, certificate: Path, port: int) -> Iterator[Passwords]:
    """Have the registry behind ECR's host names; give what opens it."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, certificate.with_suffix(".key"))
    passwords = Passwords(scheme="basic", refuses_with=403)
    front = ECRFront(registry=registry, passwords=passwords, has_repository=has_repository)
    with ecr_of_moto(passwords), front.serving(tls, port):
        yield passwords


def _serve_apis(addresses: list[str], port: int) -> None:
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    application: Any = DomainDispatcherApplication(create_backend_app)
    application.debug = False
    first, *others = [make_server(address, port, application, threaded=True) for address in addresses]
    for other in others:
        threading.Thread(target=other.serve_forever, daemon=True).start()
    first.serve_forever()


def _stop(*_: object) -> NoReturn:
    raise SystemExit(0)


if __name__ == "__main__":
    main()
