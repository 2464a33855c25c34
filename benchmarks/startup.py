"""Seconds until the first line of every command, and until a missing folder, file or column is reported.

    python benchmarks/startup.py [--turns 15] [--check]

Each turn starts every command in a fresh process and reads its output as it comes. Python alone, the import
of the package and the help are timed as whole processes. Every command is given a folder that does not exist,
so that none begins to work; `cache`, `settings` and `completion` need no folder and have a first line only.
Bars for the medians: import 0.3 s, help 1.5 s, first line 1 s, missing folder, file or column 2 s. The exit
code is 1 if one is missed and --check is given. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from turns import in_turns, seconds_of, show

from xai_brain.config.command_help import COMMANDS, STAGES

SCRIPT = Path(sys.executable).with_name("xai-brain")  # as it is typed, where it is installed
PROGRAM = [str(SCRIPT)] if SCRIPT.exists() else [sys.executable, "-m", "xai_brain"]
MISSING = "nowhere"  # below an empty folder
IMAGES = ["data=bids", f"data.root={MISSING}"]
ARGUMENTS = {
    "run": IMAGES,
    "train": IMAGES,
    "predict": [f"networks={MISSING}", *IMAGES],
    "explain-network": ["network._target_=monai.networks.nets.DenseNet121", *IMAGES],
    **{command: [MISSING] for command in (*STAGES, "view", "collect", "verify")},
    "import-maps": [f"maps={MISSING}", "run_dir=new"],
    "cache": ["info", f"data.cache_dir={MISSING}"],
    "settings": ["trainer"],
    "completion": ["bash"],
}
WITHOUT_FOLDER = ("cache", "settings", "completion")
TABLE = ["data=bids", "data.root=cohort"]
FURTHER = {  # a sweep, a missing file and missing columns
    "run -m": ["run", "-m", *IMAGES, "trainer.lr=1e-3,1e-4"],
    "run, atlas": ["run", *TABLE, f"evaluation.atlas={MISSING}.nii.gz"],
    "run, label": ["run", *TABLE, f"data.label={MISSING}"],
    "run, confound": ["run", *TABLE, f"evaluation.group.confounds=[{MISSING}]"],
}
BARS = {"import": 0.3, "help": 1.5, "first line": 1.0, "missing folder": 2.0}  # s


def whole(command: list[str], folder: str) -> dict[str, float]:
    """Seconds of a process from its start to its end."""
    start = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True, cwd=folder)
    return {"seconds": time.perf_counter() - start}


def lines(command: list[str], folder: str) -> dict[str, float]:
    """Seconds until the first line of a process, and until its end."""
    start = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=folder
    )
    assert process.stdout is not None
    process.stdout.readline()
    first = time.perf_counter() - start
    rest = process.stdout.read()
    process.wait()
    seconds = time.perf_counter() - start
    if process.returncode and MISSING not in rest:
        raise SystemExit(f"{' '.join(command)}: {rest}")
    return {"first line": first, "seconds": seconds}


def ways(folder: str) -> dict[str, Callable[[], dict[str, float]]]:
    """What is timed: whole processes, and every command."""
    assert set(ARGUMENTS) == set(COMMANDS)
    found = {
        "python alone": partial(whole, [sys.executable, "-c", ""], folder),
        "import xai_brain": partial(whole, [sys.executable, "-c", "import xai_brain"], folder),
        "xai-brain --help": partial(whole, [*PROGRAM, "--help"], folder),
        "xai-brain explain --help": partial(whole, [*PROGRAM, "explain", "--help"], folder),
    }
    for command, arguments in ARGUMENTS.items():
        found[command] = partial(lines, [*PROGRAM, command, *arguments], folder)
    return found | {name: partial(lines, [*PROGRAM, *words], folder) for name, words in FURTHER.items()}


def write_table(folder: Path) -> None:
    """A table of 1,000 participants without images."""
    folder.mkdir()
    rows = [f"sub-{n:04d}\t{'FM'[n % 2]}\t{20 + n % 60}\n" for n in range(1000)]
    (folder / "participants.tsv").write_text("participant_id\tsex\tage\n" + "".join(rows))


def medians_of(results: dict[str, list[dict[str, float]]], figure: str) -> dict[str, float]:
    """Median of one figure over turns, for the ways that have it."""
    return {
        name: round(statistics.median(turn[figure] for turn in turns), 3)
        for name, turns in results.items()
        if figure in turns[0]
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--check", action="store_true", help="exit code 1 if a bar is missed")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_table(Path(folder) / "cohort")
        results = in_turns(ways(folder), args.turns)
    ends, first = medians_of(results, "seconds"), medians_of(results, "first line")
    missing = {name: ends[name] for name in first if name not in WITHOUT_FOLDER}
    show("until the end of the process", seconds_of(results))
    show("until the first line", {name: [turn["first line"] for turn in results[name]] for name in first})
    reached = {
        "import": ends["import xai_brain"],
        "help": ends["xai-brain --help"],
        "first line": max(first.values()),
        "missing folder": max(missing.values()),
    }
    figures = {"import_s": reached["import"], "help_s": reached["help"], "python_s": ends["python alone"],
               "first_line_s": first, "missing_folder_s": missing}  # fmt: skip
    missed = [name for name, bar in BARS.items() if reached[name] > bar]
    for name in missed:
        print(f"{name}: {reached[name]:.2f} s, above the bar of {BARS[name]} s")
    print(json.dumps(figures))
    return int(bool(missed) and args.check)


if __name__ == "__main__":
    sys.exit(main())
