"""Coverage-guided fuzzing: python tests/fuzz/run.py TARGET [SECONDS | RUNSx] [SEED].

Starts from tests/fuzz/corpus/TARGET and keeps what it discovers under build/fuzz/TARGET. Bytes that a target cannot
take are saved there as crash-…: put them into the corpus, where the tests replay them, and mend the reader.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

# Reading YAML takes milliseconds, so that short texts find more.
LONGEST = {"yaml": 300, "recipe": 600, "mergekit": 600, "override": 200}
HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

with atheris.instrument_imports(include=["supermerge"]):
    from targets import TARGETS


def main() -> None:
    """Fuzz one target until it breaks, or the time or the number of executions is over."""
    name, budget = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "60"
    found = Path("build/fuzz") / name
    found.mkdir(parents=True, exist_ok=True)
    limit = f"-runs={budget[:-1]}" if budget.endswith("x") else f"-max_total_time={budget}"
    options = [
        limit,
        f"-max_len={LONGEST.get(name, 4096)}",
        "-timeout=20",
        "-rss_limit_mb=4096",
        "-print_final_stats=1",
    ]
    options += [
        f"-artifact_prefix={found}/",
        f"-dict={HERE / 'words.dict'}",
        *(f"-seed={seed}" for seed in sys.argv[3:4]),
    ]
    atheris.Setup([sys.argv[0], *options, str(found), str(HERE / "corpus" / name)], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
