"""The smallest real transformers.Trainer: a linear model that learns y = 2x, with the calls a trainer makes to StepHealth."""

import torch
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments


class Pairs(Dataset):
    """`(x, y)` pairs with an id; `poison` maps an id to the value its y has instead."""

    def __init__(self, count, poison):
        self.count, self.poison = count, poison

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        x = 1.0 + index % 3
        return {"id": f"r{index}", "x": x, "y": self.poison.get(f"r{index}", 2.0 * x)}


def collate_pairs(pairs):
    return {"ids": [pair["id"] for pair in pairs], "x": torch.tensor([[pair["x"]] for pair in pairs]),
            "y": torch.tensor([[pair["y"]] for pair in pairs])}


class LinearTrainer(Trainer):
    """Rows come in order, two micro-batches a step, one row each: step n takes r(2n-2) and r(2n-1)."""

    loss_is_scaled_for_ga = True

    def __init__(self, folder, *, health=None, poison=None, steps=4, callbacks=(), **options):
        self.health = health
        self.evaluation_losses = iter(options.pop("evaluation_losses", ()))
        torch.manual_seed(0)
        arguments = TrainingArguments(
            output_dir=str(folder), per_device_train_batch_size=1, gradient_accumulation_steps=2, max_steps=steps, learning_rate=0.05,
            lr_scheduler_type="linear", weight_decay=0.1, report_to="none", disable_tqdm=True, use_cpu=True,
            logging_nan_inf_filter=False, remove_unused_columns=False, **{"save_strategy": "no", "logging_steps": 1, **options})
        super().__init__(model=torch.nn.Linear(1, 1), args=arguments, train_dataset=Pairs(64, poison or {}), data_collator=collate_pairs,
                         eval_dataset=Pairs(1, {}), callbacks=[*([health] if health else []), *callbacks])

    def _get_train_sampler(self, train_dataset=None):
        return torch.utils.data.SequentialSampler(self.train_dataset)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        loss = ((model(inputs["x"]) - inputs["y"]) ** 2).mean() / 2
        if self.health:
            names = list(inputs["ids"])
            self.health.micro_batch(loss, lambda: names)
        return loss

    def _get_grad_norm(self, model, grad_norm=None):
        norm = super()._get_grad_norm(model, grad_norm)
        if self.health and not self.health.step(norm, self.model.parameters(), lambda: {"a": 1.5, "b": float("nan")}):
            self._tr_loss.copy_(self._loss_before)
        return norm

    def _run_epoch(self, *args, **options):
        if not self.control.should_training_stop and self.state.global_step < self.state.max_steps:
            super()._run_epoch(*args, **options)

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        self._loss_before = self._tr_loss.clone()
        return super().get_batch_samples(epoch_iterator, num_batches, device)

    def log(self, logs, start_time=None):
        if self.health and "loss" in logs:
            logs = {**logs, "loss": self.health.mean_loss(logs["loss"])}
            self.health.logged(self.state.global_step, logs["loss"])
            if logs["loss"] is None:
                del logs["loss"]
        super().log(logs, start_time)

    def evaluate(self, *args, **options):
        metrics = {"eval/loss": next(self.evaluation_losses, 1.0)}
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics
