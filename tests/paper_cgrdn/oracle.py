"""Independent NumPy oracle for the CGRDN reproduction, written from the equations of the implementation sheet alone.

Everything runs in float64, slow and obvious on purpose: images and losses are (n, h, w), feature maps (n, h, w, c). No code of the package under test
was read or is imported, and no deep-learning framework is used. Section numbers in the docstrings are those of the sheet. Every std is the population
one (divisor h * w) and every statistic is of one image unless the docstring says otherwise.
"""

import numpy as np

SLOPE = 0.2  # leaky ReLU of the discriminator, section 3 (chosen)
EPSILON = 1e-3  # batch norm of the discriminator, section 3
SCALES = (2, 4, 8, 16)  # MLWT windows, section 4.2
SCALE_WEIGHTS = tuple(w / 5.99 for w in (1.0, 1.33, 1.66, 2.0))  # MLWT weights, section 4.2


# --------------------------------------------------------------------------------------------------------- normalisation (section 4.1)
def _float(x):
    return np.asarray(x, dtype=np.float64)


def _pair(y, p):
    y, p = _float(y), _float(p)
    assert y.ndim == 3 and y.shape == p.shape, "two batches (n, h, w) of one shape are needed"
    return y, p


def _mean(x):
    """Mean of each image, (n, 1, 1)."""
    return x.mean(axis=(1, 2), keepdims=True)


def _std(x):
    """Population std of each image, (n, 1, 1)."""
    return np.sqrt(_mean((x - _mean(x)) ** 2))


def standardise(x):
    """m = mean(x), s = max(std(x), 1e-6 max(1, |m|)), x' = (x - m) / s per image; returns (x', m, s), the last two (n, 1, 1) (4.1, chosen floor)."""
    x = _float(x)
    assert x.ndim == 3, "a batch (n, h, w) is needed"
    mean = _mean(x)
    scale = np.maximum(_std(x), 1e-6 * np.maximum(1.0, np.abs(mean)))
    return (x - mean) / scale, mean, scale


def adaptive_weight(y):
    """w = 1 / max(std(y'), 0.1), capped at 10, per image, (n, 1, 1); y is y', the target in units of its input's standardisation (4.2)."""
    return np.minimum(1.0 / np.maximum(_std(_float(y)), 0.1), 10.0)


# ---------------------------------------------------------------------------------------------- pixel losses on Y = w y', P = w p' (4.2)
def l1(y, p):
    """mean |Y - P| over batch and pixels (4.2)."""
    y, p = _pair(y, p)
    return float(np.mean(np.abs(y - p)))


def l2(y, p):
    """mean (Y - P)^2 over batch and pixels (4.2)."""
    y, p = _pair(y, p)
    return float(np.mean((y - p) ** 2))


def local_mean(x, k):
    """k x k average pool, stride 1, TensorFlow 'SAME': the window of pixel i starts at i - (k - 1) // 2; the mean is of what lies inside the image (4.2).

    k - 1 pixels of padding are needed, the smaller half before the image, so an even window reaches one pixel further after the pixel than before it.
    """
    x = _float(x)
    height, width = x.shape[1:]
    before = (k - 1) // 2
    out = np.zeros_like(x)
    for i in range(height):
        for j in range(width):
            top, left = i - before, j - before
            out[:, i, j] = x[:, max(top, 0) : top + k, max(left, 0) : left + k].mean(axis=(1, 2))
    return out


def mlwt_terms(y, p):
    """The four term_k of the multi-local whitening transform, k = 2, 4, 8, 16, before the weights (4.2).

    A = (Y - mu) / q, B = (P - mu) / q; A_k = (A - u_k) / v_k, B_k = (B - u_k) / v_k with u_k, v_k of A; both whitened again by mean and std of A_k.
    """
    y, p = _pair(y, p)
    mu, q = _mean(y), np.maximum(_std(y), 0.1)
    a, b = (y - mu) / q, (p - mu) / q
    terms = []
    for k in SCALES:
        u = local_mean(a, k)
        v = np.maximum(np.sqrt(local_mean((a - u) ** 2, k)), 0.1)
        a_k, b_k = (a - u) / v, (b - u) / v
        mu_k, q_k = _mean(a_k), np.maximum(_std(a_k), 0.1)
        terms.append(float(np.mean(np.abs((a_k - mu_k) / q_k - (b_k - mu_k) / q_k))))
    return terms


