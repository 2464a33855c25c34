"""How long `import xai_brain` and `xai-brain --help` take, each time in a fresh process.

    python benchmarks/startup.py

Whole processes are timed, from their start to their end, Python's own start included (first line of the
table). Bars: 0.3 s for the import, 1.5 s for the help. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from turns import in_turns, seconds_of, show

SCRIPT = Path(sys.executable).with_name("xai-brain")  # as it is typed, where it is installed
HELP = [str(SCRIPT)] if SCRIPT.exists() else [sys.executable, "-m", "xai_brain"]
WAYS = {
    "python alone": [sys.executable, "-c", ""],
    "import xai_brain": [sys.executable, "-c", "import xai_brain"],
    "xai-brain --help": [*HELP, "--help"],
    "xai-brain explain --help": [*HELP, "explain", "--help"],
}


def process(command: list[str]) -> dict[str, float]:
    start = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return {"seconds": time.perf_counter() - start}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--turns", type=int, default=15)
    args = parser.parse_args()
    ways: dict[str, Callable[[], dict[str, float]]] = {
        name: partial(process, command) for name, command in WAYS.items()
    }
    seconds = seconds_of(in_turns(ways, args.turns))
    show("fresh processes", seconds)
    medians = {name: round(statistics.median(values), 3) for name, values in seconds.items()}
    print(
        json.dumps(
            {
                "import_s": medians["import xai_brain"],
                "help_s": medians["xai-brain --help"],
                "python_s": medians["python alone"],
            }
        )
    )


if __name__ == "__main__":
    main()
