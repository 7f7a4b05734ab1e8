"""What travels to a pod is the program that was verified, line for line, without its prose."""

import pytest
from hypothesis import given, strategies as st

from podproof.compiler.lower import lower
from podproof.compiler.read import Request, read
from podproof.compiler.script import compile_run, runtime_sources
from podproof.compiler.wire import is_same_program, wire_form

STATEMENTS = st.sampled_from(
    [
        "x = 1  # one",
        '"""A docstring."""',
        'y = "# no comment"',
        'def f():\n    """Say.\n\n    More.\n    """\n    return 2  # two',
        'class C:\n    """Only a docstring."""',
        'class D:\n    """Ä."""; z = 3  # drei',
        'z = r"""{\n# "key": 1\n}"""',
        "# a comment alone",
        "call = (\n    1,  # first\n    # between\n    2,\n)",
        "if x:\n    # a comment in a block\n    y = 2",
        "",
    ]
)


@given(st.lists(STATEMENTS))
def test_it_is_the_same_program_on_the_same_lines(statements: list[str]) -> None:
    text = "\n".join(["x = 0", *statements])

    travels = wire_form(text)

    assert is_same_program(text, travels)
    assert travels.count("\n") == text.count("\n")


@pytest.mark.parametrize("module", sorted(runtime_sources()))
def test_every_module_of_ours_survives(module: str) -> None:
    text = runtime_sources()[module]

    assert is_same_program(text, wire_form(text))


def test_no_prose_travels_but_the_block_that_uv_reads() -> None:
    script = compile_run(lower(read(Request(("experiment=tiny_sft",)))))

    travels = wire_form(script.text)

    comments = [line for line in travels.splitlines() if line.lstrip().startswith("#")]
    head = script.text.partition('\n"""')[0].splitlines()
    assert comments == head
    assert head[0] == "# /// script"


def test_it_is_stable() -> None:
    once = wire_form('x = 1  # one\ndef f():\n    """Say."""\n')

    assert wire_form(once) == once


@pytest.mark.parametrize("text", ["not Python at all (", "\0", '"""never closed', "\tx\n  y"])
def test_what_is_not_python_travels_as_it_is(text: str) -> None:
    assert wire_form(text) == text


@pytest.mark.parametrize(
    ("text", "other"),
    [("x = 1", "x = 2"), ("x = 1", "\nx = 1"), ('x = "a"', 'x = ""'), ("f()", "f(1)")],
)
def test_another_program_is_told_apart(text: str, other: str) -> None:
    assert not is_same_program(text, other)
