"""Vision transformers (Dosovitskiy et al. 2021, https://arxiv.org/abs/2010.11929) with the names of timm.

Layers have the names of timm's modules: timm's weights are assigned by name alone.
"""

from keras import layers, ops

from zoolib.learning.backbones.attention import attend, learned_table, norm, perceive, small


def vit(x, patch, depth, width, heads):
    """The layers of a vision transformer; its first place, the class token, is the representation.

    Args:
        x: (galaxies, edge, edge, channels), a Keras tensor.
        patch: edge of a patch in pixels.
        depth: blocks.
        width: features of each place.
        heads: of the attention.

    Returns:
        (galaxies, width), a Keras tensor.
    """
    x = layers.Conv2D(width, patch, strides=patch, kernel_initializer=small(), name="patch_embed.proj")(x)
    x = layers.Reshape((-1, width), name="patch_embed.places")(x)
    ones = ops.ones_like(ops.mean(x, axis=-1))
    token = learned_table(ops.ones_like(ops.mean(ones, axis=1, keepdims=True)), width, "cls_token")
    x = layers.Concatenate(axis=1, name="places")([token, x])
    x = layers.Add(name="embedded")([x, learned_table(ops.ones_like(x[:, :, 0]), width, "pos_embed")])
    for block in range(depth):
        name = f"blocks.{block}"
        attended = attend(norm(x, f"{name}.norm1"), heads, f"{name}.attn")
        x = layers.Add(name=f"{name}.add1")([x, attended])
        x = layers.Add(name=f"{name}.add2")([x, perceive(norm(x, f"{name}.norm2"), f"{name}.mlp")])
    return norm(x[:, 0], "norm")
