"""What classifiers without a network reach on the folds of a run, each fitted inside the folds.

python benchmarks/baselines.py experiment=ixi_sex data.root=/path/to/ixi baselines=[pca_logistic,linear_svm]
"""

from __future__ import annotations

import json
import sys
import tempfile
import time

from xai_brain import compose
from xai_brain.config.checks import read_config
from xai_brain.runs.directory import read_json, read_tsv, write_tsv
from xai_brain.stages.baselines import baselines
from xai_brain.study.participants import portable, prepared_cohort
from xai_brain.study.settings import open_run
from xai_brain.study.training.folds import folds_of


def main(overrides: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        cfg = compose("train", [f"run_dir={folder}", *overrides])
        run = open_run(read_config(cfg))
        cohort = prepared_cohort(read_config(cfg), run)
        write_tsv(portable(cohort, None), run.participants)
        write_tsv(folds_of(read_config(cfg), cohort), run.folds)
        start = time.monotonic()
        baselines(cfg)
        print(read_tsv(run.evaluation("baselines")).iloc[:, :6].to_string(), file=sys.stderr)
        found = {k: round(v, 4) for k, v in read_json(run.metrics).items() if k.startswith("baseline/")}
        print(json.dumps({"seconds": round(time.monotonic() - start, 1), **found}))


if __name__ == "__main__":
    main(sys.argv[1:])
