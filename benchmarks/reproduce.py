"""Run the commands of the results pages of the documentation, one after another.

    python benchmarks/reproduce.py --list
    python benchmarks/reproduce.py --ixi <folder> --second-site <folder> --atlas <file> --output <folder>
    python benchmarks/reproduce.py --ixi <folder> --output <folder> ixi_age report_card

The commands are those that docs/results/*.md prints; all of them together take many hours. Each runs in the
output folder and writes <page>_<number>.log there. Commands that have succeeded are not run again, and an
interrupted run of xai-brain continues. Commands for which an input is missing, and `make gpu` on a machine
without a GPU, are listed and left out.
"""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "docs" / "results"
# a line of a block of code, or inline code
LINE = r"^(?:OMP_NUM_THREADS=1 )?((?:xai-brain|python benchmarks/)[^`\n]*)"
INLINE = r"`((?:xai-brain \w+ |python benchmarks/|make )[^`\n]+)`"
COMMAND = re.compile(f"{LINE}|{INLINE}", re.MULTILINE)
INPUTS = {"/path/to/ixi": "ixi", "/path/to/second_site": "second_site", "labels.nii.gz": "atlas"}


@dataclass(frozen=True)
class Step:
    """A command of a page, with the words that stand for inputs."""

    name: str
    command: str

    @property
    def needs(self) -> list[str]:
        """Inputs that the command names."""
        return [option for words, option in INPUTS.items() if words in self.command]

    def words(self, inputs: dict[str, Path | None]) -> list[str]:
        """The command as this interpreter runs it, with the inputs in place.

        Parameters
        ----------
        inputs : dict of str to Path
            By the names in ``INPUTS``.
        """
        text = self.command.replace("/path/to/labels.nii.gz", "labels.nii.gz")
        program, *rest = shlex.split(text)
        for placeholder, option in INPUTS.items():
            rest = [word.replace(placeholder, str(inputs[option] or placeholder)) for word in rest]
        if program == "xai-brain":
            return [sys.executable, "-m", "xai_brain", *rest]
        if program == "python":
            return [sys.executable, str(ROOT / rest[0]), *rest[1:]]
        return [program, "-C", str(ROOT), *rest]


def steps(pages: list[str]) -> list[Step]:
    """Commands of the results pages in their order, each once.

    Parameters
    ----------
    pages : list of str
        Names of pages without ``.md``; all if empty.
    """
    known = [path.stem for path in sorted(PAGES.glob("*.md"))]
    if unknown := [page for page in pages if page not in known]:
        raise SystemExit(f"no page {unknown[0]}; one of {', '.join(known)}")
    found: list[Step] = []
    for page in pages or known:
        commands = [first or second for first, second in COMMAND.findall((PAGES / f"{page}.md").read_text())]
        for number, command in enumerate(dict.fromkeys(commands), 1):
            if command not in {step.command for step in found}:
                found.append(Step(f"{page}_{number}", command.strip()))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pages", nargs="*", help="names of pages; default: all")
    parser.add_argument("--list", action="store_true", help="print the commands only")
    parser.add_argument("--ixi", type=Path, help="181 participants of IXI as a BIDS dataset")
    parser.add_argument("--second-site", type=Path, help="participants of another scanner")
    parser.add_argument("--atlas", type=Path, help="labels of the brain in MNI152")
    parser.add_argument("--output", type=Path, default=Path("outputs") / "results")
    args = parser.parse_args()
    inputs = {name: value.resolve() if (value := getattr(args, name)) else None for name in INPUTS.values()}
    if missing := [path for path in inputs.values() if path is not None and not path.exists()]:
        raise SystemExit(f"{missing[0]}: does not exist")
    chosen, failed = steps(args.pages), []
    if not args.list:
        args.output.mkdir(parents=True, exist_ok=True)
    for step in chosen:
        absent = [name for name in step.needs if inputs[name] is None]
        if args.list:
            print(f"{step.name}: {step.command}")
        elif absent or ("gpu" in step.command and not torch.cuda.is_available()):
            reason = f"--{absent[0].replace('_', '-')} is missing" if absent else "no CUDA device"
            print(f"{step.name}: left out, {reason}: {step.command}", flush=True)
        elif (args.output / f"{step.name}.done").exists():
            print(f"{step.name}: done before", flush=True)
        elif not run(step, step.words(inputs), args.output):
            failed.append(step.name)
    if failed:
        print(f"failed: {', '.join(failed)}; their logs are in {args.output}")
    return len(failed) > 0


def run(step: Step, words: list[str], output: Path) -> bool:
    """Run a command in the output folder; True if it succeeded."""
    start = time.monotonic()
    with (output / f"{step.name}.log").open("w") as log:
        code = subprocess.run(words, cwd=output, stdout=log, stderr=subprocess.STDOUT, check=False).returncode
    print(f"{step.name}: exit status {code}, {time.monotonic() - start:.0f} s: {step.command}", flush=True)
    if code == 0:
        (output / f"{step.name}.done").write_text(f"{shlex.join(words)}\n")
    return code == 0


if __name__ == "__main__":
    sys.exit(main())
