"""What a failed decoder says: that the file is damaged, that memory ran out, or that the disk cannot be read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from twinrun.study.errors import DamagedError, OutOfMemoryError, TwinrunError
from twinrun.study.files import explain_os_error

# Pillow, zlib and pydicom put a MemoryError into words: "Error -4" is zlib's, the empty reason pydicom's.
_MEMORY = re.compile(
    r"out of memory|unable to allocate|cannot allocate|MemoryError|Error -4 while|plugins:\s+\w+: *$", re.IGNORECASE
)
_ADDRESS = re.compile(r"0x[0-9a-f]{6,}")
DAMAGED = "it is damaged or cut short"


@contextmanager
def named_damage(where: str, what: str, hint: str, reason: str = DAMAGED) -> Iterator[None]:
    """Name what a decoder raises in the block: DamagedError of `where` for whatever the file causes.

    Its message tells what the decoder said; `reason`, which is compared, is the same with every version of a decoder.
    Want of memory becomes OutOfMemoryError and an error of the disk ResourceError: neither says anything of the file.
    """
    try:
        yield
    except TwinrunError:
        raise
    except Exception as error:
        if isinstance(error, MemoryError) or _MEMORY.search(str(error)):
            raise out_of_memory(where) from error
        if isinstance(error, OSError) and error.errno:
            raise explain_os_error(error, where) from error
        said = " ".join(str(error).split())
        shown = said if said and not _ADDRESS.search(said) else reason
        raise DamagedError(f"{where} {what}: {shown}", hint, reason) from error


def out_of_memory(where: str) -> OutOfMemoryError:
    """The error for a file that needs more memory than there is."""
    hint = "give more memory, or end what else runs; the same command goes on where it was"
    return OutOfMemoryError(f"{where}: memory ran out while it was read", hint)
