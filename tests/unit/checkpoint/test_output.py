from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from supermerge.checkpoint import OutputDirectory, output
from supermerge.errors import ResourceError
from supermerge.events import Event, subscribed


def write(path: Path, content: str, *, force: bool = False) -> None:
    with OutputDirectory(path, force=force) as out:
        (out.staging / "config.json").write_text(content)
        (out.staging / "heads" / "news").mkdir(parents=True)
        (out.staging / "heads" / "news" / "config.json").write_text(content)
        out.commit()


def whole(path: Path, content: str) -> bool:
    """Whether `path` holds exactly what `write` writes."""
    files = sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file())
    return files == ["config.json", "heads/news/config.json"] and all(
        (path / file).read_text() == content for file in files
    )


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_it_exists_only_after_commit(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "merged"
    with OutputDirectory(path) as out:
        (out.staging / "config.json").write_text("{}")
        assert out.staging.parent == path.parent
        assert out.staging.name.startswith(".")
        assert not path.exists()
        out.commit()
        assert path.exists()
    assert names(path.parent) == ["merged"]


def test_leaving_without_commit_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "today" / "merged"
    with OutputDirectory(path) as out:
        (out.staging / "config.json").write_text("{}")
    assert names(tmp_path) == []
    with pytest.raises(KeyboardInterrupt), OutputDirectory(path):
        raise KeyboardInterrupt
    assert names(tmp_path) == []


def test_an_existing_path_is_refused_before_any_work(tmp_path: Path) -> None:
    write(tmp_path / "merged", "old")
    with pytest.raises(ResourceError, match="merged: exists already") as caught, OutputDirectory(tmp_path / "merged"):
        pytest.fail("work began")
    assert "--force" in str(caught.value.hint)
    assert caught.value.exit_code == 5
    assert whole(tmp_path / "merged", "old")
    assert names(tmp_path) == ["merged"]


def test_force_replaces_everything(tmp_path: Path) -> None:
    write(tmp_path / "merged", "old")
    (tmp_path / "merged" / "stale.safetensors").write_text("of an older run")
    write(tmp_path / "merged", "new", force=True)
    assert whole(tmp_path / "merged", "new")
    assert names(tmp_path) == ["merged"]


def test_force_that_fails_keeps_the_old(tmp_path: Path) -> None:
    write(tmp_path / "merged", "old")
    with OutputDirectory(tmp_path / "merged", force=True) as out:
        (out.staging / "config.json").write_text("half")
    assert whole(tmp_path / "merged", "old")
    assert names(tmp_path) == ["merged"]


def test_force_deletes_only_models_and_results(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").write_text("years of work")
    with pytest.raises(ResourceError, match="holds neither a model nor results"):
        write(tmp_path / "thesis", "new", force=True)
    assert (tmp_path / "thesis" / "thesis.tex").read_text() == "years of work"
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match="is a file, not a directory"):
        write(tmp_path / "file", "new", force=True)
    (tmp_path / "empty").mkdir()
    write(tmp_path / "empty", "new", force=True)
    assert whole(tmp_path / "empty", "new")


@pytest.mark.parametrize("used", ["base", "base/nested", "link"])
def test_force_never_deletes_what_the_run_reads(tmp_path: Path, used: str) -> None:
    write(tmp_path / "base", "base")
    (tmp_path / "base" / "nested").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "base")
    with (
        pytest.raises(ResourceError, match=r"replacing it would delete .*, which this run reads"),
        OutputDirectory(tmp_path / "base", force=True, inputs=[tmp_path / used]),
    ):
        pytest.fail("work began")
    assert (tmp_path / "base" / "config.json").read_text() == "base"


def test_the_root_is_no_output() -> None:
    with pytest.raises(ResourceError, match="/: cannot be an output directory"):
        OutputDirectory("/", force=True)


def test_a_link_is_followed(tmp_path: Path) -> None:
    write(tmp_path / "real", "old")
    (tmp_path / "link").symlink_to("real")
    write(tmp_path / "link", "new", force=True)
    assert (tmp_path / "link").is_symlink()
    assert whole(tmp_path / "real", "new")


@pytest.mark.parametrize(
    ("mask", "files", "folders"), [(0o022, 0o644, 0o755), (0o077, 0o600, 0o700), (0, 0o666, 0o777)]
)
def test_modes_follow_the_umask_whoever_wrote_the_file(tmp_path: Path, mask: int, files: int, folders: int) -> None:
    previous = os.umask(mask)
    try:
        with OutputDirectory(tmp_path / "merged") as out:
            (out.staging / "heads").mkdir(mode=0o700)
            for name in ("config.json", "heads/model.safetensors"):
                (out.staging / name).write_text("")
                (out.staging / name).chmod(0o400)
            out.commit()
    finally:
        os.umask(previous)
    for place in (tmp_path / "merged", *(tmp_path / "merged").rglob("*")):
        assert stat.S_IMODE(place.stat().st_mode) == (folders if place.is_dir() else files)


@pytest.mark.parametrize("link", ["config.json", "heads"])
def test_links_are_not_committed(tmp_path: Path, link: str) -> None:
    with OutputDirectory(tmp_path / "m") as out:
        (out.staging / link).symlink_to(tmp_path)
        with pytest.raises(ResourceError, match="is neither a file nor a directory"):
            out.commit()
    assert names(tmp_path) == []


def test_nothing_is_not_committed(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="nothing was written into it"), OutputDirectory(tmp_path / "m") as out:
        out.commit()
    assert names(tmp_path) == []


