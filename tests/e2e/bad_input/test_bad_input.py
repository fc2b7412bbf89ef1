"""Bad input: the exit code of the contract, one clear message, no traceback, no output directory; as docs/bad-input.md.

SUPERMERGE_WRITE_DOCS=1 pytest -n 0 tests/e2e/bad_input writes that page anew.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import checkpoints
import commands
import examples
import generating
import growing
import measured
import recipes
from case import RUN, Case

import adapters
import supermerge
from supermerge.cli.main import main
from supermerge.events import subscribed
from supermerge.recipe import Recipe

PAGE = Path(__file__).parents[3] / "docs" / "bad-input.md"
SECTIONS = {
    "Recipes": recipes.CASES,
    "Checkpoints": checkpoints.CASES,
    "Adapters": adapters.CASES,
    "Examples": examples.CASES,
    "Models that generate": generating.CASES,
    "Statistics of experts": measured.CASES,
    "Commands, outputs and results": commands.CASES,
    "Hierarchies, adding and removing": growing.CASES,
}
CASES = [pytest.param(case, id=f"{section}: {case.name}") for section, cases in SECTIONS.items() for case in cases]
INTRODUCTION = """\
# Bad input, and what happens

Every row is a test (`tests/e2e/bad_input`): the command ends with this exit code and this message, prints no traceback,
and leaves no output directory. The page is written by the test, which fails where it is out of date. `…` stands for
what depends on the machine or is a long list.

Exit codes: 2 usage · 3 recipe · 4 checkpoint · 5 memory, disk or output · 6 data · 7 result refused.
"""
WARNED = """\
## Warned about, and done all the same

