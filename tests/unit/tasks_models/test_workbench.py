from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.nn.functional import cross_entropy

from supermerge.checkpoint import Checkpoint
from supermerge.errors import CheckpointError, DataError, RecipeError
from supermerge.tasks.metrics import IGNORED
from supermerge.tasks.rows import Row
from supermerge.tasks.workbench import Workbench

ROWS = [
    Row("t:1", texts=("a b c",), label=2),
    Row("t:2", texts=("d",), label="LABEL_0"),
    Row("t:3", texts=("e f a b c d e f",), label=1),
]
PAIRS = [Row("p:1", texts=("a b c d e f", "d e"), label=0)]
SPEAK = [Row("g:1", prompt="a b c", target="d e"), Row("g:2", prompt="a", target="b c d")]


@pytest.mark.parametrize("case", ["bert"], indirect=True)
class TestText:
    def test_padded_to_the_longest_and_cut_to_max_length(self, bench: Any) -> None:
        batch = bench().collate("task", ROWS)
        assert batch["input_ids"].tolist() == [[10, 11, 12, 1, 1, 1], [13, 1, 1, 1, 1, 1], [14, 15, 10, 11, 12, 13]]
        assert batch["attention_mask"].sum(1).tolist() == [3, 1, 6]
        assert batch["labels"].tolist() == [2, 0, 1]

    def test_cut_to_the_positions_of_the_model(self, bench: Any) -> None:
        here = bench(max_length=1000)
        batch = here.collate("task", [Row("t:1", texts=("a " * 100,), label=0)])
        assert batch["input_ids"].shape == (1, 20)
        assert torch.isfinite(here.logits("task", batch)).all()

    def test_pairs_have_segments_and_lose_the_longer_text_first(self, bench: Any) -> None:
        batch = bench(text=["premise", "hypothesis"]).collate("task", PAIRS)
        assert batch["input_ids"].tolist() == [[10, 11, 12, 13, 13, 14]]
        assert batch["token_type_ids"].tolist() == [[0, 0, 0, 0, 1, 1]]

    def test_logits_and_loss_do_not_depend_on_the_batch(self, bench: Any) -> None:
        ours = bench()
        with torch.no_grad():
            together = ours.logits("task", ours.collate("task", ROWS))
            alone = torch.cat([ours.logits("task", ours.collate("task", [row])) for row in ROWS])
            loss = ours.supervised_loss("task", ours.collate("task", ROWS))
        assert together.shape == (3, 3)
        torch.testing.assert_close(together, alone, rtol=0, atol=1e-6)
        torch.testing.assert_close(loss, cross_entropy(together, torch.tensor([2, 0, 1])), rtol=0, atol=0)

    def test_memory_that_is_given_back_is_free_whoever_holds_the_modules(self, bench: Any) -> None:
        ours = bench()
        module, shared = ours.heads["task"].module, list(ours.model.parameters())
        assert all(parameter.untyped_storage().nbytes() for parameter in shared)
        ours.give_back()
        assert not any(parameter.untyped_storage().nbytes() for parameter in shared)
        with pytest.raises((RuntimeError, IndexError)):
            module(torch.tensor([[1, 2]]))

    def test_features_are_the_mean_of_the_last_hidden_states(self, bench: Any) -> None:
        ours = bench()
        with torch.no_grad():
            together = ours.features("task", ours.collate("task", ROWS))
            for row, features in zip(ROWS, together, strict=True):
                batch = ours.collate("task", [row])
                hidden = ours.model(batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
                torch.testing.assert_close(features, hidden[0].mean(0), rtol=0, atol=1e-6)

    def test_gradients_reach_the_shared_parameters_and_nothing_else(self, bench: Any) -> None:
        ours = bench()
        ours.supervised_loss("task", ours.collate("task", ROWS)).backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in ours.model.parameters())
        assert all(tensor.grad is None for tensor in ours.heads["task"].own.values())

    def test_unlabelled_rows_have_no_loss(self, bench: Any) -> None:
        ours = bench()
        batch = ours.collate("task", [Row("u:1", texts=("a b",))])
        assert set(batch) == {"input_ids", "attention_mask", "token_type_ids"}
        assert ours.logits("task", batch).shape == (1, 3)
        with pytest.raises(RecipeError, match="needs labelled examples"):
            ours.supervised_loss("task", batch)

    @pytest.mark.parametrize(
        ("row", "message"),
        [
            (Row("x:7", texts=("a",), label="nonesuch"), "x:7: label 'nonesuch' is unknown to the head of task 'task'"),
            (Row("x:7", texts=("a",), label=3), "x:7: label 3 is unknown to the head of task 'task'"),
            (Row("x:7", texts=("",), label=0), "x:7: the text is empty"),
            (Row("x:7", texts=("a",)), "x:7: no label, while other"),
        ],
    )
    def test_bad_rows(self, bench: Any, row: Row, message: str) -> None:
        with pytest.raises(DataError, match=message):
            bench().encode("task", [ROWS[0], row])

    def test_tokenizer_may_be_the_experts(self, case: Any, bench: Any) -> None:
        for name in ("tokenizer.json", "tokenizer_config.json"):
            (case.base_dir / name).rename(case.expert_dir / name)
        assert bench().collate("task", ROWS[:1])["input_ids"].tolist() == [[10, 11, 12]]

    def test_no_tokenizer_at_all(self, case: Any, make_spec: Any) -> None:
        ours = Workbench(case.base, {"one": case.expert}, {"task": make_spec(case)})
        with pytest.raises(CheckpointError, match=r"task 'task': no tokenizer in .*base or .*expert"):
            ours.encode("task", ROWS)

    def test_unreadable_tokenizer(self, case: Any, bench: Any) -> None:
        (case.base_dir / "tokenizer.json").write_text("{")
        with pytest.raises(CheckpointError, match="cannot read its tokenizer"):
            bench().encode("task", ROWS)

    def test_unknown_expert(self, case: Any, make_spec: Any) -> None:
        with pytest.raises(RecipeError, match=r"tasks.task: its expert 'two' is not one of one"):
            Workbench(case.base, {"one": case.expert}, {"task": make_spec(case, expert="two")})

    def test_load_and_names(self, case: Any, bench: Any) -> None:
        ours = bench()
        assert set(ours.merged_names) | set(ours.copied_names) == set(case.base.tensors)
        assert set(ours.copied_names) == {"pooler.dense.weight", "pooler.dense.bias"}
        doubled = {name: case.base.read(name) * 2 for name in case.base.tensors}
        ours.load(Checkpoint.open(doubled))
        for name, parameter in ours.model.named_parameters():
            assert torch.equal(parameter, doubled[name]), name
            assert torch.equal(ours.bind(case.base).read(name), case.base.read(name)), name


