"""The emulator's `POST /graphql`: a real parser over the schema that the SDK speaks."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any

from graphql import (
    DocumentNode,
    ExecutionResult,
    FieldNode,
    GraphQLError,
    OperationDefinitionNode,
    execute_sync,
    parse,
    validate,
    value_from_ast_untyped,
)
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from podproof.launcher.emulator_faults import Operation
from podproof.launcher.emulator_http import Asked, Front
from podproof.launcher.emulator_pods import Caller
from podproof.launcher.emulator_schema import Resolvers, runpod_schema

# What RunPod says when it could not even parse the query: quoting mistakes look like outages.
MASKED = "Something went wrong. Please try again later or contact support."
# Requests of about 300 KB were seen to end in a bare 500.
_LARGEST_BODY_BYTES = 300_000


@dataclass(frozen=True)
class GraphQL:
    """The endpoint; with `mask_errors` a query that cannot be parsed is answered as RunPod does.

    The true reason goes to the front's `parse_failures`.
    """

    front: Front
    mask_errors: bool

    async def answer(self, request: Request) -> Response:
        """Answer one request."""
        body = await request.body()
        if len(body) > _LARGEST_BODY_BYTES:
            return PlainTextResponse("Internal Server Error", HTTPStatus.INTERNAL_SERVER_ERROR)
        try:
            document, variables = _read(body)
        except GraphQLError as error:
            return self._parse_failure(error)
        operation, arguments = _first_field(document, variables)
        act = partial(self._execute, document, variables)
        return await self.front.serve(request, Asked(operation, arguments, len(body), act))

    def _execute(
        self, document: DocumentNode, variables: Mapping[str, Any], caller: Caller
    ) -> Response:
        errors = validate(runpod_schema(), document)
        if errors:
            formatted = [error.formatted for error in errors]
            return JSONResponse({"errors": formatted}, HTTPStatus.BAD_REQUEST)
        result = execute_sync(
            runpod_schema(),
            document,
            root_value=Resolvers(self.front.account).root(),
            context_value=caller,
            variable_values=dict(variables),
        )
        assert isinstance(result, ExecutionResult)
        return JSONResponse(result.formatted)

    def _parse_failure(self, error: GraphQLError) -> Response:
        self.front.parse_failures.append(error.message)
        code = {"code": "GRAPHQL_PARSE_FAILED"}
        message = MASKED if self.mask_errors else error.message
        return JSONResponse(
            {"errors": [{"message": message, "extensions": code}]}, HTTPStatus.BAD_REQUEST
        )


def _read(body: bytes) -> tuple[DocumentNode, Mapping[str, Any]]:
    """Return a request's query and variables; raise GraphQLError when there is none to read."""
    try:
        content = json.loads(body)
        query, variables = content["query"], content.get("variables") or {}
    except (ValueError, LookupError, TypeError) as error:
        raise GraphQLError("the body is no JSON object with a query") from error
    return parse(query), variables


def _first_field(
    document: DocumentNode, variables: Mapping[str, Any]
) -> tuple[Operation | None, dict[str, Any]]:
    """Return the document's first root field, and its arguments with the variables filled in."""
    fields = (
        selection
        for definition in document.definitions
        if isinstance(definition, OperationDefinitionNode)
        for selection in definition.selection_set.selections
        if isinstance(selection, FieldNode)
    )
    field = next(fields, None)
    if field is None or field.name.value not in set(Operation):
        return None, {}
    arguments = {
        argument.name.value: value_from_ast_untyped(argument.value, dict(variables))
        for argument in field.arguments or ()
    }
    return Operation(field.name.value), arguments
