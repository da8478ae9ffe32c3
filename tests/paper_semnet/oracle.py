"""Independent NumPy oracle for the SEMNet reproduction, written from the equations of the implementation sheet alone.

Everything runs in float64, channels-last (B, H, W, C), slow and obvious on purpose. No code of the package under test was read or is
imported, and no deep-learning framework is used. Section numbers in the docstrings are those of the sheet.
"""

import math

import numpy as np

SLOPE = 0.2  # LeakyReLU slope, section 2.1
RESIDUAL = 0.2  # residual scaling of an RDB and of an RRDB, section 2.1


# ---------------------------------------------------------------------------------------------------------------- network (section 2)
def leaky_relu(x, slope=SLOPE):
    """L(x) = x for x >= 0, slope * x otherwise (2.1)."""
    x = np.asarray(x, dtype=np.float64)
    return np.where(x >= 0.0, x, slope * x)


def conv3x3(x, kernel, bias):
    """y[b,i,j,o] = bias[o] + sum_{u,v in 0..2} sum_c xpad[b,i+u,j+v,c] * kernel[u,v,c,o] (2.1: stride 1, zero padding 1, bias on).

    Cross-correlation (the kernel is not flipped), x of shape (B, H, W, cin), kernel of shape (3, 3, cin, cout), bias of shape (cout,).
    """
    x = np.asarray(x, dtype=np.float64)
    kernel = np.asarray(kernel, dtype=np.float64)
    bias = np.asarray(bias, dtype=np.float64)
    batch, height, width, cin = x.shape
    if kernel.shape[:3] != (3, 3, cin) or bias.shape != (kernel.shape[3],):
        raise ValueError(f"kernel {kernel.shape} and bias {bias.shape} do not fit an input with {cin} channels")
    padded = np.zeros((batch, height + 2, width + 2, cin))
    padded[:, 1:-1, 1:-1, :] = x
    out = np.zeros((batch, height, width, kernel.shape[3])) + bias
    for u in range(3):
        for v in range(3):
            out = out + padded[:, u : u + height, v : v + width, :] @ kernel[u, v]
    return out


def rdb(x, weights):
    """x_n = L(conv_n([x, x_1, .., x_(n-1)])) for n = 1..4; x_5 = conv_5([x, x_1, .., x_4]); RDB = x + 0.2 * x_5 (2.1).

    weights: list of 5 (kernel, bias) pairs.
    """
    if len(weights) != 5:
        raise ValueError("an RDB has 5 convolutions")
    x = np.asarray(x, dtype=np.float64)
    features = [x]
    for kernel, bias in weights[:4]:
        features.append(leaky_relu(conv3x3(np.concatenate(features, axis=-1), kernel, bias)))
    kernel, bias = weights[4]
    return x + RESIDUAL * conv3x3(np.concatenate(features, axis=-1), kernel, bias)


def rrdb(x, weights):
    """RRDB(x) = x + 0.2 * RDB_3(RDB_2(RDB_1(x))) (2.1).  weights: list of 3 RDB weight lists, RDB_1 first."""
    if len(weights) != 3:
        raise ValueError("an RRDB has 3 RDBs")
    x = np.asarray(x, dtype=np.float64)
    inner = x
    for rdb_weights in weights:
        inner = rdb(inner, rdb_weights)
    return x + RESIDUAL * inner


def nearest_x2(x):
    """NN_x2(x)[b,i,j,c] = x[b, i // 2, j // 2, c] (2.2, pixel repetition)."""
    x = np.asarray(x, dtype=np.float64)
    rows = np.arange(2 * x.shape[1]) // 2
    cols = np.arange(2 * x.shape[2]) // 2
    return x[:, rows][:, :, cols]


