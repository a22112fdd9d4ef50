"""`minicc evaluate STAGE`: figures printed as a table, and written as JSON."""

import json
from argparse import Namespace
from collections.abc import Mapping

from minicc.errors import Error
from minicc.evaluation.base import evaluate_base
from minicc.evaluation.reader import load_reader
from minicc.pipeline import load


def evaluate_stage(a: Namespace) -> None:
    """Measure what the options name; print the figures, and write them if `--json` says where."""
    if a.n < 2:
        raise Error(f"--n {a.n}: populations are compared, at least 2 dolls are needed")
    reader = load_reader(a.reader) if a.reader else load_reader()
    sd = load(a.sd, device=a.device, prediction=a.prediction)
    figures = {"n": a.n, "seed": a.seed} | evaluate_base(sd, reader, a.n, a.seed, a.steps, a.guidance)
    print("\n".join(lines(figures)))
    if a.json:
        a.json.parent.mkdir(parents=True, exist_ok=True)
        a.json.write_text(json.dumps(figures, indent=1) + "\n", "utf-8")


def lines(figures: Mapping[str, object], indent: str = "") -> list[str]:
    """One line a figure; tables inside are indented."""
    rows = []
    for name, value in figures.items():
        if isinstance(value, Mapping):
            rows += [f"{indent}{name}", *lines(value, indent + "  ")]
        else:
            rows.append(f"{indent}{name:<28}{value:.4g}" if isinstance(value, float) else f"{indent}{name:<28}{value}")
    return rows
