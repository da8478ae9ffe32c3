"""A chip layout seen twice: through the scanning superlens, and as the secondary-electron picture that it is to be turned into.

`python -m paper_ssum_cyclegan.simulator --out sheet.png` draws pairs to be looked at before a training. Sizes of the superlens come from the paper (80 nm
features resolved, 145 nm solid-immersion limit); the other limits are chosen to look like bright-field and secondary-electron pictures of chips.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.special import ndtri

from common.specimens.base import blob, coverage, fractal_noise, gradient, lobes, log_uniform, polycrystal

from .layouts import Layout, draw_layout

FWHM_PER_SIGMA = float(np.sqrt(8 * np.log(2)))  # a Gaussian's full width at half maximum is 2.355 standard deviations; its edge's 10-90 % width is 2.563
RESOLUTION = 80.0, 145.0  # nm, FWHM of the point spread in focus
DEFOCUS = 1.6  # the point spread is at most so many times wider where the chip is out of focus
INVERTED = 0.3  # share of pictures in which metal is darker than what lies between


@dataclass(frozen=True, eq=False)
class ChipPair:
    """One chip in both microscopes.

    optical, sem, sem_clean  (height, width) float32 in [0, 1]; sem_clean is sem without its noise;  layout  of the same frame as both SEM pictures
    displacement  (height, width, 2) float32, rows and columns in pixels: optical pixel p shows the chip at p + displacement(p)
    parameters  {"optical": ..., "sem": ...}, what was drawn
    """

    optical: np.ndarray
    sem: np.ndarray
    sem_clean: np.ndarray
    layout: Layout
    displacement: np.ndarray
    parameters: dict = field(default_factory=dict)


def signed_distance(mask: np.ndarray) -> np.ndarray:
    """Distance in pixels to the outline of a mask in [0, 1], negative inside: (height, width) float32, to a few hundredths near smooth edges, to 4 % far away.

    Close to an edge the mask blurred by a Gaussian is a normal distribution of the distance; further off, whole pixels are counted.
    """
    blurred = np.clip(cv2.GaussianBlur(np.float32(mask), (0, 0), 1.0), 1e-4, 1 - 1e-4)
    near = np.float32(-np.hypot(1, 12**-0.5)) * ndtri(blurred)
    inside = np.uint8(mask > 0.5)
    # DIST_MASK_PRECISE is not an option: its last bit changes from call to call. A frame without an edge has no distance, hence the limit.
    outward, inward = (np.minimum(cv2.distanceTransform(each, cv2.DIST_L2, 5), np.float32(sum(mask.shape))) for each in (1 - inside, inside))
    far = cv2.GaussianBlur(outward - inward - 0.5 * np.sign(outward - inward), (0, 0), 0.8)
    blend = np.clip(np.abs(near) - 1.5, 0, 1)
    return near * (1 - blend) + far * blend


# --- The electron microscope ---


def _edge_profile(metal: float, floor: float, drawn: dict, pixel_size: float) -> tuple[np.ndarray, ...]:
    """How an edge looks across: distances in pixels (negative on the metal), share of metal, shadow and white line at them.

    The white line falls off exponentially to both sides, and the shadow into the space. All of it is moved so that the crest, which a step from dark to bright
    and a longer tail pull onto the metal, lies on the edge once the probe has blurred it: equally bright one pixel to either side.
    """
    fine = 20  # samples per pixel
    x = np.arange(-40 * fine, 40 * fine + 1) / fine
    inner, outer, reach, probe, sidewall = (drawn[name] / pixel_size for name in ("inner", "outer", "shadow_length", "probe", "sidewall"))
    outside = np.maximum(x, 0)
    shapes = np.stack((np.float64(x < 0), drawn["shadow"] * np.exp(-outside / reach) * (x >= 0), np.exp(np.minimum(x, 0) / inner - outside / outer)))
    share, shadow, line = shapes = gaussian_filter1d(shapes, max(sidewall, 0.4) * fine, mode="nearest")
    seen = gaussian_filter1d(metal * share + floor * (1 - share) * (1 - shadow) + drawn["edge"] * line, probe * fine, mode="nearest")
    near = np.flatnonzero(np.abs(x - x[np.argmax(seen)]) < 1)
    crest = near[np.argmin(np.abs(seen[near + fine] - seen[near - fine]))]
    return x - x[crest], share, shadow, line


def _particles(rng: np.random.Generator, picture: np.ndarray, pixel_size: float) -> int:
    """Drop bright irregular debris with a soft shadow on the picture, in place; returns how many."""
    count = int(rng.poisson(3)) if rng.random() < 0.25 else 0
    for _ in range(count):
        radius = max(log_uniform(rng, 30, 250) / pixel_size, 1.2)
        window, distance = blob(rng, picture, *(rng.uniform(0, 1, 2) * picture.shape[::-1]), radius, log_uniform(rng, 0.75, 1.3))
        inside = coverage(distance)
        body = rng.uniform(0.35, 0.7) + 0.4 * np.exp(np.minimum(distance, 0) / max(0.3 * radius, 0.8))
        window[:] = window * (1 - inside) * (1 - 0.4 * np.exp(-np.maximum(distance, 0) / (0.5 * radius))) + body * inside
    return count


def _clean_sem(layout: Layout, rng: np.random.Generator) -> tuple[np.ndarray, dict]:
    """The secondary-electron picture before any electron is counted, and what was drawn (lengths in nm, grey levels)."""
    shape, pixel = layout.mask.shape, layout.pixel_size
    distance = signed_distance(layout.mask)
    inner = rng.uniform(20, 60)
    drawn = {
        "metal": rng.uniform(0.3, 0.55),
        "floor": rng.uniform(0.08, 0.36),
        "edge": rng.uniform(0.3, 0.6),
        "inner": inner,
        "outer": inner * rng.uniform(0.5, 0.9),
    }
    drawn |= {"sidewall": rng.uniform(6, 14), "shadow": rng.uniform(0.2, 0.6), "shadow_length": rng.uniform(60, 250), "probe": rng.uniform(6, 16)}
    x, *profiles = _edge_profile(drawn["metal"], drawn["floor"], drawn, pixel)
    share, shadow, line = (np.interp(distance, x, profile).astype(np.float32) for profile in profiles)

    grains = rng.uniform(0.01, 0.07) * polycrystal(rng, shape, max(rng.uniform(60, 220) / pixel, 3)) if rng.random() < 0.6 else 0
    fine, texture = fractal_noise(rng, shape, 1.0, smallest=2, largest=16), fractal_noise(rng, shape, rng.uniform(1.2, 2.4), smallest=2.5)
    metal = np.float32(drawn["metal"]) * (1 + np.float32(rng.uniform(0.01, 0.05)) * fine + np.float32(rng.uniform(0.01, 0.05)) * texture[::-1] + grains)
    floor = np.float32(drawn["floor"]) * (1 + np.float32(rng.uniform(0.03, 0.15)) * texture + np.float32(rng.uniform(0.02, 0.1)) * fine[:, ::-1])
    crowded = cv2.GaussianBlur(layout.mask, (0, 0), max(250 / pixel, 1))  # from narrow spaces fewer electrons escape
    floor = floor * (1 - np.float32(rng.uniform(0.2, 0.7)) * crowded) * (1 - shadow)
    detector, lean = rng.uniform(0, 2 * np.pi), rng.choice([0.0, rng.uniform(0.1, 0.45)])
    dx, dy = gradient(distance)
    side = 1 + np.float32(lean) * np.clip(dx * np.float32(np.cos(detector)) + dy * np.float32(np.sin(detector)), -1, 1)
    picture = metal * share + floor * (1 - share) + np.float32(drawn["edge"]) * line * side * (1 + np.float32(0.08) * fine)
    drawn |= {"lean": float(lean), "detector": detector, "particles": _particles(rng, picture, pixel)}
    picture = cv2.GaussianBlur(picture, (0, 0), drawn["probe"] / pixel)
    picture *= 1 + np.float32(rng.uniform(0, 0.1)) * (lobes(rng, shape) - np.float32(0.5))
    low, high = np.quantile(picture[::4, ::4], (0.002, 0.998))
    black, white = rng.uniform(0.02, 0.12), rng.uniform(0.8, 0.97)
    return np.clip(black + (white - black) * (picture - low) / (high - low + 1e-3), 0, 1).astype(np.float32), drawn


def _count_electrons(clean: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, dict]:
    """The clean picture with shot noise and a little amplifier noise, clipped to [0, 1]; electrons at white and deviation of the amplifier."""
    dose, amplifier = float(log_uniform(rng, 150, 1200)), rng.uniform(0.003, 0.012)
    image = rng.poisson(clean * dose) / np.float32(dose) + np.float32(amplifier) * rng.standard_normal(clean.shape, np.float32)
    return np.clip(image, 0, 1).astype(np.float32), {"dose": dose, "amplifier": amplifier}


def sem_view(layout: Layout, seed, noise: bool = True) -> np.ndarray:
    """The layout in a scanning electron microscope: (height, width) float32 in [0, 1], the crest of its white lines on the layout's edges.

    seed: int or sequence of ints. noise=False: what the same seed gives without counting noise.
    """
    rng = np.random.default_rng(seed)
    clean, _ = _clean_sem(layout, rng)
    return _count_electrons(clean, rng)[0] if noise else clean


# --- The superlens ---


def displacement_field(rng: np.random.Generator, shape: tuple[int, int], largest: float) -> np.ndarray:
    """A smooth displacement, (height, width, 2) float32 in pixels: shift, rotation, scale and shear, and a weak bend of second order.

    Its longest vector over the frame has 0.8 to 1 times `largest` pixels, and the mean length is about half of `largest`.
    """
    v, u = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    angle, turn, scale = rng.uniform(0, 2 * np.pi), rng.normal(), rng.normal()
    shift, shear, bend = rng.uniform(0.5, 1.5) * np.array([np.sin(angle), np.cos(angle)]), rng.normal(0, 0.4, 2), rng.normal(0, 0.2, (3, 2))
    linear = np.stack((scale * v + turn * u + shear[0] * u, scale * u - turn * v + shear[1] * u), -1) / np.hypot(turn, scale)
    vectors = shift + 0.5 * linear + np.stack((v * v - 1 / 3, u * v, u * u - 1 / 3), -1) @ bend
    return np.float32(vectors * (rng.uniform(0.8, 1) * largest / np.hypot(vectors[..., 0], vectors[..., 1]).max()))


def _reflected_light(layout: Layout, rng: np.random.Generator) -> tuple[np.ndarray, dict]:
    """Reflectance of the chip before any blur, (height, width) about 0.5, and the drawn contrast, metal less ground.

    The ground's level moves with the thickness of the transparent layer above it, through interference.
    """
    contrast = (-1 if rng.random() < INVERTED else 1) * rng.uniform(0.15, 0.55)
    tint, phase, turns = rng.uniform(0, 0.06), rng.uniform(0, 2 * np.pi), rng.uniform(0.3, 1.5)
    thickness = lobes(rng, layout.mask.shape)
    ground = 0.5 - contrast / 2 + tint * np.cos(phase + np.float32(2 * np.pi * turns) * thickness)
    metal = 0.5 + contrast / 2
    return np.float32(ground + (metal - ground) * layout.mask), {"contrast": contrast, "tint": tint}


def _blurred(image: np.ndarray, sigma: float, relative: np.ndarray) -> np.ndarray:
    """Gaussian blur of standard deviation sigma * relative(pixel), in pixels, relative 1 to `DEFOCUS`: blends of four fixed blurs."""
    levels = np.linspace(1, DEFOCUS, 4)
    place = (relative - 1) / (DEFOCUS - 1) * 3
    result = np.zeros_like(image)
    for k, level in enumerate(levels):
        weight = np.clip(1 - np.abs(place - k), 0, 1)
        if weight.any():
            result += weight * cv2.GaussianBlur(image, (0, 0), sigma * level)
    return result


def image_by_superlens(layout: Layout, seed, misalignment: float = 0.0) -> tuple[np.ndarray, np.ndarray, dict]:
    """The layout through the microsphere, blurred, unevenly lit and noisy, metal the brighter or the darker material: (height, width) float32 in [0, 1]; with
    it the displacement as in `ChipPair`, no longer than `misalignment` pixels anywhere, and what was drawn. seed: int or sequence of ints.

    Drawn: fwhm of the point spread in nm (standard deviation fwhm / 2.355) and relative_blur (height, width), its local factor from defocus; contrast with
    its sign; vignetting, the share of light lost at the corner furthest from vignetting_centre (row, column in pixels); electrons at white and readout noise.
    The chip is taken to be mirrored beyond the frame. ValueError for a negative misalignment.
    """
    if not misalignment >= 0:
        raise ValueError(f"the misalignment must be 0 or more pixels, got {misalignment}")
    rng, shape, pixel = np.random.default_rng(seed), layout.mask.shape, layout.pixel_size
    v, u = (np.linspace(-1, 1, n, dtype=np.float32) for n in shape)
    light, drawn = _reflected_light(layout, rng)
    height = lobes(rng, shape)
    focus, worst = np.float32(rng.uniform(0, 1)), np.float32(rng.uniform(1, DEFOCUS))
    relative = 1 + (worst - 1) * np.clip(np.abs(height - focus) / max(focus, 1 - focus), 0, 1)
    fwhm = rng.uniform(*RESOLUTION)
    light = _blurred(light, fwhm / FWHM_PER_SIGMA / pixel, relative)
    displacement = displacement_field(rng, shape, misalignment)
    if misalignment:
        rows, columns = (np.arange(n, dtype=np.float32) for n in shape)
        light = cv2.remap(light, columns + displacement[..., 1], rows[:, None] + displacement[..., 0], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)

    vignetting, (y, x) = rng.uniform(0, 0.35), rng.uniform(-0.25, 0.25, 2)
    radius2 = (v[:, None] - np.float32(y)) ** 2 + (u - np.float32(x)) ** 2
    rings = rng.uniform(0, 0.025) * np.cos(np.float32(rng.uniform(10, 60)) * radius2 + np.float32(rng.uniform(0, 6.3)))
    direction, period = rng.uniform(0, np.pi), rng.uniform(0.08, 0.4)
    fringes = rng.uniform(0, 0.015) * np.cos(np.float32(2 * np.pi / period) * (np.float32(np.sin(direction)) * v[:, None] + np.float32(np.cos(direction)) * u))
    slow = 1 + rng.uniform(0, 0.1) * (lobes(rng, shape) - 0.5)
    light = light * (1 - vignetting * radius2 / radius2.max()) * (1 + rings + fringes) * slow
    light = np.clip(light * (rng.uniform(0.7, 0.97) / np.quantile(light[::4, ::4], 0.995)), 0, 1)
    electrons, readout = log_uniform(rng, 800, 10000), rng.uniform(1.5, 6)
    image = (rng.poisson(light * electrons) + readout * rng.standard_normal(shape)) / electrons
    drawn |= {"fwhm": fwhm, "relative_blur": np.float32(relative), "vignetting": vignetting, "electrons": float(electrons), "readout": readout}
    drawn["vignetting_centre"] = ((y + 1) * (shape[0] - 1) / 2, (x + 1) * (shape[1] - 1) / 2)
    return np.clip(image, 0, 1).astype(np.float32), displacement, drawn


# --- Pairs ---


def simulate_pair(
    seed, shape: tuple[int, int] = (512, 512), pixel_size: float = 20.0, misalignment: float = 0.0, draw: Callable[..., Layout] = draw_layout
) -> ChipPair:
    """A chip in both microscopes; a function of its arguments alone. seed: int or sequence of ints; pixel_size in nm; misalignment in pixels.

    draw: what draws the layout, `layouts.draw_layout` or `draw_curves`; what both microscopes draw does not depend on it.
    The layout and the SEM pictures do not depend on the misalignment. ValueErrors as in `draw_layout` and `image_by_superlens`.
    """
    chip, electrons, light = np.random.SeedSequence(seed).spawn(3)
    layout = draw(chip, shape, pixel_size)
    optical, displacement, seen = image_by_superlens(layout, light, misalignment)
    rng = np.random.default_rng(electrons)
    clean, drawn = _clean_sem(layout, rng)
    sem, noise = _count_electrons(clean, rng)
    return ChipPair(optical, sem, clean, layout, displacement, {"optical": seen, "sem": drawn | noise})


def look(out: Path, seed: int = 0, pairs: int = 6) -> None:
    """Draw a contact sheet of simulated pairs: optical, SEM, and SEM less optical about mid-grey.

    Args:
        out: the picture to write, such as sheet.png.
        seed: of the pairs.
        pairs: how many, one row each.
    """
    if not (out.parent.is_dir() and cv2.haveImageWriter(str(out))):
        raise ValueError(f"cannot write {out}; give a file name such as sheet.png in an existing folder")
    drawn = [simulate_pair((seed, k), misalignment=3.0) for k in range(pairs)]
    sheet = np.vstack([np.hstack([pair.optical, pair.sem, (1 + pair.sem - pair.optical) / 2]) for pair in drawn])
    cv2.imwrite(str(out), np.round(sheet * 255).astype(np.uint8))


if __name__ == "__main__":
    from common.__main__ import run_tool

    raise SystemExit(run_tool(look, "python -m paper_ssum_cyclegan.simulator", tensorflow=False))
