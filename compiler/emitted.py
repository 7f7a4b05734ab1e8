"""What a script writes for others to read, and what it reads of its environment, by its tree.

Found are the fields of events (a call with an `EventKind` and a dictionary), the columns and JSON
fields of database rows (`table("t").update({...})`), the keys of posted JSON, and the metrics put
into a trainer's logs. A dictionary may be written out, or built up in a local variable. What is
put together in other ways is not seen. It may also be what a function of the script returns, or
a mapping that a class of the script makes when it is asked.
"""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from podproof.compiler.anatomy import Anatomy, Definition, own_calls

_ROW_WRITERS = {"insert", "update", "upsert"}
_TABLE_NAMERS = {"table", "from_"}
_LOG_NAMES = {"logs", "metrics"}


@dataclass(frozen=True, order=True)
class Emitted:
    """One field somebody may read.

    `sink` is an event's kind, a table, `JSON` for what is posted, or `trainer metrics`. `path` has
    one name, or more for a field inside a JSON value.
    """

    sink: str
    path: tuple[str, ...]
    is_row: bool = False

    @property
    def name(self) -> str:
        """Return sink and path as one dotted name."""
        return ".".join((self.sink, *self.path))

    @property
    def is_column(self) -> bool:
        """Tell whether a table must have a column for it."""
        return self.is_row and len(self.path) == 1


@dataclass(frozen=True)
class VariableRead:
    """An environment variable a script reads; one that is required has no way around it."""

    name: str
    is_required: bool


def emitted_by(anatomy: Anatomy) -> frozenset[Emitted]:
    """Return every field found in any function, method or top-level statement."""
    found: set[Emitted] = set()
    for definition in anatomy.definitions.values():
        found |= set(_emitted_in(definition, anatomy))
    return frozenset(found)


def variables_read(anatomy: Anatomy) -> Mapping[str, VariableRead]:
    """Return the environment variables read, by name.

    A variable is required when it is read with square brackets and nowhere with a default.
    """
    required: set[str] = set()
    optional: set[str] = set()
    for node in ast.walk(anatomy.tree):
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load):
            name = _text(node.slice, anatomy.constants)
            required |= {name} if name and _is_environment(node.value) else set()
        elif isinstance(node, ast.Call) and node.args:
            name = _text(node.args[0], anatomy.constants)
            optional |= {name} if name and _is_reading(node.func) else set()
    names = sorted(required | optional)
    return {name: VariableRead(name, name not in optional) for name in names}


def _is_reading(function: ast.expr) -> bool:
    if isinstance(function, ast.Attribute) and function.attr in {"get", "setdefault"}:
        return _is_environment(function.value)
    return ast.unparse(function) in {"os.getenv", "getenv"}


def _is_environment(node: ast.expr) -> bool:
    return ast.unparse(node).rpartition(".")[2] in {"environ", "environment"}


def _emitted_in(definition: Definition, anatomy: Anatomy) -> Iterator[Emitted]:
    payloads = _Payloads(definition, anatomy)
    for call in own_calls(ast.Module(list(definition.nodes), [])):
        sink, is_row = _sink_of(call, anatomy.constants)
        if sink:
            for path in payloads.of_arguments(call):
                yield Emitted(sink, path, is_row)
    for name, key in payloads.entries:
        if name in _LOG_NAMES:
            yield Emitted("trainer metrics", (key,))


def _sink_of(call: ast.Call, constants: Mapping[str, str]) -> tuple[str, bool]:
    """Return where a call writes to, and whether that is a row of a table; "" for nowhere."""
    for argument in call.args:
        if isinstance(argument, ast.Attribute) and ast.unparse(argument.value) == "EventKind":
            return f"event {argument.attr.lower()}", False
    if isinstance(call.func, ast.Attribute) and call.func.attr in _ROW_WRITERS:
        tables = [
            _text(inner.args[0], constants)
            for inner in own_calls(call.func.value)
            if isinstance(inner.func, ast.Attribute)
            and inner.func.attr in _TABLE_NAMERS
            and inner.args
        ]
        return next((table for table in tables if table), ""), True
    is_post = any(keyword.arg == "json" for keyword in call.keywords)
    return ("JSON" if is_post else ""), False