def mlwt(y, p):
    """sum_k weight_k term_k, weights (1, 1.33, 1.66, 2) / 5.99 (4.2)."""
    return float(sum(w * term for w, term in zip(SCALE_WEIGHTS, mlwt_terms(y, p), strict=True)))


def fourier(y, p, n=0.125):
    """mean over the rfft2 bins (rows full, columns 0 .. w//2, each bin counted once) of max(1e-9, |rfft2(c (Y - P))|)^n, c = 2 * 256^(-n) (4.2)."""
    y, p = _pair(y, p)
    c = 2.0 * 256.0 ** (-n)
    spectrum = np.fft.rfft2(c * (y - p), axes=(1, 2))
    return float(np.mean(np.maximum(1e-9, np.abs(spectrum)) ** n))


def mean_constraint(y, p):
    """Batch mean of |mean(Y) - mean(P)| (4.2)."""
    y, p = _pair(y, p)
    return float(np.mean(np.abs(_mean(y) - _mean(p))))


def std_constraint(y, p):
    """Batch mean of |std(Y) - std(P)|, no floor (4.2)."""
    y, p = _pair(y, p)
    return float(np.mean(np.abs(_std(y) - _std(p))))


def gradient_x(y, p):
    """mean of min(100, |d[i, j+1] - d[i, j]|), d = Y - P, over the w - 1 differences of each row: x is the last axis (4.2)."""
    y, p = _pair(y, p)
    d = y - p
    return float(np.mean(np.minimum(100.0, np.abs(d[:, :, 1:] - d[:, :, :-1]))))


def gradient_y(y, p):
    """mean of min(100, |d[i+1, j] - d[i, j]|), d = Y - P, over the h - 1 differences of each column: y is the first image axis (4.2)."""
    y, p = _pair(y, p)
    d = y - p
    return float(np.mean(np.minimum(100.0, np.abs(d[:, 1:] - d[:, :-1]))))


def laplacian_filter(x):
    """[[0, 1, 0], [1, -4, 1], [0, 1, 0]] on the (h - 2) x (w - 2) interior pixels."""
    x = _float(x)
    return x[:, :-2, 1:-1] + x[:, 2:, 1:-1] + x[:, 1:-1, :-2] + x[:, 1:-1, 2:] - 4.0 * x[:, 1:-1, 1:-1]


def laplacian(y, p):
    """mean |Lap(Y) - Lap(P)| over batch and interior pixels (4.2)."""
    y, p = _pair(y, p)
    return float(np.mean(np.abs(laplacian_filter(y) - laplacian_filter(p))))


# ---------------------------------------------------------------------------------------------------------- adversarial losses (4.3)
def bce_logits(target, z):
    """mean of -t log sigmoid(z) - (1 - t) log(1 - sigmoid(z)), with -log sigmoid(z) = log(1 + exp(-z)) (4.3)."""
    z = _float(z)
    return float(np.mean(target * np.logaddexp(0.0, -z) + (1.0 - target) * np.logaddexp(0.0, z)))


def _relative(r, f):
    """r~ = r - mean(f), f~ = f - mean(r), means over the whole batch of maps (4.3)."""
    r, f = _float(r), _float(f)
    return r - f.mean(), f - r.mean()


def discriminator_loss(r, f):
    """BCE(0.95, r~) + BCE(0, f~), summed, before its weight of 1 (4.3)."""
    real, fake = _relative(r, f)
    return bce_logits(0.95, real) + bce_logits(0.0, fake)


def generator_loss(r, f):
    """BCE(0, r~) + BCE(1, f~), summed, no smoothing, before its weight of 5e-4 (4.3)."""
    real, fake = _relative(r, f)
    return bce_logits(0.0, real) + bce_logits(1.0, fake)


