"""The help of a command is its docstring."""

from __future__ import annotations

import inspect
from collections.abc import Callable

from rich.markup import escape


def helped(command: Callable[..., object]) -> str:
    """The docstring as help: paragraphs wrapped, and what follows a \\b kept line by line; never read as markup."""
    paragraphs = inspect.cleandoc(command.__doc__ or "").split("\n\n")
    return escape(
        "\n\n".join(p.removeprefix("\b\n") if p.startswith("\b") else p.replace("\n", " ") for p in paragraphs)
    )
