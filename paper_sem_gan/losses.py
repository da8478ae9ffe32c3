"""The losses of SEM-GAN, one function per equation. x is the upsampled scan, z the high-magnification scan, G(x) the output.

Images are (batch, height, width, 1) float32 in [0, 1]; a discriminator's answers are (batch, 1) in (0, 1). Each returns one scalar, a mean over the batch.
"""

from __future__ import annotations

from keras import ops


def l1(z, g):
    """Eq. 2: (1 / (M N)) sum |G(x) - z|."""
    return ops.mean(ops.abs(g - z))


def total_variation(g):
    """Eq. 3, anisotropic: sum |G_(i+1,j) - G_ij| + |G_(i,j+1) - G_ij|, per pixel (divided by M N), so that alpha does not depend on the patch."""
    pixels = ops.cast(ops.shape(g)[1] * ops.shape(g)[2], g.dtype)
    down = ops.sum(ops.abs(g[:, 1:] - g[:, :-1]), axis=(1, 2, 3))
    across = ops.sum(ops.abs(g[:, :, 1:] - g[:, :, :-1]), axis=(1, 2, 3))
    return ops.mean(down + across) / pixels


def adversarial(fake):
    """The third term of eq. 1 without its weight: A = [1 - D(G(x))]^2."""
    return ops.mean((1.0 - fake) ** 2)


def discriminator(real, fake):
    """Eq. 4, least squares on a sigmoid (inferred from the glyphs that survive): D(G(x))^2 + (1 - D(z))^2."""
    return ops.mean(fake**2) + ops.mean((1.0 - real) ** 2)


def weights_for_shares(l1_value, tv_value, a_value, shares: tuple[float, float, float]):
    """(alpha, beta) with which L1, alpha TV and beta A are in the ratio of `shares` (L1, TV, adversarial): L1 / (7 TV) and 6 L1 / A for 14, 2 and 84 %.

    A is clipped to [0.1, 1], so that a discriminator that has given up or won does not blow up its own weight.
    """
    l1_share, tv_share, adversarial_share = shares
    alpha = tv_share / l1_share * l1_value / ops.maximum(tv_value, 1e-8)
    return alpha, adversarial_share / l1_share * l1_value / ops.clip(ops.convert_to_tensor(a_value), 0.1, 1.0)
