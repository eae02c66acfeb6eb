"""Errors that a user can mend: one base class, one sentence of what and where, one of what to do."""

import re

# What would steer a terminal, and halves of letters, which cannot be printed: from names and files that are not ours.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def plain(text: str) -> str:
    """The text, with a question mark for each character that is no text."""
    return _UNPRINTABLE.sub("?", text)


def plural(count: int, noun: str) -> str:
    """`1 run`, `2 runs`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


class TwinrunError(Exception):
    """A mistake or fault with a name; the command line prints it without a traceback.

    `message` says what is wrong and where (run id, file, key, value); `hint` says what is allowed or what to do.
    """

    exit_code = 2

    def __init__(self, message: str, hint: str = "") -> None:
        self.message, self.hint = plain(message), plain(hint)
        super().__init__(self.message)

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


class InputError(TwinrunError):
    """Bad input: params, data, arguments, or a place that cannot be read or written."""


class DeviceError(InputError):
    """The device that is asked for is not there."""


class DamagedError(InputError):
    """One image of a data set that cannot be had; a task's `on_error: skip` leaves it out and goes on.

    `reason` is what a manifest notes: the same words on every machine, without paths.
    """

    def __init__(self, message: str, hint: str = "", reason: str = "") -> None:
        super().__init__(message, hint)
        self.reason = reason or message


class ResourceError(InputError):
    """No room, no memory, no permission: the data are not at fault, and what was finished is kept."""


class OutOfMemoryError(ResourceError):
    """A run did not fit into the memory of its device; fewer at a time may."""

    exit_code = 6


class IncompleteError(TwinrunError):
    """Something that should be there is not there yet, such as a run that has not been trained."""

    exit_code = 3


class MismatchError(TwinrunError):
    """Two things that must be equal differ: fingerprints, digests, records."""

    exit_code = 4


class BusyError(TwinrunError):
    """Another process holds the run."""

    exit_code = 5
