"""`mft import mftcoder`: both eras of its JSON."""

import json

import pytest

from mft.data.config import load_recipe
from mft.errors import ConfigError
from mft.runs.config import load_project
from mft.runs.importing.importer import import_config, write_imported

RELEASE = {"data_paths": "[/data/evol,/data/exercise.jsonl]", "pretrained_model_path": "/models/34b", "vocab_file": "/models/34b",
           "output_dir": "/out", "data_split": "95,5,0", "padding_mode": "pack", "tokenize_mode": "sft", "weighted_loss_mode": "case3",
           "model_type": "llama", "peft_type": "qlora", "quantization": "4bit", "lora_rank": 32, "lora_alpha": 32, "lora_dropout": 0.05,
           "per_device_train_batch_size": 2, "learning_rate": 1e-4, "min_lr": 1e-5, "weight_decay": 0.1, "gradient_accumulation_steps": 1,
           "lr_scheduler_type": "cosine", "num_warmup_steps": 300, "num_train_epochs": 8, "seed": 1234, "seq_length": 4096,
           "evalation_steps": 1000, "checkpointing_steps": 1000, "log_interval": 10, "max_train_steps": None, "early_stopping": True,
           "early_stopping_stall_num": 5, "world_size": 128}
COBA = {"data_paths": ["/data/a", "/data/b"], "pretrained_model_path": "/models/7b", "output_dir": "/out", "tb_dir": "/tb",
        "model_type": "llama", "weighted_loss_mode": "coba", "coba_warmup_steps": 50, "coba_history_length": 150, "coba_tau": 4,
        "coba_update_interval": 2, "coba_sample_valid_num": 1, "per_device_eval_batch_size": 8, "tokenize_mode": "sft"}


def imported(tmp_path, values, **options):
    path = tmp_path / "train_config.json"
    path.write_text(json.dumps(values, indent="\t"), encoding="utf-8")
    result = import_config("mftcoder", path, out=tmp_path / "ours.yaml", **options)
    write_imported(result, tmp_path / "ours.yaml")
    return load_project(tmp_path / "ours.yaml"), load_recipe(tmp_path / "ours-data.yaml"), result.report


def test_the_release_config_becomes_the_release_preset(tmp_path):
    project, recipe, report = imported(tmp_path, RELEASE, gpus=40)
    train = project.stage("train")
    assert (project.model.base, project.model.format, project.model.context) == ("/models/34b", "codefuse", 4096)
    assert (train.quantization.type, train.quantization.double_quant, train.quantization.compute_dtype) == ("nf4", True, "bf16")
    assert (train.adapter.rank, train.adapter.alpha, train.adapter.dropout, train.adapter.targets) == (32, 32, 0.05, "release_2023")
    training = train.training
    assert (training.global_batch_rows, training.micro_batch_rows, training.epochs, training.warmup) == (80, 2, 8, 300)
    assert (training.learning_rate, training.min_learning_rate, training.weight_decay, training.clip) == (1e-4, 1e-5, 0.1, 1.0)
    assert (training.betas, training.seed, training.evaluate_every) == ((0.9, 0.95), 1234, 1000)
    assert training.early_stopping is not None
    assert (training.early_stopping.patience, training.keep_best) == (5, True)
    assert train.tasks.balance == "task_token_mean"
    assert {name: task.sources[0].path for name, task in recipe.tasks.items()} == {
        "evol": "/data/evol/**/*.jsonl", "exercise": "/data/exercise.jsonl"}
    assert (recipe.split.validation, recipe.split.by, recipe.steps[0].apply) == (0.05, "id", ["nbsp", "full_width"])
    assert any("300 / 40 = 7.5" in note for note in report["notes"])


def test_the_later_code_has_other_defaults_and_another_format(tmp_path):
    project, recipe, report = imported(tmp_path, {"data_paths": ["/data/a"], "pretrained_model_path": "/models/7b", "tb_dir": "/tb"})
    train = project.stage("train")
    assert (project.model.format, project.model.context, train.quantization.type) == ("mftcoder", 4096, "nf4")
    assert (train.adapter.rank, train.adapter.alpha, train.adapter.targets) == (96, 32, "all-linear")
    assert (train.training.learning_rate, train.training.min_learning_rate, train.training.betas) == (5e-5, 5e-6, (0.9, 0.999))
    assert (train.training.epochs, train.training.micro_batch_rows, train.training.warmup) == (4, 8, 0.05)
    assert train.training.weight_decay == 0.01
    assert (recipe.split.validation, recipe.steps[0].apply) == (0.02, ["nbsp"])
    assumed = {entry["our_key"]: entry["our_value"] for entry in report["assumed"]}
    assert assumed["stages.train.adapter.rank"] == 96


