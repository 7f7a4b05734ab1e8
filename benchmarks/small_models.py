"""Which architectures of transformers a small model can be made of, for the gates of level full.

Each model type for causal language models is taken with its own default sizes. Some defaults are
incomplete, and build nothing at all: those say nothing about the way they are made small.

    .venv/bin/python benchmarks/small_models.py
"""

import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path

from podproof import Request, lower, read
from podproof.harness.small_model import is_built, with_small_model
from podproof.runtime.plan import ModelInit, ModelPlan, Plan


def outcome(plan: Plan, kind: str) -> str:
    """Return `not built` of a type whose defaults build no model, else `small` or `stand-in`."""
    if not is_built({"model_type": kind}):
        return "not built"
    model = ModelPlan(init=ModelInit.RANDOM, config={"model_type": kind})
    small = with_small_model(replace(plan, model=model), Path())
    return "small" if small.plan.model.config["model_type"] == kind else "stand-in"


def main() -> None:
    """Print each type that has no small model, and how many have one."""
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    plan = lower(read(Request(("experiment=tiny_sft",)))).plan
    outcomes = {kind: outcome(plan, kind) for kind in sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)}
    for kind, told in outcomes.items():
        if told != "small":
            print(f"{told:10} {kind}")
    counts = Counter(outcomes.values())
    print(f"transformers {transformers.__version__}:", dict(counts), "of", len(outcomes))


if __name__ == "__main__":
    main()
