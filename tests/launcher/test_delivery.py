"""A script becomes a command and an environment, and arrives as it was sent."""

import base64
import gzip
import random
import re
from collections.abc import Callable

import pytest
from hypothesis import given, settings, strategies as st

from podproof.compiler.delivery import CHUNK_CHARS, START_COMMAND, ReportTarget, unpack
from podproof.compiler.ir import Provider
from podproof.compiler.limits import (
    LIMITS,
    Size,
    over_hard,
    over_soft,
    pack,
    unpack as unpack_payload,
)
from podproof.compiler.wire import wire_form
from podproof.harness.verdict import Cleared
from podproof.launcher.delivery import wrap
from podproof.launcher.errors import OverLimit
from podproof.launcher.runpod_text import hostile_text

MakeCleared = Callable[..., Cleared]


def noise(length: int) -> str:
    """Text that does not compress well, and the same at each call."""
    return base64.b64encode(random.Random(7).randbytes(length)).decode()  # noqa: S311 - no secret


def env_of(cleared: Cleared, report: ReportTarget | None = None) -> dict[str, str]:
    return dict(wrap(cleared.script, run_id="run-1", report=report, boot_source="boot\n").env)


@settings(max_examples=50)
@given(text=st.text(st.characters(codec="utf-8"), max_size=2_000))
def test_what_is_unpacked_is_what_was_wrapped(make_cleared: MakeCleared, text: str) -> None:
    assert unpack(env_of(make_cleared(text))) == wire_form(text)


def test_a_long_script_travels_in_chunks(make_cleared: MakeCleared) -> None:
    text = noise(24_000)

    env = env_of(make_cleared(text))

    assert env["PS_N"] == "3"
    assert [len(env[f"PS_0{number}"]) <= CHUNK_CHARS for number in range(3)] == [True] * 3
    assert unpack(env) == text


def test_a_changed_chunk_does_not_unpack(make_cleared: MakeCleared) -> None:
    env = env_of(make_cleared("print(1)\n"))
    other = env_of(make_cleared("print(2)\n"))

    with pytest.raises(ValueError, match="sha256"):
        unpack({**env, "PS_00": other["PS_00"]})


def test_nothing_of_ours_needs_escaping(make_cleared: MakeCleared) -> None:
    parcel = wrap(
        make_cleared('"\\\r\n\0 hostile script').script,
        run_id="run-1",
        report=ReportTarget("https://collector.example", "token"),
        boot_source='"\\\r\n hostile boot',
    )

    texts = [parcel.start_command, *(text for pair in parcel.env for text in pair)]
    assert [hostile_text("x", text) for text in texts] == [None] * len(texts)


def test_the_start_command_is_one_short_line_with_one_pair_of_quotes() -> None:
    assert len(START_COMMAND) <= 81
    assert START_COMMAND.count("'") == 2


def test_the_boot_code_travels_beside_the_script(make_cleared: MakeCleared) -> None:
    env = env_of(make_cleared())

    assert gzip.decompress(base64.b64decode(env["PS_BOOT"])) == b"boot\n"


def test_the_pod_is_told_its_orders(make_cleared: MakeCleared) -> None:
    env = env_of(
        make_cleared(max_hours=0.5, env=(("WANDB_MODE", "offline"),), secrets=(("TOKEN", "hf"),)),
        ReportTarget("https://collector.example", "token"),
    )

    assert {key: value for key, value in env.items() if not key.startswith("PS_")} == {
        "PODPROOF_RUN_ID": "run-1",
        "PODPROOF_MAX_SECONDS": "1800",
        "PODPROOF_LIMIT": "time",
        "PODPROOF_MAX_RESTARTS": "2",
        "PODPROOF_REPORT_URL": "https://collector.example",
        "PODPROOF_REPORT_TOKEN": "token",
        "WANDB_MODE": "offline",
        "TOKEN": "{{ RUNPOD_SECRET_hf }}",
    }


@pytest.mark.parametrize(
    ("provider", "network_volume", "told"),
    [
        (Provider.RUNPOD, None, "1"),
        (Provider.RUNPOD, "volume", None),
        (Provider.LOCAL, None, None),
    ],
)
def test_a_script_is_told_when_its_volume_ends_with_the_pod(
    make_cleared: MakeCleared, provider: Provider, network_volume: str | None, told: str | None
) -> None:
    env = env_of(make_cleared(provider=provider, network_volume=network_volume))

    assert env.get("PODPROOF_VOLUME_ENDS_WITH_POD") == told


