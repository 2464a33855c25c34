"""Compare the results of two run directories, for example before and after a change of the code.

    python benchmarks/compare_runs.py outputs/before outputs/after
    python benchmarks/compare_runs.py outputs/before outputs/after --renamed benchmarks/renamed_columns.json

Maps, images, checkpoint predictions and predictions.tsv must be identical byte by byte. All other tables and
metrics.json must be equal to 1e-9, bootstrap intervals (columns and keys that contain ``ci_low`` or
``ci_high``) to 0.01. Durations and memory are not compared. The exit code is 1 if something differs.

The file of renamed columns is a JSON object with the entries ``columns`` (new column name to old name),
``values`` (new text in a cell to old text), ``keys`` (new prefix of a key in metrics.json to old prefix),
``files`` (regular expression in a new path to its replacement in the old path, relative to the run directory)
and ``added`` (new columns that are not compared).
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

TOLERANCE = 1e-9
INTERVAL_TOLERANCE = 0.01
MEASURED = ("seconds", "peak_mb")  # depend on the machine


def main() -> int:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--renamed", type=Path, help="JSON file with renamed columns, values, keys and files")
    arguments = parser.parse_args()
    renamed = json.loads(arguments.renamed.read_text()) if arguments.renamed else {}
    differences = list(compare_runs(arguments.before, arguments.after, renamed))
    n_exact = len(exact_files(arguments.after))
    n_tables = len(tables(arguments.after))
    for line in differences:
        print(line)
    print(f"{n_exact} files compared byte by byte, {n_tables} tables and metrics.json compared by value")
    print(f"{len(differences)} differences" if differences else "no differences")
    return 1 if differences else 0


def compare_runs(before: Path, after: Path, renamed: dict[str, Any]) -> Iterator[str]:
    """Yield one line for each difference."""
    for kind in (exact_files, tables):
        there, here = kind(before), kind(after)
        known = {old_name(name, renamed) for name in here}
        yield from (f"{name}: only in {before}" for name in sorted(there - known))
        for name in sorted(here):
            old = old_name(name, renamed)
            if old not in there:
                yield f"{name}: only in {after}"
            elif kind is exact_files:
                if content(before / old) != content(after / name):
                    yield f"{name}: the contents differ"
            else:
                yield from compare_tables(before / old, after / name, name, renamed)
    yield from compare_metrics(before, after, renamed.get("keys", {}))


def old_name(name: str, renamed: dict[str, Any]) -> str:
    """Path of a file before the change."""
    for pattern, old in renamed.get("files", {}).items():
        name = re.sub(pattern, old, name)
    return name


def exact_files(run: Path) -> set[str]:
    """Files whose contents must be identical, relative to the run directory."""
    patterns = ("attributions/**/*.nii.gz", "images/*.nii.gz", "group/**/*.nii.gz", "predictions.tsv")
    patterns += ("checkpoints/*_predictions.tsv", "checkpoints/*_validation.tsv")
    patterns += ("baselines/*/predictions.tsv",)
    return {str(path.relative_to(run)) for pattern in patterns for path in run.glob(pattern)}


def tables(run: Path) -> set[str]:
    """Tables that are compared by value, relative to the run directory."""
    patterns = ("evaluation/**/*.tsv", "folds.tsv", "fold_summary.tsv", "participants.tsv", "quarantine.tsv")
    found = {str(path.relative_to(run)) for pattern in patterns for path in run.glob(pattern)}
    return found - exact_files(run)


def content(path: Path) -> bytes:
    """Bytes of a file; of a compressed file the bytes inside, because the compressor does not matter."""
    data = path.read_bytes()
    return gzip.decompress(data) if path.suffix == ".gz" else data


def compare_tables(before: Path, after: Path, name: str, renamed: dict[str, Any]) -> Iterator[str]:
    """Yield one line for each column that differs, in any order of rows and columns."""
    old, new = read(before), read(after)
    columns = {name: to for name, to in renamed.get("columns", {}).items() if name not in old}
    added = [name for name in renamed.get("added", []) if name not in old]
    new = new.drop(columns=added, errors="ignore").rename(columns=columns)
    new = new.replace(renamed.get("values", {}))
    if set(old) != set(new):
        yield f"{name}: columns differ: {sorted(set(old) ^ set(new))}"
        return
    if len(old) != len(new):
        yield f"{name}: {len(old)} rows before and {len(new)} after"
        return
    text = [column for column in old if not pd.api.types.is_numeric_dtype(old[column])]
    both = (old, new[old.columns])
    old, new = (table.sort_values(text, kind="stable").reset_index(drop=True) for table in both)
    measured = old[text].isin(MEASURED).any(axis=1) if text else pd.Series(False, index=old.index)
    for column in old:
        if column in MEASURED:
            continue
        a, b = old.loc[~measured, column], new.loc[~measured, column]
        if column in text:
            different = int((a.fillna("") != b.fillna("")).sum())
        else:
            different = int((~close(a.to_numpy(float), b.to_numpy(float), column)).sum())
        if different:
            yield f"{name}: column {column} differs in {different} of {len(a)} rows"


def compare_metrics(before: Path, after: Path, prefixes: dict[str, str]) -> Iterator[str]:
    """Yield one line for each key of metrics.json that differs."""
    old, new = (json.loads((run / "metrics.json").read_text()) for run in (before, after))
    new = {rename(key, prefixes): value for key, value in new.items()}
    old, new = ({k: v for k, v in each.items() if not k.startswith("seconds/")} for each in (old, new))
    for key in sorted(set(old) ^ set(new)):
        yield f"metrics.json: {key} is only in {before if key in old else after}"
    for key in sorted(set(old) & set(new)):
        if not close(np.array([old[key]], float), np.array([new[key]], float), key).all():
            yield f"metrics.json: {key} was {old[key]} and is {new[key]}"


def rename(key: str, prefixes: dict[str, str]) -> str:
    for prefix, old in prefixes.items():
        if key.startswith(prefix):
            return old + key.removeprefix(prefix)
    return key


def close(a: np.ndarray, b: np.ndarray, name: str) -> np.ndarray:
    """Whether numbers are equal within the tolerance of their column or key."""
    interval = re.search("ci_(low|high)", name)
    tolerance = INTERVAL_TOLERANCE if interval else TOLERANCE
    return np.isclose(a, b, rtol=0 if interval else tolerance, atol=tolerance, equal_nan=True)


def read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, sep="\t", na_values=["n/a", ""], keep_default_na=False, low_memory=False)


if __name__ == "__main__":
    sys.exit(main())
