"""A small random Llama in float32 with a LoRA adapter, and random samples of three tasks, for tests of the trainer."""

import torch
from transformers import LlamaConfig, LlamaForCausalLM, TrainingArguments
from trl.trainer.utils import add_fused_lm_head

from mft.modeling.adapters import add_adapter
from mft.modeling.config import AdapterConfig
from mft.tokenization.encode import TokenizedSample
from mft.training.arguments import engine_arguments
from mft.training.config import DistributedConfig, TasksConfig, TrainingConfig
from mft.training.ranks import world_size
from mft.training.rows import PackedRows
from mft.training.trainer import MultiTaskTrainer


def small_model(dropout=0.0):
    """PEFT model, float32, whose LoRA B is not zero, so that every adapter tensor has a gradient."""
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=101, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
                         num_key_value_heads=2, max_position_embeddings=256, attn_implementation="sdpa")
    model = LlamaForCausalLM(config).float()
    model.requires_grad_(False)
    add_fused_lm_head(model)
    peft_model = add_adapter(model, AdapterConfig(rank=4, alpha=8, dropout=dropout), seed=3)
    torch.manual_seed(5)
    for name, parameter in peft_model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    return peft_model


def random_samples(count=12, seed=11):
    """`count` samples of 5 to 40 tokens of tasks 0, 1, 2; a prompt, then two thirds trained."""
    generator = torch.Generator().manual_seed(seed)
    samples = []
    for index in range(count):
        length = int(torch.randint(5, 41, (1,), generator=generator))
        ids = torch.randint(3, 101, (length,), generator=generator).tolist()
        prompt = max(1, length // 3)
        samples.append(TokenizedSample(tuple(ids), (-100,) * prompt + tuple(ids[prompt:]), index % 3, f"s{index}"))
    return samples


def make_trainer(model, rows, folder, *, micro, steps=1, global_rows=None, balance="task_token_mean", weights=None, save_every=0,
                 engine="none", clip=1.0):
    """A trainer whose step takes `global_rows` rows (default: all), `micro` at a time on each rank.

    `model` may be a function that makes one: ZeRO-3 must be told before. `engine`: none, ddp, zero1, zero2, zero3, fsdp.
    """
    ranks = world_size()
    accumulation = -(-(global_rows or len(rows)) // (micro * ranks))
    training = TrainingConfig(global_batch_rows=accumulation * micro * ranks, micro_batch_rows=micro, clip=clip, learning_rate=1e-3,
                              warmup=0)
    arguments = TrainingArguments(
        output_dir=str(folder), per_device_train_batch_size=micro, gradient_accumulation_steps=accumulation,
        max_steps=steps, learning_rate=1e-3, max_grad_norm=clip, optim="adamw_torch", seed=1, logging_steps=1, report_to="none",
        disable_tqdm=True, remove_unused_columns=False, use_cpu=True, logging_nan_inf_filter=False,
        save_strategy="steps" if save_every else "no", save_steps=save_every or 500,
        **engine_arguments(distributed_config(engine), training, ranks))
    tasks = TasksConfig(balance=balance, weights=weights or {})
    return MultiTaskTrainer(model=model() if callable(model) and not isinstance(model, torch.nn.Module) else model, args=arguments,
                            training=training, train_rows=rows, task_names=["a", "b", "c"], tasks=tasks,
                            metrics_path=folder / "metrics.jsonl", evaluate_tasks=dict)


def distributed_config(engine):
    if engine.startswith("zero"):
        return DistributedConfig(engine="deepspeed", zero_stage=int(engine[-1]))
    return DistributedConfig(engine=engine)


def rows_of(samples, layout, context=512):
    """PackedRows with this layout (lists of sample indices) instead of the packer's."""
    rows = PackedRows(samples, context, seed=0)
    rows.rows = layout
    return rows
