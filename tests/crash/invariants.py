"""What must be true of every run, whatever happened to it on the way.

A story is compared with the calm one: the same run, undisturbed.
"""

from collections import Counter
from collections.abc import Iterator

from podproof.monitor.fold import fold_run
from podproof.monitor.records import RunRecord
from podproof.runtime.errors import DiskFull
from podproof.runtime.events import Event, EventKind, event_to_line
from podproof.runtime.spool import spooled_event
from tests.crash.points import Fault, Kind
from tests.crash.stories import RUN_ID, SAVE_STEPS, Story

CODE_FAILED = 1
CODES_FAILED = {CODE_FAILED, DiskFull.exit_code}
CODE_PREEMPTED = 143
# What a train log says of the step itself; the rest are counts that begin anew with a process.
EXACT_KEYS = ("loss", "grad_norm", "learning_rate")


def violations(story: Story, calm: Story) -> list[str]:
    """Say what is wrong with a story, one line each; nothing when all invariants hold."""
    checks = (
        _boots,
        _endings,
        _chosen,
        _record,
        _repeats,
        _lost_steps,
        _left_on_disk,
        _event_file,
        _delivery_of_events,
    )
    return [line for check in checks for line in check(story, calm)]


def committed(story: Story) -> list[Fault]:
    """Return the faults whose point was reached, one for each boot that had one."""
    told = [any(story.told(number, "fault")) for number in range(1, len(story.boots) + 1)]
    return [fault for fault, is_told in zip(story.faults, told, strict=False) if is_told]


def _boots(story: Story, _calm: Story) -> Iterator[str]:
    """Expect that only what must end a boot does, and that one restart is enough for each."""
    codes = [boot.code for boot in story.boots]
    if codes[-1] != 0:
        said = story.boots[-1].said.strip().splitlines()[-1:]
        yield f"the last of {len(codes)} boots ended with {codes[-1]}, not 0: {said}"
    most = 1 + sum(map(_may_end_a_boot, committed(story)))
    if len(codes) > most:
        yield f"it took {len(codes)} boots instead of {most}: exit codes {codes}"
    for number in range(1, len(codes) + 1):
        if any(story.told(number, "late")):
            yield f"boot {number} never ended"


def _may_end_a_boot(fault: Fault) -> bool:
    """Tell whether training can do without what failed."""
    is_reporters = fault.point.startswith(("thread ", "connect")) or " events." in fault.point
    return not (fault.kind is Kind.HOOK or (fault.kind is Kind.ERROR and is_reporters))


def _endings(story: Story, _calm: Story) -> Iterator[str]:
    """Expect each boot that could speak to say how it ended, once and last."""
    expected = {
        0: EventKind.DONE,
        DiskFull.exit_code: EventKind.FAILED,
        CODE_FAILED: EventKind.FAILED,
        CODE_PREEMPTED: EventKind.PREEMPTED,
    }
    for number, boot in enumerate(story.boots, 1):
        events = story.events_of(number)
        if boot.code in CODES_FAILED and not events and _has_no_place(story, number):
            if "No space left" not in boot.said:
                yield f"boot {number} failed and does not say why"
            continue
        endings = [event.kind for event in events if event.is_terminal]
        if boot.code in expected and endings != [expected[boot.code]]:
            yield f"boot {number} ended with {boot.code} and says {endings}"
        if len(endings) > 1:
            yield f"boot {number} says {len(endings)} times how it ended: {endings}"
        if boot.code in CODES_FAILED and not _is_explained(events[-1:], boot.said):
            yield f"boot {number} failed and does not say why"


def _has_no_place(story: Story, number: int) -> bool:
    """Tell whether not even the folder of the events could be made; then only the log can speak."""
    faults = story.faults[number - 1 : number]
    return any(fault.point.startswith("mkdir . ") for fault in faults)


def _is_explained(last: tuple[Event, ...], said: str) -> bool:
    """Tell whether the record names the error, and the log has every line of the record."""
    body = last[0].body if last else {}
    problems = body.get("problems") or []
    return bool(problems and body.get("error")) and all(line in said for line in problems)


def _chosen(story: Story, calm: Story) -> Iterator[str]:
    """Expect the same choice, the same last step, and the same bytes delivered."""
    keys = ("best_step", "best_score", "final_step")
    ours, theirs = ({key: _last_body(each).get(key) for key in keys} for each in (story, calm))
    if ours != theirs:
        yield f"chosen: {ours} instead of {theirs}"
    if story.delivered != calm.delivered:
        differing = sorted(dict(story.delivered.items() ^ calm.delivered.items()))
        yield f"the delivered files differ: {', '.join(differing)}"


def _last_body(story: Story) -> dict[str, object]:
    return dict(story.events[-1].body) if story.events else {}


