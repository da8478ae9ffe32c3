"""Secondary-electron pictures of fibrous and of porous specimens: mats, wires, rods, nanotubes; tissue, foams, sponges, gels."""

from __future__ import annotations

import cv2
import numpy as np
from scipy.ndimage import gaussian_filter1d

from .base import Specimen, coverage, fractal_noise, log_uniform, normalise

# kind: diameter (nm), diameter (pixels), length / diameter, bend (rad per persistence length), persistence length / diameter, strands per bundle
_FIBRES = {
    "nanotubes": ((4, 80), (1.3, 7), (100, 1000), (0.2, 0.8), (8, 40), (1, 6)),
    "nanowires": ((20, 400), (2, 14), (20, 300), (0.0, 0.15), (20, 80), (1, 2)),
    "rods": ((40, 4000), (7, 60), (2.5, 12), (0.0, 0.03), (5, 10), (1, 1)),
    "electrospun": ((60, 3000), (5, 50), (100, 1000), (0.1, 0.8), (6, 25), (1, 2)),
    "fibrils": ((20, 500), (3, 18), (60, 500), (0.05, 0.5), (10, 40), (2, 9)),
    "felt": ((800, 20000), (14, 90), (10, 100), (0.05, 0.5), (4, 12), (1, 1)),
}
# kind: cell (nm), cell (pixels)
_POROUS = {"tissue": ((1500, 60000), (14, 220)), "foam": ((60, 60000), (14, 220)), "sponge": ((60, 10000), (16, 180)), "gel": ((30, 2000), (20, 200))}


def _fit(rng: np.random.Generator, kinds: dict, pixel_size: float) -> tuple[str, float]:
    """Choose a kind whose sizes are visible at this magnification and draw its typical size: name, size in pixels."""
    spans = {k: (max(pixels[0], nm[0] / pixel_size), min(pixels[1], nm[1] / pixel_size)) for k, (nm, pixels, *_) in kinds.items()}
    names = [k for k, (small, large) in spans.items() if small < large]
    if not names:
        raise ValueError(f"no structure of this family can be resolved at {pixel_size} nm per pixel")
    name = names[rng.integers(len(names))]
    return name, float(log_uniform(rng, *spans[name]))


