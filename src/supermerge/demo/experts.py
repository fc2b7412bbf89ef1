"""Train the experts that are missing, side by side: one process with one thread each."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import connection, get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

from supermerge.demo.pupils import Pupil
from supermerge.demo.train import Training, fit
from supermerge.errors import ResourceError
from supermerge.events import emit, phase

_PHASE = "train experts"


@dataclass(frozen=True, slots=True)
class Job:
    """One expert to train, or several that share a backbone, and the directory that what they are goes to.

    `pupils` makes them, in the process that trains them; several are saved into directories of their own, under the
    names that they have there. `examples` is how many they learn from in all.
    """

    name: str
    pupils: Callable[[], Pupil | Mapping[str, Pupil]]
    examples: int
    training: Training
    directory: Path


def train_missing(jobs: Sequence[Job]) -> None:
    """Train every job whose directory does not exist yet, as many at a time as there are cores.

    One thread per expert makes the result independent of how many run at once. A directory appears only when its
    expert is complete, so an interrupted demo keeps the experts it finished. Raises ResourceError if one fails.
    """
    waiting = [job for job in jobs if not job.directory.exists()]
    if not waiting:
        return
    done = {job.name: 0 for job in waiting}
    total = sum(job.training.steps(job.examples) for job in waiting)
    running: dict[connection.Connection, tuple[Job, BaseProcess]] = {}
    with phase(_PHASE):
        try:
            while waiting or running:
                while waiting and len(running) < _cores():
                    job = waiting.pop(0)
                    receiver, process = _start(job)
                    running[receiver] = job, process
                for receiver in [one for one in running if one in connection.wait(list(running))]:
                    job, process = running[receiver]
                    try:
                        done[job.name] = receiver.recv()
                    except EOFError:
                        del running[receiver]
                        _check(job, process)
                emit("progress", phase=_PHASE, done=sum(done.values()), total=total, unit="steps")
        finally:
            for _, process in running.values():
                process.terminate()
                process.join()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _start(job: Job) -> tuple[Connection, BaseProcess]:
    """The process, and the end of a pipe on which it tells how many steps it has done."""
    context = get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(job, sender), name=f"expert {job.name}", daemon=True)
    process.start()
    sender.close()
    return receiver, process


def _work(job: Job, sender: Connection) -> None:
    import torch
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # on ctrl-C the parent, which also got it, ends us
    torch.set_num_threads(1)
    staging = job.directory.with_name(f".{job.directory.name}.partial")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    pupils = job.pupils()
    fit(list(pupils.values()) if isinstance(pupils, Mapping) else [pupils], job.training, sender.send)
    for name, pupil in pupils.items() if isinstance(pupils, Mapping) else [(".", pupils)]:
        pupil.save(staging / name)
    staging.rename(job.directory)


def _check(job: Job, process: BaseProcess) -> None:
    process.join()
    if process.exitcode != 0:
        raise ResourceError(
            f"training expert {job.name} stopped with exit code {process.exitcode}",
            hint="Its message is above; -9 means too little memory. The same command goes on from here.",
        )