def _record(story: Story, calm: Story) -> Iterator[str]:
    """Expect of the store that it makes of these events what it makes of the calm run's."""
    ours, theirs = (_facts(fold_run(RUN_ID, each.events, None)) for each in (story, calm))
    for fault in committed(story):
        if fault.kind is Kind.HOOK:
            # The event that could not be reported is the one thing missing, and a notice says so.
            for key in ("best", f"evaluation of step {fault.point.split()[1]}"):
                ours.pop(key, None)
                theirs.pop(key, None)
            if not any("raised" in str(event.body.get("what")) for event in story.events):
                yield "no notice tells of the failed hook"
    for key in sorted(ours.keys() | theirs.keys()):
        if ours.get(key) != theirs.get(key):
            yield f"the record's {key}: {ours.get(key)} instead of {theirs.get(key)}"


def _facts(record: RunRecord) -> dict[str, object]:
    return {
        "status": record.status,
        "step": record.step,
        "best": record.best and record.best.step,
        "delivery": record.delivery and (record.delivery.step, record.delivery.sha256),
        "ending": record.ending and (record.ending.best_step, record.ending.final_step),
        **{f"evaluation of step {each.step}": each for each in record.evaluations},
    }


def _repeats(story: Story, calm: Story) -> Iterator[str]:
    """Expect of a step that is trained or evaluated again exactly what it gave the first time."""
    first = {_place(event): _numbers(event) for event in calm.events}
    for event in story.events:
        if event.kind in {EventKind.EVALUATION, EventKind.TRAIN_LOG}:
            numbers, before = _numbers(event), first.get(_place(event))
            if numbers != before:
                where = f"{event.kind} of step {event.step}, boot {event.boot}"
                yield f"{where}: {numbers} instead of {before}"


def _place(event: Event) -> tuple[EventKind, int | None]:
    return event.kind, event.step


def _numbers(event: Event) -> dict[str, object]:
    keys = EXACT_KEYS if event.kind is EventKind.TRAIN_LOG else ("eval_loss", "score", "components")
    return {key: event.body.get(key) for key in keys}


def _lost_steps(story: Story, calm: Story) -> Iterator[str]:
    """Expect every step trained, and at most one save interval of them again at a restart."""
    boots = range(1, len(story.boots) + 1)
    untrained = set(calm.trained(1)).difference(*map(story.trained, boots))
    if untrained:
        yield f"steps never trained: {sorted(untrained)}"
    for number in boots[1:]:
        before = {step for earlier in boots[: number - 1] for step in story.trained(earlier)}
        again = sorted(before.intersection(story.trained(number)))
        if len(again) > SAVE_STEPS:
            yield f"boot {number} trained the steps {again} again, more than {SAVE_STEPS}"


def _left_on_disk(story: Story, calm: Story) -> Iterator[str]:
    """Expect the same checkpoints on disk, whole, and nothing half-made beside them."""
    ours = {each.name: dict(each.sha256) for each in story.checkpoints}
    for each in calm.checkpoints:
        differing = sorted(dict(each.sha256).items() ^ ours.get(each.name, {}).items())
        if differing:
            yield f"{each.name} differs in {', '.join(sorted({name for name, _ in differing}))}"
    for each in story.checkpoints:
        # A kill in the middle of its removal leaves some of a checkpoint, which must not pass.
        lacking = sorted(calm.checkpoints[-1].files - each.files)
        if lacking and each.damage is None:
            yield f"{each.name} passes for whole without {', '.join(lacking)}"
    surplus = story.names - calm.names - {"quarantine"} - {each.name for each in story.checkpoints}
    if story.faults[len(story.boots) - 1 :] and story.faults[-1].kind is Kind.FULL:
        surplus -= {"events.ack.new"}  # written over at the next start
    if surplus:
        yield f"left over: {', '.join(sorted(surplus))}"


def _event_file(story: Story, _calm: Story) -> Iterator[str]:
    """Expect events numbered without gaps, each once; only a kill leaves a line that is none."""
    events = [spooled_event(line) for line in story.written]
    ids = Counter(event.event_id for event in events if event is not None)
    twice = [name for name, count in ids.items() if count > 1]
    if twice:
        yield f"events written twice: {', '.join(twice)}"
    if events.count(None) > len(committed(story)):
        yield f"{events.count(None)} lines of the file are no events"
    for number in range(1, len(story.boots) + 1):
        numbers = [event.seq for event in story.events_of(number)]
        if numbers != list(range(len(numbers))):
            yield f"the events of boot {number} have gaps: {numbers}"


def _delivery_of_events(story: Story, _calm: Story) -> Iterator[str]:
    """Expect of the collector to have every event of the file, as it stands there."""
    heard = {event.event_id: event_to_line(event) for event in story.heard}
    for line in story.written:
        event = spooled_event(line)
        if event is not None and event.event_id not in heard:
            yield f"{event.event_id} ({event.kind}) was never delivered"
        elif event is not None and heard[event.event_id] != event_to_line(event):
            yield f"{event.event_id} is one event in the file and another at the collector"
