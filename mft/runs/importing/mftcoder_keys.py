"""Keys of MFTCoder's JSON that mean nothing here, and those whose effect does not exist here."""

from typing import Final

MEANINGLESS: Final = {
    "output_dir": "`mft train CONFIG --out DIR`; default runs/NAME",
    "tb_dir": "tracking.tensorboard: true writes into the run's folder",
    "vocab_file": "the tokenizer is the base's own",
    "tokenizer_type": "the tokenizer is the base's own",
    "use_slow_tokenizer": "the tokenizer is the base's tokenizer.json",
    "model_type": "read from the base's config.json",
    "load_raw_dataset": "the recipe says what is read",
    "low_cpu_mem_usage": "weights are read tensor by tensor",
    "use_xformers": "model.attention decides",
    "trust_remote_code": "that code uses classes of its own or of transformers; here transformers' alone",
    "weight_by_num_documents": "overwritten by that code",
    "make_vocab_size_divisible_by": "no padding of the vocabulary",
    "model_parallel_size": "1: not read by that code",
    "world_size": "overwritten by that code; --gpus N says it here",
    "shuffle_before_split": "the split is by a hash of each row",
    "use_random_sampler": "rows are always shuffled",
    "use_dynamic_padding": "rows are packed, not padded",
    "per_device_eval_batch_size": "validation is packed like training",
    "data_weights": "overwritten by that code",
    "auto_resume": "`mft train` goes on by itself",
    "distributed_type": "given on that code's command line",
    "preprocessing_num_workers": "set by the machine",
    "num_workers": "set by the machine",
}
"""Key -> why."""

MISSING: Final = {
    "resume_from_checkpoint": "checkpoints of another tool cannot be resumed; a run of ours goes on by itself",
    "epoch_checkpointing": "checkpoints count steps: training.checkpoint_every; adapter-best is kept besides",
}
"""Key -> why, or what to do instead."""

KNOWN: Final = [
    "data_paths", "data_split", "tokenize_mode", "pretrained_model_path", "role_markers", "seq_length", "attn_implementation", "peft_type",
    "quantization", "lora_rank", "lora_alpha", "lora_dropout", "target_modules", "weighted_loss_mode", "task_weights",
    "coba_warmup_steps", "coba_history_length", "coba_tau", "coba_update_interval", "coba_sample_valid_num", "selfpaced_interval",
    "selfpaced_history_length", "selfpaced_sample_valid_num", "selfpaced_scale_factor", "num_train_epochs", "max_train_steps",
    "per_device_train_batch_size", "gradient_accumulation_steps", "learning_rate", "min_lr", "lr_scheduler_type", "num_warmup_steps",
    "weight_decay", "seed", "padding_mode", "log_interval", "evalation_steps", "evaluation_steps", "checkpointing_steps", "saving_limit",
    "early_stopping", "early_stopping_stall_num", "init_timeout_seconds", "checkpoint_activations",
]
"""The other keys, for likely spellings."""