def test_cobas_settings_keep_their_meaning(tmp_path):
    project, _, _ = imported(tmp_path, COBA, gpus=2)
    tasks = project.stage("train").tasks
    assert tasks.balance == "coba"
    assert tasks.coba is not None
    assert (tasks.coba.warmup_probes, tasks.coba.history_probes, tasks.coba.tau, tasks.coba.every) == (50, 150, 4, 2)
    assert tasks.coba.validation_rows == 8   # 1 batch x 8 rows x 2 processes, over 2 tasks


@pytest.mark.parametrize(("mode", "ours"), [("case1", "token_mean"), ("case2", "sample_mean"), ("case3", "task_token_mean"),
                                            ("case4", "task_sample_mean"), ("selfpaced", "self_paced")])
def test_a_loss_mode_has_one_name_here(tmp_path, mode, ours):
    project, _, _ = imported(tmp_path, {**COBA, "weighted_loss_mode": mode})
    assert project.stage("train").tasks.balance == ours


def test_task_weights_are_given_by_name(tmp_path):
    project, _, _ = imported(tmp_path, {**COBA, "weighted_loss_mode": "case3", "task_weights": "[1.0,2.5]"})
    assert project.stage("train").tasks.weights == {"a": 1.0, "b": 2.5}


def test_full_fine_tuning_has_no_adapter_keys_and_no_4_bit_base(tmp_path):
    project, _, report = imported(tmp_path, {**COBA, "peft_type": None, "lora_rank": 96}, gpus=8)
    train = project.stage("train")
    assert (train.adapter.type, train.quantization.type) == ("full", "none")
    assert (train.distributed.engine, train.distributed.zero_stage) == ("deepspeed", 2)
    assert "lora_rank" in [entry["key"] for entry in report["ignored"]]


def test_role_markers_become_a_format_with_the_same_text(tmp_path):
    from mft import formats
    from mft.conversation import Conversation, Message

    markers = {"system": "### System:\n", "user": "### Instruction:\n", "assistant": "### Response:\n"}
    project, _, _ = imported(tmp_path, {**COBA, "role_markers": markers})
    row = Conversation("row", "task", (Message("system", "Be brief."), Message("user", "2+2?"), Message("assistant", "4")))
    segments = formats.get(project.model.format).render(row)
    assert "".join(part.text for part in segments) == "### System:\nBe brief.\n### Instruction:\n2+2?\n### Response:\n4\n</s>\n"
    assert "".join(part.text for part in segments if part.trainable) == "4\n</s>"


def test_a_placeholder_is_filled_as_on_that_tools_command_line(tmp_path):
    values = {**RELEASE, "data_paths": "$DATA_PATHS", "pretrained_model_path": "$MODEL"}
    project, recipe, report = imported(tmp_path, values, overrides=["data_paths=[/x/one]", "pretrained_model_path=base"])
    assert (project.model.base, list(recipe.tasks)) == ("base", ["one"])
    assert not [note for note in report["notes"] if "placeholder" in note]
    with pytest.raises(ConfigError, match="data_split: expected percentages"):
        imported(tmp_path, values, overrides=["data_split=abc"])


def test_preference_training_is_refused_with_its_line(tmp_path):
    with pytest.raises(ConfigError, match=r"train_config.json:2: xxpo: dpo: preference training has no counterpart"):
        imported(tmp_path, {"xxpo": "dpo", **COBA})


def test_files_that_are_found_are_named_relative_to_the_recipe(tmp_path):
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "a.jsonl").write_text('{"prompt": "x", "answer": "y"}\n', encoding="utf-8")
    path = tmp_path / "train_config.json"
    path.write_text(json.dumps({**COBA, "data_paths": ["rows"], "weighted_loss_mode": "case3"}), encoding="utf-8")
    write_imported(import_config("mftcoder", path, out=tmp_path / "made" / "ours.yaml"), tmp_path / "made" / "ours.yaml")
    recipe = load_recipe(tmp_path / "made" / "ours-data.yaml", must_exist=True)
    assert recipe.tasks["rows"].sources[0].path == "../rows/**/*.jsonl"
