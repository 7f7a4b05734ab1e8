"""The range of every number a config may hold, as data: wasting money starts with a typo here."""

import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Bound:
    """A closed range, or open at an end where `above` or `below` says so.

    Infinities and NaN are outside every range. `usual` is what to write instead.
    """

    usual: str
    at_least: float = -math.inf
    at_most: float = math.inf
    above: float = -math.inf
    below: float = math.inf

    def admits(self, value: float) -> bool:
        """Tell whether the value is finite and inside.

        >>> Bound("1e-4", above=0.0, at_most=1.0).admits(0.0)
        False
        """
        # Whole numbers are finite, also those too large for isfinite to turn into a float.
        finite = isinstance(value, int) or math.isfinite(value)
        closed = self.at_least <= value <= self.at_most
        return finite and closed and self.above < value < self.below

    def __str__(self) -> str:
        words = [
            f"at least {self.at_least:,.10g}" if math.isfinite(self.at_least) else "",
            f"above {self.above:,.10g}" if math.isfinite(self.above) else "",
            f"at most {self.at_most:,.10g}" if math.isfinite(self.at_most) else "",
            f"below {self.below:,.10g}" if math.isfinite(self.below) else "",
        ]
        return " and ".join(word for word in words if word) or "finite"


_COUNT = Bound("1", at_least=1, at_most=1_000_000)

# Upper ends are where a value can only be a slip: a learning rate of 1 diverges any transformer,
# a batch of 65,536 rows fits no GPU, a pod for more than 30 days is somebody who forgot it.
BOUNDS: Mapping[str, Bound] = {
    "seed": Bound("42", at_least=0, at_most=2**32 - 1),
    "trainer.learning_rate": Bound("2e-5", at_least=1e-10, at_most=1),
    "trainer.num_train_epochs": Bound("3", above=0, at_most=1000),
    "trainer.per_device_train_batch_size": Bound("8", at_least=1, at_most=65_536),
    "trainer.per_device_eval_batch_size": Bound("8", at_least=1, at_most=65_536),
    "trainer.gradient_accumulation_steps": Bound("1", at_least=1, at_most=65_536),
    "trainer.warmup_steps": Bound("0.03 (a share) or 100 (steps)", at_least=0, at_most=1_000_000),
    "trainer.weight_decay": Bound("0.01", at_least=0, at_most=1),
    "trainer.max_grad_norm": Bound("1.0", at_least=0, at_most=1_000_000),
    "trainer.adam_beta1": Bound("0.9", at_least=0, below=1),
    "trainer.adam_beta2": Bound("0.999", at_least=0, below=1),
    "trainer.adam_epsilon": Bound("1e-8", above=0, at_most=0.01),
    "trainer.logging_steps": _COUNT,
    "trainer.eval_steps": _COUNT,
    "trainer.save_steps": _COUNT,
    "trainer.save_total_limit": Bound("2", at_least=1, at_most=10_000),
    "trainer.dataloader_num_workers": Bound("0", at_least=0, at_most=256),
    "trainer.neftune_noise_alpha": Bound("5", above=0, at_most=100),
    "method.beta": Bound("0.1 (TRL's default)", above=0, at_most=100),
    "method.label_smoothing": Bound("0", at_least=0, below=0.5),
    "method.max_length": Bound("1024", at_least=8, at_most=10_000_000),
    "method.max_completion_length": Bound("512", at_least=8, at_most=10_000_000),
    "method.dataset_num_proc": Bound("4", at_least=1, at_most=1024),
    "adapter.r": Bound("16", at_least=1, at_most=4096),
    "adapter.lora_alpha": Bound("32", at_least=1, at_most=65_536),
    "adapter.lora_dropout": Bound("0.05", at_least=0, at_most=0.9),
    "model.tokenizer_vocab_size": Bound("2048", at_least=300, at_most=1_000_000),
    "data.max_rows": _COUNT,
    "data.max_eval_rows": _COUNT,
    # What trains on less than it evaluates on has the two confused.
    "data.eval.fraction": Bound("0.1", above=0, at_most=0.5),
    "data.max_bad_fraction": Bound("0.01", at_least=0, below=1),
    "data.max_duplicate_fraction": Bound("0.5", at_least=0, at_most=1),
    "data.max_leaked_fraction": Bound("0.1", at_least=0, at_most=1),
    "data.shuffle_seed": Bound("0", at_least=0, at_most=2**32 - 1),
    "scorer.gap_weight": Bound("0.02", at_least=0, at_most=1),
    "scorer.gap_limit": Bound("0.5", at_least=0, at_most=1),
    "scorer.train_ema_alpha": Bound("0.5", above=0, at_most=1),
    "scorer.early_stopping.patience": Bound("3", at_least=1, at_most=1_000_000),
    "scorer.early_stopping.min_delta": Bound("0", at_least=0, at_most=10),
    "scorer.reward_tolerance": Bound("0.05", at_least=0, at_most=1),
    "scorer.accuracy_weight": Bound("0.2", at_least=0, at_most=1),
    "scorer.eval_ema_alpha": Bound("0.5", above=0, at_most=1),
    "scorer.trend.window": Bound("20", at_least=6, at_most=200),
    "scorer.trend.stop_on_divergence": Bound("3", at_least=1, at_most=1_000_000),
    "scorer.trend.stop_on_plateau": Bound("20", at_least=1, at_most=1_000_000),
    "recovery.max_restarts": Bound("3", at_least=0, at_most=100),
    "recovery.oom.max_halvings": Bound("3", at_least=0, at_most=16),
    "recovery.nonfinite.max_consecutive": Bound("10", at_least=1, at_most=1_000_000),
    "predictions.samples": Bound("4", at_least=1, at_most=64),
    "predictions.every": _COUNT,
    "predictions.max_new_tokens": Bound("64", at_least=1, at_most=4096),
    "predictions.max_seconds": Bound("30", above=0, at_most=3600),
    "pod.gpu_count": Bound("1", at_least=1, at_most=8),
    "pod.node_count": Bound("1", at_least=1, at_most=64),
    "pod.container_disk_gb": Bound("40", at_least=5, at_most=10_000),
    "pod.volume_gb": Bound("0", at_least=0, at_most=100_000),
    "pod.max_hours": Bound("12", above=0, at_most=720),
    "pod.max_usd": Bound("50", above=0, at_most=100_000),
}