class _Payloads:
    """The dictionaries of one function: written out, or built up in a local variable."""

    def __init__(self, definition: Definition, anatomy: Anatomy) -> None:
        self._anatomy = anatomy
        self._constants = anatomy.constants
        self._nodes = list(ast.walk(ast.Module(list(definition.nodes), [])))
        self._assigned: dict[str, list[ast.expr]] = {}
        self._keys: dict[str, list[tuple[str, ast.expr]]] = {}
        for node in self._nodes:
            if isinstance(node, ast.Assign):
                for target in node.targets:
                    self._note(target, node.value)
            elif isinstance(node, ast.AnnAssign) and node.value is not None:
                self._note(node.target, node.value)
            elif isinstance(node, ast.Call):
                self._note_update(node)

    @property
    def entries(self) -> Iterator[tuple[str, str]]:
        """Yield each variable and key of an entry put into a dictionary after it was made."""
        return ((name, key) for name, pairs in self._keys.items() for key, _ in pairs)

    def of_arguments(self, call: ast.Call) -> set[tuple[str, ...]]:
        """Return the paths of all dictionaries among the arguments of a call."""
        values = [
            *call.args,
            *(item.value for item in call.keywords if item.arg in {"body", "json"}),
        ]
        return {path for value in values for path in self._paths(value, frozenset())}

    def of_returns(self, seen: frozenset[str]) -> set[tuple[str, ...]]:
        """Return the paths of all dictionaries that the function returns."""
        returns = (node for node in self._nodes if isinstance(node, ast.Return))
        values = (node.value for node in returns if node.value is not None)
        return {path for value in values for path in self._paths(value, seen)}

    def of_calls(self, seen: frozenset[str]) -> set[tuple[str, ...]]:
        """Return the paths of all dictionaries that functions it calls return."""
        calls = [node for node in self._nodes if isinstance(node, ast.Call)]
        return {path for call in calls for path in self._made_by(call, seen)}

    def _made_by(self, call: ast.Call, seen: frozenset[str]) -> set[tuple[str, ...]]:
        """Return the paths of what a call to a function or class of the script gives back."""
        name = ast.unparse(call.func).rpartition(".")[2]
        inside = seen | {f"{name}()"}
        function = self._anatomy.functions.get(name)
        kind = self._anatomy.classes.get(name)
        if f"{name}()" in seen:
            return set()
        if function is not None:
            return _Payloads(function, self._anatomy).of_returns(inside)
        if kind is None or not any("Mapping" in base for base in kind.bases):
            return set()
        methods = [_Payloads(method, self._anatomy) for method in kind.methods.values()]
        return {path for method in methods for path in method.of_calls(inside)}

    def _note(self, target: ast.expr, value: ast.expr) -> None:
        if isinstance(target, ast.Name):
            self._assigned.setdefault(target.id, []).append(value)
        elif isinstance(target, ast.Subscript) and isinstance(target.value, ast.Name):
            key = _text(target.slice, self._constants)
            if key:
                self._keys.setdefault(target.value.id, []).append((key, value))

    def _note_update(self, call: ast.Call) -> None:
        function = call.func
        if not isinstance(function, ast.Attribute) or not isinstance(function.value, ast.Name):
            return
        if function.attr == "update" and call.args:
            self._assigned.setdefault(function.value.id, []).append(call.args[0])
        elif function.attr == "setdefault" and len(call.args) > 1:
            key = _text(call.args[0], self._constants)
            pairs = [(key, call.args[1])] if key else []
            self._keys.setdefault(function.value.id, []).extend(pairs)

    def _paths(self, value: ast.expr, seen: frozenset[str]) -> Iterator[tuple[str, ...]]:
        if isinstance(value, ast.Dict):
            for key, item in zip(value.keys, value.values, strict=True):
                yield from self._paths_of_entry(key, item, seen)
        elif isinstance(value, ast.Name) and value.id not in seen:
            inside = seen | {value.id}
            for assigned in self._assigned.get(value.id, []):
                yield from self._paths(assigned, inside)
            for name, item in self._keys.get(value.id, []):
                yield from self._below(name, item, inside)
        elif isinstance(value, ast.Call):
            yield from self._made_by(value, seen)
        for part in _parts(value):
            yield from self._paths(part, seen)

    def _paths_of_entry(
        self, key: ast.expr | None, item: ast.expr, seen: frozenset[str]
    ) -> Iterator[tuple[str, ...]]:
        if key is None:
            yield from self._paths(item, seen)
            return
        name = _text(key, self._constants)
        if name:
            yield from self._below(name, item, seen)

    def _below(self, name: str, item: ast.expr, seen: frozenset[str]) -> Iterator[tuple[str, ...]]:
        yield (name,)
        for path in self._paths(item, seen):
            yield (name, *path)


def _parts(value: ast.expr) -> list[ast.expr]:
    """Return the expressions of which each may be, or be in, the value that is passed on."""
    if isinstance(value, ast.List | ast.Tuple):
        return value.elts
    if isinstance(value, ast.IfExp):
        return [value.body, value.orelse]
    if isinstance(value, ast.BinOp) and isinstance(value.op, ast.BitOr):
        return [value.left, value.right]
    return []


def _text(node: ast.expr, constants: Mapping[str, str]) -> str:
    """Return the text of a literal, or of a constant of the module that holds one; else ""."""
    if isinstance(node, ast.Name) and node.id in constants:
        return _literal_text(constants[node.id])
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    return ""


def _literal_text(source: str) -> str:
    try:
        value = ast.literal_eval(source)
    except (ValueError, SyntaxError):
        return ""
    return value if isinstance(value, str) else ""
