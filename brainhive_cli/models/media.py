"""What generators make: pictures and clips, as one kind of tensor."""

from torch import Tensor

Media = Tensor
"""Pictures [B, 3, H, W] or clips [B, F, 3, H, W], float32 in 0..1."""
