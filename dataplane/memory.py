"""Memory of this process that is free, given back to the system."""

import ctypes
from contextlib import suppress

_libc = ctypes.CDLL(None)


def give_back() -> None:
    """Let the C library return what bursts of requests left behind (malloc_trim(3)).

    It keeps freed pages below the last one in use, for ever; a library without the call (musl)
    keeps nothing worth speaking of.
    """
    with suppress(AttributeError):
        _libc.malloc_trim(0)
