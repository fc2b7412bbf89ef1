"""How the command starts: quickly, without torch, and with help for everything."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from supermerge import __version__

COMMANDS = ["run", "plan", "evaluate", "compare", "inspect", "methods", "verify", "demo"]


def test_help_is_quick() -> None:
    # The best of three: other processes share the caches of this machine.
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([Path(sys.executable).parent / "supermerge", "--help"], capture_output=True, text=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert (done.returncode, done.stderr) == (0, "")
        seconds.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    assert min(seconds) < 0.5


@pytest.mark.parametrize(("arguments", "code"), [(["--version"], 0), (["methods", "nope", "--json"], 3), (["pln"], 2)])
def test_a_process_says_all_and_ends_with_the_code(
    supermerge_command: Callable[..., object], arguments: list[str], code: int
) -> None:
    here = supermerge_command(*arguments)
    done = subprocess.run([sys.executable, "-m", "supermerge", *arguments], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (code, here.out)
    assert bool(done.stderr) == bool(here.err)


def test_what_is_registered_for_the_end_is_called() -> None:
    code = (
        "import atexit, sys\nfrom supermerge.cli import main\nsys.argv = ['supermerge', '--version']\n"
        "real = main.main\n"
        "main.main = lambda: (atexit.register(lambda: print('the end')), real())\nmain.program()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "the end")


def test_help_needs_no_torch() -> None:
    code = (
        "import sys\nfrom supermerge.cli.main import main\nsys.argv = ['supermerge', '--help']\n"
        "try:\n    main()\nexcept SystemExit:\n    print('torch' in sys.modules, 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False False"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(supermerge_command: Callable[..., object], command: str) -> None:
    done = supermerge_command(command, "--help")
    assert done.code == 0
    assert "--debug" in done.out


def test_version(supermerge_command: Callable[..., object]) -> None:
    assert supermerge_command("--version").out == f"supermerge {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pln"], "No such command 'pln'. Did you mean 'plan'"),
        (["plan"], "Missing argument 'RECIPE'"),
        (["plan", "r.yaml", "--jsn"], "No such option"),
        (["run", "r.yaml", "--log-format", "xml"], "'xml' is not one of"),
        (["compare", "r.yaml"], "Missing option '--methods'"),
    ],
)
def test_usage_errors(supermerge_command: Callable[..., object], arguments: list[str], message: str) -> None:
    done = supermerge_command(*arguments)
    assert (done.code, done.out) == (2, "")
    assert message in " ".join(done.err.replace("│", " ").split())
