"""The public Python of mft: the names, and what they are called with."""

import inspect

import pytest

PUBLIC = {
    "mft.data.build": ["recipe", "out", "overwrite", "engine", "report"],
    "mft.formats.get": ["name", "bos", "eos", "control", "template"],
    "mft.tokenization.encode": ["conversation", "prompt_format", "tokenizer", "task_id"],
    "mft.tokenization.pack": ["lengths", "capacity", "seed"],
    "mft.training.losses.task_loss": ["token_losses", "labels", "task_ids", "sample_ids", "mode", "weights", "num_tasks", "counts",
                                       "num_samples"],
    "mft.evaluation.score": ["samples", "problems", "protocol", "options", "facts", "own_prompt", "plus", "folder", "progress"],
    "mft.merging.merge": ["base", "adapter", "out", "options", "prompt_format", "overwrite", "progress", "finish", "weights"],
}


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_function_is_where_the_design_says_and_takes_what_it_took(name):
    module, _, function = name.rpartition(".")
    found = getattr(__import__(module, fromlist=[function]), function)
    assert list(inspect.signature(found).parameters) == PUBLIC[name]
    assert inspect.getdoc(found)
