"""Rules about sample predictions; each is seen to refuse, and seen not to."""

from collections.abc import Mapping
from typing import Any

from podproof.compiler.schema import EvalStrategy
from podproof.runtime.plan import Validator

Values = Mapping[str, Any]

# (rule, config, what is changed in it, the key that must be refused)
REFUSED_PREDICTIONS: list[tuple[str, str, Values, str]] = [
    (
        "prediction_problems",
        "sft",
        {"predictions.enabled": True, "predictions.validators": (Validator.JSON_SCHEMA,)},
        "predictions.json_schema",
    ),
    (
        "prediction_problems",
        "dpo",
        {"predictions.enabled": True, "predictions.json_schema": {"type": "object"}},
        "predictions.json_schema",
    ),
    (
        "prediction_problems",
        "sft",
        {
            "predictions.enabled": True,
            "predictions.validators": (Validator.JSON_SCHEMA,),
            "predictions.json_schema": {"properties": {"name": {"type": "strng"}}},
        },
        "predictions.json_schema.properties.name.type",
    ),
    (
        "prediction_problems",
        "sft",
        {
            "predictions.enabled": True,
            "predictions.validators": (Validator.JSON_SCHEMA,),
            "predictions.json_schema": {"$schema": 7},
        },
        "predictions.json_schema.$schema",
    ),
    (
        "prediction_problems",
        "sft",
        {"predictions.enabled": True, "predictions.validators": (Validator.JSON,) * 2},
        "predictions.validators",
    ),
    (
        "prediction_problems",
        "sft",
        {"predictions.enabled": True, "trainer.eval_strategy": EvalStrategy.NO},
        "predictions.enabled",
    ),
]

ALLOWED_PREDICTIONS: list[tuple[str, str, Values]] = [
    (
        "prediction_problems",
        "sft",
        {
            "predictions.enabled": True,
            "predictions.validators": tuple(Validator),
            "predictions.json_schema": {"type": "object"},
        },
    ),
    ("prediction_problems", "sft", {"predictions.json_schema": {"type": "object"}}),
]
