"""What the data gate finds in the files: bad rows, repeats and leaks, and tokens, all at once."""

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from podproof.harness.contradictions import (
    contradiction_notices,
    contradiction_problems,
    contradictions,
)
from podproof.harness.repeats import repeat_notices, repeat_problems, repeats
from podproof.harness.row_scan import ScanPlan, SourceScan, places, scan, stream
from podproof.harness.row_signs import SignReader, sign_notices, tally_signs
from podproof.harness.token_counts import EVAL, TRAIN
from podproof.harness.token_findings import Findings, find_in_tokens, uncounted
from podproof.harness.tokenizer import TokenizerFiles, load_tokenizer, special_tokens
from podproof.harness.verdict import OnProgress
from podproof.runtime.data import data_sources, is_undividable, part_data, undividable
from podproof.runtime.errors import Problem
from podproof.runtime.plan import Plan
from podproof.runtime.rows import Row, row_texts

_TRAIN, _EVAL = 1, 2
_NAMES = {_TRAIN: TRAIN, _EVAL: EVAL}
# A tokenizer is trained on this much text in some seconds.
_TRAINED_TOKENIZER_BYTES = 64 << 20


@dataclass(frozen=True)
class Examined:
    """What was found: problems, the same in facts for the summary, and in numbers.

    `train` and `eval` are the rows that are trained on and evaluated on.
    """

    problems: tuple[Problem, ...]
    facts: tuple[str, ...]
    details: Mapping[str, Any]
    train: int = 0
    eval: int = 0


@dataclass(frozen=True)
class _Parts:
    """Which good row of each scan is trained on or evaluated on, and the hashes of both."""

    roles: tuple[bytearray, ...]
    train: Sequence[int]
    eval: Sequence[int]


def examine(
    plan: Plan, paths: Sequence[Path], tokenizer: TokenizerFiles | str, on_progress: OnProgress
) -> Examined:
    """Read every row, and every row that is used once more in tokens, where a tokenizer is at hand.

    Memory does not grow with the size of a row, and by about 140 bytes with each.
    """
    reader = SignReader.of(special_tokens(tokenizer))
    scanning = ScanPlan(plan.data, plan.method, on_progress, reader)
    scans = _scans(scanning, paths)
    judged = [found.tally.judged(plan.data.max_bad_fraction) for found in scans]
    problems = [problem for too_many, _ in judged for problem in too_many]
    problems += [problem for found in scans for problem in found.problems]
    if not problems and is_undividable(plan.data, len(scans[0].identities)):
        problems.append(undividable(plan.data.path))
    if problems:
        return Examined(tuple(problems), (f"{len(problems)} problems",), _tallies(scans))
    parts = _parts(plan, scans)
    found = (
        _repeats(plan, parts),
        _contradictions(plan, scanning, scans[0], parts.roles[0]),
        _signs(scanning, scans, parts),
        _tokens(plan, scanning, scans, parts, tokenizer),
    )
    facts = [
        f"{len(parts.train):,} rows to train on, {len(parts.eval):,} to evaluate on",
        *(notice for _, notices in judged for notice in notices),
        *(fact for each in found for fact in each.facts),
    ]
    details = _tallies(scans)
    for each in found:
        details |= each.details
    problems = [problem for each in found for problem in each.problems]
    return Examined(tuple(problems), tuple(facts), details, len(parts.train), len(parts.eval))


def _repeats(plan: Plan, parts: _Parts) -> Findings:
    repeated = repeats(parts.train, parts.eval)
    return Findings(
        tuple(repeat_problems(repeated, plan.data)),
        tuple(repeat_notices(repeated)),
        {"repeats": asdict(repeated)},
    )


