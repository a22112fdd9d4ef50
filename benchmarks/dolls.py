"""How many paper dolls a second: drawn one by one on one core, and read from a cache as training reads them.

python benchmarks/dolls.py [--n 300]
"""

import argparse
import tempfile
import time
from pathlib import Path

from minicc.data import dolls
from minicc.training.data import Pictures
from minicc.training.dolls_cache import draw_dolls


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=300)
    n = parser.parse_args().n
    everything = ("image", "index", "caption", "slots", "attributes")
    dolls.draw(n).image  # noqa: B018 (what all dolls share is kept from here on)
    for what, names in (("pictures", everything[:1]), ("pictures with masks, captions and facts", everything)):
        start = time.perf_counter()
        for seed in range(n):
            doll = dolls.draw(seed)
            for name in names:
                found = getattr(doll, name)
                _ = found() if callable(found) else found
        print(f"drawn, {what}: {n / (time.perf_counter() - start):.0f} a second")
    with tempfile.TemporaryDirectory() as folder:
        kept = draw_dolls(Path(folder), "train", range(n))
        data, start = Pictures(kept, 0), time.perf_counter()
        for i in range(4 * n):
            data[i % n, i]
        print(f"read from the cache: {4 * n / (time.perf_counter() - start):.0f} a second")


if __name__ == "__main__":
    main()
