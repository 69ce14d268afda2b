"""The multi-task fine-tune: losses, the trainer, checkpoints."""
