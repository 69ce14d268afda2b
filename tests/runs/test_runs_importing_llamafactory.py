"""`mft import llamafactory`: its YAML, dataset_info.json and templates."""

import json

import pytest

from mft import formats
from mft.conversation import Conversation, Message
from mft.data.config import load_recipe
from mft.errors import ConfigError
from mft.runs.config import load_project
from mft.runs.importing.importer import import_config, write_imported

SFT = """\
model_name_or_path: org/base
stage: sft
do_train: true
finetuning_type: lora
lora_rank: 8
lora_target: all
dataset: own,hub_set
template: llama3
cutoff_len: 1024
per_device_train_batch_size: 2
gradient_accumulation_steps: 4
learning_rate: 1.0e-4
num_train_epochs: 3.0
lr_scheduler_type: cosine
warmup_ratio: 0.1
bf16: true
output_dir: saves/x
"""
INFO = {"own": {"file_name": "own.json", "columns": {"prompt": "ask", "query": "more", "response": "reply"}},
        "hub_set": {"hf_hub_url": "org/rows", "subset": "small", "formatting": "sharegpt", "columns": {"messages": "talk"},
                    "tags": {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}}}
ROUNDS = (Message("system", "Be brief."), Message("user", "2+2?"), Message("assistant", "4"), Message("user", "3+3?"),
          Message("assistant", "6"))


def imported(tmp_path, text=SFT, info=INFO, **options):
    path = tmp_path / "sft.yaml"
    path.write_text(text, encoding="utf-8")
    if info is not None:
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "data" / "dataset_info.json").write_text(json.dumps(info), encoding="utf-8")
        (tmp_path / "data" / "own.json").write_text("[]", encoding="utf-8")
    result = import_config("llamafactory", path, out=tmp_path / "ours.yaml", **options)
    write_imported(result, tmp_path / "ours.yaml", overwrite=True)
    return load_project(tmp_path / "ours.yaml"), load_recipe(tmp_path / "ours-data.yaml"), result.report


def fates(report, part):
    return {entry["key"]: entry.get("why", entry.get("our_value")) for entry in report[part]}


def test_defaults_that_the_file_leaves_out_are_written_out(tmp_path):
    text = "model_name_or_path: org/base\nstage: sft\ndataset: own\ntemplate: llama3\n"
    project, recipe, report = imported(tmp_path, text)
    train, training = project.stage("train"), project.stage("train").training
    assert (train.adapter.rank, train.adapter.alpha, train.adapter.dropout, train.adapter.targets) == (8, 16, 0.0, "all-linear")
    assert (project.model.context, train.quantization.type) == (2048, "none")
    assert (training.learning_rate, training.epochs, training.schedule, training.warmup) == (5e-5, 3, "linear", 0)
    assert (training.micro_batch_rows, training.global_batch_rows, training.seed, training.weight_decay) == (8, 8, 42, 0.0)
    assert (training.betas, training.evaluate_every, recipe.split.validation) == ((0.9, 0.999), 0, 0)
    assert train.tasks.balance == "token_mean"
    assumed = {entry["our_key"]: entry["our_value"] for entry in report["assumed"]}
    assert assumed["stages.train.adapter.rank"] == 8
    assert assumed["stages.train.training.global_batch_rows"] == 8


def test_the_rows_of_a_step_are_those_of_all_gpus(tmp_path):
    project, _, report = imported(tmp_path, gpus=4)
    training = project.stage("train").training
    assert (training.global_batch_rows, training.micro_batch_rows, project.stage("train").distributed.engine) == (32, 2, "ddp")
    assert "global_batch_rows" not in " ".join(entry["our_key"] for entry in report["assumed"])


def test_data_sets_become_tasks_with_their_columns(tmp_path):
    _, recipe, report = imported(tmp_path, SFT + "max_samples: 500\nval_size: 0.1\nmask_history: true\n")
    own, hub = recipe.tasks["own"].sources[0], recipe.tasks["hub_set"].sources[0]
    assert (own.type, own.path, own.train) == ("json", "data/own.json", "last")
    assert own.converter.columns == {"instruction": "ask", "input": "more", "output": "reply"}
    assert (hub.type, hub.name, hub.config, hub.split) == ("hub", "org/rows", "small", "train")
    assert (hub.converter.type, hub.converter.columns) == ("messages", {"messages": "talk"})
    assert [(step.type, step.rows) for step in recipe.tasks["own"].steps] == [("sample", 500)]
    assert recipe.split.validation == 0.1
    assert fates(report, "mapped")["dataset"] == ["own", "hub_set"]


def test_without_a_registry_the_sources_are_placeholders_and_that_is_said(tmp_path):
    _, recipe, report = imported(tmp_path, info=None)
    assert list(recipe.tasks) == ["own", "hub_set"]
    assert any("dataset_info.json was not found" in note for note in report["notes"])


def test_qlora_options_keep_their_meaning(tmp_path):
    more = ("quantization_bit: 4\nquantization_method: bnb\ndouble_quantization: false\nuse_rslora: true\nloraplus_lr_ratio: 16\n"
            "neftune_noise_alpha: 5\noptim: paged_adamw_8bit\nflash_attn: fa2\nsave_total_limit: 3\nmax_grad_norm: 0.5\n")
    project, _, _ = imported(tmp_path, SFT + more)
    train = project.stage("train")
    assert (train.quantization.type, train.quantization.double_quant, train.adapter.type) == ("nf4", False, "rslora")
    assert (train.training.lora_plus_ratio, train.training.neftune_alpha, train.training.optimizer) == (16, 5, "paged_adamw_8bit")
    assert (project.model.attention, train.training.keep_last, train.training.clip) == ("flash_attention_2", 3, 0.5)