# ----------------------------------------------------------------------------------------------------------------- schedule (section 5)
def warmup_steps(steps_per_epoch):
    """min(512, steps_per_epoch // 2) (5)."""
    return min(512, steps_per_epoch // 2)


def learning_rate(step, base, steps_per_epoch, decay=0.90, start=1e-4, epochs=1000):
    """Warm-up, staircase base * decay^epoch, and the ramp to the next level at the end of each epoch (5, check 8 of 10). step counts from 0.

    Assumed where the text is open: W = warmup_steps; for step < W the rate is base * (start + (1 - start) * step / W), so that step 0 has start * base and
    step W has base. epoch = step // steps_per_epoch counts from 0 and includes the warm-up. With N = steps_per_epoch // 64, step j = 0 .. N - 1 of the
    last N steps of an epoch has level + (next - level) * j / N: the first of them is still on the plateau, and the first step of the next epoch is the one
    that reaches the next level. N = 0 (fewer than 64 steps) is a plain staircase. The cap of 1000 epochs is taken as a cap of the exponent: from epoch 1000
    on the rate stays base * decay^1000. Warm-up (at most half an epoch) and ramp (at most a 64th) never meet.
    """
    warm = warmup_steps(steps_per_epoch)
    if step < warm:
        return base * (start + (1.0 - start) * step / warm)
    epoch, position = divmod(step, steps_per_epoch)
    level, following = base * decay ** min(epoch, epochs), base * decay ** min(epoch + 1, epochs)
    ramp = steps_per_epoch // 64
    j = position - (steps_per_epoch - ramp)
    return level if j < 0 else level + (following - level) * j / ramp


def beta1(step, target, steps_per_epoch):
    """target * step / W for step < W = warmup_steps, then target: linear from 0 at step 0 to target at step W (5). step counts from 0."""
    warm = warmup_steps(steps_per_epoch)
    return target * step / warm if step < warm else target


# ------------------------------------------------------------------------------------------------------------------- operators (2.1, 3)
def relu(x):
    """max(x, 0) (2.1)."""
    return np.maximum(x, 0.0)


def leaky_relu(x):
    """x for x >= 0, 0.2 x otherwise (3)."""
    return np.where(x >= 0.0, x, SLOPE * x)


def same_padding(size, kernel, stride):
    """(outputs, before, after) of TensorFlow 'SAME': ceil(size / stride) outputs, the smaller half of the zeros before (2.1; check 3 of 10)."""
    outputs = -(-size // stride)
    total = max((outputs - 1) * stride + kernel - size, 0)
    return outputs, total // 2, total - total // 2


def conv(x, kernel, bias=None, stride=1):
    """y[b,i,j,o] = bias[o] + sum_(u,v,c) xpad[b, s i + u, s j + v, c] kernel[u,v,c,o], kernel HWIO, zero padding 'same' (2.1, 3)."""
    x, kernel = _float(x), _float(kernel)
    tall, wide, channels, outputs = kernel.shape
    batch, height, width = x.shape[:3]
    assert x.shape[3] == channels
    rows, top, bottom = same_padding(height, tall, stride)
    columns, left, right = same_padding(width, wide, stride)
    padded = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)))
    out = np.zeros((batch, rows, columns, outputs)) + (0.0 if bias is None else _float(bias))
    for u in range(tall):
        for v in range(wide):
            out = out + padded[:, u : u + stride * (rows - 1) + 1 : stride, v : v + stride * (columns - 1) + 1 : stride] @ kernel[u, v]
    return out


def conv_transposed(x, kernel, bias=None, stride=2):
    """Adjoint of the 'same' convolution of stride s on (s h, s w): y[b, s i + u - top, s j + v - left, o] += x[b,i,j,c] kernel[u,v,o,c], then + bias[o] (2.1).

    kernel is (kh, kw, out, in); what falls outside the s h by s w output is dropped. For 4x4 stride 2 top = left = 1.
    """
    x, kernel = _float(x), _float(kernel)
    tall, wide, outputs, channels = kernel.shape
    batch, height, width = x.shape[:3]
    assert x.shape[3] == channels
    top, left = same_padding(stride * height, tall, stride)[1], same_padding(stride * width, wide, stride)[1]
    out = np.zeros((batch, stride * height, stride * width, outputs))
    for i in range(height):
        for j in range(width):
            for u in range(tall):
                for v in range(wide):
                    row, column = stride * i + u - top, stride * j + v - left
                    if 0 <= row < stride * height and 0 <= column < stride * width:
                        out[:, row, column] += x[:, i, j] @ kernel[u, v].T
    return out + (0.0 if bias is None else _float(bias))


