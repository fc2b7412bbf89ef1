"""Every method that needs no data has numbers computed by hand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from supermerge.methods import get, names

STATIC = [name for name in names() if get(name).kind == "static"]
CODE = "\n".join(path.read_text(encoding="utf-8") for path in sorted(Path(__file__).parent.glob("test_*.py")))


@pytest.mark.parametrize("name", STATIC)
def test_every_method_has_an_example(name: str) -> None:
    assert re.search(rf'\(\s*"{name}",\s*\{{|(get\(|, )"{name}"\)', CODE)
