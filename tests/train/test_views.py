"""Views of an image and the mean of what a network says of them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from cxredge_train.views import VIEWS, mean_over_views, turn


def disc(x: float, y: float, size: int = 64) -> Tensor:
    """A soft disc about ``(x, y)``, in units of half the side from the centre."""
    steps = torch.linspace(-1, 1, size)
    distance = ((steps[None, :] - x) ** 2 + (steps[:, None] - y) ** 2).sqrt()
    return torch.sigmoid((0.3 - distance) * 20)[None, None]


def centre(image: Tensor) -> tuple[float, float]:
    steps = torch.linspace(-1, 1, image.shape[-1])
    return (
        float((image[0, 0].sum(0) * steps).sum() / image.sum()),
        float((image[0, 0].sum(1) * steps).sum() / image.sum()),
    )


def test_a_quarter_turn_is_clockwise_and_a_scale_enlarges_about_the_centre() -> None:
    assert centre(turn(disc(0.4, 0.0), 90, 1)) == pytest.approx((0.0, 0.4), abs=0.02)
    assert centre(turn(disc(0.3, 0.1), 0, 1.5)) == pytest.approx((0.45, 0.15), abs=0.02)
    assert float(turn(disc(0, 0), 0, 1.5).sum() / disc(0, 0).sum()) == pytest.approx(1.5**2, rel=0.03)


@pytest.mark.parametrize(("degrees", "scale"), VIEWS)
def test_a_view_is_turned_back_to_where_it_came_from(degrees: float, scale: float) -> None:
    image = disc(0.2, -0.3)
    back = turn(turn(image, degrees, scale), -degrees, 1 / scale)
    assert (back - image).abs().max() < 0.06
    assert centre(back) == pytest.approx(centre(image), abs=2e-3)


def test_autocast_does_not_move_a_view() -> None:
    image = disc(0.2, -0.3, 256)
    with torch.autocast("cpu", torch.bfloat16):
        found = turn(image, 4, 1.06)
    assert torch.equal(found, turn(image, 4, 1.06))


def test_the_first_view_is_the_image_itself() -> None:
    image = disc(0.2, -0.3)
    assert VIEWS[0] == (0.0, 1.0)
    assert torch.equal(mean_over_views(torch.square, image, 1), image.square())


def test_every_view_counts_the_same() -> None:
    seen: list[Tensor] = []

    def network(view: Tensor) -> Tensor:
        seen.append(view)
        return view.new_full((len(view), 1, 64, 64), float(len(seen)))

    mean = mean_over_views(network, disc(0, 0).expand(3, -1, -1, -1), 5)
    assert len(seen) == 5
    torch.testing.assert_close(mean, torch.full((3, 1, 64, 64), 3.0))