def test_a_path_that_appears_meanwhile_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "merged"
    with OutputDirectory(path) as out:
        (out.staging / "config.json").write_text("new")
        path.mkdir()
        (path / "config.json").write_text("someone else's")
        with pytest.raises(ResourceError, match="exists already"):
            out.commit()
    assert (path / "config.json").read_text() == "someone else's"
    assert names(tmp_path) == ["merged"]


@pytest.mark.parametrize("place", ["file/merged", "x" * 300, "/proc/merged"])
def test_a_disk_that_refuses(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match="cannot be written"), OutputDirectory(tmp_path / place):
        pytest.fail("work began")
    assert names(tmp_path) == ["file"]


def test_a_rename_that_fails_puts_the_old_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "merged", "old")
    rename = os.rename

    def refuse_new(source: Path, target: Path) -> None:
        if source.name.endswith("-new"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        rename(source, target)

    monkeypatch.setattr(os, "rename", refuse_new)
    with pytest.raises(ResourceError, match="merged: cannot be written: Input/output error"):
        write(tmp_path / "merged", "new", force=True)
    assert whole(tmp_path / "merged", "old")
    assert names(tmp_path) == ["merged"]


def test_an_old_directory_that_cannot_be_deleted_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "merged", "old")
    events: list[Event] = []
    with subscribed(events.append), monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)
        write(tmp_path / "merged", "new", force=True)
    assert "could not be deleted" in events[0].fields["message"]
    write(tmp_path / "merged", "newer", force=True)
    assert whole(tmp_path / "merged", "newer")
    assert names(tmp_path) == ["merged"]


# Concurrent runs and kills


def test_of_two_runs_one_wins(tmp_path: Path) -> None:
    path = tmp_path / "merged"
    with OutputDirectory(path) as first:
        (first.staging / "config.json").write_text("first")
        for force in (False, True):
            with (
                pytest.raises(ResourceError, match="merged: another run is writing it"),
                OutputDirectory(tmp_path / "x" / ".." / "merged", force=force),
            ):
                pytest.fail("work began")
        first.commit()
    assert (path / "config.json").read_text() == "first"
    assert names(tmp_path) == ["merged"]


# Go round the init of the package: it imports torch, which takes seconds and is not needed here.
LIGHT = """
import sys, types
package = types.ModuleType("supermerge.checkpoint")
package.__path__ = [sys.argv.pop(1)]
sys.modules["supermerge.checkpoint"] = package
from supermerge.checkpoint.output import OutputDirectory
"""

RACER = """
from pathlib import Path
from supermerge.errors import ResourceError
path, name = sys.argv[1:]
for _ in range(20):
    try:
        with OutputDirectory(path, force=True) as out:
            (out.staging / "config.json").write_text(name)
            (out.staging / "other").write_text(name)
            out.commit()
    except ResourceError as error:
        assert "another run" in error.message, error
"""


def run_python(code: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", LIGHT + code, str(Path(output.__file__).parent), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_racing_processes_never_mix(tmp_path: Path) -> None:
    path = tmp_path / "merged"
    racers = [run_python(RACER, path, name) for name in ("a", "b")]
    for racer in racers:
        assert racer.communicate() == ("", "")
        assert racer.returncode == 0
    assert (path / "config.json").read_text() == (path / "other").read_text()
    assert names(tmp_path) == ["merged"]


KILLED = """
import os, signal, sys
from pathlib import Path
from supermerge.checkpoint.output import OutputDirectory
path, number = Path(sys.argv[1]), int(sys.argv[2])
watched = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod", "shutil.rmtree", "os.scandir"}
count = 0
def kill(event, arguments):
    global count
    if event in watched:
        count += 1
        if count == number:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(kill)
with OutputDirectory(path, force=True) as out:
    (out.staging / "config.json").write_text("new")
    (out.staging / "heads" / "news").mkdir(parents=True)
    (out.staging / "heads" / "news" / "config.json").write_text("new")
    out.commit()
print("finished")
"""

# The same in one process that forks a child per kill point: starting Python once per point would take minutes.
KILL_EVERYWHERE = """
import os, shutil, sys
from pathlib import Path
code, root = sys.argv[1], Path(sys.argv[2])
for number in range(1, 1000):
    shutil.copytree(root / "before", root / str(number))
    child = os.fork()
    if child == 0:
        sys.argv = ["-c", str(root / str(number) / "merged"), str(number)]
        exec(compile(code, "killed", "exec"), {})
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status):
        print(number, status)
        break
"""


def test_killed_at_every_step_nothing_is_lost_or_half_there(tmp_path: Path) -> None:
    write(tmp_path / "before" / "merged", "old")
    out, err = run_python(KILL_EVERYWHERE, KILLED, tmp_path).communicate()
    assert err == ""
    finished, status = map(int, out.split()[-2:])
    assert status == 0
    assert finished > 20
    seen: set[str] = set()
    for number in range(1, finished + 1):
        path = tmp_path / str(number) / "merged"
        if path.exists():
            seen.add("old" if whole(path, "old") else "new" if whole(path, "new") else "half")
        else:
            seen.add("aside")
        with pytest.raises(ResourceError, match="exists already"), OutputDirectory(path):
            pytest.fail("work began")
        assert whole(path, "old") or whole(path, "new"), f"killed at step {number}"
        assert names(path.parent) == ["merged"], f"killed at step {number}"
    assert seen == {"old", "aside", "new"}
