"""Judge four experiments in two workers; one of them kills whatever process asks about it."""

import os
import signal
from pathlib import Path

from podproof.harness.batch import judge_all
from podproof.harness.experiments import Experiment, Order
from podproof.harness.judgement import Judgement
from podproof.harness.verdict import Surroundings


class Deadly(Order):
    """An order that clears everything but the experiment called deadly."""

    def judge(self, experiment: Experiment) -> Judgement:
        if experiment.name == "deadly":
            os.kill(os.getpid(), signal.SIGKILL)
        return Judgement(experiment.name, "", None, None, is_cleared=True, verdicts=())


def main() -> None:
    experiments = [Experiment(name, Path(name), Path()) for name in ("a", "deadly", "b", "c")]
    for item in judge_all(experiments, Deadly(Surroundings()), jobs=2):
        why = "".join(problem.what for verdict in item.verdicts for problem in verdict.problems)
        print(item.subject, f"refused: {why}" if why else "cleared")  # noqa: T201 - its answer


if __name__ == "__main__":
    main()
