"""Faults, many times over: python tests/faults/harness.py KIND DIRECTORY COUNT SEED; DIRECTORY has the tiny example.

KIND is kills, full-disk or others. After every fault: nothing that was there before is lost, what has the output's name
is whole, and the same command then ends with the bytes of a run that nothing happened to. Prints one JSON document.
"""

from __future__ import annotations

import errno
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from forked import Ended, run, warm_up
from safetensors.torch import load_file, save_file

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
COMMANDS = {
    "learned": ("--set", "method.steps=12", "--set", "method.save_every=0.001"),
    "hierarchical": (
        "--set",
        "method.steps=6",
        "--set",
        "method.save_every=0.001",
        "--set",
        "method.hierarchy={group: 2}",
        "--set",
        "experts.third=experts/third",
    ),
    "data-free": ("--set", "method=ties", "--set", "tasks={}", "--set", "output.shard_size=30kB"),
}
WEIGHTS = ("*.safetensors", "heads/*/model.safetensors", "*.index.json")


class Broken(Exception):
    """A promise that was not kept."""


def require(kept: bool, what: object) -> None:
    if not kept:
        raise Broken(str(what))


def progress(what: str, done: int, count: int) -> None:
    """One line on stderr now and then."""
    if done % 10 == 0:
        sys.stderr.write(f"{what}: {done} of {count}, every promise kept so far\n")
        sys.stderr.flush()


def weights_in(directory: Path) -> dict[str, bytes]:
    return {str(p.relative_to(directory)): p.read_bytes() for glob in WEIGHTS for p in sorted(directory.glob(glob))}


def hidden(place: Path) -> list[str]:
    return sorted(path.name for path in place.iterdir() if path.name.startswith("."))


def make_third_expert(tiny: Path) -> None:
    """One more expert, further from the base than `topic` is, so that a tree has two levels."""
    base = load_file(tiny / "base" / "model.safetensors")
    shutil.copytree(tiny / "experts" / "topic", tiny / "experts" / "third")
    file = tiny / "experts" / "third" / "model.safetensors"
    moved = {
        name: tensor + 0.5 * (tensor - base[short]) if (short := name.removeprefix("bert.")) in base else tensor
        for name, tensor in load_file(file).items()
    }
    save_file(moved, file, metadata={"format": "pt"})


class Bench:
    """The tiny example, and what an undisturbed run of every command makes of it."""

    def __init__(self, tiny: Path, seed: int) -> None:
        self.tiny = tiny
        make_third_expert(tiny)
        self.draw = random.Random(seed)
        self.outcomes: Counter[str] = Counter()
        self.expected: dict[str, dict[str, bytes]] = {}
        self.seconds: dict[str, float] = {}
        self.steps: dict[str, int] = {}
        for name in COMMANDS:
            for _ in range(2):  # the second one is as quick as all that follow
                start = time.monotonic()
                done = self.command(name, tiny / f"whole-{name}", "--force")
                self.seconds[name] = time.monotonic() - start
            require(done.code == 0, done)
            self.steps[name] = done.steps
            self.expected[name] = weights_in(tiny / f"whole-{name}")

    def command(self, name: str, output: Path, *more: str, **faults: Any) -> Ended:
        arguments = ("run", "recipe.yaml", "-o", output, "--quiet", *COMMANDS[name], *more)
        return run(*arguments, cwd=self.tiny, **faults)

    def require_whole_or_absent(self, name: str, output: Path, older: dict[str, bytes] | None) -> str:
        """What has the output's name is the finished model, or what was there before."""
        if not output.exists():
            return "absent"
        found = weights_in(output)
        if found == self.expected[name]:
            require(run("verify", output, cwd=self.tiny).code == 0, f"{output} does not verify")
            return "new"
        require(older is not None and found == older, f"{output} is half written: {sorted(found)}")
        return "old"

    def finish(self, name: str, output: Path, *more: str) -> None:
        """The same command again ends with the same bytes, and leaves nothing else behind."""
        if not output.exists() or more:
            done = self.command(name, output, *more)
            require(done.code == 0, done)
        require(weights_in(output) == self.expected[name], f"{output}: other bytes after resuming")
        require(hidden(output.parent) == [], f"left behind: {hidden(output.parent)}")


