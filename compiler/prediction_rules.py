"""What must fit each other when sample predictions are asked for."""

from collections.abc import Iterator, Mapping
from typing import Any

from podproof.compiler.schema import Config, EvalStrategy
from podproof.runtime.errors import Problem
from podproof.runtime.plan import Validator


def prediction_problems(config: Config) -> Iterator[Problem]:
    """Yield a problem for each part of `predictions` that could never measure anything."""
    predictions = config.predictions
    if not predictions.enabled:
        return
    if config.trainer.eval_strategy is EvalStrategy.NO:
        what = "prompts are answered at evaluations, and there are none"
        yield Problem("predictions.enabled", what, "set trainer.eval_strategy=steps")
    for name in sorted(set(predictions.validators)):
        if predictions.validators.count(name) > 1:
            what = f"{name.value} is named twice"
            yield Problem("predictions.validators", what, "name each once")
    is_asked = Validator.JSON_SCHEMA in predictions.validators
    if is_asked and not predictions.json_schema:
        what = "the json_schema validator needs a schema"
        way_out = "set +predictions.json_schema.type=object, or leave the validator out"
        yield Problem("predictions.json_schema", what, way_out)
    if is_asked:
        yield from _schema_problems(predictions.json_schema)
    if predictions.json_schema and not is_asked:
        what = "a schema that no validator asks for"
        yield Problem("predictions.json_schema", what, "add json_schema to predictions.validators")


def _schema_problems(schema: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield a problem for what the schema's own draft does not allow in a schema."""
    if not schema:
        return
    from jsonschema import SchemaError
    from jsonschema.validators import validator_for

    try:
        kind = validator_for(schema)
    except (TypeError, AttributeError, ValueError):
        what = f"{schema['$schema']!r} names no draft of JSON Schema"
        yield Problem("predictions.json_schema.$schema", what, "leave it out, for the newest draft")
        return
    try:
        kind.check_schema(schema)
    except SchemaError as error:
        where = ".".join(["predictions.json_schema", *map(str, error.absolute_path)])
        way_out = (
            "mend it, or every answer would be counted as wrong; json-schema.org has the words"
        )
        yield Problem(where, f"is no JSON Schema: {error.message}", way_out)
