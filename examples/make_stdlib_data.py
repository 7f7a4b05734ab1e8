"""Make the example data from the documentation strings of Python's standard library.

Two files of real text, small enough to keep beside the code:

    sft.jsonl         one question about a function or class, answered by its own documentation
    preference.jsonl  the same kind of question with two answers: its own documentation (chosen)
                      and that of a thing with a similar name or module (rejected)

The files depend on the Python that makes them, and on nothing else: no clock, no network, no
chance. A function or class stands at most once in each file, so that a share of the rows parted
off for evaluation asks about things training has not seen.
"""

import argparse
import difflib
import functools
import hashlib
import importlib
import inspect
import json
import platform
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

FILES = ("sft.jsonl", "preference.jsonl", "README.md")
SFT_ROWS = 500
PREFERENCE_ROWS = 400
SHORTEST, LONGEST = 40, 400  # characters of an answer
# Above these the rejected answer says nearly what the right one says.
MOST_SHARED_WORDS, MOST_SHARED_TEXT = 0.4, 0.7
# A popular wrong answer would teach its own wording rather than the difference.
MOST_REJECTIONS = 2

# Modules that are on every platform, import without side effects, and are not deprecated.
MODULES = """
abc argparse ast base64 bisect calendar cmath codecs collections collections.abc colorsys
configparser contextlib copy csv dataclasses datetime decimal difflib dis email.message
email.utils enum filecmp fileinput fnmatch fractions functools getpass gettext glob graphlib gzip
hashlib heapq hmac html html.parser http.client http.cookiejar http.cookies http.server
importlib.metadata importlib.resources importlib.util inspect io ipaddress itertools json
json.decoder json.encoder linecache locale logging logging.config logging.handlers lzma mailbox
math mimetypes multiprocessing.pool numbers operator os os.path pathlib pdb pickle pickletools
pkgutil platform plistlib pprint profile pstats queue quopri random re reprlib sched secrets
selectors shelve shlex shutil signal smtplib socket socketserver sqlite3 ssl stat statistics
string struct subprocess symtable sysconfig tarfile tempfile textwrap threading timeit tokenize
trace traceback tracemalloc types typing unicodedata unittest unittest.mock urllib.error
urllib.parse urllib.request urllib.robotparser uuid venv warnings wave weakref xml.dom.minidom
xml.etree.ElementTree xml.sax.handler xml.sax.saxutils xmlrpc.client zipapp zipfile zipimport
zlib asyncio asyncio.queues asyncio.streams concurrent.futures contextvars ftplib imaplib poplib
bdb cmd code codeop compileall doctest keyword modulefinder runpy tabnanny
"""

QUESTIONS = (
    "What does {name} do?",
    "In Python, what is {name} for?",
    "Explain {name} from the standard library.",
    "Describe {name} in a sentence or two.",
    "I found {name} in some Python code. What is it?",
)

EXAMPLES = """examples:
  python examples/make_stdlib_data.py --check            are the files what this Python makes?
  python examples/make_stdlib_data.py --force            make them again
  python examples/make_stdlib_data.py --out /tmp/rows    make them somewhere else
"""