def semnet(x, weights):
    """f0 = first(x); f = f0 + body(RRDB_n(..RRDB_1(f0))); u = L(up(NN_x2(f))); [u = L(hr(u))]; y = last(u) (2.2).

    weights: dict with 'first', 'body', 'up', 'last' = (kernel, bias), optional 'hr' = (kernel, bias) (variant B, tail "95"), and 'blocks' = list of
    RRDBs, each a list of 3 RDBs, each a list of 5 (kernel, bias). The output is linear: no clipping, no image skip.
    """
    f0 = conv3x3(x, *weights["first"])
    f = f0
    for block in weights["blocks"]:
        f = rrdb(f, block)
    f = f0 + conv3x3(f, *weights["body"])
    u = leaky_relu(conv3x3(nearest_x2(f), *weights["up"]))
    if weights.get("hr") is not None:
        u = leaky_relu(conv3x3(u, *weights["hr"]))
    return conv3x3(u, *weights["last"])


def receptive_radius(blocks=6, tail="94"):
    """R = n_lr + reach(n_hr) in LR px, one px per 3x3 convolution (2.2-2.4).

    n_lr = first + blocks * 3 * 5 + body; n_hr = up + last (tail "94") or up + hr + last (tail "95"). An HR pixel p reads HR pixels p - n_hr .. p + n_hr,
    HR pixel q shows LR pixel q // 2, so the reach is the larger of i - (2i - n_hr) // 2 and (2i + 1 + n_hr) // 2 - i, which is ceil(n_hr / 2).
    With 6 blocks: 92 + 1 = 93 (tail "94"), 92 + 2 = 94 (tail "95").
    """
    n_hr = {"94": 2, "95": 3}[str(tail)]
    n_lr = 1 + blocks * 3 * 5 + 1
    left = 0 - (0 - n_hr) // 2
    right = (1 + n_hr) // 2
    return n_lr + max(left, right)


# ----------------------------------------------------------------------------------------------------------------- losses (section 3)
def l1(y_true, y_pred):
    """L1 = mean over batch, pixels and channels of |y_true - y_pred| (3.1)."""
    return float(np.mean(np.abs(np.asarray(y_true, dtype=np.float64) - np.asarray(y_pred, dtype=np.float64))))


def total_variation(y_pred):
    """L_TV = mean|y[:,1:] - y[:,:-1]| + mean|y[:,:,1:] - y[:,:,:-1]| (3.2: anisotropic, one mean per direction, prediction only).

    The sheet's formula needs at least 2 x 2 pixels; smaller images are refused here.
    """
    y = np.asarray(y_pred, dtype=np.float64)
    if y.shape[1] < 2 or y.shape[2] < 2:
        raise ValueError("total variation needs at least 2 x 2 pixels")
    return float(np.mean(np.abs(y[:, 1:] - y[:, :-1])) + np.mean(np.abs(y[:, :, 1:] - y[:, :, :-1])))


def soft_histogram(pixels, bins=64, tau=0.02):
    """h_k = sum_i 1 / (1 + ((x_i - c_k) / tau)^2), c_k = (k - 1/2) / K, H_k = h_k / (sum_j h_j + 1e-6), x clipped to [0,1] (3.4)."""
    x = np.clip(np.asarray(pixels, dtype=np.float64).ravel(), 0.0, 1.0)
    h = np.zeros(bins)
    for k in range(1, bins + 1):
        centre = (k - 0.5) / bins
        h[k - 1] = np.sum(1.0 / (1.0 + ((x - centre) / tau) ** 2))
    return h / (np.sum(h) + 1e-6)


def histogram_hellinger(y_true, y_pred, bins=64, tau=0.02, reduction="mean", squared=False):
    """D = (1/sqrt 2) * sqrt(sum_k (sqrt(H_k(y_pred) + 1e-6) - sqrt(H_k(y_true) + 1e-6))^2 + 1e-12), H as in soft_histogram (3.4).

    reduction "mean": one D per image and channel, L = mean over both. reduction "histogan": the sum runs over k, the channels and the whole batch (one
    norm) and L = D / B. squared: D^2 takes the place of D in either case (kind "hellinger_sq"), the inner 1e-12 kept.
    """
    y_true = np.asarray(y_true, dtype=np.float64)
    y_pred = np.asarray(y_pred, dtype=np.float64)
    batch, channels = y_true.shape[0], y_true.shape[3]
    sums = np.zeros((batch, channels))
    for b in range(batch):
        for c in range(channels):
            hist_true = soft_histogram(y_true[b, :, :, c], bins, tau)
            hist_pred = soft_histogram(y_pred[b, :, :, c], bins, tau)
            for k in range(bins):
                sums[b, c] += (math.sqrt(hist_pred[k] + 1e-6) - math.sqrt(hist_true[k] + 1e-6)) ** 2
    power = 2 if squared else 1
    if reduction == "mean":
        return float(np.mean((np.sqrt(sums + 1e-12) / math.sqrt(2.0)) ** power))
    if reduction == "histogan":
        return float((math.sqrt(np.sum(sums) + 1e-12) / math.sqrt(2.0)) ** power / batch)
    raise ValueError(f"unknown reduction {reduction!r}")