@pytest.mark.parametrize("case", ["distilbert"], indirect=True)
def test_inputs_that_a_class_does_not_take_are_left_out(bench: Any) -> None:
    ours = bench()
    batch = ours.collate("task", ROWS)
    assert set(batch) == {"input_ids", "attention_mask", "labels"}
    assert ours.logits("task", batch).shape == (3, 3)


@pytest.mark.parametrize("case", ["llama", "gpt2", "mixtral"], indirect=True)
def test_decoders_that_classify_look_at_the_last_real_token(bench: Any) -> None:
    ours = bench()
    with torch.no_grad():
        together = ours.logits("task", ours.collate("task", ROWS))
        alone = torch.cat([ours.logits("task", ours.collate("task", [row])) for row in ROWS])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-6)


@pytest.mark.parametrize("case", ["llama"], indirect=True)
def test_padding_where_the_config_has_none(bench: Any) -> None:
    ours = bench()
    ours.heads["task"].module.config.pad_token_id = None
    assert ours.collate("task", ROWS)["input_ids"][0].tolist() == [10, 11, 12, 1, 1, 1]
    assert ours.heads["task"].module.config.pad_token_id == 1


@pytest.mark.parametrize("case", ["llama"], indirect=True)
def test_padding_that_only_the_tokenizer_knows(bench: Any) -> None:
    ours = bench()
    ours.heads["task"].module.config.pad_token_id = None
    more = [f"[{i}]" for i in range(100)]
    ours.tokenizer("task").add_tokens(more)
    ours.tokenizer("task").add_special_tokens({"pad_token": "[new]"})
    assert ours.collate("task", ROWS)["input_ids"][0].tolist() == [10, 11, 12, 2, 2, 2]


