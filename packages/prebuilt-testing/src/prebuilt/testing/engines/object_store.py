"""An S3 to keep flows in: moto, as a process of its own."""

from __future__ import annotations

import contextlib
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from prebuilt.testing.engines.process import free_port, running

_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectStore:
    """A store that answers.

    Attributes:
        url: Of its API: buckets are in the path.
        keys: Variables with credentials that it takes.
    """

    url: str
    keys: Mapping[str, str] = field(
        default_factory=lambda: {
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
    )

    @property
    def metaflow_environ(self) -> dict[str, str]:
        """Variables that have Metaflow keep flows in it, in the bucket ``flows``."""
        return {
            **self.keys,
            "METAFLOW_DATASTORE_SYSROOT_S3": "s3://flows/metaflow",
            "METAFLOW_DEFAULT_DATASTORE": "s3",
            "METAFLOW_S3_ENDPOINT_URL": self.url,
        }

    def make_bucket(self, name: str) -> None:
        """Make a bucket; moto takes such a request unsigned."""
        urllib.request.urlopen(urllib.request.Request(f"{self.url}/{name}", method="PUT")).close()  # noqa: S310 - the test's own server


@contextlib.contextmanager
def object_store(folder: Path, *, address: str = "127.0.0.1") -> Iterator[ObjectStore]:
    """Give a store at `address` with one bucket, ``flows``; its log is in `folder`.

    Raises:
        EngineError: It does not start: ``moto[server]`` is not installed.
    """
    store = ObjectStore(url=f"http://{address}:{free_port()}")
    port = store.url.rpartition(":")[2]
    command = [sys.executable, "-m", "moto.server", "-H", address, "-p", port]

    def answers() -> bool:
        try:
            urllib.request.urlopen(f"{store.url}/moto-api/", timeout=1).close()  # noqa: S310 - as above
        except OSError:
            return False
        return True

    folder.mkdir(parents=True, exist_ok=True)
    with running(command, log=folder / "moto.log", ready=answers, timeout_s=_TIMEOUT_S):
        store.make_bucket("flows")
        yield store
