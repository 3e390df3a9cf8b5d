"""The weights of a vision transformer from the state dict of timm's ``VisionTransformer``. Pure numpy.

timm keeps the class token's position in the table of DeiT and DINOv2, where it is added to the token; with registers
the table has none. Facebook's own files of DINOv2 have the same names, apart from ``mask_token`` and
``register_tokens``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from trainers.networks.architectures.positions import resized

LEFT_OUT = ("head.", "mask_token", "fc_norm.")
"""Starts of names that belong to training or to a classifier."""
HINTS = {
    "dist_token": "It looks like DeiT's distilled network, which has a second token; take timm's deit_*_patch16_224.",
    "reg_token": "It has registers: its network is vit_small_14_reg4_dinov2 or vit_base_14_reg4_dinov2.",
    "blocks.0.ls1": "It has LayerScale: its network is one of DINOv2, or DeiT III, which cannot be converted.",
}
"""Start of an unknown name -> the network that has it."""
RENAMED = {"register_tokens": "reg_token"}
"""Facebook's name -> timm's."""
PARTS = {
    "norm1_gamma": "norm1.weight",
    "norm1_beta": "norm1.bias",
    "qkv_kernel": "attn.qkv.weight",
    "qkv_bias": "attn.qkv.bias",
    "out_kernel": "attn.proj.weight",
    "out_bias": "attn.proj.bias",
    "scale1": "ls1.gamma",
    "norm2_gamma": "norm2.weight",
    "norm2_beta": "norm2.bias",
    "fc1_kernel": "mlp.fc1.weight",
    "fc1_bias": "mlp.fc1.bias",
    "fc2_kernel": "mlp.fc2.weight",
    "fc2_bias": "mlp.fc2.bias",
    "scale2": "ls2.gamma",
}
"""Weight of a block -> timm's name below ``blocks.N``."""


def name_of(layer: str, weight: str) -> str:
    """timm's name of ``weight`` of a layer of ``vit.build_vit``: block_3, qkv_kernel -> blocks.2.attn.qkv.weight."""
    if layer == "tokens":
        return {"leading": "cls_token", "positions": "pos_embed"}[weight]
    if layer == "patches":
        return {"kernel": "patch_embed.proj.weight", "bias": "patch_embed.proj.bias"}[weight]
    if weight.startswith("norm_"):
        return {"norm_gamma": "norm.weight", "norm_beta": "norm.bias"}[weight]
    return f"blocks.{int(layer.removeprefix('block_')) - 1}.{PARTS[weight]}"


def axes_of(layer: str, shape: Sequence[int]) -> tuple[int, ...]:
    """The axes of timm's array in the order of a weight of ``shape``: kernels are turned, the rest is copied."""
    if layer == "tokens":
        return (0, 1)
    return {1: (0,), 2: (1, 0), 4: (2, 3, 1, 0)}[len(shape)]


def rearranged(tensors: Mapping[str, np.ndarray], grid: int, registers: int = 0) -> dict[str, np.ndarray]:
    """Return ``tensors`` with the tokens and the position table as ``vit.Tokens`` has them.

    ``cls_token`` becomes (1 + registers, width), the class token with its position and the registers; ``pos_embed``
    becomes (grid * grid, width), resized if the table has another grid. What has another form than a network with so
    many ``registers`` needs is left as it is, for the comparison of names and shapes to find.
    """
    found = {RENAMED.get(name, name): value for name, value in tensors.items()}
    first, table = found.get("cls_token"), found.get("pos_embed")
    if first is None or table is None or first.ndim != 3 or table.ndim != 3 or first.shape[2] != table.shape[2]:
        return found
    in_table = table.shape[1] - int(table.shape[1] ** 0.5) ** 2
    if in_table > 1 or first.shape[:2] != (1, 1) or table.shape[0] != 1:
        return found
    leading = [first[0] + table[0, :in_table].sum(0)]
    if registers and found.get("reg_token", first).shape == (1, registers, first.shape[2]):
        leading.append(found.pop("reg_token")[0])
    found["cls_token"] = np.concatenate(leading)
    found["pos_embed"] = resized(table[0, in_table:], grid)
    return found
