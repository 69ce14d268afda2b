"""`mft import axolotl`: its YAML, its data sets and prompts."""

import pytest

from mft import formats
from mft.conversation import Conversation, Message
from mft.data.config import load_recipe
from mft.errors import ConfigError
from mft.runs.config import load_project
from mft.runs.importing.importer import import_config, write_imported

QLORA = """\
base_model: org/base
load_in_4bit: true
adapter: qlora
datasets:
  - path: org/rows
    type: alpaca
    split: train[:20%]
val_set_size: 0.05
sequence_len: 4096
sample_packing: true
lora_r: 32
lora_alpha: 16
lora_target_linear: true
micro_batch_size: 2
gradient_accumulation_steps: 4
num_epochs: 4
optimizer: paged_adamw_32bit
lr_scheduler: cosine
learning_rate: 0.0002
bf16: auto
gradient_checkpointing: true
flash_attention: true
special_tokens:
  pad_token: "<unk>"
  eos_token: "<end>"
"""


def imported(tmp_path, text=QLORA, **options):
    path = tmp_path / "qlora.yml"
    path.write_text(text, encoding="utf-8")
    result = import_config("axolotl", path, out=tmp_path / "ours.yaml", **options)
    write_imported(result, tmp_path / "ours.yaml", overwrite=True)
    return load_project(tmp_path / "ours.yaml"), load_recipe(tmp_path / "ours-data.yaml"), result.report


def keys(report, part):
    return [entry["key"] for entry in report[part]]


def test_a_qlora_config_keeps_its_meaning(tmp_path):
    project, recipe, report = imported(tmp_path, gpus=2)
    train, training = project.stage("train"), project.stage("train").training
    assert (project.model.base, project.model.context, project.model.attention) == ("org/base", 4096, "flash_attention_2")
    row = Conversation("row", "task", (Message("user", "2+2?"), Message("assistant", "4")))
    text = "".join(part.text for part in formats.get(project.model.format).render(row))
    assert text.endswith("completes the request.\n\n### Instruction:\n2+2?\n\n### Response:\n4</s>")
    assert (train.quantization.type, train.quantization.double_quant, train.quantization.compute_dtype) == ("nf4", True, "bf16")
    assert (train.adapter.type, train.adapter.rank, train.adapter.alpha, train.adapter.dropout) == ("lora", 32, 16, 0.0)
    assert (training.global_batch_rows, training.micro_batch_rows, training.optimizer, training.recompute) == (16, 2, "paged_adamw", "full")
    assert (training.warmup, training.weight_decay, training.keep_last, training.seed) == (0.03, 0.0, 4, 42)
    assert (train.distributed.engine, train.tasks.balance) == ("ddp", "token_mean")
    source = recipe.tasks["rows"].sources[0]
    assert (source.type, source.name, source.split, source.converter) == ("hub", "org/rows", "train", "alpaca")
    assert (recipe.tasks["rows"].steps[0].fraction, recipe.split.validation) == (0.2, 0.05)
    assert "special_tokens.eos_token" in keys(report, "without_counterpart")
    assert "special_tokens.pad_token" in keys(report, "ignored")


def test_defaults_that_the_file_leaves_out_are_written_out(tmp_path):
    text = ("base_model: b\nlearning_rate: 1e-4\nadapter: lora\nmicro_batch_size: 1\ndatasets:\n  - path: o/d\n"
            "    type: chat_template\n")
    project, recipe, _ = imported(tmp_path, text)
    train = project.stage("train")
    assert (project.model.context, project.model.format, train.quantization.type) == (512, "jinja", "none")
    assert (train.quantization.compute_dtype, train.adapter.rank, train.adapter.alpha) == ("fp32", 8, 8)
    assert (train.training.epochs, train.training.schedule, train.training.optimizer) == (1, "cosine", "adamw")
    assert (train.training.evaluate_every, recipe.split.validation) == (0, 0)
    assert recipe.tasks["d"].sources[0].converter == "messages"


def test_fsdp_under_a_4_bit_base_becomes_zero_3_with_its_offload(tmp_path):
    more = "fsdp_version: 2\nfsdp_config:\n  offload_params: true\n  state_dict_type: FULL_STATE_DICT\n"
    project, _, report = imported(tmp_path, QLORA.replace("paged_adamw_32bit", "adamw_torch_fused") + more, gpus=8)
    distributed = project.stage("train").distributed
    assert (distributed.engine, distributed.zero_stage, distributed.offload) == ("deepspeed", 3, "all")
    assert {"fsdp_config.offload_params", "fsdp_config.state_dict_type"} <= set(keys(report, "mapped"))