def kills(bench: Bench, count: int) -> None:
    """Signals at random moments and at random steps, with and without an older output to replace."""
    for number in range(count):
        name = bench.draw.choice(list(COMMANDS))
        place = bench.tiny / f"kill-{number}"
        place.mkdir()
        output, sign = place / "merged", bench.draw.choice(SIGNALS)
        more, older = (), None
        if bench.draw.random() < 0.3:
            other = next(each for each in COMMANDS if each != name)
            shutil.copytree(bench.tiny / f"whole-{other}", output)
            more, older = ("--force",), bench.expected[other]
        if bench.draw.random() < 0.5:
            moment = bench.draw.uniform(0, bench.seconds[name])
            ended = bench.command(name, output, *more, kill_after=(moment, sign))
        else:
            step = bench.draw.randint(1, bench.steps[name])
            ended = bench.command(name, output, *more, at_step=(step, lambda sign=sign: os.kill(os.getpid(), sign)))
        right = {-signal.SIGKILL, 0} if sign == signal.SIGKILL else {130, 0, -sign}
        require(ended.code in right, f"{sign.name} gave {ended}")
        require("Traceback" not in ended.said, ended)
        state = bench.require_whole_or_absent(name, output, older)
        require(older is None or state != "absent" or hidden(place) != [], "the older output is gone")
        bench.outcomes[f"{sign.name} {name}: {state}{' of two' if older else ''}"] += 1
        # Killed after the output was in place, before the state was deleted: the next run that may replace it does.
        bench.finish(name, output, *(more if state != "new" else ("--force",) if hidden(place) else ()))
        shutil.rmtree(place)
        progress("kills", number + 1, count)


IS_ROOT = os.geteuid() == 0


@contextmanager
def small_disk(place: Path, size: int) -> Iterator[None]:
    """A file system of `size` bytes at `place`; a plain directory for whoever may not mount one."""
    place.mkdir()
    if IS_ROOT:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], check=True)
    try:
        yield
    finally:
        if IS_ROOT:
            subprocess.run(["umount", str(place)], check=True)
        shutil.rmtree(place)


def remount(place: Path, option: str) -> None:
    """Change the file system at `place`: its size, or to be read only."""
    if IS_ROOT:
        subprocess.run(["mount", "-o", f"remount,{option}", str(place)], check=True)
    elif option == "ro":
        place.chmod(0o555)


def unplanned() -> None:
    """The plan believes that there is room: somebody else fills the disk in the meantime."""
    vars(import_module("supermerge.plan.plan"))["free_disk_bytes"] = lambda path: 10**15


