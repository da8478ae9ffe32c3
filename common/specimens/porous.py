"""Secondary-electron pictures of porous specimens: tissue, foams, sponges, gels."""

from __future__ import annotations

import cv2
import numpy as np

from .base import Specimen, coverage, expose, fit_kind, fractal_noise, gradient, log_uniform

# kind: cell (nm), cell (pixels)
_POROUS = {"tissue": ((1500, 60000), (14, 220)), "foam": ((60, 60000), (14, 220)), "sponge": ((60, 10000), (16, 180)), "gel": ((30, 2000), (20, 200))}


def _cells(rng: np.random.Generator, shape, size: float, irregular: float, rounding: float, thinning: float = 0.0) -> np.ndarray:
    """Distance in pixels from the mid-line of the nearest wall, (height, width), for polygonal cells of that typical size with rounded corners."""
    pad = int(size)
    height, width = shape[0] + 2 * pad, shape[1] + 2 * pad
    seeds = np.full((height, width), 255, np.uint8)
    angle = rng.uniform(0, 2 * np.pi)
    small = size * (1 - 0.6 * thinning)
    rows, columns = np.meshgrid(np.arange(0, height, small * 0.87), np.arange(0, width, small), indexing="ij")
    columns = columns + (np.arange(rows.shape[0]) % 2)[:, None] * small / 2
    points = np.stack([columns.ravel(), rows.ravel()], 1) + rng.normal(0, irregular * small * 0.45, (rows.size, 2))
    position = (points[:, 0] / width - 0.5) * np.cos(angle) + (points[:, 1] / height - 0.5) * np.sin(angle)
    points = points[rng.random(len(points)) > thinning * 0.85 * np.clip(position + 0.5, 0, 1)]
    for (x, y), r in zip(points, small * rng.uniform(0.02, 0.02 + 0.3 * irregular, len(points)), strict=True):
        cv2.circle(seeds, (int(x), int(y)), int(r), 0, -1)
    _, labels = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_CCOMP)
    edge = np.full((height, width), 255, np.uint8)
    edge[:, 1:][labels[:, 1:] != labels[:, :-1]] = 0
    edge[1:][labels[1:] != labels[:-1]] = 0
    distance = cv2.distanceTransform(edge, cv2.DIST_L2, 5)
    sigma = max(rounding * size, 1.2)
    # Blurring lifts the valley floor to sigma * sqrt(2 / pi): taking it off again keeps thin walls whole.
    distance = cv2.GaussianBlur(distance, (0, 0), sigma) - 0.8 * sigma
    return distance[pad : pad + shape[0], pad : pad + shape[1]].copy()


def _shade(height: np.ndarray, reach: float, tilt: float, towards: float) -> np.ndarray:
    """Secondary-electron signal of a height map (pixels): slopes and protruding edges shine, hollows within `reach` pixels stay dark."""
    gx, gy = gradient(height)
    slope = np.sqrt(1 + gx * gx + gy * gy)
    light = tilt * (gx * np.cos(towards) + gy * np.sin(towards)) / slope
    fine, coarse = height - cv2.GaussianBlur(height, (0, 0), max(reach / 5, 1.0)), height - cv2.GaussianBlur(height, (0, 0), reach)
    return np.exp(0.9 * np.tanh(coarse / reach * 1.5) + 0.5 * np.tanh(fine / max(reach / 5, 1.0))) * (np.minimum(slope, 3.0) ** 0.6 + light)