def _contradictions(
    plan: Plan, scanning: ScanPlan, pairs: SourceScan, trained: bytearray
) -> Findings:
    if not pairs.turned:
        return Findings()
    numbers = array("Q", (number for number, role in enumerate(trained) if role == _TRAIN))
    found = contradictions(
        array("Q", (pairs.identities[number] for number in numbers)),
        array("Q", (pairs.turned[number] for number in numbers)),
    )
    first = [numbers[place] for place in found.first or ()]
    there = places(scanning, pairs, first)
    where = [there[number] for number in first]
    return Findings(
        tuple(contradiction_problems(found, where, plan.data)),
        tuple(contradiction_notices(found, where)),
        {"contradicted": found.contradicted},
    )


def _signs(scanning: ScanPlan, scans: Sequence[SourceScan], parts: _Parts) -> Findings:
    """Return what is worth knowing of the rows of each part."""
    facts: list[str] = []
    details: dict[str, Mapping[str, int]] = {}
    for role, at in ((_TRAIN, 0), (_EVAL, -1)):
        tally = tally_signs(scans[at].signs, parts.roles[at], role)
        where = places(scanning, scans[at], tally.firsts)
        facts += sign_notices(_NAMES[role], tally, where)
        details[_NAMES[role]] = tally.to_dict()
    return Findings(facts=tuple(facts), details={"signs": details})


def _scans(scanning: ScanPlan, paths: Sequence[Path]) -> list[SourceScan]:
    wanted, scans = scanning.data.format, []
    for source, path in zip(data_sources(scanning.data), paths, strict=True):
        found = scan(scanning, source, path, wanted)
        wanted = found.row_format(scanning.method)
        scans.append(found)
    return scans


def _tallies(scans: Sequence[SourceScan]) -> dict[str, Any]:
    return {
        "sources": [
            {
                "name": found.tally.source,
                "rows": found.tally.rows,
                "bad_rows": found.tally.bad,
                "kinds": dict(found.tally.kinds),
            }
            for found in scans
        ]
    }


def _parts(plan: Plan, scans: Sequence[SourceScan]) -> _Parts:
    """Part the rows by their numbers, as the pod parts the rows themselves."""
    counts = [range(len(found.identities)) for found in scans]
    train, evaluation = part_data(plan.data, *counts)
    roles = tuple(bytearray(len(numbers)) for numbers in counts)
    for number in train:
        roles[0][number] = _TRAIN
    for number in evaluation:
        roles[-1][number] = _EVAL
    return _Parts(
        roles,
        array("Q", (scans[0].identities[number] for number in train)),
        array("Q", (scans[-1].identities[number] for number in evaluation)),
    )


def _tokens(
    plan: Plan,
    scanning: ScanPlan,
    scans: Sequence[SourceScan],
    parts: _Parts,
    tokenizer: TokenizerFiles | str,
) -> Findings:
    """Count the tokens of all rows that are used, or say why nobody did."""
    first = scans[0].first
    if isinstance(tokenizer, str):
        return uncounted(tokenizer)
    if tokenizer.folder is None and scans[0].path.stat().st_size > _TRAINED_TOKENIZER_BYTES:
        return uncounted("the tokenizer is trained on the pod, and the file is large")
    if first is None:
        return uncounted("there are no rows")
    used = _used(scanning, scans[:1], parts)
    texts = (text for part, row in used if part == TRAIN for text in row_texts(row))
    counter = load_tokenizer(tokenizer, plan.model, texts)
    return find_in_tokens(plan, first, counter, _used(scanning, scans, parts))


def _used(
    scanning: ScanPlan, scans: Sequence[SourceScan], parts: _Parts
) -> Iterator[tuple[str, Row]]:
    """Yield the rows that are used, read again, each with its part."""
    told = replace(scanning, on_progress=_of_tokens(scanning.on_progress))
    for found, roles in zip(scans, parts.roles, strict=False):
        good = (row for row in stream(told, found) if isinstance(row, Row))
        for role, row in zip(roles, good, strict=True):
            if role:
                yield _NAMES[role], row


def _of_tokens(on_progress: OnProgress) -> OnProgress:
    return lambda what, share: on_progress(f"tokens of {what}", share)
