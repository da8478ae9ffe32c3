"""Independent NumPy oracle for the SEM-GAN reproduction, written from the equations of the implementation sheet alone.

Everything runs in float64, channels-last (B, H, W, C), slow and obvious on purpose. No code of the package under test was read or is imported, and no
deep-learning framework is used. Section numbers in the docstrings are those of the sheet.
"""

import math

import numpy as np

SLOPE = 0.1  # LeakyReLU slope, section 3.1


# --------------------------------------------------------------------------------------------------------- operators (sections 3.1, 3.4)
def leaky_relu(x):
    """L(x) = x for x >= 0, 0.1 x otherwise (3.1)."""
    return np.where(x >= 0.0, x, SLOPE * x)


def sigmoid(z):
    """1 / (1 + exp(-z)), written as (1 + tanh(z / 2)) / 2 so that no exponential overflows."""
    return 0.5 * (1.0 + np.tanh(0.5 * np.asarray(z, np.float64)))


def conv3x3(x, weights, stride=1):
    """y[b,i,j,o] = bias[o] + sum_(u,v,c) xpad[b, s i + u, s j + v, c] kernel[u,v,c,o], zero padding "same" as TensorFlow pads (3.1, 4.2).

    ceil(n / s) outputs need max((ceil(n / s) - 1) s + 3 - n, 0) zeros along an axis of n pixels, of which the smaller half lies before the first pixel:
    1 and 1 at stride 1, 0 and 1 at stride 2 on an even size.
    """
    kernel, bias = (np.asarray(w, np.float64) for w in weights)
    batch, height, width, channels = x.shape
    assert kernel.shape[:3] == (3, 3, channels) and bias.shape == kernel.shape[3:]
    rows, columns = -(-height // stride), -(-width // stride)
    tall, wide = max((rows - 1) * stride + 3 - height, 0), max((columns - 1) * stride + 3 - width, 0)
    padded = np.zeros((batch, height + tall, width + wide, channels))
    padded[:, tall // 2 : tall // 2 + height, wide // 2 : wide // 2 + width] = x
    out = np.zeros((batch, rows, columns, kernel.shape[3])) + bias
    for u in range(3):
        for v in range(3):
            out = out + padded[:, u : u + stride * (rows - 1) + 1 : stride, v : v + stride * (columns - 1) + 1 : stride] @ kernel[u, v]
    return out


def average_pool(x):
    """Mean over the pixels of each 2 x 2 block; blocks cut by the lower or right border are the mean of what they hold ("same", 3.4)."""
    batch, height, width, channels = x.shape
    out = np.zeros((batch, -(-height // 2), -(-width // 2), channels))
    for i in range(out.shape[1]):
        for j in range(out.shape[2]):
            out[:, i, j] = x[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].mean(axis=(1, 2))
    return out


def bilinear_matrix(inputs, outputs):
    """(outputs, inputs): output k lies at (k + 1/2) inputs / outputs - 1/2, held inside the image, between its two neighbours (3.4)."""
    matrix = np.zeros((outputs, inputs))
    for k in range(outputs):
        place = min(max((k + 0.5) * inputs / outputs - 0.5, 0.0), inputs - 1.0)
        left = math.floor(place)
        matrix[k, left] += 1.0 - (place - left)
        matrix[k, min(left + 1, inputs - 1)] += place - left
    return matrix


def bilinear(x, height, width):
    """Half-pixel bilinear resize of (B, H, W, C) to any size (3.4)."""
    return np.einsum("ih,jw,bhwc->bijc", bilinear_matrix(x.shape[1], height), bilinear_matrix(x.shape[2], width), x)


def pad_channels(x, channels):
    """padC: zeros after the existing channels (3.2)."""
    return np.concatenate([x, np.zeros((*x.shape[:3], channels - x.shape[3]))], axis=-1)


# ---------------------------------------------------------------------------------------------------------------- networks (3.2, 3.3, 4.2)
def convolutions(x, block):
    """Each convolution of a block is followed by a LeakyReLU (3.1)."""
    for weights in block:
        x = leaky_relu(conv3x3(x, weights))
    return x


def generator(x, weights, skips=False):
    """S_k = convs(x_k) + padC(x_k), x_(k+1) = pool(S_k); y = L(centre(x_5)); y_(k-1) = convs([up(y_k), S_k]); out(y) linear (3.2).

    weights: "stem" (kernel, bias) or None, "down" list of blocks (lists of (kernel, bias)), "centre", "up" list of blocks, deepest first, "out".
    up() resizes to the size of the skip. skips=True returns the list of S_k instead.
    """
    x = np.asarray(x, np.float64)
    if weights["stem"] is not None:
        x = leaky_relu(conv3x3(x, weights["stem"]))
    kept = []
    for block in weights["down"]:
        y = convolutions(x, block)
        kept.append(y + pad_channels(x, y.shape[3]))
        x = average_pool(kept[-1])
    if skips:
        return kept
    x = leaky_relu(conv3x3(x, weights["centre"]))
    for block, skip in zip(weights["up"], reversed(kept), strict=True):
        x = convolutions(np.concatenate([bilinear(x, *skip.shape[1:3]), skip], axis=-1), block)
    return conv3x3(x, weights["out"])


def discriminator(x, weights):
    """Stem, five blocks (stride 1, stride 2), mean over height and width, dense, L, dense, sigmoid: (B, 1) (4.1, 4.2).

    weights: "stem" (kernel, bias), "blocks" list of [(kernel, bias), (kernel, bias)], "dense1", "dense2" (matrix, bias).
    """
    x = leaky_relu(conv3x3(np.asarray(x, np.float64), weights["stem"]))
    for first, second in weights["blocks"]:
        x = leaky_relu(conv3x3(leaky_relu(conv3x3(x, first)), second, stride=2))
    x = leaky_relu(x.mean(axis=(1, 2)) @ weights["dense1"][0] + weights["dense1"][1])
    return sigmoid(x @ weights["dense2"][0] + weights["dense2"][1])


def generator_channels(base, convs=2, stem=True, strict=False, levels=4):
    """(in, out) channels of every convolution of G in the order of use (3.1-3.3).

    A down block of two convolutions goes c, c, 2c (without a stem the first goes 1, 1, base), one of three goes in, mid, mid, out with
    mid = floor((in + out) / 2). An up block goes 2c, c, c/2 (strict: 2c, 2c, c/2), or in, mid, mid, out.
    """

    def block(inputs, outputs, up):
        if convs == 3:
            middle = (inputs + outputs) // 2
            return [(inputs, middle), (middle, middle), (middle, outputs)]
        middle = inputs // 2 if up and not strict else inputs
        return [(inputs, middle), (middle, outputs)]

    c = base if stem else 1
    wide = 2 * base if stem else base
    pairs = [(1, base)] if stem else []
    for level in range(levels):
        pairs += block(c, wide * 2**level, up=False)
        c = wide * 2**level
    pairs.append((c, c))
    for _ in range(levels):
        pairs += block(2 * c, c // 2, up=True)
        c //= 2
    return [*pairs, (c, 1)]


def parameters(channels):
    """A 3 x 3 convolution with bias has 9 in out + out numbers."""
    return sum(9 * i * o + o for i, o in channels)


def discriminator_parameters(base):
    """Stem, five blocks c, c, 2c, dense 32c to 32c, dense to 1 (4.2)."""
    pairs = [(1, base)]
    for level in range(5):
        pairs += [(base * 2**level, base * 2**level), (base * 2**level, base * 2 ** (level + 1))]
    wide = 32 * base
    return parameters(pairs) + wide * wide + wide + wide + 1


def generator_reach(position, levels=4, convs=2, stem=True):
    """First and last input pixel that output pixel `position` (far from every border, sizes multiples of 2^levels) can depend on, along one axis (3.2)."""

    def needed(first, last, level):  # pixels of the stem's output that the up block's output first..last of this level needs
        first, last = first - convs, last + convs
        down, up = skip(first, last, level)
        deeper_first, deeper_last = math.floor((first + 0.5) / 2 - 0.5), math.floor((last + 0.5) / 2 - 0.5) + 1
        if level == levels:  # the centre convolution, on the pooled deepest skip
            deep = skip(2 * (deeper_first - 1), 2 * (deeper_last + 1) + 1, level)
        else:
            deep = needed(deeper_first, deeper_last, level + 1)
        return min(down, deep[0]), max(up, deep[1])

    def skip(first, last, level):  # S_level first..last
        first, last = first - convs, last + convs
        return (first, last) if level == 1 else skip(2 * first, 2 * last + 1, level - 1)

    first, last = needed(position - 1, position + 1, 1)
    return first - stem, last + stem


# --------------------------------------------------------------------------------------------------------------- Lanczos (sections 1, 2, 8)
def lanczos(t, radius=3):
    """sinc(t) sinc(t / radius) for |t| < radius, 0 outside, sinc(t) = sin(pi t) / (pi t)."""
    if abs(t) >= radius:
        return 0.0
    if t == 0:
        return 1.0
    return math.sin(math.pi * t) * math.sin(math.pi * t / radius) / (math.pi**2 * t * t / radius)


def lanczos_matrix(inputs, factor=2, radius=3, edge="renormalise"):
    """(factor inputs, inputs): output k lies at (k + 1/2) / factor - 1/2; weights lanczos(place - sample), divided by their sum.

    edge: "renormalise" leaves samples outside the image out, "replicate" gives their weight to the nearest border pixel, "reflect" mirrors about the
    border pixel's outer edge.
    """
    matrix = np.zeros((factor * inputs, inputs))
    for k in range(factor * inputs):
        place = (k + 0.5) / factor - 0.5
        for sample in range(math.floor(place) - radius, math.floor(place) + radius + 2):
            inside = 0 <= sample < inputs
            if edge == "renormalise" and not inside:
                continue
            source = sample
            if edge == "replicate":
                source = min(max(sample, 0), inputs - 1)
            if edge == "reflect":
                source = sample % (2 * inputs)
                source = source if source < inputs else 2 * inputs - 1 - source
            matrix[k, source] += lanczos(place - sample, radius)
        matrix[k] /= matrix[k].sum()
    return matrix


def lanczos_upsample(x, factor=2, edge="renormalise"):
    """The defining sum along both axes of (H, W) or (B, H, W, C), radius 3, no antialiasing (2, 8 row 17)."""
    x = np.asarray(x, np.float64)
    image = x if x.ndim == 4 else x[None, :, :, None]
    out = np.einsum("ih,jw,bhwc->bijc", lanczos_matrix(image.shape[1], factor, edge=edge), lanczos_matrix(image.shape[2], factor, edge=edge), image)
    return out if x.ndim == 4 else out[0, :, :, 0]


def scan_reach(position, levels=4, convs=2, stem=True):
    """First and last pixel of the scan that output pixel `position` can depend on along one axis, Lanczos upsampling included (1, 3.2)."""
    first, last = generator_reach(position, levels, convs, stem)
    support = [np.flatnonzero(row) for row in lanczos_matrix(last // 2 + 8)]
    return int(support[first].min()), int(support[last].max())


def scan_radius(levels=4, convs=2, stem=True):
    """The farthest that such a pixel can lie from the scan's pixel under the output pixel."""
    reaches = [(p // 2, *scan_reach(p, levels, convs, stem)) for p in range(1024, 1024 + 2**levels)]
    return max(max(p - first, last - p) for p, first, last in reaches)


# ----------------------------------------------------------------------------------------------------------------------- losses (section 5)
def l1(output, target):
    """(2): (1 / M N) sum |G(x)_ij - z_ij|, averaged over the batch."""
    return float(np.mean(np.abs(np.asarray(output, np.float64) - np.asarray(target, np.float64))))


def total_variation_sum(image):
    """(3) of one (M, N) image: sum_ij |g_(i+1,j) - g_ij| + |g_(i,j+1) - g_ij| over the neighbours that exist."""
    g = np.asarray(image, np.float64)
    total = 0.0
    for i in range(g.shape[0]):
        for j in range(g.shape[1]):
            total += abs(g[i + 1, j] - g[i, j]) if i + 1 < g.shape[0] else 0.0
            total += abs(g[i, j + 1] - g[i, j]) if j + 1 < g.shape[1] else 0.0
    return total


def total_variation(images):
    """TV / (M N C), averaged over the batch: (3) in the chosen normalisation (5)."""
    images = np.asarray(images, np.float64)
    batch, height, width, channels = images.shape
    sums = [total_variation_sum(images[b, :, :, c]) for b in range(batch) for c in range(channels)]
    return sum(sums) / (batch * height * width * channels)


def adversarial(scores_fake):
    """A = mean (1 - D(G(x)))^2 (1), (5.1)."""
    return float(np.mean((1.0 - np.asarray(scores_fake, np.float64)) ** 2))


def generator_loss(output, target, scores_fake, alpha, beta):
    """(1): L1 + alpha TV + beta [1 - D(G(x))]^2."""
    return l1(output, target) + alpha * total_variation(output) + beta * adversarial(scores_fake)


def discriminator_loss(scores_real, scores_fake):
    """(4): [D(G(x))]^2 + [1 - D(z)]^2, the sum of the two, each averaged over the batch (6: not halved)."""
    return float(np.mean(np.asarray(scores_fake, np.float64) ** 2) + np.mean((1.0 - np.asarray(scores_real, np.float64)) ** 2))


def shares(value_l1, value_tv, value_a, alpha, beta):
    """(adversarial, L1, TV) parts of L_G (5.1)."""
    parts = np.array([beta * value_a, value_l1, alpha * value_tv])
    return tuple(parts / parts.sum())


# ---------------------------------------------------------------------------------------------------- calibration and schedule (5.1 c, 6)
def final_weights(value_l1, value_tv, value_a):
    """(alpha, beta) = (L1 / (7 TV), 6 L1 / A), A clipped to [0.1, 1] (5.1)."""
    return value_l1 / (7.0 * value_tv), 6.0 * value_l1 / min(max(value_a, 0.1), 1.0)


def calibration(terms, warmup=500, calibrate=500, decay=0.99):
    """5.1 (c) as a loop over (L1, TV, A) of the steps 1, 2, ...: the (alpha, beta) with which each step is taken, and the averages after each step.

    Warm-up: (0, 0). Calibration: the averages start at the first step's own values and follow it; provisional alpha = L1 / (7 TV), beta = 24 L1 of the
    averages. After it: the formulas of the averages, frozen.
    """
    used, averages, average = [], [], None
    for step, values in enumerate(terms, start=1):
        if warmup < step <= warmup + calibrate:
            average = values if average is None else tuple(decay * old + (1.0 - decay) * new for old, new in zip(average, values, strict=True))
        if step <= warmup:
            used.append((0.0, 0.0))
        elif step <= warmup + calibrate:
            used.append((average[0] / (7.0 * average[1]), 24.0 * average[0]))
        else:
            used.append(final_weights(*average))
        averages.append(average)
    return used, averages


def discriminator_updates(steps, every=4):
    """The generator steps 1..steps after which D is updated: it % 4 == 0 (6)."""
    return [it for it in range(1, steps + 1) if it % every == 0]


def adam(params, grads, m, v, t, lr, b1=0.9, b2=0.999, eps=1e-7):
    """m' = b1 m + (1 - b1) g; v' = b2 v + (1 - b2) g^2; p' = p - lr sqrt(1 - b2^t) / (1 - b1^t) m' / (sqrt(v') + eps), t from 1 (6; Keras' place of eps)."""
    m = b1 * np.asarray(m, np.float64) + (1.0 - b1) * np.asarray(grads, np.float64)
    v = b2 * np.asarray(v, np.float64) + (1.0 - b2) * np.asarray(grads, np.float64) ** 2
    rate = lr * math.sqrt(1.0 - b2**t) / (1.0 - b1**t)
    return np.asarray(params, np.float64) - rate * m / (np.sqrt(v) + eps), m, v


# ------------------------------------------------------------------------------------------------------------------ data (sections 1, 6)
def patch_corners(height, width, patch=128, stride=112):
    """Upper left corners of the whole patches of a uniform square stride, from the first pixel on (1: 8 columns x 6 rows on 924 x 780)."""
    return [(i, j) for i in range(0, height - patch + 1, stride) for j in range(0, width - patch + 1, stride)]


def dihedral(image, turns, flip):
    """rot90 k times, then a left-right flip (6)."""
    image = np.rot90(image, turns)
    return image[:, ::-1] if flip else image


def dihedral_views(image):
    """All eight views of a square image."""
    return [dihedral(image, turns, flip) for turns in range(4) for flip in (False, True)]