def _shreds(rng: np.random.Generator, image: np.ndarray, wall: np.ndarray, amount: float, size: float) -> np.ndarray:
    """Tear bright teeth and flakes out of the edge of the walls (`wall`: signed distance in pixels, negative inside the pore); returns the new image."""
    gx, gy = gradient(cv2.GaussianBlur(wall.astype(np.float32), (0, 0), 1.0))
    knife = rng.uniform(0, 2 * np.pi)
    facing = (gx * np.cos(knife) + gy * np.sin(knife)) / (np.hypot(gx, gy) + 1e-6)
    rows, columns = np.nonzero((np.abs(wall) < 0.8) & (fractal_noise(rng, image.shape, 2.5) + facing > 0.3))
    mask, tone = np.zeros(image.shape, np.uint8), np.full(image.shape, 150, np.uint8)
    chosen = rng.permutation(rows.size)[: min(int(amount * rows.size), 1500)]
    x, y, count = columns[chosen], rows[chosen], chosen.size
    theta = np.arctan2(-gy[y, x], -gx[y, x]) + rng.normal(0, 0.35, count)
    along, across = np.stack([np.cos(theta), np.sin(theta)], 1), np.stack([-np.sin(theta), np.cos(theta)], 1)
    long = size * log_uniform(rng, 0.2, 1.2, count) * np.where(rng.random(count) < 0.05, 3.0, 1.0)
    wide = np.maximum(np.maximum(size * rng.uniform(0.05, 0.25, count), 0.15 * long), 0.7)
    along, across = along * long[:, None], across * wide[:, None]
    root = np.stack([x, y], 1) - 0.5 * along
    shoulder, tip = root + 0.8 * along + across * rng.uniform(-0.5, 1.5, (count, 1)), root + 1.5 * along + across * rng.normal(0, 1, (count, 1))
    # Two facets of different slope, hence of different brightness.
    left, right = (np.rint(16 * np.stack([root, root + side * across, shoulder + 0.7 * side * across, tip], 1)).astype(np.int32) for side in (-1, 1))
    for facets in zip(left, right, strict=True):
        for corners, level in zip(facets, (rng.uniform(90, 190), rng.uniform(130, 250)), strict=True):
            cv2.fillPoly(mask, [corners], 255, cv2.LINE_AA, 4)
            cv2.fillPoly(tone, [corners], int(level), cv2.LINE_AA, 4)
    alpha = mask.astype(np.float32) / 255
    shade = tone.astype(np.float32) / 255 * (1 + 0.15 * fractal_noise(rng, image.shape, 1.0, largest=30))
    return image * (1 - 0.3 * cv2.GaussianBlur(alpha, (0, 0), max(size * 0.4, 1.0))) * (1 - alpha) + alpha * shade