# ------------------------------------------------------------------------------------------------------------------- generator (2.1, 2.3)
def rdb(x, weights):
    """d0 = x; h_l = ReLU(conv3x3(d_(l-1))), d_l = [d_(l-1), h_l]; RDB = conv1x1(d_L) + x (2.1). weights: "convs" list of (kernel, bias), "fusion"."""
    x = _float(x)
    d = x
    for kernel, bias in weights["convs"]:
        d = np.concatenate([d, relu(conv(d, kernel, bias))], axis=-1)
    return conv(d, *weights["fusion"]) + x


def grdb(x, weights):
    """r_i = RDB(r_(i-1)), r_0 = x; GRDB = conv1x1([r_1, .., r_R]) + x, x itself not in the concat (2.1). weights: "rdbs" list, "fusion" (kernel, bias)."""
    x = _float(x)
    kept, r = [], x
    for block in weights["rdbs"]:
        r = rdb(r, block)
        kept.append(r)
    return conv(np.concatenate(kept, axis=-1), *weights["fusion"]) + x


def generator(x, weights):
    """s = down(first(x)); g_i = GRDB(g_(i-1)), g_0 = s; t = fusion([g_1, .., g_B]) + s; y = last(up(t)) + x, (n, h, w, 1) standardised to the same (2.1).

    weights: "first", "down", "fusion", "up", "last" = (kernel, bias), "grdbs" = list of GRDBs. "fusion" None is the GRDN form: t = g_B, no trunk residual
    (2.3; its image residual is kept, 'as 2.1').
    """
    x = _float(x)
    s = conv(conv(x, *weights["first"]), *weights["down"], stride=2)
    kept, g = [], s
    for block in weights["grdbs"]:
        g = grdb(g, block)
        kept.append(g)
    trunk = g if weights["fusion"] is None else conv(np.concatenate(kept, axis=-1), *weights["fusion"]) + s
    return conv(conv_transposed(trunk, *weights["up"]), *weights["last"]) + x


def restore(x, weights):
    """net(x') s + m on raw images (n, h, w), layers 0 and 10 of 2.1 included (4.1)."""
    inner, mean, scale = standardise(x)
    return generator(inner[..., None], weights)[..., 0] * scale + mean


def generator_weights(pairs, convs, rdbs, grdbs, concat=True):
    """The dict that generator() reads, from a flat list of (kernel, bias) in the order of use, which is that of generator_layers()."""
    rest = iter(pairs)
    weights = {"first": next(rest), "down": next(rest), "grdbs": []}
    for _ in range(grdbs):
        blocks = [{"convs": [next(rest) for _ in range(convs)], "fusion": next(rest)} for _ in range(rdbs)]
        weights["grdbs"].append({"rdbs": blocks, "fusion": next(rest)})
    weights["fusion"] = next(rest) if concat else None
    weights["up"], weights["last"] = next(rest), next(rest)
    assert next(rest, None) is None, "more weights than layers"
    return weights


def generator_layers(f0=64, growth=32, convs=8, rdbs=4, grdbs=4, concat=True):
    """(side of the kernel, in, out, kernel applications per input pixel) of every convolution in the order of use; the one but last is transposed (2.1)."""
    layers = [(3, 1, f0, 1.0), (4, f0, f0, 0.25)]
    for _ in range(grdbs):
        for _ in range(rdbs):
            layers += [(3, f0 + i * growth, growth, 0.25) for i in range(convs)]
            layers.append((1, f0 + convs * growth, f0, 0.25))
        layers.append((1, rdbs * f0, f0, 0.25))
    if concat:
        layers.append((1, grdbs * f0, f0, 0.25))
    return layers + [(4, f0, f0, 0.25), (3, f0, 1, 1.0)]


def generator_parameters(f0=64, growth=32, convs=8, rdbs=4, grdbs=4):
    """sum of k^2 in out + out over the layers of 2.1; growth, convs, rdbs, grdbs are G, L, R, B (2.1, 2.2)."""
    return sum(k * k * inputs * outputs + outputs for k, inputs, outputs, _ in generator_layers(f0, growth, convs, rdbs, grdbs))


def grdn_parameters(f0=64, growth=32, convs=8, rdbs=4, grdbs=4):
    """The same without global concat and fusion (2.2, 2.3)."""
    return sum(k * k * inputs * outputs + outputs for k, inputs, outputs, _ in generator_layers(f0, growth, convs, rdbs, grdbs, concat=False))


