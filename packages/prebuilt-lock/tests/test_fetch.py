"""Package files: downloaded, resumed, verified, refused."""

from __future__ import annotations

import base64
import errno
import hashlib
import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from functools import partial
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from prebuilt.core.errors import CancelledError, DigestMismatchError, FetchError, SettingError, StorageError
from prebuilt.core.lock import CondaPackage, Wheel
from prebuilt.core.retry import Backoff
from prebuilt.core.settings import Settings
from prebuilt.lock import conda_download
from prebuilt.lock.download import Download
from prebuilt.lock.fetch import Downloader, PackageFiles
from prebuilt.lock.index_config import IndexConfig
from prebuilt.lock.stage.url_download import UrlDownloader
from prebuilt.lock.wheelhouse import WheelHouse
from prebuilt.testing.conda_channel import CondaChannel, serve_channel
from prebuilt.testing.python_index import make_wheel
from prebuilt.testing.served import serving_http
from prebuilt.testing.socks_proxy import socks_proxy

DATA = bytes(range(256)) * 20_000
NAME = "demo-1.0-py3-none-any.whl"
IMMEDIATELY = Backoff(attempts=3, base_s=0.0)

MakeFiles = Callable[..., PackageFiles]
Lock = Callable[..., CondaPackage]


@dataclass
class FlakyServer:
    """Serves DATA, badly at first: each fault is for one request."""

    url: str = ""
    faults: list[str] = field(default_factory=list)
    ranges: list[str | None] = field(default_factory=list)
    authorizations: list[str | None] = field(default_factory=list)
    retry_after: str = "0"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """Answer one request, well or badly."""
        fault = self.faults.pop(0) if self.faults else ""
        wanted = request.headers.get("Range")
        self.ranges.append(wanted)
        self.authorizations.append(request.headers.get("Authorization"))
        if fault.isdigit():
            request.send_response(int(fault))
            request.send_header("Retry-After", self.retry_after)
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and fault != "no ranges" else 0
        request.send_response(206 if start else 200)
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(DATA) - 1}/{len(DATA)}")
        body = b"x" * len(DATA) if fault == "other bytes" else DATA * 2 if fault == "longer" else DATA[start:]
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body[: len(DATA) // 2 - start] if fault == "cut" else body)
        request.close_connection = fault == "cut"


@pytest.fixture
def server() -> Iterator[FlakyServer]:
    """Give a server on loopback whose faults a test chooses."""
    flaky = FlakyServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            flaky.answer(self)

        def log_message(self, *_: object) -> None:
            pass

    with serving_http(Handler) as url:
        flaky.url = f"{url}/{NAME}"
        yield flaky


@pytest.fixture
def make_files(tmp_path: Path) -> Iterator[MakeFiles]:
    """Give a function that makes PackageFiles with an empty cache."""
    made: list[PackageFiles] = []

    def make(config: IndexConfig | None = None, downloader: Downloader | None = None, **settings: str) -> PackageFiles:
        environ = {f"METAFLOW_PREBUILT_{name}": value for name, value in settings.items()}
        files = PackageFiles(
            Settings(environ, {}),
            config or IndexConfig(),
            tmp_path / "cache",
            backoff=IMMEDIATELY,
            downloader=downloader,
        )
        made.append(files)
        return files

    yield make
    for files in made:
        files.close()


@pytest.fixture(params=["client", "standard library"])
def any_files(request: pytest.FixtureRequest, make_files: MakeFiles) -> MakeFiles:
    """Give what makes PackageFiles for each way to download: this machine's, and that of build stages."""
    return make_files if request.param == "client" else partial(make_files, downloader=UrlDownloader(None))


def _wheel(url: str, data: bytes = DATA) -> Wheel:
    return Wheel(
        name="demo",
        version="1.0",
        filename=NAME,
        url=url,
        sha256=hashlib.sha256(data).hexdigest(),
        size_bytes=len(data),
        role="user",
    )


def _left_behind(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_wheel_is_there_inside_the_context_and_gone_after(server: FlakyServer, any_files: MakeFiles, tmp_path: Path):
    """Its bytes are what was locked, progress adds up to its size, and the disk is given back."""
    came: list[int] = []
    with any_files().get(_wheel(server.url), advance=came.append) as path:
        assert path.read_bytes() == DATA
    assert sum(came) == len(DATA)
    assert _left_behind(tmp_path) == []


def test_a_wheel_comes_through_a_socks_proxy(
    server: FlakyServer, make_files: MakeFiles, monkeypatch: pytest.MonkeyPatch
):
    """ALL_PROXY may name one, as it may for pip and uv."""
    for name in ("NO_PROXY", "no_proxy", "HTTP_PROXY", "http_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with socks_proxy() as proxy:
        monkeypatch.setenv("ALL_PROXY", proxy.url)
        with make_files().get(_wheel(server.url)) as path:
            assert path.read_bytes() == DATA
        assert proxy.asked == [urlsplit(server.url).netloc]


def test_a_proxy_of_an_unknown_kind_is_named(
    server: FlakyServer, make_files: MakeFiles, monkeypatch: pytest.MonkeyPatch
):
    """Whether the environment or pip's configuration has it; its password is not shown."""
    proxy = "socks4://user:s3cr3t@proxy.example.org:1080"
    with (
        pytest.raises(SettingError, match=r"pip's proxy.*socks4.*socks5") as by_pip,
        make_files(IndexConfig(proxy=proxy)).get(_wheel(server.url)),
    ):
        pass
    monkeypatch.setenv("ALL_PROXY", proxy)
    with (
        pytest.raises(SettingError, match=r"ALL_PROXY.*socks4.*socks5") as by_environment,
        make_files().get(_wheel(server.url)),
    ):
        pass
    assert "s3cr3t" not in f"{by_pip.value}{by_environment.value}"


@pytest.mark.parametrize("fault", ["cut", "503", "429", "500"])
def test_a_passing_failure_is_tried_again(server: FlakyServer, any_files: MakeFiles, fault: str):
    """Two failures in a row are survived."""
    server.faults = [fault, fault]
    with any_files().get(_wheel(server.url)) as path:
        assert path.read_bytes() == DATA


def test_a_server_that_wants_hours_is_not_waited_for(server: FlakyServer, any_files: MakeFiles):
    """Also where it says until when; the message says how long it would be."""
    server.faults = ["429"]
    server.retry_after = format_datetime(datetime.now(timezone.utc) + timedelta(hours=6), usegmt=True)
    with (
        pytest.raises(FetchError, match=r"429.*left alone for 2\d{4} s; try again later"),
        any_files().get(_wheel(server.url)),
    ):
        pass
    assert len(server.ranges) == 1


def test_a_cut_download_is_resumed_where_it_stopped(server: FlakyServer, any_files: MakeFiles):
    """The second request asks for the missing half only."""
    server.faults = ["cut"]
    came: list[int] = []
    with any_files().get(_wheel(server.url), advance=came.append) as path:
        assert path.read_bytes() == DATA
    assert server.ranges == [None, f"bytes={len(DATA) // 2}-"]
    assert sum(came) == len(DATA)
    assert min(came) > 0


def test_a_server_that_cannot_resume_sends_all_again(server: FlakyServer, any_files: MakeFiles):
    """What came before is dropped, and progress goes back with it."""
    server.faults = ["cut", "no ranges"]
    came: list[int] = []
    with any_files().get(_wheel(server.url), advance=came.append) as path:
        assert path.read_bytes() == DATA
    assert sum(came) == len(DATA)


def test_a_failure_that_does_not_pass_is_told(server: FlakyServer, any_files: MakeFiles, tmp_path: Path):
    """After the last attempt the error names file, place, reason and how often it was tried."""
    server.faults = ["503"] * 9
    with pytest.raises(FetchError, match=rf"download {NAME} at http://127.*HTTP status 503 \(3 attempts\)"):
        any_files().get(_wheel(server.url)).__enter__()
    assert len(server.ranges) == 3
    assert _left_behind(tmp_path) == []


@pytest.mark.parametrize(
    ("status", "remedy"), [("404", "check the URL"), ("401", "credentials"), ("403", "credentials")]
)
def test_a_refusal_is_not_tried_again(server: FlakyServer, make_files: MakeFiles, status: str, remedy: str):
    """The answer would be the same; the error says what to do."""
    server.faults = [status]
    with pytest.raises(FetchError, match=f"HTTP status {status}.*{remedy}"):
        make_files().get(_wheel(server.url)).__enter__()
    assert len(server.ranges) == 1


@pytest.mark.parametrize("fault", ["other bytes", "longer"])
def test_a_file_that_is_not_what_was_locked_is_refused(
    server: FlakyServer, any_files: MakeFiles, tmp_path: Path, fault: str
):
    """Nobody gets to see it, and nothing of it stays."""
    server.faults = [fault]
    with pytest.raises(DigestMismatchError, match=f"download {NAME}.*expected .*METAFLOW_PREBUILT_REFRESH=1"):
        any_files(KEEP_DOWNLOADS="1").get(_wheel(server.url)).__enter__()
    assert _left_behind(tmp_path) == []


@pytest.mark.parametrize("status", ["401", "403", "404", "407"])
def test_a_build_stage_says_what_helps_there(server: FlakyServer, make_files: MakeFiles, status: str):
    """It has nobody's credentials: packages that want some have to be sent."""
    server.faults = [status]
    remedy = "check the URL" if status == "404" else "METAFLOW_PREBUILT_SEND_PACKAGES=1"
    with pytest.raises(FetchError, match=f"HTTP status {status}.*{remedy}"):
        make_files(downloader=UrlDownloader(None)).get(_wheel(server.url)).__enter__()
    assert len(server.ranges) == 1


def test_a_host_that_does_not_answer_is_told(any_files: MakeFiles):
    """Nobody listens on port 9."""
    with pytest.raises(FetchError, match="check the network and the proxy"):
        any_files().get(_wheel(f"http://127.0.0.1:9/{NAME}")).__enter__()


def test_credentials_of_the_index_are_shown_to_it(server: FlakyServer, make_files: MakeFiles):
    """A lock has none; those of the user's configuration are used."""
    config = IndexConfig(known=(server.url.replace("://", "://me:secret@").rpartition("/")[0] + "/simple",))
    with make_files(config).get(_wheel(server.url)):
        pass
    assert server.authorizations == ["Basic " + base64.b64encode(b"me:secret").decode()]


def test_downloads_are_kept_where_that_is_asked_for(server: FlakyServer, make_files: MakeFiles):
    """The second use asks nobody; a kept file that was damaged is downloaded again."""
    files = make_files(KEEP_DOWNLOADS="1")
    with files.get(_wheel(server.url)) as path:
        pass
    came: list[int] = []
    with files.get(_wheel(server.url), advance=came.append) as again:
        assert again == path
    assert len(server.ranges) == 1
    assert sum(came) == len(DATA)
    path.write_bytes(b"damaged")
    with files.get(_wheel(server.url)) as mended:
        assert mended.read_bytes() == DATA
    assert len(server.ranges) == 2


def test_a_wheel_that_was_built_here_is_used_where_it_lies(make_files: MakeFiles, tmp_path: Path):
    """It comes from the wheelhouse, and stays there."""
    wheel = WheelHouse(tmp_path / "cache" / "wheels").add(make_wheel(tmp_path, "demo", "1.0"))
    for _ in range(2):
        with make_files().get(wheel) as path:
            assert path.name == NAME


def test_a_wheel_that_is_nowhere_must_be_resolved_again(make_files: MakeFiles):
    """A lock may name a wheel that only another machine has: one that was too large to be kept beside it."""
    with pytest.raises(
        FetchError, match="nor kept beside the lock; resolve again here, with METAFLOW_PREBUILT_REFRESH=1"
    ):
        make_files().get(_wheel("")).__enter__()


def test_a_cancelled_download_stops_and_leaves_nothing(server: FlakyServer, make_files: MakeFiles, tmp_path: Path):
    """What `check` raises comes through as it is."""

    def check() -> None:
        raise CancelledError("go on", reason="other work failed")

    with pytest.raises(CancelledError):
        make_files().get(_wheel(server.url), check=check).__enter__()
    assert _left_behind(tmp_path) == []


def test_what_a_killed_process_left_is_swept_up(server: FlakyServer, make_files: MakeFiles, tmp_path: Path):
    """Old downloads go, those of a whole build among them; one that may be under way stays."""
    folder = tmp_path / "cache" / "downloads"
    folder.mkdir(parents=True)
    old, new, of_build = folder / "old", folder / "new", folder / "build-old"
    of_build.mkdir()
    for path in (old, new, of_build / "wheel"):
        path.write_bytes(b"half")
    for path in (old, of_build):
        os.utime(path, (time.time() - 90_000,) * 2)
    with make_files().get(_wheel(server.url)):
        assert not old.exists()
        assert not of_build.exists()
        assert new.exists()


def test_what_another_user_left_is_left_alone(
    server: FlakyServer, make_files: MakeFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """In a cache that is shared, what may not be removed does not keep anybody from downloading."""
    theirs = tmp_path / "cache" / "downloads" / "theirs"
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(b"half")
    os.utime(theirs, (time.time() - 90_000,) * 2)
    unlink = Path.unlink

    def refuse(path: Path, *, missing_ok: bool = False) -> None:
        if path == theirs:
            raise PermissionError(errno.EPERM, "Operation not permitted", str(path))
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", refuse)
    with make_files().get(_wheel(server.url)) as path:
        assert path.is_file()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_unwritable_cache_is_a_storage_error(server: FlakyServer, make_files: MakeFiles, tmp_path: Path):
    """The error names the setting that moves the cache."""
    (tmp_path / "cache").mkdir(mode=0o555)
    with pytest.raises(StorageError, match="METAFLOW_PREBUILT_CACHE_DIR"):
        make_files().get(_wheel(server.url)).__enter__()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has /dev/full")
def test_a_full_disk_is_a_storage_error_and_leaves_nothing(tmp_path: Path):
    """Also where the last bytes were still in memory, and closing the file fails once more."""
    with (
        pytest.raises(StorageError, match="No space left on device; free some space"),
        Download(
            _wheel("http://nowhere"), tmp_path / "downloads", advance=lambda _: None, check=lambda: None
        ) as download,
    ):
        with Path("/dev/full").open("wb") as full:
            os.dup2(full.fileno(), download._file.fileno())
        download.write(b"few enough to be held in memory")
        download.verify()
    assert list((tmp_path / "downloads").iterdir()) == []


def test_a_cache_that_is_no_folder_is_a_storage_error(server: FlakyServer, make_files: MakeFiles, tmp_path: Path):
    """Whatever is wrong with the disk, the error names the place."""
    (tmp_path / "cache").write_bytes(b"")
    with pytest.raises(StorageError, match="cache"):
        make_files().get(_wheel(server.url)).__enter__()


def test_a_conda_package_is_downloaded_and_verified(channel: CondaChannel, conda_package: Lock, make_files: MakeFiles):
    """Rattler brings the bytes, and they are compared with the lock."""
    came: list[int] = []
    with serve_channel(channel) as served:
        package = conda_package("linked", url=served.url)
        with make_files().get(package, advance=came.append) as path:
            assert path.read_bytes() == channel.package("linked").read_bytes()
        assert sum(came) == package.size_bytes
        with pytest.raises(DigestMismatchError):
            make_files().get(replace(package, sha256="0" * 64)).__enter__()


def test_a_conda_package_in_a_folder_is_used_where_it_lies(
    channel: CondaChannel, conda_package: Lock, make_files: MakeFiles
):
    """A channel may be a folder of this machine; its files are verified too, and not removed."""
    package = conda_package("linked")
    with make_files().get(package) as path:
        assert path == channel.package("linked")
    with pytest.raises(DigestMismatchError):
        make_files().get(replace(package, sha256="0" * 64)).__enter__()
    assert channel.package("linked").exists()


@pytest.mark.parametrize("is_cancelled", [True, False])
def test_a_channel_that_falls_silent_holds_nobody_up(
    conda_package: Lock, make_files: MakeFiles, monkeypatch: pytest.MonkeyPatch, *, is_cancelled: bool
):
    """A connection over which nothing comes is given up, at once where the work is to stop."""
    monkeypatch.setattr(conda_download, "_STANDSTILL_S", 0.3)

    def check() -> None:
        if is_cancelled and time.monotonic() - began_s > 0.1:
            raise CancelledError("go on", reason="other work failed")

    with socket.create_server(("127.0.0.1", 0)) as silent:
        began_s = time.monotonic()
        package = conda_package("linked", url=f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(CancelledError if is_cancelled else FetchError):
            make_files().get(package, check=check).__enter__()
    assert time.monotonic() - began_s < 20


@pytest.mark.parametrize(
    ("status", "message"), [(404, "check the channel"), (401, "RATTLER_AUTH_FILE"), (503, "3 attempts")]
)
def test_a_channel_that_refuses_is_told(
    channel: CondaChannel, conda_package: Lock, make_files: MakeFiles, status: int, message: str
):
    """The error names the package and what to do, as for wheels."""
    with serve_channel(channel) as served:
        package = conda_package("linked", url=served.url)
        served.failing_with = status
        with pytest.raises(FetchError, match=rf"download linked-1\.0-0\.conda.*{status}.*{message}"):
            make_files().get(package).__enter__()
