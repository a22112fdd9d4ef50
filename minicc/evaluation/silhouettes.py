"""The outline of the clothes that were drawn, as the detector finds it, beside the one asked for and the old one."""

from collections.abc import Callable, Sequence

from PIL import Image

from minicc.data.dolls.wardrobe import CLASSES
from minicc.evaluation.edits import FEWEST, average
from minicc.evaluation.metrics import iou
from minicc.evaluation.swaps import Swap
from minicc.outfit.clothing import Clothes


def silhouettes(
    find: Callable[[Image.Image], Clothes], pictures: Sequence[Image.Image], asked: Sequence[Swap],
    read: Sequence[bool],
) -> dict[str, float]:  # fmt: skip
    """Of the swaps of length; nan if there are none. read: whether garment and length are read as the sentence says.

    silhouette_iou: the mean IoU of the garment found and the true one. silhouette_old_iou: of the garment found and the
    new one in the old one's length, what a leak would be. silhouette_new: the share of results nearer to the former;
    silhouette_read: of results that are, and are read right. A garment whose outline hardly changes is not judged.
    """
    rows = [
        (overlaps(find(picture), one), right)
        for picture, one, right in zip(pictures, asked, read, strict=True)
        if one.slot
    ]
    judged = [(*both, right) for both, right in rows if both is not None]
    return {
        "silhouette_iou": average([new for new, _, _ in judged]),
        "silhouette_old_iou": average([old for _, old, _ in judged]),
        "silhouette_new": average([float(new > old) for new, old, _ in judged]),
        "silhouette_read": average([float(new > old and right) for new, old, right in judged]),
    }


def overlaps(found: Clothes, swap: Swap) -> tuple[float, float] | None:
    """IoU with the true garment and with its relapse; None if these two are hardly different."""
    assert swap.slot is not None
    number = CLASSES[swap.slot]
    seen, new, old = found.index == number, swap.after.index == number, swap.relapse.index == number
    return None if (new != old).sum() < FEWEST else (iou(seen, new), iou(seen, old))
