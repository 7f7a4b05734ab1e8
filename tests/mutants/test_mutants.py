"""A handful of mutants: each is a changed script, the gates refuse it, and no change is no reason."""

import ast

import pytest
from tests.mutants.judge import EXPLAINED, all_mutants, judge, killer_of, scripts
from tests.mutants.operators import Mutant, mutants_of
from tests.mutants.scripts import MODULES

# One of each module, and the gate that refuses it.
KILLED = {
    "readings.usable_loss [condition] not isinstance(value, int | float)"
    " -> isinstance(value, int | float)": "scorer",
    "scores.ScoreState [constant] 1 -> 0": "scorer",
    "scorer.trainer_metric [condition] -score.value -> score.value": "scorer",
    "trend.describe_trend [operator] line.rise < 0 -> line.rise <= 0": "",
    "stopping.is_patience_over [operator] scores.since_best >= patience"
    " -> scores.since_best > patience": "scorer",
    "hooks.isolated [left out] hook(self, args, state, control, **kwargs) -> pass": "dryrun",
    "callback.PodCallback.on_save [decorator] @isolated -> def on_save(self, args: Any, "
    "state: Any, control: Any, **kwargs: Any) -> None:": "dryrun",
}
