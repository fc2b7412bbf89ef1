"""Where a merged model comes from: what the card and the page must credit."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?")


@dataclass(frozen=True, slots=True)
class Provenance:
    """Base and experts as the recipe names them (paths or hub ids), the licence if known, and the method's source.

    `hub_ids` lists those of base and experts that are hub ids (a path can look like one): only they go into the card's
    `base_model`. `method_title`, `paper` (a URL) and `citation` (BibTeX) come from the method's card.
    """

    base: str
    experts: Mapping[str, str] = field(default_factory=dict)
    hub_ids: frozenset[str] = frozenset()
    license: str | None = None
    method_title: str | None = None
    paper: str | None = None
    citation: str | None = None

    def base_models(self) -> list[str]:
        """Hub ids without revision, base first, each once: the card's `base_model`."""
        references = [self.base, *self.experts.values()]
        known = [ref.partition("@")[0] for ref in references if ref in self.hub_ids and _HUB_ID.fullmatch(ref)]
        return list(dict.fromkeys(known))

    def paper_link(self) -> str | None:
        """The paper's address if it is one that may become a link."""
        return self.paper if self.paper and self.paper.startswith(("https://", "http://")) else None