def full_disk(bench: Bench, count: int) -> None:
    """A disk too small for the output by a little or by a lot; without root, files may not become so large."""
    for number in range(count):
        name = list(COMMANDS)[number % len(COMMANDS)]
        whole = sum(p.stat().st_size for p in (bench.tiny / f"whole-{name}").rglob("*") if p.is_file())
        size = 4096 * max(2, round(whole * (number // 2 + 1) / (count // 2 + 1) / 4096))
        place = bench.tiny / "small"
        with small_disk(place, size):

            def tighten(size: int = size) -> None:
                unplanned()
                if not IS_ROOT:
                    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 4, size // 4))

            ended = bench.command(name, place / "merged", before=tighten)
            require(ended.code in (0, 5), ended)
            require("Traceback" not in ended.said and "bug" not in ended.said, ended)
            if ended.code == 5:
                require("No space left" in ended.said or (not IS_ROOT and "File too large" in ended.said), ended)
                require(not (place / "merged").exists(), "a full disk left an output")
                require(set(hidden(place)) <= {".merged.supermerge-state"}, hidden(place))
            bench.outcomes[f"{name}: {'fits' if ended.code == 0 else 'refused'}"] += 1
            remount(place, "size=64m")
            bench.finish(name, place / "merged")
        progress("full disks", number + 1, count)


def inject(name: str, error: Exception, at: int) -> Callable[[], None]:
    """Make the `at`-th call of os.NAME fail, in the child."""

    def prepare() -> None:
        original, calls = getattr(os, name), 0

        def failing(*arguments: object, **named: object) -> object:
            nonlocal calls
            calls += 1
            if calls == at:
                raise error
            return original(*arguments, **named)

        setattr(os, name, failing)

    return prepare


def little_memory(room: int) -> Callable[[], None]:
    """Let the child take no more than `room` bytes of addresses beyond those that it has."""

    def prepare() -> None:
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + room, taken + room))

    return prepare


def jumping_clock() -> None:
    """The wall clock goes back and forth by years."""
    real, draw = time.time, random.Random(1)
    time.time = lambda: real() + draw.choice((-1, 1)) * draw.random() * 1e8


def others(bench: Bench, count: int) -> None:
    """Errors of the disk, inputs that vanish or change, a read-only place, too little memory, a jumping clock."""
    mood = bench.tiny / "experts" / "mood" / "model.safetensors"
    original = mood.read_bytes()

    def vanish() -> None:
        mood.rename(mood.with_suffix(".gone"))

    def change() -> None:
        raw = bytearray(original)
        raw[-5] ^= 1
        mood.write_bytes(raw)

    def cut() -> None:
        os.truncate(mood, len(original) // 2)

    io_error = OSError(errno.EIO, os.strerror(errno.EIO))
    for number in range(count):
        name = list(COMMANDS)[number % len(COMMANDS)]
        step = bench.draw.randint(1, bench.steps[name])
        faults: dict[str, dict[str, Any]] = {
            "read error": {"before": inject("preadv", io_error, bench.draw.randint(1, 400))},
            "write error": {"before": inject("pwrite", io_error, bench.draw.randint(1, 60))},
            "sync error": {"before": inject("fsync", io_error, bench.draw.randint(1, 30))},
            "rename error": {"before": inject("rename", io_error, 1)},
            "input vanishes": {"at_step": (step, vanish)},
            "input changes": {"at_step": (step, change)},
            "input is cut": {"at_step": (step, cut)},
            "little memory": {"before": little_memory(bench.draw.randint(10**5, 10**7))},
            "jumping clock": {"before": jumping_clock},
        }
        for fault, how in faults.items():
            place = bench.tiny / "other"
            place.mkdir()
            ended = bench.command(name, place / "merged", **how)
            mood.with_suffix(".gone").unlink(missing_ok=True)
            mood.write_bytes(original)
            require("Traceback" not in ended.said and "bug" not in ended.said, f"{fault}: {ended}")
            # Where the C library itself gets no memory it kills the process: one kill more, under the same promises.
            killed = fault == "little memory" and ended.code == -signal.SIGABRT and "Fatal glibc error" in ended.said
            require(killed or ended.code in (0, 4, 5, 7), f"{fault}: {ended}")
            require((ended.code == 0) == (place / "merged").exists(), f"{fault}: {ended}, {list(place.iterdir())}")
            if ended.code == 0:
                bench.require_whole_or_absent(name, place / "merged", None)
            bench.outcomes[f"{fault}: {ended.code}"] += 1
            bench.finish(name, place / "merged")
            shutil.rmtree(place)
    with small_disk(bench.tiny / "read-only", 1 << 26):
        remount(bench.tiny / "read-only", "ro")
        ended = bench.command("learned", bench.tiny / "read-only" / "merged")
        require(ended.code == 5 and "cannot be written" in ended.said, ended)
        require(list((bench.tiny / "read-only").iterdir()) == [], "something was written")
        bench.outcomes["read-only output: 5"] += 1


KINDS = {"kills": kills, "full-disk": full_disk, "others": others}


def main() -> None:
    """Do what the command line says; a broken promise is an exit code of 1 and its description."""
    kind, directory, count, seed = sys.argv[1:5]
    warm_up(Path(directory))
    bench = Bench(Path(directory), int(seed))
    KINDS[kind](bench, int(count))
    sys.stdout.write(
        json.dumps({"kind": kind, "count": int(count), "outcomes": dict(sorted(bench.outcomes.items()))}) + "\n"
    )


if __name__ == "__main__":
    main()
