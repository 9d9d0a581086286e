"""Every error securead raises on purpose, named by what the reader should do about it.

An error says what happened, where, the offending value and the remedy, and prints them in that order. Nothing
here is raised for a bug: a bug is a traceback. The command line turns a `SecureadError` into one message and
exit code 2.
"""

from __future__ import annotations


class SecureadError(Exception):
    """Base of the tree: a problem that the person at the keyboard can act upon."""

    def __init__(self, what: str, *, where: str = "", value: object = None, remedy: str = "") -> None:
        self.what, self.where, self.value, self.remedy = what, where, value, remedy
        self.confidential = True  # it may quote records or files: for their owner alone, unless somebody says otherwise
        super().__init__(what)

    def __str__(self) -> str:
        message = f"{self.where}: {self.what}" if self.where else self.what
        if self.value is not None:
            text = _shown(self.value)
            message += f" (got {text if len(text) <= 200 else text[:197] + '...'})"
        return f"{message}. {self.remedy}" if self.remedy else message


def _shown(value: object) -> str:
    try:
        return repr(value)
    except (RecursionError, ValueError):  # nested without end, or an integer of thousands of digits
        return f"a {type(value).__name__} too large to show"


class FixInputError(SecureadError, ValueError):
    """The data, a file or an argument is ill-formed: correct it and call again."""


class FixProgramError(SecureadError, ValueError):
    """The program cannot be carried as it is (overflow, precision, an operation an engine lacks): recompile it."""


class FixConfigurationError(SecureadError, ValueError):
    """A recipe, a schema or an option is wrong or contradicts another."""


class UseOtherKeyError(SecureadError):
    """The key does not belong to this message, model or role."""


class RegisterKeyError(SecureadError):
    """The service does not hold the owner's public key that it masks answers with: register it, then send again."""


class RejectMessageError(SecureadError, ValueError):
    """A message is truncated, foreign, replayed, too large or not a message at all: it was refused before any work."""


class PrivacyRefusedError(SecureadError):
    """Running this would exceed the declared privacy budget or a mechanism's conditions: nothing was released."""


class RetryLaterError(SecureadError):
    """A peer is unreachable or overloaded: nothing was lost, the same call may succeed later."""


class InstallExtraError(SecureadError, ImportError):
    """An optional dependency is missing: install the named extra."""