def _sigmoid(z):
    """sigma(z) = 1 / (1 + exp(-z)), written as (1 + tanh(z / 2)) / 2 so that no exponential overflows."""
    return 0.5 * (1.0 + np.tanh(0.5 * z))


def logistic_histogram(pixels, bins=64, width_divisor=2.5):
    """H_k = (1/N) sum_i [g(x_i - c_k) + g(x_i + c_k) + g(x_i + c_k - 2)], g(u) = sigma((u + D/2) / w) - sigma((u - D/2) / w) (3.4, "emd").

    D = 1/K, w = D / width_divisor, c_k = (k - 1/2) / K, x clipped to [0,1]. The last two terms are the pixels mirrored at 0 and at 1.
    """
    x = np.clip(np.asarray(pixels, dtype=np.float64).ravel(), 0.0, 1.0)
    step = 1.0 / bins
    width = step / width_divisor

    def g(u):
        return _sigmoid((u + step / 2.0) / width) - _sigmoid((u - step / 2.0) / width)

    hist = np.zeros(bins)
    for k in range(1, bins + 1):
        centre = (k - 0.5) / bins
        hist[k - 1] = np.mean(g(x - centre) + g(x + centre) + g(x + centre - 2.0))
    return hist


def histogram_emd(y_true, y_pred, bins=64, width_divisor=2.5):
    """EMD = (1/K) sum_k |CDF_k(y_pred) - CDF_k(y_true)|, CDF_k = sum_(j<=k) H_j, H as in logistic_histogram; mean over images and channels (3.4)."""
    y_true = np.asarray(y_true, dtype=np.float64)
    y_pred = np.asarray(y_pred, dtype=np.float64)
    distances = []
    for b in range(y_true.shape[0]):
        for c in range(y_true.shape[3]):
            hist_true = logistic_histogram(y_true[b, :, :, c], bins, width_divisor)
            hist_pred = logistic_histogram(y_pred[b, :, :, c], bins, width_divisor)
            total, cdf_true, cdf_pred = 0.0, 0.0, 0.0
            for k in range(bins):
                cdf_true += hist_true[k]
                cdf_pred += hist_pred[k]
                total += abs(cdf_pred - cdf_true)
            distances.append(total / bins)
    return float(np.mean(distances))


# ----------------------------------------------------------------------------------------------------------- optimisation (section 4)
def learning_rate(update):
    """lr = 1e-4 * 0.5^([update >= 200000] + [update >= 400000]), updates counted from 1 (4, acceptance test 8)."""
    if update < 1:
        raise ValueError("updates count from 1")
    if update >= 400_000:
        return 2.5e-5
    if update >= 200_000:
        return 5e-5
    return 1e-4


def adam(params, grads, m, v, t, lr, b1=0.9, b2=0.999, eps=1e-8):
    """m' = b1 m + (1 - b1) g; v' = b2 v + (1 - b2) g^2; p' = p - lr * sqrt(1 - b2^t) / (1 - b1^t) * m' / (sqrt(v') + eps) (4, Keras form).

    t counts from 1. In the Keras form eps is added before the bias correction of v, unlike torch. One array per argument; returns (p', m', v').
    """
    params, grads = np.asarray(params, dtype=np.float64), np.asarray(grads, dtype=np.float64)
    m_new = b1 * np.asarray(m, dtype=np.float64) + (1.0 - b1) * grads
    v_new = b2 * np.asarray(v, dtype=np.float64) + (1.0 - b2) * grads**2
    rate = lr * math.sqrt(1.0 - b2**t) / (1.0 - b1**t)
    return params - rate * m_new / (np.sqrt(v_new) + eps), m_new, v_new


