"""Adapters of PEFT (LoRA, IA3), read as the fine-tuned models that they make of a base: tensor by tensor, on demand."""

from supermerge.checkpoint.adapters.changes import Changed, Directed, LowRank, Rescaled, Shifted
from supermerge.checkpoint.adapters.expert import WEIGHTS_NAME, open_expert
from supermerge.checkpoint.adapters.settings import CONFIG_NAME, is_adapter, read_settings
from supermerge.checkpoint.adapters.view import AdapterView, adapter_of

__all__ = [
    "CONFIG_NAME",
    "WEIGHTS_NAME",
    "AdapterView",
    "Changed",
    "Directed",
    "LowRank",
    "Rescaled",
    "Shifted",
    "adapter_of",
    "is_adapter",
    "open_expert",
    "read_settings",
]