def _tissue(rng: np.random.Generator, shape, size: float, parameters: dict) -> np.ndarray:
    """Cut tissue: flat wall faces with bright rims around deep tubes seen slightly from the side, charging streaks inside, torn edges."""
    irregular, thinning, tilt = rng.uniform(0.3, 1.0), rng.uniform(0, 0.8) * rng.integers(2), rng.uniform(0.1, 1.6)
    distance = _cells(rng, shape, size, irregular, rng.uniform(0.03, 0.12), thinning)
    thickness = max(float(np.percentile(distance, rng.uniform(15, 55))), 0.03 * size)
    ragged = log_uniform(rng, 0.004, 0.07) * thickness * fractal_noise(rng, shape, 2.8, smallest=2.5, largest=4 * thickness)
    wall = thickness - distance + 0.2 * thickness * fractal_noise(rng, shape, 3.0) + ragged
    towards, steps = rng.uniform(0, 2 * np.pi), 20
    travel = tilt * size / steps
    open_ = lumen = coverage(wall)
    depth, lining = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    grain = fractal_noise(rng, shape, rng.uniform(1.5, 2.5), largest=size)
    for k in range(1, steps + 1):
        shift = np.float32([[1, 0, k * travel * np.cos(towards)], [0, 1, k * travel * np.sin(towards)]])
        shifted = cv2.warpAffine(wall.astype(np.float32), shift, shape[::-1], borderMode=cv2.BORDER_REPLICATE)
        beyond = lumen * coverage(shifted, max(1.5 * travel, 1.0))
        # The line of sight meets the tube's wall below this point of the rim, so that the texture runs down the tube.
        lining += (lumen - beyond) * cv2.warpAffine(grain, shift, shape[::-1], borderMode=cv2.BORDER_REPLICATE)
        lumen = beyond
        depth += lumen / steps
    streak = cv2.resize(fractal_noise(rng, (shape[0], max(shape[1] // 6, 8)), 2.6), shape[::-1], interpolation=cv2.INTER_CUBIC)
    tone, dark, fall = rng.uniform(0.3, 0.55), rng.uniform(0.02, 0.3), rng.uniform(0.5, 3.0)
    texture = rng.uniform(0.05, 0.2) * lining + rng.uniform(0.02, 0.06) * fractal_noise(rng, shape, 1.3)
    lit = tone * rng.uniform(0.3, 0.9) * np.exp(-fall * depth) * (1 + texture)
    inner = dark + lit * (1 - 0.7 * depth) + rng.uniform(0, 0.08) * streak * depth
    face = tone * (1 + 0.08 * fractal_noise(rng, shape, 2.2) + rng.uniform(0.02, 0.08) * fractal_noise(rng, shape, 1.2))
    face = face * (1 + rng.uniform(0.3, 1.2) * np.exp(-np.maximum(wall, 0) / max(0.15 * thickness, 0.8)))
    face -= rng.uniform(0, 0.2) * np.exp(-((distance / max(0.06 * thickness, 0.7)) ** 2))
    within = np.minimum(cv2.distanceTransform((wall > 0).astype(np.uint8), cv2.DIST_L2, 5), sum(shape))  # infinite where a small frame shows no lumen
    junction = cv2.GaussianBlur(within, (0, 0), 1.0)
    # Where three cells meet the lumens are further off than at the middle of a wall: there the cells part and leave a gap.
    gap = coverage(np.median(junction[distance < np.percentile(distance, 8)]) * rng.uniform(1.3, 2.2) - junction)
    image = (face * (1 - open_) + inner * open_) * (1 - gap) + 0.1 * gap
    parameters.update(wall=2 * thickness, tilt=tilt, irregularity=irregular)
    return _shreds(rng, image, wall, log_uniform(rng, 0.03, 0.5), max(0.7 * thickness, 3.0)) if rng.random() < 0.8 else image


def _foam(rng: np.random.Generator, shape, size: float, parameters: dict) -> np.ndarray:
    """Open-cell foam or pierced membrane: one to four nets of rounded struts, the deeper ones darker, blurred and partly hidden."""
    nets, solid, irregular, towards = int(rng.integers(1, 5)), rng.uniform(8, 50), rng.uniform(0.4, 1.0), rng.uniform(0, 2 * np.pi)
    roughness, fade, rim = log_uniform(rng, 0.03, 0.2), rng.uniform(0.4, 0.7), rng.uniform(0.2, 0.8)
    image = 0.05 + 0.02 * fractal_noise(rng, shape, 2.5)
    for net in range(nets):
        tone = fade ** (nets - 1 - net)
        distance = _cells(rng, shape, size * (1 - 0.1 * (nets - 1 - net)), irregular, rng.uniform(0.05, 0.14))
        strut = max(float(np.percentile(distance, solid * rng.uniform(0.8, 1.2))), 0.025 * size)
        wall = strut - distance + 0.15 * strut * fractal_noise(rng, shape, 3.2)
        depth = np.clip(wall / strut, 0, 1)
        body = np.sqrt(np.clip(1 - (1 - depth) ** 2, 0, 1)) * strut
        surface = _shade(body + roughness * strut * 0.5 * fractal_noise(rng, shape, 2.8, largest=size), strut, 0.4, towards)
        surface = tone * (0.35 * surface + rim * 0.4 * np.exp(-np.maximum(wall, 0) / max(0.12 * strut, 0.8))) * (1 + roughness * fractal_noise(rng, shape, 1.1))
        alpha = 1 - coverage(wall)
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.5)) * (1 - 0.5 * cv2.GaussianBlur(alpha, (0, 0), strut))
        image = image * (1 - alpha) + surface * alpha
    parameters.update(strut=2 * strut, nets=nets)
    return image


def _sponge(rng: np.random.Generator, shape, size: float, parameters: dict) -> np.ndarray:
    """Bicontinuous sponge: smooth ligaments of a level set of a band-limited random field, over deeper and darker ones."""
    exponent, towards = rng.uniform(-1.0, 2.0), rng.uniform(0, 2 * np.pi)
    level, roughness = rng.uniform(-0.9, 0.2), rng.uniform(0.02, 0.15)
    image = np.full(shape, 0.04, np.float32)
    for tone, lift in ((0.3, 0.5), (0.6, 0.25), (1.0, 0.0)):
        field = fractal_noise(rng, shape, exponent, smallest=size * 0.55, largest=size * rng.uniform(1.3, 4)) - level + lift
        field += 0.05 * fractal_noise(rng, shape, 3.0, largest=size)
        gx, gy = gradient(field)
        wall = field / np.sqrt(gx * gx + gy * gy + (0.7 / size) ** 2)
        height = 0.35 * size * np.sqrt(np.clip(field, 0, 1.2)) + roughness * 0.2 * size**0.5 * fractal_noise(rng, shape, 1.5, largest=size)
        alpha = coverage(-wall)
        surface = tone * _shade(height, 0.3 * size, 0.4, towards) * (1 + roughness * fractal_noise(rng, shape, 1.0))
        image = image * (1 - 0.6 * cv2.GaussianBlur(alpha, (0, 0), 0.12 * size)) * (1 - alpha) + surface * 0.4 * alpha
    parameters.update(level=level)
    return image


def _gel(rng: np.random.Generator, shape, size: float, parameters: dict) -> np.ndarray:
    """Aerogel: a rough network of merged grains with pores of every size between the grain and the cluster."""
    grain, towards = max(size * rng.uniform(0.06, 0.25), 3.5), rng.uniform(0, 2 * np.pi)
    cluster = fractal_noise(rng, shape, rng.uniform(2.4, 3.6), smallest=grain, largest=8 * size)
    lumps = np.minimum(_cells(rng, shape, grain * 1.6, 1.0, 0.1), grain) * rng.uniform(0.5, 1.0)
    lumps += 0.5 * np.minimum(_cells(rng, shape, max(grain * 3.1, 4), 1.0, 0.08), 2 * grain)
    height = size * rng.uniform(0.1, 0.4) * (cluster - 0.6 * np.abs(fractal_noise(rng, shape, 2.6, largest=3 * size))) + lumps
    image = _shade(height.astype(np.float32), size * 0.5, 0.4, towards) * (1 + 0.06 * fractal_noise(rng, shape, 0.8))
    parameters.update(grain=grain)
    return image * np.clip(0.85 + 0.15 * cluster, 0.3, 1.3)


def porous(seed, shape=(480, 640), pixel_size: float | None = None) -> Specimen:
    """Secondary-electron picture of a porous or cellular solid, (height, width) in [0, 1]; 2 to 200 nm per pixel: cut tissue, foam, sponge or gel."""
    rng = np.random.default_rng(seed)
    drawn = float(log_uniform(rng, 2, 200))
    pixel_size = drawn if pixel_size is None else float(pixel_size)
    # Gels are close to noise, which teaches a restoration little: let them come up more seldom.
    kind, size = fit_kind(rng, {k: v for k, v in _POROUS.items() if k != "gel" or rng.random() < 0.25}, pixel_size)
    draw = {"tissue": _tissue, "foam": _foam, "sponge": _sponge, "gel": _gel}[kind]
    lengths: dict = {}
    image = draw(rng, shape, size, lengths) * (1 + rng.uniform(0, 0.15) * fractal_noise(rng, shape, 3.2))
    parameters = {key: value * pixel_size if key in ("wall", "strut", "grain") else value for key, value in lengths.items()}
    return Specimen(expose(image, rng), pixel_size, "porous", {"kind": kind, "cell": size * pixel_size, **parameters})