def _expose(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Set brightness and contrast as an operator does: the mean near mid-grey although rims are far brighter than the rest; (height, width) in [0, 1]."""
    image = normalise(image)
    gamma = np.clip(np.log(rng.uniform(0.2, 0.55)) / np.log(max(image.mean(), 0.02)), 0.45, 1.5)
    return normalise(image**gamma, rng)


def _wander(rng: np.random.Generator, s: np.ndarray, spacing: float, table: np.ndarray) -> np.ndarray:
    """A smooth random function of arc length with unit standard deviation that changes over `spacing` pixels, read from a periodic table."""
    position = rng.uniform(0, table.size) + s * (16 / spacing)
    whole = position.astype(np.int64)
    part = position - whole
    return table[whole % table.size] * (1 - part) + table[(whole + 1) % table.size] * part


def _path(rng: np.random.Generator, shape, length: float, bend: float, persistence: float, heading: float, table: np.ndarray) -> np.ndarray:
    """A smooth random curve through the frame, sampled every 0.6 pixel: columns x, y, heading (rad), arc length (pixels)."""
    s = np.arange(0, length, 0.6)
    theta = np.cumsum(_wander(rng, s, persistence, table)) * 0.6 * bend / persistence
    theta += heading - theta.mean() + 0.3 * bend * _wander(rng, s, persistence, table)
    x, y = np.cumsum(np.cos(theta)) * 0.6, np.cumsum(np.sin(theta)) * 0.6
    anchor = rng.integers(s.size)
    x += rng.uniform(-0.05, 1.05) * shape[1] - x[anchor]
    y += rng.uniform(-0.05, 1.05) * shape[0] - y[anchor]
    return np.stack([x, y, theta, s], 1).astype(np.float32)


def _strand(rng: np.random.Generator, spine: np.ndarray, size: float, look: dict) -> tuple[np.ndarray, np.ndarray]:
    """One strand of a bundle that follows `spine`: its own path (same columns) and its radius along it, with beads and round or flat ends, in pixels."""
    path = spine.copy()
    s = path[:, 3]
    if look["strands"] > 1:
        sway = 0.7 * size * np.sqrt(look["strands"] - 1) * (rng.normal() + 0.6 * _wander(rng, s, 40 * size, look["table"]))
        path[:, 0] -= sway * np.sin(path[:, 2])
        path[:, 1] += sway * np.cos(path[:, 2])
        path[:, 2] += np.arctan(np.gradient(sway, s))
    radius = 0.5 * size * np.clip(1 + look["uneven"] * _wander(rng, s, 2 * size, look["table"]), 0.5, 1.6)
    for centre in rng.uniform(0, s[-1], rng.poisson(look["beads"] * s[-1] / size)):
        radius *= 1 + rng.uniform(0.5, 2.5) * np.exp(-(((s - centre) / (size * rng.uniform(1, 2.5))) ** 2))
    if rng.random() < 0.5:
        radius *= np.sqrt(np.clip(1 - np.clip(1 - np.minimum(s, s[-1] - s) / (0.5 * size), 0, 1) ** 2, 0.02, 1))
    return path, np.maximum(radius, 0.3).astype(np.float32)


def _tube(rng: np.random.Generator, path: np.ndarray, radius: np.ndarray, shape, look: dict) -> tuple[np.ndarray, ...]:
    """Pixels covered by a tube: flat index, coverage in [0, 1], signal (1 is the brightest flank of the uppermost layer)."""
    total, reach = path[-1, 3], float(radius.max()) + 1
    inside = (path[:, 0] > -reach) & (path[:, 0] < shape[1] + reach) & (path[:, 1] > -reach) & (path[:, 1] < shape[0] + reach)
    taper = np.gradient(radius, 0.6)[inside]
    path, radius = path[inside], radius[inside]
    # 0.7 pixel is just under 1 / sqrt(2), the widest grid of samples that misses no pixel in any orientation.
    across = np.arange(-reach, reach + 0.7, 0.7, dtype=np.float32)
    nx, ny = -np.sin(path[:, 2]), np.cos(path[:, 2])
    column, row = np.rint(path[:, :1] + across * nx[:, None]), np.rint(path[:, 1:2] + across * ny[:, None])
    keep = np.nonzero((column >= 0) & (column < shape[1]) & (row >= 0) & (row < shape[0]) & (np.abs(across) <= radius[:, None] + 1))
    column, row, sample = column[keep], row[keep], keep[0]
    nx, ny, dx, dy = nx[sample], ny[sample], column - path[sample, 0], row - path[sample, 1]
    offset, ahead = dx * nx + dy * ny, dx * ny - dy * nx
    along = path[sample, 3] + ahead
    r = np.maximum(radius[sample] + taper[sample] * ahead, 0.3)
    low, high = np.clip((offset - 0.5) / r, -1, 1), np.clip((offset + 0.5) / r, -1, 1)
    # The mean height of the cylinder over the pixel, not its value at the centre: a thin bright rim would break up into dots.
    arc_low, arc_high = np.arcsin(low), np.arcsin(high)
    area = 0.5 * (high * np.sqrt(1 - high * high) + arc_high - low * np.sqrt(1 - low * low) - arc_low)
    flank = np.clip(1 - area / np.maximum(high - low, 1e-4), 0, 1) ** look["sharpness"]
    u = 0.5 * (low + high)
    if look["faceted"]:
        edge = (np.abs(u) - 0.55) * r
        flank = 0.35 * flank + 0.5 * np.clip(edge + 0.5, 0, 1) + 0.5 * np.exp(-(edge**2))
    light = look["side"] * (nx * np.cos(look["towards"]) + ny * np.sin(look["towards"])) * u
    relief, start = look["relief"], rng.integers(1024)
    texture = relief[(0.5 * (arc_low + arc_high) * r + start).astype(int) % 256, (along + start).astype(int) % 1024] * look["roughness"]
    texture += look["banding"] * np.sin(2 * np.pi * along / look["band"])
    tone = np.exp(rng.normal(0, 0.1)) * np.interp(along, np.linspace(0, total, 12), rng.normal(1, 0.1, 12)).astype(np.float32)
    signal = tone * (0.4 + light + look["rim"] * flank) * (1 + texture * np.minimum(1, r / 4))
    alpha = np.clip((high - low) * r, 0, 1) * np.clip(np.minimum(along, total - along) + 0.5, 0, 1)
    return (row * shape[1] + column).astype(np.int64), alpha, signal


def fibres(seed, shape=(480, 640), pixel_size: float | None = None) -> Specimen:
    """Secondary-electron picture of overlapping fibres, wires, rods or tubes, (height, width) in [0, 1]; 2 to 200 nm per pixel.

    Every fibre is a cylinder: its flanks, seen at grazing incidence, are brighter than its crest, one side faces the detector,
    deeper layers are darker (few electrons escape), out of focus, and shadowed where an upper fibre passes over them.
    """
    rng = np.random.default_rng(seed)
    drawn = float(log_uniform(rng, 2, 200))
    pixel_size = drawn if pixel_size is None else float(pixel_size)
    kind, diameter = _fit(rng, _FIBRES, pixel_size)
    _, _, lengths, bends, persistences, strands = _FIBRES[kind]
    spread, bend, persistence = rng.uniform(0.03, 0.35), rng.uniform(*bends), diameter * float(log_uniform(rng, *persistences))
    length, diagonal = diameter * float(log_uniform(rng, *lengths)), float(np.hypot(*shape))
    heading, disorder = rng.uniform(0, np.pi), float(rng.choice([0.1, 0.4, 3.0], p=[0.2, 0.25, 0.55]))
    # No more than some 1000 fibres: beyond, thin short ones merge into a texture and only cost time.
    cover, layers = min(float(log_uniform(rng, 0.5, 4.5)), 1000 * diameter * min(length, diagonal) / (shape[0] * shape[1])), int(rng.integers(5, 11))
    fade, shadow, defocus = rng.uniform(0.25, 0.9), rng.uniform(0.2, 0.7), log_uniform(rng, 0.05, 2.5)
    relief = fractal_noise(rng, (256, 1024), rng.uniform(0.8, 2.2), largest=40)
    if kind in ("felt", "fibrils") or rng.random() < 0.3:
        relief = cv2.resize(relief[:, : rng.integers(40, 200)], (1024, 256), interpolation=cv2.INTER_CUBIC)
        relief = 0.8 * relief / relief.std() + 0.4 * fractal_noise(rng, (256, 1024), 1.0)
    table = gaussian_filter1d(rng.normal(0, 1, 16384), 9.6, mode="wrap")
    table /= table.std()
    look = {
        "rim": rng.uniform(0.2, 1.0), "sharpness": rng.uniform(1.0, 4.0), "side": rng.uniform(0.0, 0.35), "towards": rng.uniform(0, 2 * np.pi),
        "roughness": float(log_uniform(rng, 0.015, 0.2)), "uneven": rng.uniform(0, 0.02 if kind in ("rods", "nanowires") else 0.08),
        "faceted": kind == "rods" and rng.random() < 0.6, "beads": rng.uniform(0.01, 0.04) * (kind in ("electrospun", "nanotubes") and rng.random() < 0.35),
        # Collagen repeats every 67 nm; where that cannot be resolved, any periodic twist.
        "banding": rng.uniform(0.05, 0.2) * (kind == "fibrils" and rng.random() < 0.6), "band": max(67.0 / pixel_size, 0.5 * diameter, 4.0),
        "strands": strands[1], "relief": relief, "table": table,
    }  # fmt: skip
    ground = 1 + rng.uniform(0, 0.12) * fractal_noise(rng, shape, 3.2) + rng.uniform(0.02, 0.12) * fractal_noise(rng, shape, 1.3)
    canvas, count = (rng.uniform(0.05, 0.4) * (1 - fade) * ground).astype(np.float32), 0
    for layer in range(layers):
        height = layer / (layers - 1)
        tubes, budget = [], cover * canvas.size / layers
        while budget > 0:
            size = diameter * np.exp(rng.normal(0, spread))
            reach = max(min(length * np.exp(rng.normal(0, 0.25)), 1.5 * diagonal), 2 * size)
            spine = _path(rng, shape, reach, bend, persistence, heading + rng.normal(0, disorder), table)
            for _ in range(int(rng.integers(strands[0], strands[1] + 1))):
                tubes.append(_tube(rng, *_strand(rng, spine, size, look), shape, look))
                # The samples cover each pixel about twice; a fibre that misses the frame must use up something too.
                budget -= max(0.42 * tubes[-1][0].size, 20 * size)
        mask = np.zeros(canvas.size, np.float32)
        for index, alpha, _ in tubes:
            mask[index] = np.maximum(mask[index], alpha)
        canvas *= 1 - shadow * cv2.GaussianBlur(mask.reshape(shape), (0, 0), max(0.5 * diameter, 1.0))
        if height < 0.6 and defocus > 0.4:
            canvas = cv2.GaussianBlur(canvas, (0, 0), defocus)
        flat = canvas.ravel()
        for index, alpha, signal in tubes:
            flat[index] += alpha * ((height * fade + 1 - fade) * signal - flat[index])
        count += len(tubes)
    canvas *= 1 + rng.uniform(0, 0.12) * fractal_noise(rng, shape, 3.0)
    lengths_nm = {"diameter": diameter * pixel_size, "length": length * pixel_size, "persistence": persistence * pixel_size}
    drawn_look = {k: look[k] for k in ("rim", "roughness", "faceted", "beads", "banding")}
    parameters = {"kind": kind, **lengths_nm, "diameter_spread": spread, "bend": bend, "coverage": cover, "disorder": disorder, "count": count, **drawn_look}
    return Specimen(_expose(canvas, rng), pixel_size, "fibres", parameters)


def _cells(rng: np.random.Generator, shape, size: float, irregular: float, rounding: float, gradient: float = 0.0) -> np.ndarray:
    """Distance in pixels from the mid-line of the nearest wall, (height, width), for polygonal cells of that typical size with rounded corners."""
    pad = int(size)
    height, width = shape[0] + 2 * pad, shape[1] + 2 * pad
    seeds = np.full((height, width), 255, np.uint8)
    angle = rng.uniform(0, 2 * np.pi)
    small = size * (1 - 0.6 * gradient)
    rows, columns = np.meshgrid(np.arange(0, height, small * 0.87), np.arange(0, width, small), indexing="ij")
    columns = columns + (np.arange(rows.shape[0]) % 2)[:, None] * small / 2
    points = np.stack([columns.ravel(), rows.ravel()], 1) + rng.normal(0, irregular * small * 0.45, (rows.size, 2))
    position = (points[:, 0] / width - 0.5) * np.cos(angle) + (points[:, 1] / height - 0.5) * np.sin(angle)
    points = points[rng.random(len(points)) > gradient * 0.85 * np.clip(position + 0.5, 0, 1)]
    for (x, y), r in zip(points, small * rng.uniform(0.02, 0.02 + 0.3 * irregular, len(points))):
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


def _gradient(field: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Slope of a map along the columns and along the rows, per pixel, each (height, width) float32."""
    field = field.astype(np.float32)
    return cv2.Sobel(field, cv2.CV_32F, 1, 0, scale=1 / 8), cv2.Sobel(field, cv2.CV_32F, 0, 1, scale=1 / 8)


def _shade(height: np.ndarray, reach: float, tilt: float, towards: float) -> np.ndarray:
    """Secondary-electron signal of a height map (pixels): slopes and protruding edges shine, hollows within `reach` pixels stay dark."""
    gx, gy = _gradient(height)
    slope = np.sqrt(1 + gx * gx + gy * gy)
    light = tilt * (gx * np.cos(towards) + gy * np.sin(towards)) / slope
    fine, coarse = height - cv2.GaussianBlur(height, (0, 0), max(reach / 5, 1.0)), height - cv2.GaussianBlur(height, (0, 0), reach)
    return np.exp(0.9 * np.tanh(coarse / reach * 1.5) + 0.5 * np.tanh(fine / max(reach / 5, 1.0))) * (np.minimum(slope, 3.0) ** 0.6 + light)


def _shreds(rng: np.random.Generator, image: np.ndarray, wall: np.ndarray, amount: float, size: float) -> np.ndarray:
    """Tear bright teeth and flakes out of the edge of the walls (`wall`: signed distance in pixels, negative inside the pore); returns the new image."""
    gx, gy = _gradient(cv2.GaussianBlur(wall.astype(np.float32), (0, 0), 1.0))
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
    for facets in zip(left, right):
        for corners, level in zip(facets, (rng.uniform(90, 190), rng.uniform(130, 250))):
            cv2.fillPoly(mask, [corners], 255, cv2.LINE_AA, 4)
            cv2.fillPoly(tone, [corners], int(level), cv2.LINE_AA, 4)
    alpha = mask.astype(np.float32) / 255
    shade = tone.astype(np.float32) / 255 * (1 + 0.15 * fractal_noise(rng, image.shape, 1.0, largest=30))
    return image * (1 - 0.3 * cv2.GaussianBlur(alpha, (0, 0), max(size * 0.4, 1.0))) * (1 - alpha) + alpha * shade


def _tissue(rng: np.random.Generator, shape, size: float, parameters: dict) -> np.ndarray:
    """Cut tissue: flat wall faces with bright rims around deep tubes seen slightly from the side, charging streaks inside, torn edges."""
    irregular, gradient, tilt = rng.uniform(0.3, 1.0), rng.uniform(0, 0.8) * rng.integers(2), rng.uniform(0.1, 1.6)
    distance = _cells(rng, shape, size, irregular, rng.uniform(0.03, 0.12), gradient)
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
    junction = cv2.GaussianBlur(cv2.distanceTransform((wall > 0).astype(np.uint8), cv2.DIST_L2, 5), (0, 0), 1.0)
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
        gx, gy = _gradient(field)
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
    kind, size = _fit(rng, {k: v for k, v in _POROUS.items() if k != "gel" or rng.random() < 0.25}, pixel_size)
    draw = {"tissue": _tissue, "foam": _foam, "sponge": _sponge, "gel": _gel}[kind]
    lengths: dict = {}
    image = draw(rng, shape, size, lengths) * (1 + rng.uniform(0, 0.15) * fractal_noise(rng, shape, 3.2))
    parameters = {key: value * pixel_size if key in ("wall", "strut", "grain") else value for key, value in lengths.items()}
    return Specimen(_expose(image, rng), pixel_size, "porous", {"kind": kind, "cell": size * pixel_size, **parameters})
