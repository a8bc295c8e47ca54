"""torchvision as it is imported where torch has no CUDA.

The package index has it for torch with CUDA. Without CUDA its operators are missing, and its import fails. It
is only imported here, so it is enough to declare them.
"""


def declared():
    """torchvision's operators without a body; they exist as long as the returned object does."""
    from torch import library

    operators = library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return operators
