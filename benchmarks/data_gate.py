"""How long the data gate takes over a large file, and how much memory: rows a second, peak.

    .venv/bin/python benchmarks/data_gate.py [--rows 1000000] [--tokens]

The rows are conversations of about 300 bytes, written to a temporary folder first. Each look is a
process of its own, so that its peak is its own: an empty look (what importing costs), a first look,
and one that remembers. With --tokens every row is rendered and encoded too, by a tokenizer that is
trained on a part of the rows and saved as a model's.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

WORDS = "the of a to and in is it you that he was for on are with as his they be at one have this"

LOOK = """
import sys, time
from pathlib import Path
from podproof.compiler.lower import lower
from podproof.compiler.read import Request, read
from podproof.compiler.script import compile_run
from podproof.harness.data import data_answer
from podproof.harness.verdict import Surroundings

folder, *overrides = sys.argv[1:]
script = compile_run(lower(read(Request(tuple(overrides)))))
surroundings = Surroundings((Path(folder),), Path(folder) / "home")
wall, cpu = time.perf_counter(), time.process_time()
summary, problems, details = data_answer(script, surroundings)
wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
print(wall, cpu, len(problems), bool(details.get("cached")), summary, sep="|")
"""


def write_rows(path: Path, count: int) -> None:
    """Write conversations that differ from each other, of 10 to 60 words."""
    draw = random.Random(7)  # noqa: S311 - nothing here is secret
    words = WORDS.split()
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            said = " ".join(draw.choices(words, k=draw.randint(10, 60)))
            turns = [
                {"role": "user", "content": f"Question {number}: what comes after?"},
                {"role": "assistant", "content": said},
            ]
            file.write(json.dumps({"messages": turns}) + "\n")


def write_model(folder: Path, rows: Path) -> None:
    """Save a tokenizer of 4,096 entries, trained on the first rows, as a model's folder has it."""
    from podproof.runtime.models import DEFAULT_CHAT_TEMPLATE, train_tokenizer
    from podproof.runtime.plan import ModelPlan

    with rows.open(encoding="utf-8") as lines:
        texts = [next(lines) for _ in range(2_000)]
    folder.mkdir()
    train_tokenizer(ModelPlan(tokenizer_vocab_size=4096), texts).save(
        str(folder / "tokenizer.json")
    )
    tokens = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
    config = {**tokens, "chat_template": DEFAULT_CHAT_TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")


def look(folder: Path, *overrides: str) -> tuple[float, float, str]:
    """Ask the gate in a process; return its seconds, on the clock and of the CPU, and its words."""
    command = [sys.executable, "-c", LOOK, str(folder), "experiment=tiny_sft", *overrides]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    wall, cpu, problems, cached, summary = done.stdout.splitlines()[-1].split("|", 4)
    said = "cached" if cached == "True" else summary[:90]
    return float(wall), float(cpu), f"{problems} problems, {said}"


def main() -> None:
    """Print rows a second and the peak of each look."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--tokens", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = folder / "rows.jsonl"
        write_rows(rows, options.rows)
        overrides = ["data.path=rows.jsonl", "data.max_rows=null"]
        if options.tokens:
            write_model(folder / "model", rows)
            overrides += ["model.init=pretrained", f"model.name_or_path={folder / 'model'}"]
        else:
            overrides += ["model.init=pretrained", "model.name_or_path=nobody/has-this"]
        print(f"{options.rows:,} rows, {rows.stat().st_size / 1e6:.0f} MB")
        look(folder, "data.path=absent.jsonl")
        print(f"importing alone   peak {peak_mb():.0f} MB")
        for title in ("first look", "second look"):
            wall_s, cpu_s, said = look(folder, *overrides)
            rate = f"{options.rows / wall_s:11,.0f} rows/s"
            print(f"{title:16}  {wall_s:6.1f} s, {cpu_s:.1f} s of CPU  {rate}  {said}")
        print(f"peak of all       {peak_mb():.0f} MB")


def peak_mb() -> float:
    """Return the largest process so far."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


if __name__ == "__main__":
    main()
