"""The floor: what several that run at once have to say is printed as if they ran one after another."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Floor:
    """Where whoever came first speaks, line by line. The others' lines are kept until it is their turn."""

    def __init__(self, speak: Callable[[str], None]) -> None:
        """Have lines go to `speak`."""
        self._speak = speak
        self._kept: dict[str, list[str]] = {}  # in the order of coming; the first has the floor
        self._gone: set[str] = set()
        self._lock = threading.Lock()

    def enter(self, name: str) -> None:
        """Get in line."""
        with self._lock:
            self._kept[name] = []

    def say(self, name: str, line: str) -> None:
        """Speak, now or when it is the turn of `name`."""
        with self._lock:
            if name == next(iter(self._kept)):
                self._speak(line)
            else:
                self._kept[name].append(line)

    def ask_round(self) -> None:
        """Have each of those who wait for their turn say where they are: their latest line."""
        with self._lock:
            for name, lines in list(self._kept.items())[1:]:
                if name not in self._gone and lines:
                    self._speak(f"---- {name}, meanwhile: {lines[-1]}")

    def leave(self, name: str, *last_words: str) -> None:
        """Say the last words, at once also out of turn, and make room for those who follow."""
        with self._lock:
            self._gone.add(name)
            if name != next(iter(self._kept)):
                for line in (*last_words, "(what it said follows in its turn)"):
                    self._speak(line)
            self._kept[name].extend(last_words)
            while self._kept and (first := next(iter(self._kept))) in self._gone:
                self._print(first)
                del self._kept[first]
            if self._kept:
                self._print(next(iter(self._kept)))

    def _print(self, name: str) -> None:
        for line in self._kept[name]:
            self._speak(line)
        self._kept[name].clear()
