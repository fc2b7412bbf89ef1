from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from supermerge.checkpoint import Checkpoint, match
from supermerge.errors import CheckpointError, DataError
from supermerge.events import Event, subscribed
from supermerge.tasks.capacity import within
from supermerge.tasks.evaluate import evaluate, evaluate_source
from supermerge.tasks.generate import generate
from supermerge.tasks.rows import Row
from supermerge.tasks.spec import TaskSpec
from supermerge.tasks.workbench import Workbench


def make(case: Any, **fields: Any) -> Workbench:
    task = TaskSpec(**{"type": case.type, "expert": "one", "test": "t.jsonl", "max_length": 8, **fields})
    return Workbench(case.base, {"one": case.expert}, {"task": task})


def _texts(count: int) -> list[Row]:
    letters = "abcdef"
    return [Row(f"t:{i}", texts=(" ".join(letters[: 1 + i % 6]),), label=i % 3) for i in range(count)]


@pytest.mark.parametrize("case", ["bert"], indirect=True)
class TestClassification:
    @pytest.fixture(autouse=True)
    def _tokenizer(self, case: Any, add_tokenizer: Callable[[Path], None]) -> None:
        add_tokenizer(case.base_dir)

    def test_accuracy_is_counted_by_hand(self, case: Any) -> None:
        bench, rows = make(case), _texts(20)
        with torch.no_grad():
            predicted = [int(bench.logits("task", bench.collate("task", [row])).argmax()) for row in rows]
        hits = sum(found == row.label for found, row in zip(predicted, rows, strict=True))
        score = evaluate(bench, "task", rows, batch_size=7)
        assert (score.metric, score.value, score.n) == ("accuracy", hits / 20, 20)
        assert score.low < score.value < score.high
        assert evaluate(bench, "task", rows) == score

    def test_no_gradient_is_kept(self, case: Any) -> None:
        bench = make(case)
        evaluate(bench, "task", _texts(4))
        assert all(parameter.grad is None for parameter in bench.model.parameters())

    def test_rows_without_labels(self, case: Any) -> None:
        with pytest.raises(DataError, match="u:1: no label; task 'task' cannot be scored"):
            evaluate(make(case), "task", [Row("u:1", texts=("a",))])

    def test_no_rows(self, case: Any) -> None:
        with pytest.raises(DataError, match="no examples"):
            evaluate(make(case), "task", [])


def _speak(targets: list[str]) -> list[Row]:
    prompts = ["a b c", "d", "e f"]
    return [Row(f"g:{i}", prompt=p, target=t) for i, (p, t) in enumerate(zip(prompts, targets, strict=True))]