def generator_macs(height, width, f0=64, growth=32, convs=8, rdbs=4, grdbs=4):
    """Multiply-accumulates of the convolutions for one image, the transposed one counted at its input's pixels (2.1, 2.2)."""
    layers = generator_layers(f0, growth, convs, rdbs, grdbs)
    return sum(k * k * inputs * outputs * share for k, inputs, outputs, share in layers) * height * width


def generator_census(convs=8, rdbs=4, grdbs=4):
    """(Conv2D, Conv2DTranspose, Concatenate, Add) of the CGRDN (2.1; check 1 of 10)."""
    convolutions = 2 + grdbs * (rdbs * (convs + 1) + 1) + 1 + 1
    return convolutions, 1, grdbs * (rdbs * convs + 1) + 1, grdbs * (rdbs + 1) + 2


def generator_receptive_field(convs=8, rdbs=4, grdbs=4):
    """Input pixels along an axis that one output pixel sees, walked from the output to the input (2.1)."""
    seen = 1 + 2  # last, 3x3
    seen = seen // 2 + 2  # up: each output pixel sees 2 inputs, so an odd number n of neighbours sees n // 2 + 2
    seen += 2 * convs * rdbs * grdbs  # the 3x3 convolutions in series at half size
    seen = 2 * (seen - 1) + 4  # down, 4x4 stride 2
    return seen + 2  # first, 3x3


# ------------------------------------------------------------------------------------------------------------------- MR-UNet (2.3)
def mr_unet_layers():
    """(side of the kernel, in, out, side of the output at 256) of the 18 convolutions in the order of use: first, 7 down, centre, 8 up, last (2.3)."""
    layers, maps = [(4, 1, 64, 256)], {256: 64}
    side, channels = 256, 64
    for outputs in (64, 128, 192, 256, 384, 512, 1024):
        side //= 2
        layers.append((3, channels, outputs, side))
        maps[side] = channels = outputs
    layers.append((2, channels, 2048, side - 1))  # 'valid' on a 2x2 map
    side, channels = side - 1, 2048
    for outputs in (1024, 512, 384, 256, 192, 128, 64, 64):
        side *= 2
        layers.append((3, channels, outputs, side))
        channels = outputs + maps[side]  # concat with the encoder map of equal size
    return layers + [(4, channels, 1, side)]


def mr_unet_parameters():
    """sum of k^2 in out + out: every convolution has a bias (2.3)."""
    return sum(k * k * inputs * outputs + outputs for k, inputs, outputs, _ in mr_unet_layers())


# ------------------------------------------------------------------------------------------------------------------- discriminator (3)
STRIDES = (2, 2, 2, 1, 1)


def batch_norm(x, gamma, beta, mean, variance):
    """gamma (x - mean) / sqrt(variance + 1e-3) + beta per channel, moments given (3)."""
    return _float(gamma) * (x - _float(mean)) / np.sqrt(_float(variance) + EPSILON) + _float(beta)


def discriminator(x, candidate, weights):
    """Logit map of [x, candidate], both (n, h, w, 1) in normalised units: conv, L; three times conv, norm, L; conv with bias (3).

    weights: "kernels" list of 5 (HWIO), "norms" list of 3 (gamma, beta, mean, variance) for layers 2 to 4, "bias" of layer 5.
    """
    z = leaky_relu(conv(np.concatenate([_float(x), _float(candidate)], axis=-1), weights["kernels"][0], stride=STRIDES[0]))
    for kernel, norm, stride in zip(weights["kernels"][1:4], weights["norms"], STRIDES[1:4], strict=True):
        z = leaky_relu(batch_norm(conv(z, kernel, stride=stride), *norm))
    return conv(z, weights["kernels"][4], weights["bias"], STRIDES[4])


def discriminator_parameters(filters=(64, 128, 256, 512)):
    """(trainable, not trainable): 4x4 kernels, gamma and beta of layers 2 to 4, bias of layer 5; moving mean and variance are not trainable (3)."""
    channels = (2, *filters, 1)
    kernels = sum(16 * inputs * outputs for inputs, outputs in zip(channels[:-1], channels[1:], strict=True))
    return kernels + 2 * sum(filters[1:]) + 1, 2 * sum(filters[1:])


def discriminator_receptive_field():
    """Input pixels along an axis that one logit sees, walked from the output to the input: n -> stride (n - 1) + 4 (3)."""
    seen = 1
    for stride in reversed(STRIDES):
        seen = stride * (seen - 1) + 4
    return seen
