"""What one batch holds, and law 5: samples of one row never see each other."""

import random
from collections.abc import Callable

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from mft.errors import DataError
from mft.tokenization.collate import Batch, collate
from mft.tokenization.encode import TokenizedSample
from mft.tokenization.packing import pack

VOCABULARY = 61


def test_samples_are_laid_end_to_end_and_each_token_knows_its_place_task_and_sample():
    batch = collate([
        TokenizedSample((1, 7, 2), (-100, 7, 2), task_id=0, id="a"),
        TokenizedSample((1, 9), (-100, 9), task_id=2, id="b"),
        TokenizedSample((5,), (-100,), task_id=0, id="c"),
    ])
    assert {name: value.tolist() for name, value in batch.items()} == {
        "input_ids": [[1, 7, 2, 1, 9, 5]],
        "labels": [[-100, 7, 2, -100, 9, -100]],
        "position_ids": [[0, 1, 2, 0, 1, 0]],
        "task_ids": [[0, 0, 0, 2, 2, 0]],
        "sample_ids": [[0, 0, 0, 1, 1, 2]],
    }
    assert {value.dtype for value in batch.values()} == {torch.int64}


def test_no_attention_mask_is_made():
    assert set(collate([TokenizedSample((1, 2), (-100, 2), 0)])) == {"input_ids", "labels", "position_ids", "task_ids", "sample_ids"}


def test_a_sample_whose_first_token_is_trained_is_refused_by_name():
    good, bad = TokenizedSample((1, 2), (-100, 2), 0, "good"), TokenizedSample((1, 2), (1, 2), 0, "evol-88")
    with pytest.raises(DataError, match="sample 'evol-88': its first token has label 1, not -100"):
        collate([good, bad])


def test_an_empty_sample_and_an_empty_batch_are_refused():
    with pytest.raises(DataError, match="sample 'void' has no tokens"):
        collate([TokenizedSample((), (), 0, "void")])
    with pytest.raises(DataError, match="at least one sample"):
        collate([])


def random_rows(count: int) -> list[list[TokenizedSample]]:
    """Packed rows of 1 to 12 samples and at most 96 tokens; some samples have one token, some fill a row."""
    draw = random.Random(5)
    rows: list[list[TokenizedSample]] = []
    while len(rows) < count:
        ids = [[draw.randrange(VOCABULARY) for _ in range(draw.choice([1, 2, 9, 17, 31, 48, 96]))] for _ in range(400)]
        samples = [TokenizedSample(tuple(tokens), (-100, *tokens[1:]), 0) for tokens in ids]
        rows += [[samples[index] for index in row] for row in pack([len(tokens) for tokens in ids], 96, seed=len(rows))]
    return rows[:count]


def small_llama(attention: str) -> LlamaForCausalLM:
    """Random weights, large enough for attention to matter: the logits have a spread near 1."""
    torch.manual_seed(7)
    config = LlamaConfig(vocab_size=VOCABULARY, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
                         num_key_value_heads=2, max_position_embeddings=128, initializer_range=0.2, attn_implementation=attention)
    return LlamaForCausalLM(config).float().eval()


@torch.no_grad()
def worst_difference(model: LlamaForCausalLM, rows: list[list[TokenizedSample]], run: Callable[[Batch], torch.Tensor]) -> float:
    """Largest difference of a logit between `run` on the packed row and the model on each sample as a row of its own."""
    alone: dict[tuple[int, ...], torch.Tensor] = {}
    different = {sample.input_ids for samples in rows for sample in samples}
    for length in {len(ids) for ids in different}:
        equally_long = [ids for ids in different if len(ids) == length]
        alone.update(zip(equally_long, model(torch.tensor(equally_long), use_cache=False).logits, strict=True))
    differences = [run(collate(samples))[0] - torch.cat([alone[sample.input_ids] for sample in samples]) for samples in rows]
    return max(difference.abs().max().item() for difference in differences)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_logits_of_a_packed_row_are_those_of_its_samples_alone(attention: str):
    model, rows = small_llama(attention), random_rows(200)
    assert len({len(samples) for samples in rows}) >= 6, "the rows are varied"

    def packed(batch: Batch) -> torch.Tensor:
        return model(batch["input_ids"], position_ids=batch["position_ids"], use_cache=False).logits

    assert worst_difference(model, rows, packed) <= 1e-5


def test_several_packed_rows_side_by_side_are_isolated_too():
    model, rows = small_llama("sdpa"), random_rows(24)
    joined = [[sample for row in rows[start:start + 3] for sample in row] for start in range(0, 24, 3)]

    def packed(batch: Batch) -> torch.Tensor:
        assert batch["input_ids"].shape[0] == 1
        return model(batch["input_ids"], position_ids=batch["position_ids"], use_cache=False).logits

    assert worst_difference(model, joined, packed) <= 1e-5


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("mistake", ["with a cache", "with a mask of ones", "positions that run on"])
def test_the_isolation_test_would_see_a_leak(attention: str, mistake: str):
    """Each of these three is how a caller of transformers loses the isolation, without a warning."""
    model, rows = small_llama(attention), [samples for samples in random_rows(40) if len(samples) > 1][:5]

    def leaking(batch: Batch) -> torch.Tensor:
        ids, positions = batch["input_ids"], batch["position_ids"]
        if mistake == "with a cache":
            return model(ids, position_ids=positions, use_cache=True).logits
        if mistake == "with a mask of ones":
            return model(ids, position_ids=positions, attention_mask=torch.ones_like(ids), use_cache=False).logits
        return model(ids, position_ids=torch.arange(ids.shape[1])[None], use_cache=False).logits

    assert worst_difference(model, rows, leaking) > 0.1


def test_rows_of_a_store_are_gathered_as_they_are_collated(llama2_tokenizer_folder):
    import torch

    from mft.conversation import Conversation, Message
    from mft.tokenization.collate import gather
    from mft.tokenization.compatibility import format_for
    from mft.tokenization.load import load_tokenizer
    from mft.tokenization.store import encode_conversations

    llama2 = load_tokenizer(llama2_tokenizer_folder)
    rows = [Conversation(f"{index}", "ab"[index % 2], tuple(
        Message("assistant" if turn % 2 else "user", f"{index} " * (turn + 1), train=turn != 1 or index % 3 > 0) for turn in range(4)))
        for index in range(9)]
    store = encode_conversations(rows, format_for("codefuse", llama2), llama2, 10_000, ["a", "b"]).samples
    for indices in ([0], [3, 1, 8], list(range(9))):
        ours, other = gather(store, indices), collate([store[index] for index in indices])
        assert list(ours) == list(other)
        for key, tensor in ours.items():
            assert torch.equal(tensor, other[key]), key
            assert tensor.dtype == torch.int64