"""
ENVIRONMENT = {"TERM": "dumb", "COLUMNS": "300", "HF_HUB_OFFLINE": "1"}
HEADINGS = "| input | command | code | message |\n|---|---|---|---|\n"
# What depends on the machine and not on the input.
MACHINE = [
    (re.compile(r"needs about [\d.]+ [kMGT]?B"), "needs about …"),
    (re.compile(r"[\d.]+ [kMGT]?B are free"), "… are free"),
    (re.compile(r"(topic|mood|more) \([\d.e+]+\)"), r"\1 (…)"),
    (re.compile(r"(has|have|gram-) ?[0-9a-f]{16}"), r"\1 …"),
    (re.compile(r"curvature is -[\d.]+"), "curvature is -…"),
    (re.compile(r"adds [\d.e-]+ to"), "adds … to"),
    (re.compile(r"x{60,}"), "xxx…"),
    # And what grows with every new method.
    (re.compile(r"Methods: .*?\.(?= |<|$)"), "Methods: …."),
    (re.compile(r"lists its parameters: .*?\.(?= |<|$)"), "lists its parameters: …."),
]
LONGEST = 500


def row(case: Case, code: int, message: str) -> str:
    command = shlex.join(["supermerge", *(part for part in case.arguments if part != "--quiet")])
    command = command.encode("utf-8", "backslashreplace").decode()
    for pattern, shown in MACHINE:
        message, command = pattern.sub(shown, message), pattern.sub(shown, command)
    message = message.removeprefix("error: ")
    cells = [case.name, f"`{command}`", str(code), message if len(message) <= LONGEST else f"{message[:LONGEST]} …"]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def committed() -> list[str]:
    return [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ") and "`" in line]


@pytest.fixture(scope="session")
def seen() -> Iterator[dict[str, str]]:
    """Rows by case; written into the page at the end if that is asked for."""
    found: dict[str, str] = {}
    yield found
    if "SUPERMERGE_WRITE_DOCS" in os.environ:
        parts = [INTRODUCTION]
        for section, cases in SECTIONS.items():
            parts.append(f"## {section}\n\n{HEADINGS}" + "".join(f"{found[f'{section}: {c.name}']}\n" for c in cases))
        warned = "".join(f"- {found[f'warned: {name}']}\n" for name, *_ in measured.WARNED)
        PAGE.write_text("\n".join([*parts, WARNED + warned]), encoding="utf-8")


Done = tuple[int, str, str]


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """The command in this process: exit code, stdout, stderr. An exception that the command lets out fails the test."""

    def call(arguments: tuple[str, ...]) -> Done:
        monkeypatch.setattr(sys, "argv", ["supermerge", *arguments])
        monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main()
        captured = capsys.readouterr()
        return int(left.value.code or 0), captured.out, captured.err

    return call


def own_process(arguments: tuple[str, ...]) -> Done:
    """The command as a user runs it."""
    done = subprocess.run([sys.executable, "-m", "supermerge", *arguments], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("case", CASES)
def test_bad_input(
    case: Case,
    tiny: Path,
    here: Callable[..., Done],
    seen: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    case.spoil(tiny)
    before = snapshot(tiny)
    monkeypatch.chdir(tiny)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    code, out, err = own_process(case.arguments) if case.own_process else here(case.arguments)
    message = shown(err, tiny)
    said = message.replace("<br>", " ")
    assert code == case.code, said
    assert all(word in said for word in case.says), said
    assert "Traceback" not in out + err
    assert out == ""
    after = snapshot(tiny)
    # What was measured on the way stays: it is whole, and the next run needs it.
    new = {path for path in after - before if not path.startswith("merged.refused") and "/statistics" not in path}
    assert new <= {"merged.last-good.safetensors"}
    assert before <= after
    written = row(case, code, message)
    seen[request.node.callspec.id] = written
    if "SUPERMERGE_WRITE_DOCS" not in os.environ:
        assert written in committed(), "docs/bad-input.md is out of date: " + written


@pytest.mark.parametrize(
    ("name", "spoil", "method", "says"), [pytest.param(*case, id=case[0]) for case in measured.WARNED]
)
def test_warned(
    name: str,
    spoil: Callable[[Path], object],
    method: str,
    says: tuple[str, ...],
    tiny: Path,
    seen: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spoil(tiny)
    monkeypatch.chdir(tiny)
    said: list[str] = []
    with subscribed(lambda event: said.append(event.fields["message"]) if event.kind == "warning" else None):
        supermerge.run(Recipe.load(tiny / "recipe.yaml", [f"method={method}"]))
    message = next(each for each in said if all(word in each for word in says))
    for pattern, shown_as in MACHINE:
        message = pattern.sub(shown_as, message)
    seen[f"warned: {name}"] = written = f"{name}: {message}"
    if "SUPERMERGE_WRITE_DOCS" not in os.environ:
        assert f"- {written}" in PAGE.read_text(encoding="utf-8").splitlines(), "docs/bad-input.md is out of date"


def shown(err: str, tiny: Path) -> str:
    """The message without frames and without where the test happened to run, its lines joined as in a table's cell."""
    said = err[max(err.find("error: "), 0) :]  # progress may come before it
    text = re.sub("[│╭╮╰╯─]", " ", said).replace(f"{tiny}/", "").replace(str(tiny), ".")
    return "<br>".join(" ".join(line.split()) for line in text.splitlines() if line.strip())


OF_RUN = [case for case in CASES if case.values[0].arguments == RUN and case.values[0].code in (3, 4, 6)]
# What shows only while learning, or once the output is named.
ONLY_IN_RUN = ("no output named", *(case.name for case in measured.CASES))


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in OF_RUN if case.values[0].name not in ONLY_IN_RUN])
def test_doctor_finds_what_a_run_would(
    case: Case, tiny: Path, here: Callable[..., Done], monkeypatch: pytest.MonkeyPatch
) -> None:
    case.spoil(tiny)
    before = snapshot(tiny)
    monkeypatch.chdir(tiny)
    code, out, err = here(("doctor", "recipe.yaml", "--json"))
    document = json.loads(out)
    failed = [check for check in document["checks"] if check["status"] == "failed"]
    assert code == document["exit_code"] == case.code, failed
    said = " ".join(f"{check['found']} {check['hint'] or ''}" for check in failed)
    assert all(word in " ".join(said.split()) for word in case.says), said
    assert "Traceback" not in err
    assert snapshot(tiny) == before


def snapshot(directory: Path) -> set[str]:
    """Every path below, hidden ones included."""
    return {str(path.relative_to(directory)) for path in directory.rglob("*")}


def test_the_page_has_every_row_and_no_other() -> None:
    names = [case.name for cases in SECTIONS.values() for case in cases]
    assert [line.split(" | ")[0].removeprefix("| ") for line in committed()] == names
    assert len(names) >= 80
    assert not [line for line in committed() if line.split(" | ")[2] == "0"]
