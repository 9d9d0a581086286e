"""Processes that raise integers to powers: how cores share the work where gmpy2 is missing.

Python's own `pow` holds the interpreter, so threads gain nothing by it. A helper is a bare interpreter that reads
numbers from its standard input, a key's factors among them, and writes powers; nothing is in its arguments or its
environment. It ends when its input closes, and so with this process, however that ends.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Sequence

_PROGRAM = """
import sys
for line in sys.stdin:
    print(format(pow(*(int(number, 16) for number in line.split())), "x"), flush=True)
"""


class _Helper:
    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={},
            text=True,
            start_new_session=True,  # Ctrl-C is for whoever asked, who then closes the input
        )

    def power(self, base: int, exponent: int, modulus: int) -> int:
        """Raises `OSError` or `ValueError` when the helper is gone."""
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise OSError
        stdin.write(f"{base:x} {exponent:x} {modulus:x}\n")
        stdin.flush()
        return int(stdout.readline(), 16)

    def end(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        self._process.kill()
        self._process.wait()


_idle: list[_Helper] = []
# A fork's copies of the pipes lead to helpers of another process.
os.register_at_fork(after_in_child=_idle.clear)


def powers(bases: Sequence[int], exponent: int, modulus: int) -> list[int]:
    """base**exponent modulo `modulus` of each, by one helper: as many work at once as threads ask.

    A helper that dies costs time and nothing else: the rest is computed here.
    """
    found: list[int] = []
    helper: _Helper | None = None
    try:
        try:
            helper = _idle.pop()
        except IndexError:
            helper = _Helper()
        for base in bases:
            found.append(helper.power(base, exponent, modulus))
    except (OSError, ValueError):
        if helper is not None:
            helper.end()
        return found + [pow(base, exponent, modulus) for base in bases[len(found) :]]
    except BaseException:
        if helper is not None:
            helper.end()  # its answers would be to questions that nobody asks any more
        raise
    _idle.append(helper)
    return found
