"""What a stage is: the module that the loop trains."""

from abc import ABC, abstractmethod
from typing import Any

from PIL import Image
from torch import Tensor, nn

from minicc.training.draws import Draws

# `lighter` of light stages
SMALL = "try a smaller --batch with more --accumulate, --precision bf16, or, with AdamW, --eight-bit"


class Stage(nn.Module, ABC):
    """What a stage must say. Parameters that require a gradient are trained; `trained` is what checkpoints hold."""

    uses_all = True  # whether every trained weight takes part in every batch; if not, several processes must look
    lighter = "try --recompute, a smaller --batch with more --accumulate, or --precision bf16"  # where memory runs out

    @property
    def told(self) -> dict[str, float]:
        """What its loss was told: a run that resumes with something else says so."""
        return {}

    @property
    @abstractmethod
    def trained(self) -> nn.Module:
        """The module that learns: saved, and averaged if the config asks for it."""

    @property
    def heavy(self) -> list[nn.Module]:
        """The modules in which the time is spent: what torch.compile compiles."""
        return [self.trained]

    @abstractmethod
    def forward(self, batch: dict[str, Any], draws: Draws) -> Tensor:
        """The batch's loss, 0-d."""

    def sheet(self) -> Image.Image | None:
        """Validation pictures from fixed seeds."""
        return None