def test_without_a_sink_no_report_address_travels(make_cleared: MakeCleared) -> None:
    assert not [key for key in env_of(make_cleared()) if key.startswith("PODPROOF_REPORT")]


def test_everything_over_a_limit_is_named_at_once(make_cleared: MakeCleared) -> None:
    many = tuple((f"KEY_{number}", "x" * 3_000) for number in range(60))
    cleared = make_cleared(noise(400_000), env=many)

    with pytest.raises(OverLimit) as caught:
        wrap(cleared.script, run_id="r" * 192, report=None, boot_source="")

    assert [problem.where for problem in caught.value.problems] == [
        "script",
        "payload",
        "env_count",
        "env_total",
        "request",
        "pod_name",
    ]


def test_a_value_longer_than_the_kernel_takes_is_refused(make_cleared: MakeCleared) -> None:
    cleared = make_cleared(env=(("BIG", "x" * 131_068),))

    with pytest.raises(OverLimit, match="env_string"):
        env_of(cleared)


@pytest.mark.parametrize("key", ["RUNPOD_API_KEY", "PODPROOF_BOOT", "PS_00", "PATH", "PUBLIC_KEY"])
def test_a_name_that_the_pod_sets_itself_is_refused(make_cleared: MakeCleared, key: str) -> None:
    with pytest.raises(OverLimit, match=f"pod.env.{key}"):
        env_of(make_cleared(env=((key, "x"),)))


def test_a_name_given_twice_is_refused(make_cleared: MakeCleared) -> None:
    with pytest.raises(OverLimit, match="is both in"):
        env_of(make_cleared(env=(("A", "x"),), secrets=(("A", "y"),)))


def test_a_name_that_is_none_is_refused(make_cleared: MakeCleared) -> None:
    with pytest.raises(OverLimit, match="no name of a variable"):
        env_of(make_cleared(env=(("A-B", "x"),)))


@pytest.mark.parametrize("run_id", ["", ".hidden", "a/b", "a b", "ä"])
def test_a_run_id_that_is_no_plain_name_is_refused(make_cleared: MakeCleared, run_id: str) -> None:
    with pytest.raises(OverLimit, match="run_id"):
        wrap(make_cleared().script, run_id=run_id, report=None, boot_source="")


def test_secrets_stay_out_of_every_repr(make_cleared: MakeCleared) -> None:
    report = ReportTarget("https://collector.example", "token-hunter2")
    cleared = make_cleared(env=(("PASSWORD", "hunter2"),))

    parcel = wrap(cleared.script, run_id="run-1", report=report, boot_source="")

    assert "hunter2" not in repr((report, parcel))


def test_a_size_is_warned_about_before_it_is_refused() -> None:
    limit = LIMITS[Size.REQUEST]

    soft = [bool(over_soft({Size.REQUEST: size})) for size in (limit.soft, limit.soft + 1)]
    hard = [bool(over_hard({Size.REQUEST: size})) for size in (limit.hard, limit.hard + 1)]

    assert soft == [False, True]
    assert hard == [False, True]


def test_every_limit_says_where_it_comes_from() -> None:
    assert set(LIMITS) == set(Size)
    assert all(re.match(r"(our own|RunPod|Linux): ", limit.source) for limit in LIMITS.values())
    assert all(limit.soft < limit.hard for limit in LIMITS.values())


@given(text=st.text(st.characters(codec="utf-8"), max_size=2_000))
def test_a_payload_holds_nothing_that_a_shell_or_a_template_acts_on(text: str) -> None:
    payload = pack(text)

    assert set(payload).isdisjoint("\"'\\$`!{} \n")
    assert unpack_payload(payload) == text.encode()


def test_a_payload_cut_short_or_changed_is_no_payload() -> None:
    payload = pack("print('hello')\n")

    with pytest.raises((ValueError, OSError)):
        unpack_payload(payload[:-7])
    with pytest.raises((ValueError, OSError)):
        unpack_payload("~" * len(payload))
