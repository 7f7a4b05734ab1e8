"""What the ranks of one run settle between them while the trainer runs.

Every rank trains, evaluates and scores; losses and TRL's metrics are the same on all of them. What
is not the same is who hears a signal, and whose clock says that time is up. A rank that acted on
such a thing alone would leave the others waiting for it. So at the end of each step the ranks
agree, over a group of their own on the CPU, which waits for no GPU.
"""

import math
from typing import Any

from podproof.runtime.callback import StopRequest
from podproof.runtime.scorer import SCORE_KEY

_AGREEMENT_STOPS = ("should_training_stop", "should_epoch_stop")
_AGREEMENT_FLAGS = (*_AGREEMENT_STOPS, "should_save", "should_evaluate", "should_log")


class Agreement:
    """The last callback of each rank: what one of them decides, all of them do.

    Its exceptions are not caught: a rank that cannot reach the others has no run to go on with.
    """

    def __init__(self, group: Any, heard: StopRequest, stop: StopRequest) -> None:
        """Put into `stop` what some rank's `heard`, or its `stop`, asks for."""
        import torch.distributed as dist

        self._group = group
        self._is_first = dist.get_rank() == 0
        self._heard = heard
        self._stop = stop
        self._is_agreed = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """From now on a signal waits for the end of the step."""
        self._heard.is_awaited = True

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop on all ranks when one of them wants to; evaluate and save when the first does."""
        self._agree(control)

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: dict[str, Any], **kwargs: Any
    ) -> None:
        """Compare checkpoints by the first rank's score, whatever happened on the others."""
        import torch
        import torch.distributed as dist

        score = torch.tensor([metrics.get(SCORE_KEY, math.nan)], dtype=torch.float64)
        dist.broadcast(score, src=0, group=self._group)
        metrics[SCORE_KEY] = score.item()
        self._agree(control)

    def _agree(self, control: Any) -> None:
        import torch
        import torch.distributed as dist

        request = self._stop if self._stop.reason is not None else self._heard
        wanted = [
            getattr(control, flag) and (self._is_first or flag in _AGREEMENT_STOPS)
            for flag in _AGREEMENT_FLAGS
        ]
        agreed = torch.tensor([*wanted, request.reason is not None], dtype=torch.int32)
        dist.all_reduce(agreed, dist.ReduceOp.MAX, self._group)
        *flags, is_stop_wanted = (bool(item) for item in agreed.tolist())
        for flag, value in zip(_AGREEMENT_FLAGS, flags, strict=True):
            setattr(control, flag, value)
        if is_stop_wanted and not self._is_agreed:
            self._adopt(request.reason)
        if self._is_agreed:
            control.should_save = control.should_training_stop = True

    def _adopt(self, reason: str | None) -> None:
        """Take over the reason of the lowest rank that has one."""
        import torch.distributed as dist

        reasons: list[str | None] = [None] * dist.get_world_size(self._group)
        dist.all_gather_object(reasons, reason, group=self._group)
        self._stop.reason = next(filter(None, reasons))
        self._is_agreed = True
