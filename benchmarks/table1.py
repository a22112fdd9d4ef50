"""Table 1 of the DDIM paper on the tiny model; resumable: six hours on one core, or with --bf16 four.

    python benchmarks/table1.py --out runs/table1

Writes table1.json there and prints the table; with --cells, prints these cells and writes no table.
"""

import argparse
from pathlib import Path

import torch

from minicc.evaluation.table1 import CELLS, markdown, table1
from minicc.pipeline import load
from minicc.reader import load_reader


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of finished batches and of the result")
    parser.add_argument("--sd", default="tiny")
    parser.add_argument("--bf16", action="store_true", help="the U-Net under bfloat16 autocast; x stays float32")
    parser.add_argument("--reader", type=Path, help="folder of the attribute reader [the shipped one]")
    parser.add_argument("--n", type=int, default=500, help="pictures a cell [500]")
    parser.add_argument("--n-longest", type=int, default=200, help="pictures a cell at 1000 steps [200]")
    parser.add_argument("--seed", type=int, default=0)
    names = [cell.name for cell in CELLS]
    parser.add_argument("--cells", nargs="+", choices=names, default=names, metavar="NAME", help="only these [all]")
    a = parser.parse_args()
    reader = load_reader(a.reader) if a.reader else load_reader()
    cells = [cell for cell in CELLS if cell.name in a.cells]
    figures = table1(load(a.sd, dtype=torch.float32), reader, a.out, a.n, a.n_longest, a.seed, cells, a.bf16)
    print(markdown(figures, a.n, a.n_longest) if len(cells) == len(CELLS) else figures)


if __name__ == "__main__":
    main()
