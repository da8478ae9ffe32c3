"""Independent NumPy oracle for the SSUM CycleGAN reproduction, written from the equations of the implementation sheet alone.

Everything runs in float64, channels-last (batch, height, width, channels), slow and obvious on purpose. No code of the package under test was read or is
imported, and no deep-learning framework is used. Section numbers in the docstrings are those of the sheet.
"""

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from scipy import ndimage

EPSILON = 1e-5  # batch and instance norm, section 4.4
SLOPE = 0.2  # leaky ReLU of both networks, section 9 row 7 (chosen)


def _float(x):
    return np.asarray(x, np.float64)


# ------------------------------------------------------------------------------------------------------------ operators (sections 4, 5)
def pad(x, n, mode="constant"):
    """n pixels on all four sides of each map: zeros (mode "constant"), or "reflect": mirrored about the outermost pixel, which is not repeated."""
    return np.pad(_float(x), ((0, 0), (n, n), (n, n), (0, 0)), mode=mode)


def same_padding(size, kernel, stride):
    """(before, after) of TensorFlow's "same": max((ceil(n / s) - 1) s + k - n, 0) zeros, of which the smaller half lies before the first pixel."""
    needed = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return needed // 2, needed - needed // 2


def conv2d(x, kernel, bias=None, stride=1, padding="valid"):
    """y[b,i,j,o] = bias[o] + sum_(u,v,c) x[b, s i + u, s j + v, c] kernel[u,v,c,o]; kernel (k, k, in, out); padding "valid" or TensorFlow's "same"."""
    x, kernel = _float(x), _float(kernel)
    if padding == "same":
        x = np.pad(x, ((0, 0), *(same_padding(n, k, stride) for n, k in zip(x.shape[1:3], kernel.shape[:2], strict=True)), (0, 0)))
    rows, columns = ((n - k) // stride + 1 for n, k in zip(x.shape[1:3], kernel.shape[:2], strict=True))
    out = np.zeros((x.shape[0], rows, columns, kernel.shape[3]))
    for u, v in np.ndindex(kernel.shape[:2]):
        out += x[:, u : u + stride * (rows - 1) + 1 : stride, v : v + stride * (columns - 1) + 1 : stride] @ kernel[u, v]
    return out if bias is None else out + _float(bias)


def transposed_conv2d(x, kernel, bias=None, padding=1, output_padding=0):
    """Stride 2: input pixel (i, j) adds kernel[u, v] to output pixel (2 i + u - padding, 2 j + v - padding), of 2 (n - 1) + k - 2 padding + output_padding
    each way, the rest of the frame left out; kernel (k, k, out, in), as TensorFlow stores it."""
    x, kernel = _float(x), _float(kernel)
    batch, height, width, _ = x.shape
    size = kernel.shape[0]
    out = np.zeros((batch, 2 * height + size, 2 * width + size, kernel.shape[2]))
    for u, v in np.ndindex(size, size):
        out[:, u : u + 2 * height : 2, v : v + 2 * width : 2] += x @ kernel[u, v].T
    rows, columns = (2 * (n - 1) + size - 2 * padding + output_padding for n in (height, width))
    out = out[:, padding : padding + rows, padding : padding + columns]
    return out if bias is None else out + _float(bias)


def depth_to_space(x):
    """y[b, 2i + a, 2j + b', c] = x[b, i, j, (2a + b') C + c], C = channels / 4 (4.2)."""
    batch, height, width, channels = x.shape
    y = np.zeros((batch, 2 * height, 2 * width, channels // 4))
    for a, b in np.ndindex(2, 2):
        y[:, a::2, b::2] = x[..., (2 * a + b) * (channels // 4) :][..., : channels // 4]
    return y


def leaky_relu(x, slope=SLOPE):
    """x for x >= 0, slope x otherwise."""
    return np.where(x >= 0, x, slope * x)


def prelu(x, alpha):
    """x for x >= 0, alpha_c x otherwise; alpha (1, 1, channels), shared by all pixels (4.4)."""
    return np.where(x >= 0, x, _float(alpha) * x)


def _normalise(x, mean, variance, gamma=1.0, beta=0.0):
    return _float(gamma) * (x - mean) / np.sqrt(_float(variance) + EPSILON) + _float(beta)


def batch_norm(x, gamma, beta, moving_mean, moving_variance):
    """gamma (x - mean) / sqrt(variance + eps) + beta with the moving statistics: inference."""
    return _normalise(x, _float(moving_mean), moving_variance, gamma, beta)


def batch_norm_training(x, gamma, beta):
    """The same with the statistics of batch and pixels, biased variance (divisor batch * height * width); returns (y, mean, variance)."""
    mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
    return _normalise(x, mean, variance, gamma, beta), mean, variance


def instance_norm(x, gamma=1.0, beta=0.0):
    """Each map by its own mean and biased variance; gamma and beta (channels,), or none: without affine, as in 4.4."""
    return _normalise(x, x.mean((1, 2), keepdims=True), x.var((1, 2), keepdims=True), gamma, beta)


# ------------------------------------------------------------------------------------------------------------- networks (sections 4.2, 4.3, 5)
class Layer(NamedTuple):
    """One convolution of G: output pixels per axis are the input's / divisor; `after` channels reach norm and activation (outputs / 4 in the up stages)."""

    kernel: int
    inputs: int
    outputs: int
    divisor: int
    after: int
    biased: bool = False
    normed: bool = True
    activated: bool = True


def generator_layers(preset="ssum64", width=64, blocks=9, channels=1, long_skip=True):
    """The convolutions in graph order, tables of 4.2 and 4.3. The norm of a `resnet9_256` up stage follows depth-to-space (10,496 norm parameters say so)."""
    literal = preset == "ssum64"
    first, second, trunk = (width, width, width) if literal else (width, 2 * width, 4 * width)
    layers = [Layer(7, channels, first, 1, first), Layer(3, first, second, 2, second), Layer(3, second, trunk, 4, trunk)]
    for _ in range(blocks):
        layers += [Layer(3, trunk, trunk, 4, trunk), Layer(3, trunk, trunk, 4, trunk, activated=False)]
    if literal and long_skip:
        layers.append(Layer(3, trunk, trunk, 4, trunk, activated=False))
    for inputs, outputs, divisor in ((trunk, second, 4), (second, first, 2)):
        layers.append(Layer(3, inputs, 4 * outputs, divisor, outputs, biased=literal, normed=not literal))
    return [*layers, Layer(7, first, channels, 1, channels, True, False, False)]


def generator_weights(layers, rng, norm="batch", activation="leaky_relu"):
    """Random weights of `generator` in its order, the last layer's small: tanh stays away from its flat ends, where errors hide; norm, activation as there."""
    weights = []
    for n in layers:
        gain = 1.0 if n.activated or n.normed else 0.05
        kernel = gain * rng.normal(size=(n.kernel, n.kernel, n.inputs, n.outputs)) * (2 / (n.kernel**2 * n.inputs)) ** 0.5
        weights.append((kernel, gain * rng.normal(size=n.outputs)) if n.biased else (kernel,))
        if n.normed and norm != "instance":
            gamma, beta, mean, variance = rng.uniform(0.5, 1.5, n.after), *rng.normal(0, 0.5, (2, n.after)), rng.uniform(2, 6, n.after)
            weights.append((gamma, beta, mean, variance) if norm == "batch" else (gamma, beta))
        if n.activated and activation == "prelu":
            weights.append((rng.uniform(0, 0.5, (1, 1, n.after)),))
    return weights


def generator(x, weights, config):
    """G of 4.2 or 4.3, x (batch, height, width, channels) in [-1, 1], sides multiples of 4; dropout off.

    config: a dict; preset "ssum64" or "resnet9_256", blocks, and where they differ from the defaults: long_skip (True; ssum64 only), norm ("batch",
    "instance" or "instance_affine"), activation ("leaky_relu" or "prelu"), training (False; True: batch statistics).
    weights: a list of tuples, one per layer that has weights, in graph order: stem; d; d; per block first half, second half; post (ssum64 with long_skip);
    u; u; last. Each step is its convolution (kernel,) or (kernel, bias); then, where it is normed, (gamma, beta, moving_mean, moving_variance) for "batch",
    (gamma, beta) for "instance_affine" and nothing for "instance"; then, where it is activated and the activation is "prelu", (alpha,) of (1, 1, channels).
    Normed: all but last, and but the two u of ssum64. Activated: stem, d, d, each block's first half, u, u.
    """
    literal, norm = config["preset"] == "ssum64", config.get("norm", "batch")
    assert x.shape[1] % 4 == 0 and x.shape[2] % 4 == 0
    read = iter(weights)

    def normalise(h):
        if norm == "instance":
            return instance_norm(h)
        if norm == "instance_affine":
            return instance_norm(h, *next(read))
        gamma, beta, mean, variance = next(read)
        return batch_norm_training(h, gamma, beta)[0] if config.get("training") else batch_norm(h, gamma, beta, mean, variance)

    def activate(h):
        return prelu(h, *next(read)) if config.get("activation") == "prelu" else leaky_relu(h)

    h = activate(normalise(conv2d(pad(x, 3, "reflect"), *next(read))))
    for _ in range(2):
        h = activate(normalise(conv2d(pad(h, 1), *next(read), stride=2)))
    shallow = h
    for _ in range(config["blocks"]):
        start = h
        h = activate(normalise(conv2d(pad(h, 1, "reflect"), *next(read))))
        h = start + normalise(conv2d(pad(h, 1, "reflect"), *next(read)))
    if literal and config.get("long_skip", True):
        h = shallow + normalise(conv2d(pad(h, 1), *next(read)))
    for _ in range(2):
        h = depth_to_space(conv2d(pad(h, 1), *next(read)))
        h = activate(h if literal else normalise(h))
    y = np.tanh(conv2d(pad(h, 3, "reflect"), *next(read)))
    assert next(read, None) is None, "weights are left over"
    return y


def stock_resnet(x, weights, blocks):
    """The stock CycleGAN generator (4.3): as `generator` without affine instance norm, but biased, rectified at slope 0, and up by transposed convolutions.

    weights: (kernel, bias) of every convolution in graph order.
    """
    read = iter(weights)

    def relu(h):
        return np.maximum(instance_norm(h), 0)

    h = relu(conv2d(pad(x, 3, "reflect"), *next(read)))
    for _ in range(2):
        h = relu(conv2d(pad(h, 1), *next(read), stride=2))
    for _ in range(blocks):
        first = relu(conv2d(pad(h, 1, "reflect"), *next(read)))
        h = h + instance_norm(conv2d(pad(first, 1, "reflect"), *next(read)))
    for _ in range(2):
        h = relu(transposed_conv2d(h, *next(read), padding=1, output_padding=1))
    y = np.tanh(conv2d(pad(h, 3, "reflect"), *next(read)))
    assert next(read, None) is None, "weights are left over"
    return y


def pix2pix_unet(x, down, up):
    """The U-Net of pix2pix without dropout, at inference: 4x4 convolutions of stride 2 down to one pixel, leaky before all but the first, batch norm but for
    the first and the last; as many transposed ones up, rectified before, batch norm but for the last, each joined with the map of its size; tanh.

    down: from the outside in; up: from the inside out; each a tuple of what there is of kernel, bias (a pair), and gamma, beta, mean, variance (four more).
    """

    def normalise(h, entry):
        return batch_norm(h, *entry[-4:]) if len(entry) > 2 else h

    def bias(entry):
        return entry[1] if len(entry) == 2 else None

    maps, h = [], _float(x)
    for k, entry in enumerate(down):
        h = conv2d(pad(leaky_relu(h) if k else h, 1), entry[0], bias(entry), stride=2)
        h = normalise(h, entry)
        maps.append(h)
    h = maps.pop()
    for entry in up:
        h = normalise(transposed_conv2d(np.maximum(h, 0), entry[0], bias(entry)), entry)
        h = np.concatenate([h, maps.pop()], -1) if maps else h
    return np.tanh(h)


def _parameters(layers):
    return sum(n.kernel**2 * n.inputs * n.outputs + n.biased * n.outputs + 2 * n.normed * n.after for n in layers)


def generator_parameters(width=64, blocks=9, channels=1, long_skip=True):
    """Trainable parameters of `ssum64`, batch norm (4.2)."""
    return _parameters(generator_layers("ssum64", width, blocks, channels, long_skip))


def resnet9_parameters(width=64, blocks=9, channels=1):
    """Trainable parameters of `resnet9_256`, sub-pixel up (4.3)."""
    return _parameters(generator_layers("resnet9_256", width, blocks, channels))


def stock_resnet9_parameters(channels=1, affine=False):
    """The stock CycleGAN generator: transposed 3x3 up stages; biased and norm without affine, or (affine) the keras-io form, no bias and affine norm (4.3)."""
    widths = (channels, 64, 128, *[256] * 19, 128, 64)
    hidden = sum((49 if k == 0 else 9) * i * o + (2 * o if affine else o) for k, (i, o) in enumerate(pairwise(widths)))
    return hidden + 49 * 64 * channels + channels


def generator_macs(rows, columns, **kwargs):
    """Multiply-adds of one image, convolutions only; kwargs of `generator_layers` (4.2, 4.3)."""
    return sum(n.kernel**2 * n.inputs * n.outputs * (rows // n.divisor) * (columns // n.divisor) for n in generator_layers(**kwargs))


def discriminator(x, weights, rf94=False, norm=True):
    """Patch logits (batch, rows, columns, 1): five 4x4 convolutions, each after one zero on all sides; instance norm without affine on the middle three (5).

    weights: five tuples (kernel, bias), input first. norm=False leaves the norm out, so that a logit sees its own patch alone.
    """
    h = _float(x)
    for k, (kernel, bias) in enumerate(weights):
        h = conv2d(pad(h, 1), kernel, bias, stride=2 if k < 3 or (k == 3 and rf94) else 1)
        if k in (1, 2, 3) and norm:
            h = instance_norm(h)
        if k < 4:
            h = leaky_relu(h)
    return h


def discriminator_parameters(channels=1, filters=(64, 128, 256, 512), affine=False):
    """Trainable parameters (5); affine: instance norm with gamma and beta."""
    return sum(16 * i * o + o for i, o in zip((channels, *filters), (*filters, 1), strict=True)) + 2 * affine * sum(filters[1:])


def receptive_field(kernels, strides):
    """r <- (r - 1) s + k from the output to the input, starting at 1 (5)."""
    r = 1
    for k, s in zip(reversed(kernels), reversed(strides), strict=True):
        r = (r - 1) * s + k
    return r


# ------------------------------------------------------------------------------------------------------------------- losses (section 6)
def bce_logits(target, z):
    """-mean[t log sigma(z) + (1 - t) log(1 - sigma(z))] = mean[max(z, 0) - t z + log(1 + exp(-|z|))]."""
    z = _float(z)
    return float(np.mean(np.maximum(z, 0) - target * z + np.log1p(np.exp(-np.abs(z)))))


def gan_value(real, fake):
    """V = E[log D(y)] + E[log(1 - D(G(x)))], D = 1 / (1 + exp(-z)) of the logits, eq. (1)."""
    return float(np.mean(np.log(1 / (1 + np.exp(-_float(real))))) + np.mean(np.log(1 - 1 / (1 + np.exp(-_float(fake))))))


def discriminator_log_loss(real, fake):
    """0.5 [BCE(1, z_real) + BCE(0, z_fake)] = -V / 2."""
    return 0.5 * (bce_logits(1, real) + bce_logits(0, fake))


def generator_log_loss(fake):
    """BCE(1, z_fake) = -E log D(G(x)), non-saturating."""
    return bce_logits(1, fake)


def discriminator_least_squares(real, fake):
    """0.5 [E (z_real - 1)^2 + E z_fake^2]."""
    return 0.5 * (generator_least_squares(real) + float(np.mean(_float(fake) ** 2)))


def generator_least_squares(fake):
    """E (z_fake - 1)^2."""
    return float(np.mean((_float(fake) - 1) ** 2))


def l1(a, b):
    """mean |a - b|."""
    return float(np.mean(np.abs(_float(a) - _float(b))))


def cycle_loss(x, x_again, y, y_again, weight=10.0):
    """lambda (E|F(G(x)) - x| + E|G(F(y)) - y|), eq. (2)."""
    return weight * (l1(x_again, x) + l1(y_again, y))


def identity_loss(x, x_same, y, y_same, weight=10.0, share=0.5):
    """lambda_id lambda (E|G(y) - y| + E|F(x) - x|); x_same = F(x), y_same = G(y)."""
    return share * weight * (l1(y_same, y) + l1(x_same, x))


def shift_l1(g, y, radius=4, interior=False):
    """Per image min over integer shifts (r, c), |r|, |c| <= radius, of mean |g(p) - y(p - (r, c))|; (batch,) (6.1).

    The mean is over the pixels where g and the shifted y overlap, or (interior) over those of g that all shifts share, its frame of `radius` pixels left out.
    """
    g, y = _float(g), _float(y)
    frame = radius if interior else 0
    best = np.full(len(g), np.inf)
    for r, c in np.ndindex(2 * radius + 1, 2 * radius + 1):
        apart = np.abs(g - ndimage.shift(y, (0, r - radius, c - radius, 0), order=0, cval=np.nan))
        best = np.minimum(best, np.nanmean(apart[:, frame : g.shape[1] - frame, frame : g.shape[2] - frame], (1, 2, 3)))
    return best


def lowres_l1(g, y, factor=4):
    """mean |A(g) - A(y)|, A the mean of each factor x factor block (6.1)."""

    def reduced(x):
        batch, height, width, channels = x.shape
        return _float(x).reshape(batch, height // factor, factor, width // factor, factor, channels).mean((2, 4))

    return l1(reduced(g), reduced(y))


def warp(g, flow):
    """out(p) = g(p + flow(p)), bilinear, coordinates outside the image moved to its edge; flow (batch, height, width, 2): rows, columns, in pixels (6.1)."""
    grid = np.mgrid[: g.shape[1], : g.shape[2]]
    out = np.zeros(g.shape)
    for b, c in np.ndindex(g.shape[0], g.shape[3]):
        out[b, :, :, c] = ndimage.map_coordinates(_float(g[b, :, :, c]), grid + np.moveaxis(flow[b], -1, 0), order=1, mode="nearest")
    return out


def flow_roughness(flow):
    """mean (d flow / d row)^2 + mean (d flow / d column)^2, forward differences inside the frame; means over batch, pixels and the two components (6.1)."""
    return float(np.mean(np.diff(_float(flow), axis=1) ** 2) + np.mean(np.diff(_float(flow), axis=2) ** 2))


def registration_loss(g, y, flow, weight=20.0, smoothness=10.0):
    """20 mean |warp(g) - y| + 10 mean squared flow gradient (6.1)."""
    return weight * l1(warp(g, flow), y) + smoothness * flow_roughness(flow)


# ------------------------------------------------------------------------------------------------------ training and measures (sections 6 to 8)
def pool(images, coins, places, size=50):
    """History of fakes (6); returns (returned, stored). coins (booleans) and places (ints below `size`) are indexed like images.

    The first `size` images are stored and returned as they are. Later, where coins[i], the stored one at places[i] is returned and image i takes its place;
    elsewhere image i is returned and not stored.
    """
    stored, returned = [], []
    for image, coin, place in zip(images, coins, places, strict=True):
        if len(stored) < size:
            stored.append(image)
            returned.append(image)
        elif coin:
            returned.append(stored[place])
            stored[place] = image
        else:
            returned.append(image)
    return returned, stored


def pool_swaps(returned, size=50):
    """Indices at which a pool fed with 0, 1, 2, ... swapped, from what it returned alone; a ValueError where no pool of `size` returns that."""
    stored, swaps = set(), []
    for i, number in enumerate(returned):
        if i < size and number == i:
            stored.add(i)
        elif i >= size and number in stored:
            stored.remove(number)
            stored.add(i)
            swaps.append(i)
        elif number != i:
            raise ValueError(f"image {i}: {number} is returned, which a pool of {size} does not hold")
    return swaps


def decayed(elapsed, base=2e-4, constant=100, decay=100):
    """Rate after `elapsed` epochs: base up to `constant`, then linear to 0 over `decay`, and 0 after that; elapsed = the epoch counted from 1 (7)."""
    return base * min(1.0, max(0.0, 1.0 - (elapsed - constant) / decay))


def decayed_step(step, steps_per_epoch, base=2e-4, constant=100, decay=100):
    """The same at a step counted from 0, step / steps_per_epoch epochs elapsed: equal to `decayed(e)` at the end of epoch e."""
    return decayed(step / steps_per_epoch, base, constant, decay)


def epi(y, g):
    """sum(dA dB) / sqrt(sum dA^2 sum dB^2), dA and dB the 5-point Laplacians of two (height, width) images minus their means; border mirrored (8)."""
    a, b = (ndimage.laplace(_float(image)) for image in (y, g))
    a, b = a - a.mean(), b - b.mean()
    return float(np.sum(a * b) / np.sqrt(np.sum(a * a) * np.sum(b * b)))


def affine_fit(y, g):
    """a g + b with a = cov(g, y) / var(g), b = mean(y) - a mean(g): the least squares fit of grey levels to y."""
    y, g = _float(y), _float(g)
    a = np.mean((g - g.mean()) * (y - y.mean())) / np.mean((g - g.mean()) ** 2)
    return a * g + y.mean() - a * g.mean()
