"""From a recipe's words to the things they name: open checkpoints, bound methods, settings of learning."""

from supermerge.resolve.resolve import Opened, chosen_methods, learn_settings, opened, settings_of

__all__ = ["Opened", "chosen_methods", "learn_settings", "opened", "settings_of"]