@dataclass(frozen=True, order=True)
class Entry:
    """A function, class or method by its full name, and the first paragraph on it."""

    name: str
    answer: str


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check the files; return 0, or 1 when they differ, or 2 when that is refused."""
    options = _parser().parse_args(arguments)
    folder: Path = options.out
    if options.check:
        return _check(folder)
    taken = [name for name in FILES if (folder / name).exists()]
    if taken and not options.force:
        print(f"{folder} already holds {', '.join(taken)}; --force overwrites", file=sys.stderr)
        return 2
    made = make_files()
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in made.items():
        (folder / name).write_text(text, encoding="utf-8")
        print(f"{folder / name}: {len(text.splitlines())} lines, {len(text.encode())} bytes")
    return 0


def make_files() -> dict[str, str]:
    """Return the text of each file by its name."""
    entries = gather(MODULES.split())
    sft = [_sft_row(entry) for entry in _drawn(entries, SFT_ROWS, "sft")]
    pairs = _pairs(_drawn(entries, PREFERENCE_ROWS, "preference"), entries)
    preference = [_preference_row(entry, wrong) for entry, wrong in pairs]
    texts = (_lines(sft), _lines(preference), _readme(len(sft), len(preference)))
    return dict(zip(FILES, texts, strict=True))


def gather(modules: Iterable[str]) -> tuple[Entry, ...]:
    """Return every usable entry of the modules, sorted by name, each answer once."""
    by_answer: dict[str, Entry] = {}
    found = (entry for module in modules for entry in _module_entries(module))
    for entry in sorted(found):
        by_answer.setdefault(_folded(entry.answer), entry)
    return tuple(sorted(by_answer.values()))


def first_paragraph(documentation: Any) -> str | None:
    """Return the first paragraph as one line, or None if it is no whole sentence of fit length.

    Signatures, which C functions carry before their text, are passed over.
    """
    if not isinstance(documentation, str):
        return None
    paragraphs = re.split(r"\n\s*\n", inspect.cleandoc(documentation))
    prose = [" ".join(text.split()) for text in paragraphs if not _is_signature(text)]
    if not prose:
        return None
    quoted = re.sub(r"`([^'`]*)'", r"'\1'", prose[0])  # `name' is how old docstrings quote
    answer = quoted.replace("`", "")
    is_sentence = answer[0].isupper() and answer.endswith(".") and answer.isascii()
    is_clean = not re.search(r">>>|:[a-z]+:|->|\bXXX\b|[Dd]eprecated|DEPRECATED", answer)
    return answer if is_sentence and is_clean and SHORTEST <= len(answer) <= LONGEST else None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    here = Path(__file__).parent / "data"
    parser.add_argument("--out", type=Path, default=here, help="the folder (default: %(default)s)")
    parser.add_argument("--force", action="store_true", help="overwrite what is there")
    parser.add_argument("--check", action="store_true", help="compare only, write nothing")
    return parser


def _check(folder: Path) -> int:
    readme = folder / "README.md"
    if not readme.exists():
        print(f"{readme} is missing, so nothing says which Python made the files", file=sys.stderr)
        return 2
    if _made_by() not in readme.read_text(encoding="utf-8"):
        print(f"the files were not {_made_by()}: not comparable", file=sys.stderr)
        return 2
    differing = [name for name, text in make_files().items() if _text_of(folder / name) != text]
    for name in differing:
        print(f"{folder / name} differs; --force makes it again", file=sys.stderr)
    return 1 if differing else 0


def _text_of(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None


def _module_entries(name: str) -> Iterator[Entry]:
    module = importlib.import_module(name)
    for label, value in _public(module):
        yield from _entry(f"{name}.{label}", value)
        if inspect.isclass(value):
            for method, function in sorted(vars(value).items()):
                if not method.startswith("_") and inspect.isroutine(function):
                    yield from _entry(f"{name}.{label}.{method}", function)


def _public(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """Give the functions and classes a module offers as its own, by name."""
    offered = getattr(module, "__all__", None) or dir(module)
    for label in sorted(set(offered)):
        value = getattr(module, label, None)
        home = getattr(value, "__module__", None) or module.__name__
        is_own = home.lstrip("_").split(".")[0] == module.__name__.split(".")[0]
        is_documented = inspect.isclass(value) or inspect.isroutine(value)
        if not label.startswith("_") and is_own and is_documented:
            yield label, value


def _entry(name: str, value: Any) -> Iterator[Entry]:
    answer = first_paragraph(getattr(value, "__doc__", None))
    if answer is not None:
        yield Entry(name, answer)


def _is_signature(paragraph: str) -> bool:
    return re.match(r"[A-Za-z_][\w.]*\(", paragraph) is not None


def _folded(text: str) -> str:
    return " ".join(re.findall(r"[a-z0-9]+", text.lower()))


def _drawn(entries: Sequence[Entry], count: int, purpose: str) -> list[Entry]:
    """Draw entries evenly over all modules: a hash of the name orders them, not chance."""
    order = sorted(entries, key=lambda entry: _digest(f"{purpose} {entry.name}"))
    return sorted(order[:count])


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _pairs(asked: Sequence[Entry], entries: Sequence[Entry]) -> list[tuple[Entry, Entry]]:
    rejections: Counter[str] = Counter()
    pairs = []
    for entry in asked:
        wrong = _plausible_wrong(entry, entries, rejections)
        rejections[wrong.name] += 1
        pairs.append((entry, wrong))
    return pairs


def _plausible_wrong(entry: Entry, entries: Sequence[Entry], rejections: Counter[str]) -> Entry:
    """Return the entry nearest by name whose answer is clearly another one."""
    nearest = sorted(entries, key=lambda other: (-_likeness(entry, other), other.name))
    return next(
        other
        for other in nearest
        if rejections[other.name] < MOST_REJECTIONS and not _says_the_same(entry, other)
    )


def _likeness(entry: Entry, other: Entry) -> float:
    """Count the words two names share, and a little for the same module and for saying less.

    The last makes the fuller answer the better one more often than not, as it is where people
    choose; it is also the first thing a small model learns from the pairs.
    """
    words, others = _name_words(entry.name), _name_words(other.name)
    same_module = entry.name.split(".")[0] == other.name.split(".")[0]
    says_less = len(other.answer) < len(entry.answer)
    return len(words & others) / len(words | others) + 0.2 * same_module + 0.2 * says_less


@functools.cache
def _name_words(name: str) -> frozenset[str]:
    spaced = re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", name)
    return frozenset(re.findall(r"[a-z0-9]+", spaced.lower()))


def _says_the_same(one: Entry, other: Entry) -> bool:
    words, others = set(_folded(one.answer).split()), set(_folded(other.answer).split())
    if len(words & others) / len(words | others) > MOST_SHARED_WORDS:
        return True
    compared = difflib.SequenceMatcher(None, one.answer, other.answer, autojunk=False)
    return compared.ratio() > MOST_SHARED_TEXT


def _question(entry: Entry) -> str:
    choice = int(_digest(f"question {entry.name}"), 16) % len(QUESTIONS)
    return QUESTIONS[choice].format(name=entry.name)


def _sft_row(entry: Entry) -> dict[str, Any]:
    return {"messages": [_turn("user", _question(entry)), _turn("assistant", entry.answer)]}


def _preference_row(entry: Entry, wrong: Entry) -> dict[str, Any]:
    return {
        "prompt": [_turn("user", _question(entry))],
        "chosen": [_turn("assistant", entry.answer)],
        "rejected": [_turn("assistant", wrong.answer)],
    }


def _turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _lines(rows: Iterable[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def _made_by() -> str:
    return f"made by CPython {platform.python_version()} on {platform.system()}"


def _readme(sft_rows: int, preference_rows: int) -> str:
    return f"""# Example data

Questions and answers on Python's standard library, {_made_by()} with
`python examples/make_stdlib_data.py`. Another version of Python has other documentation and so
makes other files.

| file | rows | one row |
|---|---|---|
| `sft.jsonl` | {sft_rows} | `messages`: a question, and the documentation that answers it |
| `preference.jsonl` | {preference_rows} | `prompt`, `chosen`, `rejected` as conversations, \
for DPO and ORPO alike |

The rejected answer is the documentation of another function or class, one with a similar name or
from the same module. More often than not it is the shorter one, as the fuller answer is where
people choose. A function or class is asked about at most once in a file.

The answers are the first paragraphs of docstrings of CPython, with white space and backquotes
simplified: Copyright (c) 2001 Python Software Foundation, all rights reserved; they may be copied
under the PSF License Agreement (<https://docs.python.org/3/license.html>). The questions and the
script are under this repository's licence.
"""


if __name__ == "__main__":
    sys.exit(main())
