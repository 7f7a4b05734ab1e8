"""The place of a formula of your own: the text of `scorer.file` rides in the script instead.

Here stands the least that such a file must define: the eval loss itself.
"""

from collections.abc import Mapping

from podproof.runtime.plan import ScorerPlan
from podproof.runtime.scores import Evaluation, ScoreState


def own_components(
    _state: ScoreState, evaluation: Evaluation, _plan: ScorerPlan
) -> Mapping[str, float]:
    """Return named terms that sum to the score of an evaluation; lower is better."""
    return {"eval_loss": evaluation.loss}


def own_bound(_plan: ScorerPlan) -> tuple[float, float]:
    """Return how far below and above the eval loss a score may lie, in units of its scale."""
    return 0.0, 0.0