class TestRegression:
    @pytest.mark.parametrize("case", ["bert"], indirect=True)
    def test_mean_squared_error(
        self, case: Any, add_tokenizer: Callable[[Path], None], tmp_path: Path, make_spec: Any
    ) -> None:
        config = tf.AutoConfig.from_pretrained(case.expert_dir, num_labels=1)
        tf.BertForSequenceClassification(config).save_pretrained(tmp_path / "scorer")
        add_tokenizer(case.base_dir)
        rows = [Row("r:1", texts=("a b",), label=0.5), Row("r:2", texts=("c",), label=-2.0)]
        with Checkpoint.open(tmp_path / "scorer") as scorer:
            ours = Workbench(case.base, {"one": scorer}, {"task": make_spec(case, type="regression")})
        batch = ours.collate("task", rows)
        with torch.no_grad():
            logits = ours.logits("task", batch)
            loss = ours.supervised_loss("task", batch)
        assert logits.shape == (2, 1)
        assert ours.heads["task"].labels is None
        expected = ((logits[0, 0] - 0.5) ** 2 + (logits[1, 0] + 2) ** 2) / 2
        torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)
        with pytest.raises(DataError, match=r"x:1: expected a number as label, found 'good'"):
            ours.encode("task", [Row("x:1", texts=("a",), label="good")])


@pytest.mark.parametrize("case", ["llama-lm"], indirect=True)
class TestCausal:
    def test_the_prompt_does_not_count(self, bench: Any) -> None:
        batch = bench().collate("task", SPEAK)
        assert batch["input_ids"].tolist() == [[10, 11, 12, 13, 14, 2], [10, 11, 12, 13, 2, 1]]
        assert batch["labels"].tolist() == [
            [IGNORED, IGNORED, IGNORED, 13, 14, 2],
            [IGNORED, 11, 12, 13, 2, IGNORED],
        ]

    def test_loss_is_that_of_transformers(self, bench: Any) -> None:
        ours = bench()
        batch = ours.collate("task", SPEAK)
        with torch.no_grad():
            expected = ours.heads["task"].module(**batch).loss
            torch.testing.assert_close(ours.supervised_loss("task", batch), expected, rtol=1e-6, atol=0)
            assert ours.logits("task", batch).shape == (7, 30)

    def test_too_long_a_prompt_loses_its_beginning(self, bench: Any) -> None:
        batch = bench(max_length=4).collate("task", [Row("g:1", prompt="a b c d", target="e")])
        assert batch["input_ids"].tolist() == [[12, 13, 14, 2]]
        assert batch["labels"].tolist() == [[IGNORED, IGNORED, 14, 2]]

    def test_too_long_a_target_loses_its_end(self, bench: Any) -> None:
        batch = bench(max_length=4).collate("task", [Row("g:1", prompt="a b", target="c d e f")])
        assert batch["input_ids"].tolist() == [[11, 12, 13, 14]]
        assert batch["labels"].tolist() == [[IGNORED, 12, 13, 14]]

    def test_plain_text_counts_everywhere(self, bench: Any) -> None:
        batch = bench(target="text").collate("task", [Row("g:1", target="a b")])
        assert batch["labels"].tolist() == batch["input_ids"].tolist() == [[10, 11, 2]]

    def test_unlabelled_prompts_count_themselves(self, bench: Any) -> None:
        batch = bench().collate("task", [Row("g:1", prompt="a b c")])
        assert batch["labels"].tolist() == batch["input_ids"].tolist() == [[10, 11, 12]]

    def test_one_token_predicts_nothing(self, bench: Any) -> None:
        with pytest.raises(DataError, match=r"g:1: 1 token\(s\); a decoder needs at least two"):
            bench().collate("task", [Row("g:1", prompt="a")])


