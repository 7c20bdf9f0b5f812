"""The program of a build stage, once it is unpacked: installs its tools and makes the layers that are described beside it."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from prebuilt.core.errors import BuildError, FetchError, PrebuiltError
from prebuilt.lock.stage.layers import LayerFolders
from prebuilt.lock.stage.order import CERTIFICATES, ORDER, StageOrder
from prebuilt.lock.stage.tools import BUILD_IMAGE, StageFolder
from prebuilt.lock.stage.url_download import UrlDownloader

_writing = threading.Lock()


def run(folder: Path) -> int:
    """Make what is missing below `folder`; return the exit status. Lines on standard output say what is done."""
    try:
        _make_layers(folder)
    except PrebuiltError as error:
        sys.stderr.write(f"prebuilt: {error}\n")
        if isinstance(error, FetchError) and "SEND_PACKAGES" not in error.remedy:
            sys.stderr.write(f"prebuilt: {_HINT}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


_HINT = "where builds have no way to the package index, set METAFLOW_PREBUILT_SEND_PACKAGES=1 where you deploy"


def _make_layers(folder: Path) -> None:
    order = StageOrder.parse((folder / ORDER).read_bytes())
    certificates = folder / CERTIFICATES
    stage = StageFolder(path=folder, downloader=UrlDownloader(certificates if certificates.is_file() else None))
    sys.path.insert(1, str(stage.ensure_tools(order, _say)))
    with stage.files() as files:
        layers = LayerFolders(folder=folder, files=files, link_scripts=order.link_scripts, say=_say)
        missing = layers.missing()
        try:
            layers.make(missing)
        except ImportError as error:
            raise BuildError(
                "import the tools of a build stage",
                reason=str(error),
                remedy=f"set {BUILD_IMAGE} to an image with a newer C library",
            ) from error


def _say(line: str) -> None:
    """Write one line at once: whoever builds shows it as it comes."""
    with _writing:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