# ------------------------------------------------------------------------------------------------------------- degradation (section 5)
def gaussian_kernel(size, covariance):
    """k[i,j] = exp(-1/2 d^T S^-1 d) / sum, d = (x, y) = (j - (size-1)/2, i - (size-1)/2), S the 2x2 covariance in px^2 (5.3).

    The order of S is (x, y) = (column, row): S[0, 0] is the variance along the columns' index. The sheet leaves that order open.
    """
    inverse = np.linalg.inv(np.asarray(covariance, dtype=np.float64))
    centre = (size - 1) / 2.0
    kernel = np.zeros((size, size))
    for i in range(size):
        for j in range(size):
            d = np.array([j - centre, i - centre])
            kernel[i, j] = math.exp(-0.5 * (d @ inverse @ d))
    return kernel / np.sum(kernel)


# ----------------------------------------------------------------------------------------------------------------- metrics (section 7)
def _grey_pair(a, b, crop):
    """Checks the convention of 7.1 (uint8, one grey channel, same shape), cuts crop px off each side and returns float64 (H, W) arrays."""
    a, b = np.asarray(a), np.asarray(b)
    if a.dtype != np.uint8 or b.dtype != np.uint8 or a.shape != b.shape:
        raise ValueError("a pair of uint8 images of one shape is needed")
    if a.ndim == 3 and a.shape[2] == 1:
        a, b = a[:, :, 0], b[:, :, 0]
    if a.ndim != 2:
        raise ValueError("one grey channel is needed")
    height, width = a.shape
    window = (slice(crop, height - crop), slice(crop, width - crop))
    return a[window].astype(np.float64), b[window].astype(np.float64)


def psnr_uint8(a, b, crop):
    """PSNR = 10 log10(255^2 / MSE), MSE = mean (a - b)^2 in float64 after the crop (7.1); infinite for equal images."""
    a, b = _grey_pair(a, b, crop)
    mse = np.mean((a - b) ** 2)
    return math.inf if mse == 0.0 else float(10.0 * math.log10(255.0**2 / mse))


def ssim_gaussian(a, b, crop):
    """SSIM = mean of (2 mu_a mu_b + C1)(2 s_ab + C2) / ((mu_a^2 + mu_b^2 + C1)(s_aa + s_bb + C2)) over all whole 11x11 windows (7.1).

    mu_a = sum w a, s_ab = sum w (a - mu_a)(b - mu_b) with w the 11x11 Gaussian of sigma 1.5 normalised to 1 (population covariance),
    C1 = (0.01 * 255)^2, C2 = (0.03 * 255)^2.
    """
    a, b = _grey_pair(a, b, crop)
    w = gaussian_kernel(11, 1.5**2 * np.eye(2))
    c1, c2 = (0.01 * 255.0) ** 2, (0.03 * 255.0) ** 2
    windows_a = np.lib.stride_tricks.sliding_window_view(a, (11, 11))
    windows_b = np.lib.stride_tricks.sliding_window_view(b, (11, 11))
    mu_a = np.sum(w * windows_a, axis=(2, 3))
    mu_b = np.sum(w * windows_b, axis=(2, 3))
    delta_a = windows_a - mu_a[:, :, None, None]
    delta_b = windows_b - mu_b[:, :, None, None]
    s_aa = np.sum(w * delta_a * delta_a, axis=(2, 3))
    s_bb = np.sum(w * delta_b * delta_b, axis=(2, 3))
    s_ab = np.sum(w * delta_a * delta_b, axis=(2, 3))
    ssim = (2.0 * mu_a * mu_b + c1) * (2.0 * s_ab + c2) / ((mu_a**2 + mu_b**2 + c1) * (s_aa + s_bb + c2))
    return float(np.mean(ssim))