@pytest.mark.parametrize("case", ["llama-lm", "gpt2-lm", "t5-seq2seq"], indirect=True)
class TestGeneration:
    @pytest.fixture(autouse=True)
    def _tokenizer(self, case: Any, add_tokenizer: Callable[[Path], None]) -> None:
        add_tokenizer(case.base_dir)

    def test_generated_text_is_what_each_prompt_alone_gives(self, case: Any) -> None:
        bench = make(case, metric="exact_match")
        rows = _speak(["a b c d e f"] * 3)
        together = generate(bench, "task", bench.encode("task", rows))
        assert together == [generate(bench, "task", bench.encode("task", [row]))[0] for row in rows]

    def test_greedy_step_by_step(self, case: Any) -> None:
        bench = make(case, metric="exact_match")
        (text,) = generate(bench, "task", bench.encode("task", [Row("g:1", prompt="a b c", target="a b")]))
        module, tokenizer = bench.heads["task"].module, bench.tokenizer("task")
        ids, said = torch.tensor([[10, 11, 12]]), [0] if case.type == "seq2seq" else []
        with torch.no_grad():
            for _ in range(3):
                now = torch.tensor([said])
                inputs = (
                    {"input_ids": ids, "decoder_input_ids": now}
                    if case.type == "seq2seq"
                    else {"input_ids": torch.cat([ids, now.long()], 1)}
                )
                said.append(int(module(**inputs).logits[0, -1].argmax()))
                if said[-1] == 2:
                    break
        assert text == tokenizer.decode(said, skip_special_tokens=True)

    def test_prompts_and_targets_longer_than_the_model_has_positions_for(self, case: Any) -> None:
        bench = make(case, metric="exact_match", max_length=1000)
        long = " ".join("abcdef" * 10)
        rows = [Row(f"g:{i}", prompt=p, target=t) for i, (p, t) in enumerate([(long, "a"), ("a", long), (long, long)])]
        assert evaluate(bench, "task", rows).value == 0
        if within(bench.model, 1000) == 20:
            # What is cut from a prompt is its beginning: 18 tokens stay beside the two of the answer.
            cut = Row("g:0", prompt=long[-2 * 18 + 1 :], target="a")
            said, same = (generate(bench, "task", bench.encode("task", [row])) for row in (rows[0], cut))
            assert said == same

    def test_every_source_is_scored_on_its_own_weights(self, case: Any) -> None:
        bench, rows = make(case, metric="perplexity"), {"task": _speak(["d e", "f", "a b c d"])}
        expert = match(case.base, {"one": case.expert}).experts["one"]
        events: list[Event] = []
        with subscribed(events.append):
            base_score = evaluate_source(bench, "base", case.base, rows)["task"]
            expert_score = evaluate_source(bench, "expert:one", expert, rows)["task"]
        assert base_score.value != expert_score.value
        assert evaluate_source(bench, "base", case.base, rows)["task"] == base_score
        told = [event.fields for event in events if event.kind == "evaluated"]
        assert told == [
            {"model": "base", "task": "task", "metric": "perplexity", "value": base_score.value},
            {"model": "expert:one", "task": "task", "metric": "perplexity", "value": expert_score.value},
        ]
        progress = [event.fields for event in events if event.kind == "progress"]
        assert progress[-1]["done"] == progress[-1]["total"] == 3

    def test_perplexity(self, case: Any) -> None:
        bench = make(case, metric="perplexity")
        rows = _speak(["d e", "f", "a b c d"])
        total, tokens = 0.0, 0
        with torch.no_grad():
            for row in rows:
                batch = bench.collate("task", [row])
                count = bench.logits("task", batch).shape[0]
                total += float(bench.supervised_loss("task", batch)) * count
                tokens += count
        score = evaluate(bench, "task", rows)
        assert math.isclose(score.value, math.exp(total / tokens), rel_tol=1e-5)
        assert score.n == 3


@pytest.mark.parametrize("case", ["llama-lm"], indirect=True)
def test_a_model_that_has_learned_the_answer_matches_exactly(case: Any, add_tokenizer: Callable[[Path], None]) -> None:
    """A decoder whose output layer is set so that every token is followed by its successor, and f by the end."""
    add_tokenizer(case.base_dir)
    bench = make(case, metric="exact_match")
    successor = {10 + i: 11 + i for i in range(5)} | {15: 2, 0: 10}
    with torch.no_grad():
        for name, parameter in bench.model.named_parameters():
            if "proj" in name and "lm_head" not in name:
                parameter.zero_()
            elif "norm" in name:
                parameter.fill_(1.0)
        embedding, output = bench.model.model.embed_tokens.weight, bench.model.lm_head.weight
        embedding.zero_()
        output.zero_()
        for place, (token, after) in enumerate(successor.items()):
            embedding[token, place] = 1.0
            output[after, place] = 1.0
    right = [Row("g:1", prompt="a b", target="c d e f"), Row("g:2", prompt="e", target="f")]
    wrong = [Row("g:3", prompt="a", target="b c"), Row("g:4", prompt="c", target="e")]
    assert evaluate(bench, "task", right).value == 1.0
    assert evaluate(bench, "task", right + wrong).value == 0.5
    # Without a prompt the answer follows the beginning-of-text token, which is followed by a.
    assert evaluate(bench, "task", [Row("g:5", prompt="", target="a b c d e f")]).value == 1.0
    assert evaluate(bench, "task", [right[0], Row("g:5", prompt="", target="a b c d e f")]).value == 1.0


@pytest.mark.parametrize("case", ["llama-lm"], indirect=True)
def test_generation_config_says_where_a_text_ends(case: Any, add_tokenizer: Callable[[Path], None]) -> None:
    add_tokenizer(case.base_dir)
    rows = _speak(["a b c d e f"] * 3)
    plain = make(case, metric="exact_match")
    said = generate(plain, "task", plain.encode("task", rows))
    first = plain.tokenizer("task")(said[0])["input_ids"][0]
    config = {"eos_token_id": [2, first], "do_sample": True, "temperature": 0.7}
    (case.base_dir / "generation_config.json").write_text(json.dumps(config))
    ours = make(case, metric="exact_match")
    shorter = generate(ours, "task", ours.encode("task", rows))
    assert len(said[0].split()) > 1
    assert len(shorter[0].split()) == 1


