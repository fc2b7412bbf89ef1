"""Runs the command as `python -m supermerge` does, and notes what it opens for writing, connects to and starts.

    python observed.py LOG COMMAND…

Every line of LOG is an event and what it was about. Python tells (sys.addaudithook) what Python code does; libraries
in other languages it does not see, so the test also looks at every directory they could have written to.
"""

from __future__ import annotations

import os
import sys
from typing import Any

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGING = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod")
STARTING = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork")
CONNECTING = ("socket.connect", "socket.bind", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto")

log = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def path_of(value: Any, directory: str = "") -> str:
    return (
        os.path.abspath(os.path.join(directory, os.fsdecode(value))) if isinstance(value, (str, bytes)) else repr(value)
    )


def directory_of(event: str, arguments: tuple[Any, ...]) -> str:
    """What a name to remove is relative to, where that is not the working directory (shutil.rmtree)."""
    descriptor = arguments[-1] if event in ("os.remove", "os.rmdir") else -1
    return os.readlink(f"/proc/self/fd/{descriptor}") if descriptor != -1 else ""


def note(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open":
        path, mode, flags = arguments
        writes = (isinstance(flags, int) and flags & WRITING) or (isinstance(mode, str) and set(mode) & set("wxa+"))
        # A number is a file that is open already, and was noted when it was opened.
        if writes and not isinstance(path, int):
            os.write(log, f"write {path_of(path)}\n".encode())
    elif event in CHANGING:
        for argument in arguments[: 2 if event in ("os.rename", "os.link", "os.symlink") else 1]:
            os.write(log, f"write {path_of(argument, directory_of(event, arguments))}\n".encode())
    elif event in CONNECTING:
        os.write(log, f"connect {event} {arguments[1:]!r}\n".encode())
    elif event in STARTING:
        os.write(log, f"start {event} {arguments!r}\n".encode())
    elif event == "pickle.find_class" or (event == "import" and "evil" in str(arguments[0])):
        os.write(log, f"code {event} {arguments[:2]!r}\n".encode())


sys.addaudithook(note)
sys.argv = ["supermerge", *sys.argv[2:]]

from supermerge.cli.main import main  # noqa: E402

main()
