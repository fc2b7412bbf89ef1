"""Adapters of PEFT (LoRA, IA3), read as the fine-tuned models that they make of a base: tensor by tensor, on demand."""

from supermerge.checkpoint.adapters.expert import open_expert

__all__ = ["open_expert"]
