"""How SuperMerge's settings change what it learns on the suites' experts: the ground for its defaults.

    python bench/sweep_suite.py vision8 --settings '{"init": 0.3}' '{"init": "average"}' '{"init": "iso_c"}'

As bench/sweep_supermerge.py: for every setting it learns on all but the held-back part of one draw's labels, without
stopping, and prints the held-back loss and the mean score on development examples along the way. Test examples take no
part. `bench/suite.py SUITE prepare` and `train` come first. One JSON object per measurement.
"""

from __future__ import annotations

import argparse
import json

import torch

from suites.draw import recipe
from suites.tasks import SUITES
from supermerge.methods import get
from supermerge.resolve import settings_of
from supermerge.run.prepared import prepared
from sweep_supermerge import trajectory


def main() -> None:
    """Learn with every setting on one draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", choices=sorted(SUITES))
    parser.add_argument("--draw", type=int, default=0)
    parser.add_argument("--budget", type=int, default=32)
    parser.add_argument("--unlabelled", type=int, default=0)
    parser.add_argument("--development", type=int, default=100, help="examples per task to score")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--measure", type=int, default=10, help="score the development examples every so many steps")
    parser.add_argument("--settings", nargs="+", type=json.loads, default=[{}])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    suite = SUITES[arguments.suite]
    wanted = recipe(
        suite,
        arguments.budget,
        arguments.draw,
        arguments.unlabelled,
        scored="development",
        most=arguments.development,
    )
    with prepared(wanted) as ready:
        for setting in arguments.settings:
            given = {"steps": arguments.steps, "patience": max(arguments.steps, 1), "refit": False, **setting}
            settings = settings_of(get("supermerge"), given)
            assert settings is not None
            for row in trajectory(ready, settings, arguments.measure):
                print(json.dumps({"suite": suite.name, "draw": arguments.draw, **setting, **row}))


if __name__ == "__main__":
    main()
