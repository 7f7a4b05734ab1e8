"""What keeps state, or takes text out of a set, is found by its line; what only reads is not."""

import ast

import pytest

from podproof.compiler.formula import differing


def found(text: str) -> list[tuple[int, str]]:
    return [(place.line, place.what.split(",")[0]) for place in differing(ast.parse(text))]


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("def f(seen=[]):\n    seen.append(1)", 2, "changes seen"),
        ("def f(*, seen={}):\n    seen['a'] = 1", 2, "changes seen"),
        ("def f(seen=[]):\n    seen += [1]", 2, "changes seen"),
        ("SEEN = []\ndef f(x):\n    SEEN.append(x)", 3, "changes SEEN"),
        ("SEEN = {}\ndef f(x):\n    SEEN['a']['b'] = x", 3, "changes SEEN"),
        ("COUNT = 0\ndef f():\n    global COUNT\n    COUNT += 1", 3, "changes COUNT"),
        ("def f():\n    f.count = 1", 2, "changes f"),
        ("import heapq\nHEAP = []\ndef f(x):\n    heapq.heappush(HEAP, x)", 4, "changes HEAP"),
        ("def f():\n    return ''.join({'a', 'b'})", 2, "takes text out of a set in an order that"),
        ("NAMES = {'a', 'b'}\ndef f():\n    for name in NAMES:\n        pass", 3, "takes text"),
        ("def f(x):\n    return [n for n in set(['a']) | {'b'}]", 2, "takes text out of a set"),
    ],
)
def test_a_formula_that_may_differ_is_found(text: str, line: int, what: str) -> None:
    places = found(text)

    assert places[0][0] == line
    assert places[0][1].startswith(what)


@pytest.mark.parametrize(
    "text",
    [
        "WEIGHTS = {'a': 1.0}\ndef f(x):\n    return x * WEIGHTS['a']",
        "def f(x, weights={'a': 1.0}):\n    return x * weights['a']",
        "def f(x):\n    terms = {}\n    terms['a'] = x\n    terms.update(b=x)\n    return terms",
        "terms = []\ndef f(x):\n    terms = []\n    terms.append(x)\n    return terms",
        "total = 0.0\ndef f(x):\n    total = 0.0\n    total += x\n    return total",
        "def f(x, seen=()):\n    seen = list(seen)\n    seen.append(x)\n    return seen",
        "NAMES = {'a', 'b'}\ndef f(x):\n    return x in NAMES and sorted(NAMES) and len(NAMES)",
        "def f(x):\n    return sum(y for y in {1.0, 2.0}) + sum(set(x['values']))",
        "import functools\n@functools.cache\ndef f(x):\n    return x",
    ],
)
def test_a_formula_that_only_reads_is_left_alone(text: str) -> None:
    assert found(text) == []
