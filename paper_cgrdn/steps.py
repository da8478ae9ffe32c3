"""The numbers of each distortion, drawn from a recipe: what stands between the ranges of `recipes` and the equations of `camera` and `scanning`."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np

from common.specimens.base import log_uniform

from . import camera, scanning
from .recipes import Range, Recipe


@dataclass
class Frame:
    """What the steps of one pair share; `flyback` is in dwell times."""

    recipe: Recipe
    rng: np.random.Generator
    dose: float
    shape: tuple[int, int]
    only: Collection[str] | None
    flyback: float = 0.0
    draws: list[tuple[str, dict]] = field(default_factory=list)

    def happens(self, name: str) -> bool:
        """Whether an optional step happens: by its probability, or by whether it was asked for."""
        return self.rng.random() < getattr(self.recipe, f"{name}_probability", 0.0) if self.only is None else name in self.only

    def record(self, name: str, **numbers) -> None:
        self.draws.append((name, {key: plain(value) for key, value in numbers.items()}))

    def uniform(self, bounds: Range, size=None):
        return self.rng.uniform(*bounds, size)

    def log(self, bounds: Range, size=None):
        return log_uniform(self.rng, *bounds, size)

    def up_to(self, highest: int) -> int:
        return int(self.rng.integers(1, highest + 1))


def plain(value):
    """Numbers and nested tuples of Python's own, so that draws can be compared and written as JSON."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    return tuple(map(plain, value)) if isinstance(value, (list, tuple)) else value.item() if isinstance(value, np.generic) else value


# --- Steps: (counts, frame) -> counts, and the numbers drawn ---


def transfer(frame: Frame) -> dict:
    """Parameters of `camera.mtf`."""
    r = frame.recipe
    return {"a": frame.uniform(r.mtf_a), "b": frame.uniform(r.mtf_b), "c": frame.uniform(r.mtf_c)}


def _noise_transfer(x, frame):
    numbers = transfer(frame)
    return camera.noise_transfer(x, **numbers), numbers


def _dark_current(x, frame):
    electrons = frame.log(frame.recipe.dark_current)
    return camera.dark_current(x, electrons, frame.rng), {"electrons": electrons}


def _readout(x, frame):
    deviation = frame.log(frame.recipe.readout) * frame.dose**0.5
    return camera.readout(x, deviation, frame.rng), {"deviation": deviation}


def _quadrants(x, frame):
    r, rng = frame.recipe, frame.rng
    split = tuple(n // 2 + int(rng.integers(-r.quadrant_shift, r.quadrant_shift + 1)) for n in x.shape)
    numbers = {"gains": rng.normal(1, r.quadrant_gain, (2, 2)), "offsets": frame.uniform(r.quadrant_offset, (2, 2)), "split": split}
    return camera.quadrants(x, **numbers), numbers


def _gain_pattern(x, frame):
    deviation = frame.uniform(frame.recipe.gain_pattern)
    return camera.gain_pattern(x, deviation, frame.rng), {"deviation": deviation}


def _bands(x, frame):
    r, count, axis = frame.recipe, frame.up_to(frame.recipe.bands), int(frame.rng.integers(2))
    centres = frame.uniform((0, x.shape[axis]), count)
    numbers = {"centres": centres, "amplitudes": frame.uniform(r.band_gain, count), "widths": frame.uniform(r.band_width, count), "axis": axis}
    return camera.bands(x, **numbers), numbers


def _hits(x, frame):
    r, rate, excess = frame.recipe, frame.log(frame.recipe.hit_rate), frame.uniform(frame.recipe.hit_excess)
    x, pixels = camera.xray_hits(x, rate, r.hit_length, excess, frame.rng)
    return x, {"rate": rate, "excess": excess, "pixels": pixels}


def _dead_pixels(x, frame):
    r, rate = frame.recipe, frame.uniform(frame.recipe.dead_rate)
    x, pixels = camera.dead_pixels(x, rate, r.dead_length, r.dead_level, frame.rng)
    return x, {"rate": rate, "pixels": pixels}


def _clipping(x, frame):
    numbers = {"lower": frame.uniform(frame.recipe.clip_lower), "upper": frame.uniform(frame.recipe.clip_upper)}
    return camera.clipping(x, **numbers), numbers


def _quantise(x, frame):
    gain = frame.log(frame.recipe.gain)
    return camera.quantise(x, gain), {"gain": gain}


def _response(x, frame):
    fast, w = frame.log(frame.recipe.response), frame.uniform(frame.recipe.slow_share)
    slow = fast * frame.log(frame.recipe.slow_lifetime)
    return scanning.fast_scan_response(x, scanning.decay(fast), w, scanning.decay(slow)), {"lifetime": fast, "slow_share": w, "slow_lifetime": slow}


def _pmt_noise(x, frame):
    deviation = frame.uniform(frame.recipe.pmt_noise)
    return scanning.pmt_noise(x, deviation, frame.rng), {"deviation": deviation}


def _row_offsets(x, frame):
    deviation, rho = frame.uniform(frame.recipe.row_offsets) * frame.dose**0.5, frame.uniform(frame.recipe.row_correlation)
    offsets = scanning.row_offsets(len(x), deviation, rho, frame.rng)
    return x + offsets, {"deviation": deviation, "rho": rho, "offsets": offsets[:, 0]}


def _line_dropouts(x, frame):
    (height, width), r, count = x.shape, frame.recipe, frame.up_to(frame.recipe.line_dropouts)
    lengths = np.rint(width * frame.uniform(r.dropout_length, count)).astype(int)
    starts = frame.rng.integers(width - lengths + 1)
    numbers = {"rows": frame.rng.integers(height, size=count), "starts": starts, "lengths": lengths, "levels": frame.uniform(r.dropout_level, count)}
    return scanning.line_dropouts(x, **numbers), numbers


def _hum(x, frame):
    r = frame.recipe
    numbers = {"amplitude": frame.uniform(r.hum), "dwell": frame.log(r.dwell), "flyback": frame.flyback, "phase": frame.uniform((0, 2 * np.pi))}
    return scanning.hum(x, **numbers), numbers


def _charging(x, frame):
    numbers = {"amplitude": frame.uniform(frame.recipe.charging), "lifetime": frame.log(frame.recipe.charging_lifetime)}
    return scanning.charging(x, **numbers), numbers


def _intensity_drift(x, frame):
    amplitude = frame.uniform(frame.recipe.intensity_drift)
    return scanning.intensity_drift(x, amplitude), {"amplitude": amplitude}


ENDING = {"clipping": _clipping, "quantise": _quantise, "eight_bit": lambda x, frame: (camera.eight_bit(x), {})}
CAMERA = {
    "noise_transfer": _noise_transfer,
    "dark_current": _dark_current,
    "readout": _readout,
    "quadrants": _quadrants,
    "gain_pattern": _gain_pattern,
    "bands": _bands,
    "xray_hits": _hits,
    "dead_pixels": _dead_pixels,
} | ENDING
SCAN = {
    "charging": _charging,
    "intensity_drift": _intensity_drift,
    "response": _response,
    "pmt_noise": _pmt_noise,
    "readout": _readout,
    "row_offsets": _row_offsets,
    "line_dropouts": _line_dropouts,
    "hum": _hum,
    "hot_pixels": _hits,
    "dead_pixels": _dead_pixels,
} | ENDING
