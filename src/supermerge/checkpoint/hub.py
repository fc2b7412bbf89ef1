"""Hub ids: `name`, `owner/name` or either with `@revision`, fetched into and read from the hub's own cache."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from supermerge.checkpoint.locate import PICKLES, SIDE_FILES
from supermerge.errors import CheckpointError, NetworkError

_PART = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?"
_ID = re.compile(rf"(?P<repo>(?:{_PART}/)?{_PART})(?:@(?P<revision>[A-Za-z0-9._/-]+))?")
_WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "adapter_config.json")
FILE_SUFFIXES = (".safetensors", ".json", *PICKLES)


@dataclass(frozen=True, slots=True)
class HubId:
    """A repository of the hub and the branch, tag or commit asked for."""

    repo: str
    revision: str | None

    @staticmethod
    def parse(text: str) -> HubId | None:
        """The id that `text` spells, or None if it cannot be one.

        Text whose first part is a directory here, or which ends like a file, is a path with a mistake in it.
        """
        found = _ID.fullmatch(text)
        if not found or "--" in found["repo"] or ".." in found["repo"] or found["repo"].endswith(FILE_SUFFIXES):
            return None
        if "/" in found["repo"] and Path(found["repo"].split("/")[0]).exists():
            return None
        return HubId(found["repo"], found["revision"])


def snapshot(hub_id: HubId, *, allow_pickle: bool, offline: bool | None) -> Path:
    """The directory of the hub's cache that holds the repository's weights and side files, named after the commit.

    Downloads what is missing unless `offline` (None: as HF_HUB_OFFLINE says). Raises CheckpointError when there is no
    such repository, revision or cached copy, NetworkError when the hub cannot be reached.
    """
    directory = _download(hub_id, [*_WEIGHTS, *SIDE_FILES], offline=offline)
    if allow_pickle and not any(directory.glob("*.safetensors")):
        directory = _download(hub_id, ["*.bin", "*.bin.index.json"], offline=offline)
    return directory


def _download(hub_id: HubId, patterns: list[str], *, offline: bool | None) -> Path:
    import huggingface_hub
    from huggingface_hub import constants, errors

    offline = constants.HF_HUB_OFFLINE if offline is None else offline
    name = hub_id.repo + (f"@{hub_id.revision}" if hub_id.revision else "")
    # The base of the HTTP library in use, which differs between versions of the hub's client.
    transport_error: type[Exception] = errors.HfHubHTTPError.__mro__[1]
    try:
        return Path(
            huggingface_hub.snapshot_download(
                hub_id.repo,
                revision=hub_id.revision,
                allow_patterns=patterns,
                ignore_patterns=["*/*", "consolidated*"],  # parts of other models, and a second copy of the weights
                local_files_only=offline,
            )
        )
    except errors.GatedRepoError as error:
        raise CheckpointError(
            f"{name}: the hub asks you to be let in first", hint="Accept its terms on its page, then `hf auth login`."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise CheckpointError(
            f"{name}: neither a path here nor a repository of the hub", hint="Check the spelling, or `hf auth login`."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise CheckpointError(
            f"{name}: the repository has no revision {hub_id.revision!r}", hint="Give a branch, tag or commit of it."
        ) from error
    except ValueError as error:
        raise CheckpointError(
            f"{name}: neither a path here nor a hub id: {str(error).splitlines()[0]}", hint="Check the spelling."
        ) from error
    except (OSError, transport_error) as error:
        if offline:
            raise CheckpointError(
                f"{name}: neither a path here nor in the hub's cache, and offline",
                hint="Check the spelling, or run once online (unset HF_HUB_OFFLINE).",
            ) from error
        raise NetworkError(
            f"{name}: not a path here, and the hub could not be reached: {str(error).splitlines()[0]}",
            hint="Check the spelling if you meant a path, the connection if not. A complete cached copy works offline.",
        ) from error
