"""How unsure the detector is of test dolls, and of drawings that it has not learned: what `detect.UNSURE` rests on.

python benchmarks/uncertainty.py FOLDER … [--n 30] [--each 24] [--sd tiny] [--detector tiny]

For each folder of characters the mean uncertainty of up to --each figures, spread evenly; first that of --n test dolls.
"""

import argparse
from pathlib import Path

import numpy as np

import minicc
from minicc.data.folder import read_folder
from minicc.data.samples import image_of
from minicc.evaluation.art import spread
from minicc.evaluation.base import first_doll, test_dolls
from minicc.outfit.detect import UNSURE, uncertainty_of


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--n", type=int, default=30)
    parser.add_argument("--each", type=int, default=24)
    parser.add_argument("--sd", default="tiny")
    parser.add_argument("--detector", default="tiny")
    a = parser.parse_args()
    sd, detector = minicc.load(a.sd), minicc.ClothingDetector.load(a.detector)

    pictures = {"test dolls": [doll.image for doll in test_dolls(first_doll(0), a.n)]}
    for folder in a.folders:
        pictures[f"{folder.parent.name}/{folder.name}"] = [image_of(s) for s in spread(read_folder(folder)[0], a.each)]
    for name, shown in pictures.items():
        values = np.array([uncertainty_of(detector.find(sd, picture)) for picture in shown])
        over = int((values >= UNSURE).sum())
        print(f"{name}: {len(shown)} figures, {values.min():.2f} to {values.max():.2f}, {over} at {UNSURE} or above")


if __name__ == "__main__":
    main()