@pytest.mark.parametrize(("seconds", "written"), [(1, 1 / 60), (1000, 1000 / 60), (7200, 120)])
def test_seconds_of_a_timeout_stay_exact_in_minutes(tmp_path, seconds, written):
    project, _, _ = imported(tmp_path, SFT + f"ddp_timeout: {seconds}\n")
    assert project.stage("train").distributed.timeout_minutes == written


def test_a_deepspeed_file_gives_stage_and_offload(tmp_path):
    settings = {"zero_optimization": {"stage": 3, "offload_optimizer": {"device": "cpu"}, "offload_param": {"device": "cpu"}}}
    (tmp_path / "ds.json").write_text(json.dumps(settings), encoding="utf-8")
    project, _, report = imported(tmp_path, SFT + "deepspeed: ds.json\noptim: adamw_bnb_8bit\n", gpus=8)
    distributed = project.stage("train").distributed
    assert (distributed.engine, distributed.zero_stage, distributed.offload) == ("deepspeed", 3, "all")
    assert project.stage("train").training.optimizer == "adamw"
    assert "cannot shard the state of adamw_8bit" in fates(report, "without_counterpart")["optim"]


def test_a_deepspeed_file_that_is_not_there_is_read_from_its_name_and_that_is_said(tmp_path):
    project, _, report = imported(tmp_path, SFT + "deepspeed: examples/deepspeed/ds_z2_offload_config.json\n")
    distributed = project.stage("train").distributed
    assert (distributed.zero_stage, distributed.offload) == (2, "optimizer")
    assert any("was not found" in note for note in report["notes"])


@pytest.mark.parametrize(("template", "text", "trained"), [
    ("llama3", "<s><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
               "<|start_header_id|>user<|end_header_id|>\n\n2+2?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n4<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n3+3?<|eot_id|>"
               "<|start_header_id|>assistant<|end_header_id|>\n\n6<|eot_id|>", "4<|eot_id|>6<|eot_id|>"),
    ("llama2", "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\n2+2? [/INST]4</s><s>[INST] 3+3? [/INST]6</s>", "4</s>6</s>"),
    ("alpaca", "Be brief.### Instruction:\n2+2?\n\n### Response:\n4</s>\n\n### Instruction:\n3+3?\n\n### Response:\n6</s>\n\n",
     "4</s>6</s>"),
    ("default", "System: Be brief.</s>\nHuman: 2+2?</s>\nAssistant:4</s>\nHuman: 3+3?</s>\nAssistant:6</s>\n", "4</s>6</s>"),
])
def test_a_template_becomes_a_format_with_the_same_text(tmp_path, template, text, trained):
    project, _, _ = imported(tmp_path, SFT.replace("template: llama3", f"template: {template}"))
    control = {token: token for token in ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")}
    segments = formats.get(project.model.format, control=control).render(Conversation("row", "task", ROUNDS))
    assert "".join(part.text for part in segments).rstrip("\n") == text.rstrip("\n")
    assert "".join(part.text for part in segments if part.trainable) == trained


def test_a_template_without_an_equal_is_the_tokenizers_own_and_that_is_said(tmp_path):
    project, _, report = imported(tmp_path, SFT.replace("template: llama3", "template: gemma"))
    assert project.model.format == "jinja"
    assert any("template gemma became jinja" in note for note in report["notes"])


def test_stage_pt_trains_plain_text(tmp_path):
    text = SFT.replace("stage: sft", "stage: pt").replace("dataset: own,hub_set", "dataset: own")
    project, recipe, _ = imported(tmp_path, text, {"own": {"file_name": "own.json", "columns": {"prompt": "body"}}})
    assert project.model.format == "raw"
    assert (recipe.tasks["own"].sources[0].converter.type, recipe.tasks["own"].sources[0].converter.columns) == ("text", {"text": "body"})


@pytest.mark.parametrize(("change", "message"), [
    (("stage: sft", "stage: dpo"), r"sft.yaml:2: stage: dpo: preference and reward training have no counterpart here; sft and pt can"),
    (("finetuning_type: lora", "finetuning_type: freeze"), r"sft.yaml:4: finetuning_type: freeze: no counterpart here; lora and full can"),
    (("lora_rank: 8", "lora_rank: many"), r"sft.yaml:5: lora_rank: expected a number, found 'many'"),
    (("learning_rate: 1.0e-4", "learning_rate: -1"), r"sft.yaml:12: stages.train.training.learning_rate: expected more than 0, found -1"),
    (("cutoff_len: 1024", "cutoff_len: 1024\ncutoff_len: 2"), r"sft.yaml:10: cutoff_len: stands twice, first in line 9"),
])
def test_a_mistake_is_said_with_its_line(tmp_path, change, message):
    with pytest.raises(ConfigError, match=message):
        imported(tmp_path, SFT.replace(*change))


def test_what_has_no_counterpart_is_listed_and_what_is_off_is_not(tmp_path):
    _, _, report = imported(tmp_path, SFT + "use_galore: true\npissa_init: false\ntrain_on_prompt: true\npacking: false\n")
    without = fates(report, "without_counterpart")
    assert {"use_galore", "train_on_prompt", "packing"} <= without.keys()
    assert fates(report, "ignored")["pissa_init"] == "switched off, as here"
    assert fates(report, "ignored")["output_dir"].startswith("`mft train CONFIG --out DIR`")
