"""How much memory a process and all its children hold at most."""

from __future__ import annotations

import threading
from pathlib import Path

_SAMPLE_S = 0.05


class PeakMemory:
    """Samples the proportional set size of a process tree: pages that two processes share are counted once.

    Source: proc_pid_smaps(5), smaps_rollup
    """

    def __init__(self, pid: int) -> None:
        """Begin sampling."""
        self._pid = pid
        self._stop = threading.Event()
        self.peak_bytes = 0
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def stop(self) -> int:
        """Stop sampling and return the peak in bytes."""
        self._stop.set()
        self._thread.join()
        return self.peak_bytes

    def _sample(self) -> None:
        while not self._stop.wait(_SAMPLE_S):
            self.peak_bytes = max(self.peak_bytes, sum(_pss_bytes(pid) for pid in _tree(self._pid)))


def _tree(root: int) -> list[int]:
    pids = [root]
    for pid in pids:
        try:
            for task in Path(f"/proc/{pid}/task").iterdir():
                pids += map(int, (task / "children").read_text(encoding="ascii").split())
        except OSError:  # it has ended since
            continue
    return pids


def _pss_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    except OSError:  # it has ended since
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
