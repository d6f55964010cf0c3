"""The rows that the model reads: 24 joints in 6D, and where the root is."""

import torch
from jaxtyping import Float
from torch import Tensor


def rows_of_motion(rot6d_TJD: Float[Tensor, "T 24 6"], trans_T3: Float[Tensor, "T 3"]) -> Float[Tensor, "T 25 6"]:
    """The model's rows: 24 joints in 6D, and where the root is, three numbers and three zeros."""
    return torch.cat((rot6d_TJD, torch.nn.functional.pad(trans_T3, (0, 3))[:, None]), dim=1)
