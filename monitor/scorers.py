"""The scorers a finished run can be put to: the one place that lists them."""

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from podproof.compiler.errors import BadConfig
from podproof.monitor.own_formula import load_formula, replay_formula
from podproof.runtime.errors import Problem
from podproof.runtime.plan import Objective, ScorerName, ScorerPlan
from podproof.runtime.scorer import SCORERS, final_choice, replay_scores
from podproof.runtime.scores import Score, ScoreState

Replay = Callable[[Iterable[Mapping[str, Any]]], tuple[ScoreState, tuple[Score, ...]]]


@dataclass(frozen=True)
class Scorer:
    """A name, a fold over a trainer's log, and the plan it is folded with."""

    name: str
    replay: Replay
    plan: ScorerPlan

    def choose(self, scores: Sequence[Score]) -> Score | None:
        """Return the score of the checkpoint that a run with these scores ends with."""
        return final_choice(scores, self.plan)


def named_scorers(
    names: Sequence[str], objective: Objective = Objective.LOSS
) -> tuple[Scorer, ...]:
    """Return the scorers of these names, every one that ships when none is named.

    They have their default weights. Raises BadConfig for a name that is none of them.

    >>> [scorer.name for scorer in named_scorers([])]
    ['robust', 'eval_loss', 'seed_v1']
    """
    known = {
        name.value: _shipped(ScorerPlan(name=name, objective=objective))
        for name in SCORERS
        if name is not ScorerName.OWN
    }
    unknown = [name for name in names if name not in known]
    if unknown:
        raise BadConfig(*(_unknown(name, known) for name in unknown))
    return tuple(known[name] for name in dict.fromkeys(names or known))


def scorer_of_file(path: Path) -> Scorer:
    """Return the scorer of a file that defines `own_components`; it is called by the file's name.

    The file is run, so it must be one that is trusted. Raises BadConfig.
    """
    replay = partial(replay_formula, formula=load_formula(path))
    return Scorer(path.stem, replay, ScorerPlan(name=ScorerName.OWN, file=str(path)))


def _shipped(plan: ScorerPlan) -> Scorer:
    return Scorer(plan.name.value, partial(replay_scores, plan=plan), plan)


def _unknown(name: str, known: Iterable[str]) -> Problem:
    close = difflib.get_close_matches(name, list(known), n=1)
    way_out = f"did you mean {close[0]}?" if close else f"choose of {', '.join(known)}"
    return Problem("--scorer", f"no scorer is called {name!r}", way_out)