def test_all_weights_train_where_there_is_no_adapter(tmp_path):
    text = QLORA.replace("adapter: qlora\n", "").replace("load_in_4bit: true\n", "")
    project, _, report = imported(tmp_path, text)
    assert (project.stage("train").adapter.type, project.stage("train").quantization.type) == ("full", "none")
    assert {"lora_r", "lora_alpha", "lora_target_linear"} <= set(keys(report, "ignored"))


@pytest.mark.parametrize(("kind", "converter", "format_name"), [
    ("    type: completion\n    field: body\n", {"type": "text", "columns": {"text": "body"}}, "raw"),
    ("    type: sharegpt\n    conversation: chatml\n", "sharegpt", "chatml"),
    ("    type: chat_template\n    chat_template: chatml\n    field_messages: talk\n    message_property_mappings:\n      role: from\n"
     "      content: value\n", {"type": "sharegpt", "columns": {"conversations": "talk"}}, "chatml"),
    ("    type: chat_template\n    field_messages: talk\n", {"type": "messages", "columns": {"messages": "talk"}}, "jinja"),
])
def test_types_of_data_sets_become_converters_and_formats(tmp_path, kind, converter, format_name):
    project, recipe, report = imported(tmp_path, QLORA.replace("    type: alpaca\n", kind))
    chosen = recipe.tasks["rows"].sources[0].converter
    assert (chosen if isinstance(chosen, str) else chosen.model_dump()) == converter
    assert project.model.format == format_name
    assert "datasets.0.type" in keys(report, "mapped")


def test_a_template_of_the_users_own_becomes_a_format_with_the_same_text(tmp_path):
    kind = ('    type:\n      field_instruction: ask\n      field_output: reply\n      format: "Q: {instruction}\\nC: {input}\\nA:"\n'
            '      no_input_format: "Q: {instruction}\\nA:"\n      system_prompt: ""\n')
    project, recipe, _ = imported(tmp_path, QLORA.replace("    type: alpaca\n", kind))
    assert recipe.tasks["rows"].sources[0].converter.columns == {"instruction": "ask", "output": "reply"}
    rows = [Conversation("row", "task", (Message("user", "2+2?"), Message("assistant", "4"))),
            Conversation("row", "task", (Message("user", "add\n2, 2", input_start=4), Message("assistant", "4")))]
    made = formats.get(project.model.format)
    assert ["".join(part.text for part in made.render(row)) for row in rows] == ["Q: 2+2?\nA:4</s>", "Q: add\nC: 2, 2\nA:4</s>"]


def test_data_sets_of_several_types_share_the_first_ones_format_and_that_is_said(tmp_path):
    project, recipe, report = imported(tmp_path, QLORA.replace("val_set_size", "  - path: org/talk\n    type: chat_template\nval_set_size"))
    assert project.model.format["extends"] == "alpaca"
    assert list(recipe.tasks) == ["rows", "talk"]
    assert any("different types" in note for note in report["notes"])


def test_a_pattern_of_layers_has_no_counterpart(tmp_path):
    text = QLORA.replace("lora_target_linear: true", "lora_target_modules: 'model.layers.[\\d]+.mlp.(up|down)_proj'")
    project, _, report = imported(tmp_path, text)
    assert project.stage("train").adapter.targets == "all-linear"
    assert "lora_target_modules" in keys(report, "without_counterpart")


@pytest.mark.parametrize(("change", "message"), [
    (("adapter: qlora", "rl: dpo\nadapter: qlora"), r"qlora.yml:3: rl: dpo: preference and reinforcement training have no counterpart"),
    (("adapter: qlora", "adapter: llama-adapter"), r"qlora.yml:3: adapter: llama-adapter: no counterpart here; lora, qlora and none"),
    (("learning_rate: 0.0002\n", ""), r"qlora.yml:1: learning_rate is required and not given"),
    (("lora_r: 32", "lora_r: 0"), r"qlora.yml:11: stages.train.adapter.rank: expected at least 1, found 0"),
])
def test_a_mistake_is_said_with_its_line(tmp_path, change, message):
    with pytest.raises(ConfigError, match=message):
        imported(tmp_path, QLORA.replace(*change))
