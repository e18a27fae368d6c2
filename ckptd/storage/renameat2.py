"""The two renames of Linux that Python does not offer: one never replaces, one swaps.

`renameat2(2)` is reached through the C library (glibc 2.28 and later). Where the library or the
file system has no such rename (NFS, some FUSE), files are renamed by link and unlink: these refuse
an existing name as well, but show both names for a moment.
"""

import ctypes
import errno
import os
from collections.abc import Callable
from typing import Final

_NOREPLACE: Final = 1
_EXCHANGE: Final = 2
_UNSUPPORTED: Final = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP})


def rename_without_replacing(directory: int, name: str, new_directory: int, new_name: str) -> None:
    """Rename between two directory descriptors; an existing new name raises FileExistsError."""
    try:
        _renameat2(directory, name, new_directory, new_name, _NOREPLACE)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        link_and_unlink(directory, name, new_directory, new_name)


def exchange(directory: int, name: str, other_directory: int, other: str) -> bool:
    """Swap two names at once; False where the file system cannot."""
    try:
        _renameat2(directory, name, other_directory, other, _EXCHANGE)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        return False
    return True


def link_and_unlink(directory: int, name: str, new_directory: int, new_name: str) -> None:
    """Rename a file in two steps; an existing new name raises FileExistsError."""
    os.link(name, new_name, src_dir_fd=directory, dst_dir_fd=new_directory, follow_symlinks=False)
    try:
        os.unlink(name, dir_fd=directory)
    except OSError:
        os.unlink(new_name, dir_fd=new_directory)
        raise


def _renameat2(directory: int, name: str, new_directory: int, new_name: str, flags: int) -> None:
    if _call is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), name)
    if _call(directory, os.fsencode(name), new_directory, os.fsencode(new_name), flags) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), name, None, new_name)


def _from_c_library() -> Callable[[int, bytes, int, bytes, int], int] | None:
    try:
        function = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:
        return None
    function.argtypes = (
        ctypes.c_int,
        ctypes.c_char_p,
        ctypes.c_int,
        ctypes.c_char_p,
        ctypes.c_uint,
    )
    function.restype = ctypes.c_int
    found: Callable[[int, bytes, int, bytes, int], int] = function
    return found


_call: Final = _from_c_library()
