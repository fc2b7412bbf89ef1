"""A merge of adapters that is an adapter again: what it consists of, and its values."""

from supermerge.assemble.adapter.layout import AdapterLayout, Learning, adapter_layout
from supermerge.assemble.adapter.values import AdapterMerge, merge_into_adapter

__all__ = ["AdapterLayout", "AdapterMerge", "Learning", "adapter_layout", "merge_into_adapter"]
