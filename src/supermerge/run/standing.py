"""A merge that stands: a directory that `supermerge run` wrote, proven against its lock, and where its inputs are."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from supermerge.errors import CheckpointError, RecipeError, RefusedError
from supermerge.events import phase
from supermerge.learn import Coefficients
from supermerge.lock import LOCK_NAME, Change, Lock, hash_file
from supermerge.lock_inputs import reachable
from supermerge.recipe import Recipe
from supermerge.run.output import COEFFICIENTS
from supermerge.verify import input_differences, require_intact


@dataclass(frozen=True, slots=True)
class Standing:
    """`coefficients` are None where no method learned them."""

    path: Path
    lock: Lock
    recipe: Recipe
    coefficients: Coefficients | None

    @classmethod
    def of(cls, directory: Path) -> Standing:
        """Read it, every byte: CheckpointError where no run wrote it, RefusedError where it was changed since."""
        lock = Lock.read(directory)
        with phase("verify"):
            recipe, _ = require_intact(directory, lock)
        if recipe.mergekit is not None:
            raise RecipeError(
                f"{directory}: was merged by a recipe of mergekit's, in which experts have no names.",
                hint="Change that recipe, and run it again with --force.",
            )
        file = directory / COEFFICIENTS
        return cls(directory, lock, recipe, Coefficients.load(file) if file.exists() else None)

    def inputs(self, recipe: Recipe) -> tuple[Recipe, dict[str, str]]:
        """`recipe` with base and experts where they are now, and what became of those that are not usable any more.

        `recipe` has experts of this merge alone; of those in the answer, every byte that was merged is as it was.
        Raises CheckpointError where the base is gone, RefusedError where it, or the whole, has changed.
        """
        found = reachable(self.lock, recipe)
        lost = {name: f"not at {self.lock.experts[name].ref} any more" for name in found.unreachable if name != "base"}
        if found.recipe is None and set(found.unreachable) != set(recipe.experts):
            raise CheckpointError(
                f"{self.path}: its base is not there any more: {self.lock.base.ref}",
                hint="Put it back where it was, or download it again: every task vector is a difference from it.",
            )
        if found.recipe is None:
            return recipe.model_copy(update={"experts": {}}), lost
        with phase("verify"):
            changed, _ = input_differences(self.lock, found)
        if "" in changed:
            raise RefusedError(
                f"{self.path}: its inputs are not as {LOCK_NAME} says:\n" + "\n".join(changed[""][:10]),
                hint="The merge stands on the base as it was: put that back.",
            )
        lost |= {name: "changed since: " + lines[0] for name, lines in changed.items()}
        usable = {name: expert for name, expert in found.recipe.experts.items() if name not in lost}
        return found.recipe.model_copy(update={"experts": usable}), lost

    def changed(
        self, action: Literal["added", "removed"], expert: str, how: Literal["all experts", "merge so far"]
    ) -> tuple[Change, ...]:
        """The history with one more change."""
        file = self.path / COEFFICIENTS
        change = Change(
            action=action,
            expert=expert,
            at=datetime.now(UTC).isoformat(timespec="seconds"),
            how=how,
            replaced=hash_file(self.path / LOCK_NAME),
            coefficients=hash_file(file) if file.exists() else None,
        )
        return (*self.lock.history, change)