@pytest.mark.parametrize("case", ["t5-seq2seq"], indirect=True)
class TestSeq2Seq:
    def test_loss_is_that_of_transformers(self, bench: Any) -> None:
        ours = bench()
        batch = ours.collate("task", SPEAK)
        assert batch["labels"].tolist() == [[13, 14, IGNORED], [11, 12, 13]]
        with torch.no_grad():
            expected = ours.heads["task"].module(**batch).loss
            torch.testing.assert_close(ours.supervised_loss("task", batch), expected, rtol=1e-6, atol=0)
            assert ours.logits("task", batch).shape == (5, 30)

    def test_the_decoder_needs_a_target(self, bench: Any) -> None:
        with pytest.raises(DataError, match="g:1: no target"):
            bench().encode("task", [Row("g:1", prompt="a")])


@pytest.mark.parametrize("case", ["vit", "dinov2", "clip", "clip-vision"], indirect=True)
def test_images(case: Any, bench: Any, pictures: list[Row]) -> None:
    ours = bench()
    rows = pictures
    batch = ours.collate("task", rows)
    processor = tf.AutoImageProcessor.from_pretrained(case.base_dir)
    expected = processor([Image.open(row.image) for row in rows], return_tensors="pt")["pixel_values"]
    assert torch.equal(batch["pixel_values"], expected)
    assert batch["labels"].tolist() == [0, 1]
    assert ours.logits("task", batch).shape == (2, 3)
    features = ours.features("task", batch)
    assert features.shape[0] == 2
    torch.testing.assert_close(features[1:], ours.features("task", ours.collate("task", rows[1:])), rtol=0, atol=1e-5)
    assert torch.equal(ours.collate("task", rows)["pixel_values"], expected)


@pytest.mark.parametrize("case", ["vit"], indirect=True)
class TestImages:
    def test_cache_is_bounded(self, case: Any, bench: Any, make_spec: Any, pictures: list[Row]) -> None:
        bench()
        rows = pictures
        one_image = 3 * 16 * 16 * 4
        ours = Workbench(case.base, {"one": case.expert}, {"task": make_spec(case)}, image_cache=one_image)
        first = ours.collate("task", rows)["pixel_values"]
        assert ours._cache.get(rows[0].hash) is not None
        assert ours._cache.get(rows[1].hash) is None
        assert torch.equal(ours.collate("task", rows)["pixel_values"], first)

    def test_no_processor(self, case: Any, make_spec: Any, pictures: list[Row]) -> None:
        ours = Workbench(case.base, {"one": case.expert}, {"task": make_spec(case)})
        with pytest.raises(CheckpointError, match="task 'task': no image processor in"):
            ours.collate("task", pictures)


class TestHeadPath:
    @pytest.mark.parametrize("case", ["bert"], indirect=True)
    def test_head_of_its_own_wins_over_the_experts(self, case: Any, bench: Any) -> None:
        tensors = {"classifier.weight": torch.ones(2, 16), "classifier.bias": torch.zeros(2)}
        (case.base_dir / "head").mkdir()
        save_file(tensors, case.base_dir / "head/model.safetensors")
        config = {**case.expert.config, "id2label": {"0": "no", "1": "yes"}, "label2id": {"no": 0, "yes": 1}}
        tf.BertConfig.from_dict(config).save_pretrained(case.base_dir / "head")
        head = bench(head=str(case.base_dir / "head")).heads["task"]
        assert torch.equal(head.own["classifier.weight"], tensors["classifier.weight"])
        assert head.labels == ("no", "yes")
        pooler = load_file(case.expert_dir / "model.safetensors")["bert.pooler.dense.weight"]
        assert torch.equal(head.own["bert.pooler.dense.weight"], pooler)

    @pytest.mark.parametrize("case", ["bert"], indirect=True)
    def test_missing_head(self, bench: Any) -> None:
        with pytest.raises(CheckpointError, match="no such file or directory"):
            bench(head=str(Path("no") / "where" / "at-all"))
