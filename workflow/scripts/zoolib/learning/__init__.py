"""Batches, augmentation, backbones, heads, losses, and the life of a training."""
