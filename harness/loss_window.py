"""The losses of micro-batches between two logs, summed as the trainer sums them."""

import math


class LossWindow:
    """What became of the losses since the last train log, and since the run began.

    After `Trainer._run_epoch` and `_maybe_log_save_evaluate`: with the filter a loss that is not
    finite counts as the average of the window, so a window of nothing else logs 0.0; without it
    one NaN makes every later log NaN, since NaN - NaN is NaN. And after `log` of TRL's trainers,
    which adds the metrics gathered in training only while the model is in training mode.
    """

    def __init__(self, *, filters_nonfinite: bool, step: int) -> None:
        """Begin at a step, with nothing summed."""
        self.filters_nonfinite = filters_nonfinite
        self.first_step = self.last_logged_step = step
        self.logged_loss: float | None = None
        self.is_training_mode = False
        self.has_train_metrics = False
        self._has_metrics = False
        self._is_known = False
        self._sum = 0.0
        self._total = 0.0

    def add(self, loss: float | None, step: int) -> None:
        """Count a micro-batch and its loss, divided by the micro-batches of its update if known."""
        self.is_training_mode = self._has_metrics = True
        if loss is None:
            return
        if self.filters_nonfinite and not math.isfinite(loss):
            loss = self._sum / (1 + step - self.last_logged_step)
        self._is_known = True
        self._sum += loss

    def drain(self, step: int) -> None:
        """Begin the next window; `logged_loss` is the mean of the steps of this one if known."""
        mean = self._sum / (step - self.last_logged_step)
        self.logged_loss = mean if self._is_known else None
        self._total += self._sum
        self._sum -= self._sum
        self.last_logged_step = step
        self.take_metrics()

    def take_metrics(self) -> None:
        """Begin a log; `has_train_metrics` tells whether the metrics of training are in it."""
        self.has_train_metrics = self._has_metrics and self.is_training_mode
        self._has_metrics = False

    def train_loss(self, step: int) -> float | None:
        """Return the mean loss of all steps of this run if known, for the final log."""
        # The trainer divides by this much where a finished run was resumed.
        mean = (self._total + self._sum) / max(step - self.first_step, 0.001)
        return mean if self._is_known else None
