"""What the tiny models make of drawings they never saw: `python docs/anime.py FOLDER` writes docs/anime.png.

FOLDER: pictures of characters with masks, as `minicc train` reads them. Rows: characters; the classes that the detector
finds; how unsure it is; phase 1 under the folder's masks; phase 2, a doll's garment, the mask found. 50 steps, seed 0.
"""

import sys
import warnings
from pathlib import Path

import numpy as np
from PIL import Image

import minicc
from minicc.data import dolls
from minicc.data.folder import read_folder
from minicc.data.tensors import on_white, to_tensors
from minicc.outfit.detect import part_picture
from minicc.training.stages import grid

SIDE, PROMPT = 192, "a red dress with white dots"
warnings.simplefilter("ignore")  # the notes on sizes

sd, detector = minicc.load("tiny"), minicc.ClothingDetector.load("tiny")
phase1, phase2 = (minicc.ControlNet.load(name, unet=sd.unet) for name in ("tiny-phase1", "tiny-phase2"))
garment = dolls.draw(14, split="test").flat("top")
rows: list[list[Image.Image]] = [[] for _ in range(5)]
for sample in read_folder(Path(sys.argv[1]))[0]:
    character, mask = Image.open(sample.image), np.asarray(Image.open(sample.mask)) > 0
    found = detector.find(sd, character)
    by_words = minicc.phase1.generate(sd, phase1, character, mask, PROMPT)
    by_garment = minicc.phase2.generate(sd, phase2, character, garment, detector=detector)
    parts = part_picture(found.index).convert("RGB")
    pictures = (character, parts, found.uncertainty_picture(), by_words.image, by_garment.image)
    for row, picture in zip(rows, pictures, strict=True):
        row.append(on_white(picture).resize((SIDE, SIDE), Image.Resampling.LANCZOS))
grid([to_tensors(row) for row in rows]).save(Path(__file__).parent / "anime.png")