@pytest.mark.parametrize("case", ["llama-lm"], indirect=True)
def test_a_text_ends_where_the_targets_do(case: Any, add_tokenizer: Callable[[Path], None]) -> None:
    """A config that names no end gets the default of its class from transformers, a token that may not exist."""
    add_tokenizer(case.base_dir)
    rows = _speak(["a b c d e f"] * 3)
    plain = make(case, metric="exact_match")
    said = generate(plain, "task", plain.encode("task", rows))
    first = plain.tokenizer("task")(said[0])["input_ids"][0]
    (case.base_dir / "generation_config.json").write_text(json.dumps({"eos_token_id": 50256, "bos_token_id": 50256}))
    ours = make(case, metric="exact_match")
    ours.tokenizer("task").eos_token_id = first
    # The end itself is left out where it is a special token; here it is an ordinary one.
    assert len(said[0].split()) > 1
    assert generate(ours, "task", ours.encode("task", rows))[0] == said[0].split()[0]


@pytest.mark.parametrize("case", ["llama-lm"], indirect=True)
def test_nothing_follows_neither_a_prompt_nor_a_beginning(case: Any, add_tokenizer: Callable[[Path], None]) -> None:
    add_tokenizer(case.base_dir)
    bench = make(case, metric="exact_match")
    bench.tokenizer("task").bos_token = None
    with pytest.raises(DataError, match="g:1: no prompt, and the tokenizer has no beginning-of-text token"):
        evaluate(bench, "task", [Row("g:1", prompt="", target="a b")])


@pytest.mark.parametrize("case", ["t5-seq2seq"], indirect=True)
@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"eos_token_id": "</s>"}, "eos_token_id is '</s>', expected the number of a token\\."),
        ({"eos_token_id": [2, "x"]}, "eos_token_id is 'x', expected the number of a token\\."),
        ({"bos_token_id": True}, "bos_token_id is True, expected the number of a token\\."),
        ({"decoder_start_token_id": [0, 1]}, r"decoder_start_token_id is \[0, 1\], .* from 0 to 29\."),
        ({"decoder_start_token_id": 30}, r"decoder_start_token_id is 30, .* from 0 to 29\."),
        ({"forced_bos_token_id": -1}, r"forced_bos_token_id is -1, .* from 0 to 29\."),
    ],
)
def test_tokens_that_are_none(
    case: Any, add_tokenizer: Callable[[Path], None], config: dict[str, Any], says: str
) -> None:
    add_tokenizer(case.base_dir)
    (case.base_dir / "generation_config.json").write_text(json.dumps(config))
    bench = make(case, metric="exact_match")
    with pytest.raises(CheckpointError, match=f"generation_config.json: {says}"):
        evaluate(bench, "task", _speak(["a b"] * 3))


@pytest.mark.parametrize("case", ["t5-seq2seq"], indirect=True)
@pytest.mark.parametrize("found", [None, -1, 30])
def test_a_decoder_that_starts_nowhere(case: Any, add_tokenizer: Callable[[Path], None], found: int | None) -> None:
    add_tokenizer(case.base_dir)
    bench: Any = make(case)
    bench.heads["task"].module.config.decoder_start_token_id = found
    with pytest.raises(CheckpointError, match=f"decoder_start_token_id in the config.json of expert 'one' is {found}"):
        bench.encode("task", _speak(["a b"] * 3))


@pytest.mark.parametrize("case", ["bert"], indirect=True)
def test_a_classifier_does_not_generate(case: Any, add_tokenizer: Callable[[Path], None]) -> None:
    add_tokenizer(case.base_dir)
    bench = make(case)
    with pytest.raises(DataError, match="does not generate"):
        generate(bench, "task", bench.encode("task", _texts(1)))


@pytest.mark.parametrize("case", ["bert"], indirect=True)
def test_weights_of_another_model_are_refused(case: Any) -> None:
    bench = make(case)
    with pytest.raises(CheckpointError, match="lacks"):
        evaluate_source(bench, "x", Checkpoint.open({"other": torch.ones(2)}), {})
