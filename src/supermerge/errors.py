"""What can go wrong, by kind: each kind carries the exit code of the command line and a hint for the user."""

from __future__ import annotations


class SupermergeError(Exception):
    """An error the user can act on.

    `message` says what was found, where (file, tensor, field) and what was expected; `hint` says what to do next.
    The command line prints both without a traceback and exits with `exit_code`.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class UsageError(SupermergeError):
    """The command line or a Python call was used wrongly."""

    exit_code = 2


class RecipeError(SupermergeError):
    """The recipe has an unknown key, a wrong value or a contradiction."""

    exit_code = 3


class CheckpointError(SupermergeError):
    """A checkpoint is missing, corrupt, or does not fit the others."""

    exit_code = 4


class ResourceError(SupermergeError):
    """Too little memory or disk, or the output directory cannot be used."""

    exit_code = 5


class DataError(SupermergeError):
    """A data file is missing, malformed, or does not fit its task."""

    exit_code = 6


class RefusedError(SupermergeError):
    """The result is not one to ship: it diverged, is worse than the base, or failed verification."""

    exit_code = 7


class NetworkError(SupermergeError):
    """A hub could not be reached."""

    exit_code = 8


class InterruptedRun(SupermergeError):
    """The run was interrupted and can be resumed by the same command."""

    exit_code = 130


class ToldElsewhere(SupermergeError):
    """The run ended because of an error in another of its processes, which tells it: here it has only its exit code."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def exit_code_of(error: BaseException) -> int:
    """The exit code of the command line for any error; a bug of ours where it is none that the user can act on."""
    if isinstance(error, SupermergeError):
        return error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return InterruptedRun.exit_code
    return ResourceError.exit_code if isinstance(error, OSError | MemoryError) else SupermergeError.exit_code
