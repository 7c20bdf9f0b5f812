"""Compiles Python source to the bytes of ``.pyc`` files, the same bytes each time. A program, run by the target's Python.

It speaks frames on its standard streams: a request is two lengths (4 bytes each, big-endian) and then path and source; the
answer is one length and then the file. An answer of no bytes means that the source does not compile. The first frame that it
sends says which Python this is. It imports nothing that is not built into the interpreter, because what has been imported
shows in the bytes that marshal writes:

* a string is written as *interned* if anybody has interned it, so all one-character strings are interned up front;
* an object is written as *shared* if anybody else holds it (for strings before Python 3.11), so every string is held here;
* whether two equal frozensets are one object depends on which strings were interned before, so each gets its own;
* a set's elements are written in the order of their hashes before Python 3.11: ``PYTHONHASHSEED=0`` comes from outside, and
  a set with an element whose hash is its address leaves its file uncompiled.

Source: cpython issues 78274 and 81777
"""

import _frozen_importlib_external
import _imp
import gc
import marshal
import posix
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType
    from typing import BinaryIO

_CODE: "type[CodeType]" = type(compile("", "", "exec"))
_SORTED_SETS = sys.version_info >= (3, 11)
_KEPT = [sys.intern(chr(code)) for code in range(256)]
_MAGIC = _frozen_importlib_external.MAGIC_NUMBER
_UNCHECKED_HASH = (1).to_bytes(4, "little")  # Source: PEP 552
_NOT_CODE = (SyntaxError, ValueError, OverflowError, RecursionError, MemoryError)


class _UnstableError(Exception):
    """The bytes would differ from one process to the next."""


def _separated(const: object) -> object:
    """Return `const` with each frozenset in it an object of its own."""
    if isinstance(const, _CODE):
        return _separated_code(const)
    if isinstance(const, tuple):
        items = tuple(map(_separated, const))
        return const if _same(items, const) else items
    if isinstance(const, frozenset):
        return frozenset(sorted(map(_stable, const), key=_order))
    return const


def _separated_code(code: "CodeType") -> "CodeType":
    consts = tuple(map(_separated, code.co_consts))
    return code if _same(consts, code.co_consts) else code.replace(co_consts=consts)


def _same(left: "tuple[object, ...]", right: "tuple[object, ...]") -> bool:
    return all(map(lambda a, b: a is b, left, right))


def _stable(item: object) -> object:
    if not _SORTED_SETS and any(part is None or part is ... for part in (item if isinstance(item, tuple) else (item,))):
        raise _UnstableError
    return item


def _order(item: object) -> "tuple[str, str]":
    return type(item).__name__, repr(item)


def _strings(const: object) -> "list[str]":
    """Return every string that `const` leads to."""
    if isinstance(const, str):
        return [const]
    if isinstance(const, (tuple, frozenset)):
        return [string for item in const for string in _strings(item)]
    if not isinstance(const, _CODE):
        return []
    names = (*const.co_names, *const.co_varnames, *const.co_freevars, *const.co_cellvars, const.co_name)
    return [*names, *_strings(const.co_consts)]


def _pyc(source: bytes, path: str) -> bytes:
    try:
        code = _separated_code(compile(source, path, "exec", dont_inherit=True, optimize=0))
    except (*_NOT_CODE, _UnstableError):
        return b""
    held = [] if _SORTED_SETS else _strings(code)
    source_hash = _imp.source_hash(int.from_bytes(_MAGIC, "little"), source)
    pyc = b"".join([_MAGIC, _UNCHECKED_HASH, source_hash, marshal.dumps(code)])
    del held
    return pyc


def _greeting() -> bytes:
    info, implementation = sys.version_info, sys.implementation.name
    return f"{implementation} {info[0]}.{info[1]} {info.releaselevel} {getattr(sys, 'abiflags', '')}".encode()


def _send(data: bytes, stream: "BinaryIO") -> None:
    stream.write(len(data).to_bytes(4, "big") + data)
    stream.flush()


def main() -> None:
    """Answer requests until there are no more.

    Politely: the largest layer, which has hardly any source, is what a bake waits for at its end.
    """
    posix.nice(5)
    gc.disable()  # nothing here is in a cycle; looking for some takes 3 % of the time
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    sys.setrecursionlimit(5000)
    _send(_greeting(), answers)
    while header := requests.read(8):
        path = requests.read(int.from_bytes(header[:4], "big")).decode()
        _send(_pyc(requests.read(int.from_bytes(header[4:], "big")), path), answers)


if __name__ == "__main__":
    main()
