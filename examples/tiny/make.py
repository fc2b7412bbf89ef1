"""Makes a tiny base, two tiny experts and their data: a merge to try out in seconds.

    python examples/tiny/make.py DIRECTORY
    supermerge run DIRECTORY/recipe.yaml

The models are real BERTs, only very small, and the sentences are made up from a few words.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification, BertModel, PreTrainedTokenizerFast

SUBJECTS = {"animal": ["dog", "cat", "horse", "sheep", "goose"], "vehicle": ["car", "bus", "train", "boat", "plane"]}
FEELINGS = {"good": ["lovely", "great", "fine", "superb", "happy"], "bad": ["awful", "sad", "broken", "poor", "nasty"]}
FILLERS = ["the", "a", "was", "is", "this", "that", "seems", "today", "here", "now", "very", "quite"]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]

RECIPE = """\
base: base
experts:
  topic: experts/topic
  mood: experts/mood
method: {name: supermerge, steps: 30, lr: 0.1}
tasks:
  topic: {type: text-classification, expert: topic, validation: data/topic.valid.jsonl, test: data/topic.test.jsonl}
  mood: {type: text-classification, expert: mood, validation: data/mood.valid.jsonl, test: data/mood.test.jsonl}
output: {path: merged}
"""


def sentence(draw: random.Random) -> dict[str, str]:
    """Words in random order: fillers, one subject and one feeling, each with its label."""
    topic, mood = draw.choice(list(SUBJECTS)), draw.choice(list(FEELINGS))
    words = [*draw.sample(FILLERS, 4), draw.choice(SUBJECTS[topic]), draw.choice(FEELINGS[mood])]
    draw.shuffle(words)
    return {"text": " ".join(words), "topic": topic, "mood": mood}


def tokenizer() -> PreTrainedTokenizerFast:
    """One token per word."""
    words = [*SPECIAL, *FILLERS, *(word for kind in (SUBJECTS, FEELINGS) for words in kind.values() for word in words)]
    inner = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )


def pretrain(base: BertModel, words: PreTrainedTokenizerFast, steps: int) -> None:
    """Let the base learn to say, at a sentence's first place, which words the sentence has."""
    says = torch.nn.Linear(base.config.hidden_size, len(words))
    optimiser = torch.optim.AdamW([*base.parameters(), *says.parameters()], lr=3e-3)
    draw = random.Random("base")
    for _ in range(steps):
        batch = words([sentence(draw)["text"] for _ in range(32)], return_tensors="pt", padding=True)
        present = torch.zeros(32, len(words)).scatter_(1, batch["input_ids"], 1.0)
        said = says(base(**batch).last_hidden_state[:, 0])
        torch.nn.functional.binary_cross_entropy_with_logits(said, present).backward()
        optimiser.step()
        optimiser.zero_grad()


def train(
    base: BertModel, task: str, labels: list[str], words: PreTrainedTokenizerFast
) -> BertForSequenceClassification:
    """The base with a head, fine-tuned for a moment on sentences of its own."""
    names = {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}
    expert = BertForSequenceClassification(BertConfig.from_dict({**base.config.to_dict(), **names}))
    expert.bert.load_state_dict(base.state_dict(), strict=False)
    optimiser = torch.optim.AdamW(expert.parameters(), lr=1e-3)
    draw = random.Random(task)
    for _ in range(60):
        rows = [sentence(draw) for _ in range(16)]
        batch = words([row["text"] for row in rows], return_tensors="pt", padding=True)
        expert(**batch, labels=torch.tensor([labels.index(row[task]) for row in rows])).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    return expert


def make(directory: Path, pretraining: int = 300) -> Path:
    """Write base, experts, data and recipe into `directory`; gives the recipe's path.

    Of a base without `pretraining` steps experts go their own ways, and hardly anything of them can be merged.
    """
    torch.manual_seed(0)
    words = tokenizer()
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=32,
        pad_token_id=0,
    )
    base = BertModel(config, add_pooling_layer=False)
    if pretraining:
        pretrain(base, words, pretraining)
    (directory / "data").mkdir(parents=True, exist_ok=True)
    base.save_pretrained(directory / "base")
    words.save_pretrained(directory / "base")
    draw = random.Random(0)
    for task, labels in (("topic", list(SUBJECTS)), ("mood", list(FEELINGS))):
        expert = directory / "experts" / task
        train(base, task, labels, words).save_pretrained(expert)
        words.save_pretrained(expert)
        for split, count in (("valid", 32), ("test", 100)):
            rows = [sentence(draw) for _ in range(count)]
            lines = [json.dumps({"text": row["text"], "label": row[task]}) for row in rows]
            (directory / "data" / f"{task}.{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    recipe = directory / "recipe.yaml"
    recipe.write_text(RECIPE, encoding="utf-8")
    return recipe


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"usage: python {sys.argv[0]} DIRECTORY")
    sys.stdout.write(f"{make(Path(sys.argv[1]))}\n")
