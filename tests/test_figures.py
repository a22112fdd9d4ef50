"""The course's figures show what they are given, and their colours stay apart where colours are not seen."""

from itertools import combinations

import matplotlib as mpl
import pytest
import torch

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.colors import to_rgb

from minicc import figures

# Linear sRGB as seen without red and without green cones, after Viénot, Brettel & Mollon 1999.
PROTANOPIA = torch.tensor([[0.11238, 0.88762, 0.0], [0.11238, 0.88762, 0.0], [0.00401, -0.00401, 1.0]])
DEUTERANOPIA = torch.tensor([[0.29275, 0.70725, 0.0], [0.29275, 0.70725, 0.0], [-0.02234, 0.02234, 1.0]])


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


@pytest.mark.parametrize("seen", [PROTANOPIA, DEUTERANOPIA, torch.eye(3)], ids=["protan", "deutan", "all cones"])
def test_the_colours_of_a_figures_lines_stay_apart(seen):
    linear = {c: torch.tensor(to_rgb(c)) ** 2.2 for c in figures.SERIES[:4]}
    shown = {c: (seen @ rgb).clamp(0, 1) ** (1 / 2.2) for c, rgb in linear.items()}
    for a, b in combinations(shown, 2):
        assert (shown[a] - shown[b]).norm() > 0.12, (a, b)


def test_a_grid_shows_every_picture_and_clips_its_values():
    x = torch.linspace(-2, 2, 3 * 3 * 4 * 4).view(3, 3, 4, 4)
    axes = figures.pictures(x, columns=2, rows=["first", "second"], titles=["a", "b"]).axes
    shown = [ax.images[0].get_array() for ax in axes if ax.images]
    assert len(shown) == 3
    assert shown[0].min() == 0
    assert shown[2].max() == 1
    assert [ax.get_ylabel() for ax in axes[::2]] == ["first", "second"]
    assert [ax.get_title() for ax in axes[:2]] == ["a", "b"]


def test_a_cloud_and_arrows_lie_where_they_were_put():
    _, (ax,) = figures.panels(1)
    points = torch.tensor([[0.5, -1.0], [1.0, 2.0]])
    figures.arrows(figures.cloud(ax, points), points, -points)
    scatter, quiver = ax.collections
    assert torch.equal(torch.as_tensor(scatter.get_offsets().data).float(), points)
    assert torch.equal(torch.as_tensor(quiver.U).float(), -points[:, 0])


def test_the_style_is_set_for_every_figure_that_follows():
    with plt.rc_context():
        figures.style()
        assert plt.rcParams["axes.prop_cycle"].by_key()["color"] == list(figures.SERIES)
