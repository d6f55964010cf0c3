"""A chequered floor under a body: more triangles of the same mesh, in two greys."""

# B batch, V vertices, F faces, Q vertices of all tiles

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mclip.pipeline.draw.camera import FRAME_METRES

TILES = 8  # along each side of the square under a single picture's body
GREYS = (0.93, 0.80)
# Half a side, as a share of the camera's distance: wider than the picture behind the body, and its corners, 0.66 of the
# distance away, still in front of the camera.
REACH = 0.47
TILE = 0.5  # metres, under a whole clip
MOST_TILES = 64  # along a side


def add_ground(
    vertices_BV3: Float[Tensor, "batch vertices 3"],
    faces_F3: Int[Tensor, "faces 3"],
    colours_V3: Float[Tensor, "vertices 3"],
    *,
    centre_B3: Float[Tensor, "#batch 3"],
    half_B: Float[Tensor, "#batch"],
    tiles: int = TILES,
) -> tuple[Float[Tensor, "batch more 3"], Int[Tensor, "all_faces 3"], Float[Tensor, "more 3"]]:
    """Vertices, faces and colours of bodies together with a square of `tiles` x `tiles`, level, world z up, in metres.

    The square's middle is `centre_B3`, `half_B` half its side. A tile has corners of its own, so it has one colour.
    """
    device = vertices_BV3.device
    steps = torch.arange(tiles, device=device)
    row, column = (each.flatten() for each in torch.meshgrid(steps, steps, indexing="ij"))
    corner = torch.tensor([[0, 0], [1, 0], [1, 1], [0, 1]], device=device)
    # Tile by tile, four corners each, from -1 to 1.
    square_Q2 = 2 * (torch.stack((column, row), 1)[:, None] + corner).flatten(0, 1) / tiles - 1
    ground_BQ3 = torch.nn.functional.pad(square_Q2 * half_B[:, None, None], (0, 1)) + centre_B3[:, None]
    pair = torch.tensor([[0, 1, 2], [0, 2, 3]], device=device)  # anticlockwise from above
    faces_Q3 = (4 * torch.arange(tiles**2, device=device)[:, None, None] + pair).flatten(0, 1)
    grey_Q = torch.tensor(GREYS, device=device)[(row + column) % 2].repeat_interleave(4)
    return (
        torch.cat((vertices_BV3, ground_BQ3.expand(len(vertices_BV3), -1, 3)), dim=1),
        torch.cat((faces_F3, faces_Q3 + vertices_BV3.shape[1])),
        torch.cat((colours_V3, grey_Q[:, None].expand(-1, 3))),
    )


def under_path(extent: float) -> tuple[float, int]:
    """Half a side, in metres, and the number of tiles of a floor under a path of that extent."""
    half = extent / 2 + FRAME_METRES
    tiles = 2 * min(math.ceil(half / TILE), MOST_TILES // 2)
    return (half if tiles == MOST_TILES else tiles * TILE / 2), tiles
