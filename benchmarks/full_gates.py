"""How long the gates of level full take: for one script alone, and for one more beside others.

    .venv/bin/python benchmarks/full_gates.py

`cold` starts the process that loads the training libraries, `warm` finds it running. The scripts
are those of the three tiny experiments, with all weights trained and with LoRA.
"""

import resource
import statistics
import time
from dataclasses import replace
from pathlib import Path

from podproof.compiler.ir import PodScript
from podproof.compiler.lower import lower
from podproof.compiler.read import Request, read
from podproof.compiler.script import compile_run
from podproof.harness.smoke import smoke_answer
from podproof.harness.trainer import trainer_answer
from podproof.harness.verdict import Surroundings
from podproof.harness.warm import WarmTrainer

ROUNDS = 3
EXPERIMENTS = ("tiny_sft", "tiny_dpo", "tiny_orpo")
ADAPTERS = ("none", "lora")
ROOTS = (Path(__file__).parent.parent,)


def script_of(experiment: str, adapter: str) -> PodScript:
    """Return the compiled script of a shipped experiment with that adapter."""
    return compile_run(lower(read(Request((f"experiment={experiment}", f"adapter={adapter}")))))


def asked(script: PodScript, there: Surroundings) -> tuple[float, float]:
    """Return the seconds that trainer and smoke gate take; both must clear the script."""
    times = [time.perf_counter()]
    for ask in (trainer_answer, smoke_answer):
        _, problems = ask(script, there)
        assert not problems, problems
        times.append(time.perf_counter())
    return times[1] - times[0], times[2] - times[1]


def main() -> None:
    """Print the medians, and how much memory the largest process of them took."""
    scripts = [script_of(name, adapter) for name in EXPERIMENTS for adapter in ADAPTERS]
    there = Surroundings(ROOTS)
    cold, warmed = [], []
    for _ in range(ROUNDS):
        with WarmTrainer() as warm:
            alone = replace(there, warm=warm)
            cold.append(sum(asked(scripts[0], alone)))
            warmed += [asked(script, alone) for script in scripts]
    trainer, smoke = (statistics.median(times) for times in zip(*warmed, strict=True))
    peak_mb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"cold, trainer and smoke  {statistics.median(cold):.1f} s")
    print(f"warm, trainer            {trainer:.2f} s")
    print(f"warm, smoke              {smoke:.2f} s")
    print(f"largest process          {peak_mb:.0f} MB")


if __name__ == "__main__":
    main()
