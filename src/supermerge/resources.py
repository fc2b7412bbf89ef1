"""What this machine has: memory of this process, memory that is free, disk that is free."""

from __future__ import annotations

import ctypes
import os
import resource
import shutil
import sys
from pathlib import Path

CONTROL_GROUP = Path("/sys/fs/cgroup")
_M_MMAP_THRESHOLD = -3  # of malloc.h
# What PyTorch, C++ and Python's threads say instead of MemoryError.
OUT_OF_MEMORY = ("can't allocate memory", "std::bad_alloc", "can't start new thread")
DEVICE_FULL = "CUDA out of memory"


def wants_memory(error: BaseException) -> bool:
    """Whether an error is about memory that could not be had."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in (*OUT_OF_MEMORY, DEVICE_FULL))


def resident_bytes() -> int:
    """Bytes of physical memory that this process holds now (its peak, where the system does not tell)."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except FileNotFoundError:
        return peak_bytes()
    return pages * os.sysconf("SC_PAGE_SIZE")


def peak_bytes() -> int:
    """The most bytes of physical memory that this process has held so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def available_bytes() -> int:
    """Bytes of memory that can still be taken without swapping; the control group's limit counts."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except FileNotFoundError:
        return total
    facts = {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines)}
    return min([facts.get("MemAvailable", total), *_group_room()])


def _group_room() -> list[int]:
    """What the control group may still take: its limit less what it holds, file cache not counted."""
    try:
        limit = (CONTROL_GROUP / "memory.max").read_text(encoding="ascii").strip()
        held = int((CONTROL_GROUP / "memory.current").read_text(encoding="ascii"))
        rows = [line.split() for line in (CONTROL_GROUP / "memory.stat").read_text(encoding="ascii").splitlines()]
    except OSError:
        return []
    cache = sum(int(value) for name, value in rows if name in ("active_file", "inactive_file"))
    return [] if limit == "max" else [int(limit) - held + cache]


def give_back_large_blocks() -> None:
    """Let the allocator hand every freed block of 256 KiB or more back to the system at once, from now on.

    glibc learns from the first large blocks that come and go to keep such memory, whose holes then are not filled:
    measured on weights of 1 MB that are read for every use, a quarter more than all that is alive. Elsewhere this does
    nothing.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(_M_MMAP_THRESHOLD, 1 << 18)


def free_disk_bytes(path: Path) -> int:
    """Bytes free for `path`, or for the nearest directory above it that exists."""
    return shutil.disk_usage(existing_directory(path)).free


def existing_directory(path: Path) -> Path:
    """`path` itself where it is a directory, or the nearest one above it."""
    path = Path(os.path.abspath(path))
    while not path.is_dir():
        path = path.parent
    return path
