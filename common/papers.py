"""The contract between a paper and everything else: command line, restoring, export, demo and comparison know papers only through `Paper`."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from numbers import Integral
from typing import Any

PACKAGES = ("paper_sem_gan", "paper_dlss", "paper_semnet", "paper_ssum_cyclegan", "paper_cgrdn")  # a sixth paper is one more name here

STEPS = range(2, 17)  # scan steps that can be asked for


@dataclass(frozen=True, eq=False)
class Paper:
    """One paper. Images below are (batch, height, width, 1) float32; the functions that take them use `keras.ops`, so exported graphs contain them.

    name, title, citation: what it is called, what it does in one line, what to cite.
    scale: output pixels per input pixel and axis; None where the user's scan step decides: see `scaled`.
    presets: "paper" (faithful), "small" (weights shipped), "tiny" (tests), as Config objects.
    build_generator: config -> keras.Model, the bare network in its own range.
    build_discriminator: config -> keras.Model, a list of them, or None where the paper has none.
    statistics: (raw images, dtype of the file's pixels) -> state, a tensor whose first axis is the batch; taken once per image, never per tile.
    prepare: (raw images, state) -> network input. finish: (network output, state) -> images in raw intensities.
    halo: config -> input pixels around a pixel that can change its restoration, None where no finite number exists (instance normalisation).
    multiple: the network wants input sides divisible by this.
    symmetries: flips under which the physics of the acquisition is unchanged, of "flip_rows", "flip_columns", "transpose".
    acquire: (restored (height * scale, width * scale) raw intensities) -> (n, height, width) float32, what the microscope could have recorded of it, noise
        aside: one image for each allowed setting of what is unknown (the blur, say).
    classical: (raw (height, width), state, standard deviation of the image's noise) -> (height * scale, width * scale), the classical method to blend with.
    train: (config, out, resume=False, **data options) -> None, leaves a run folder.
    evaluate: (out, weights="small", seed=0, **data options) -> items, leaves results.json with tables and figures.
    samples: seed -> list of (name, degraded Micrograph, truth array in the same units, `scale` times as large), for the demo.
    at_step: step -> the Paper whose scale is that scan step; only where `scale` is None, and then what depends on the step raises ValueError without one.
    scan_steps: config -> the steps that a network was trained for, ValueError where it cannot restore any scan; only where `scale` is None.
    """

    name: str
    title: str
    citation: str
    scale: int | None
    presets: Mapping[str, Any]
    build_generator: Callable
    build_discriminator: Callable
    statistics: Callable
    prepare: Callable
    finish: Callable
    halo: Callable
    multiple: int
    symmetries: tuple[str, ...]
    acquire: Callable
    classical: Callable
    train: Callable
    evaluate: Callable
    samples: Callable
    at_step: Callable | None = None
    scan_steps: Callable | None = None

    def scaled(self, step: int | None, config, force: bool = False) -> Paper:
        """This paper with a scale: itself, or at the scan step given, which is one that the network of `config` was trained for unless forced.

        ValueError where a step is given to a paper that has a scale, and where it is missing, not in STEPS or unknown to the network.
        """
        if self.scale is not None:
            if step is not None:
                raise ValueError(f"{self.name} always enlarges by {self.scale}; step is for papers that supersample sparse scans")
            return self
        known = self.scan_steps(config)
        steps = ", ".join(map(str, known))
        if step is None:
            raise ValueError(f"{self.name} needs the scan step: pixels per scan point, e.g. --step {known[0]}; these weights know {steps}")
        if not isinstance(step, Integral) or step not in STEPS:
            raise ValueError(f"step must be an integer from {STEPS[0]} to {STEPS[-1]}, got {step}")
        if step not in known and not force:
            raise ValueError(f"these weights of {self.name} know the steps {steps}, not {step}; add --force to use them all the same")
        return _at_step(self, int(step))


@lru_cache(maxsize=len(STEPS))
def _at_step(paper: Paper, step: int) -> Paper:
    """The same object for the same step: graphs are kept by paper."""
    return paper.at_step(step)


class lazy:
    """A function "package.module:name" that is imported when first called: listing papers must not load TensorFlow."""

    def __init__(self, target: str):
        self.target = target

    @property
    def __wrapped__(self) -> Callable:
        module, name = self.target.split(":")
        return getattr(importlib.import_module(module), name)

    def __call__(self, *args, **kwargs):
        return self.__wrapped__(*args, **kwargs)


def papers() -> dict[str, Paper]:
    """The papers that exist, by name."""
    found = {}
    for package in PACKAGES:
        if importlib.util.find_spec(package):
            found[package.removeprefix("paper_")] = importlib.import_module(package).PAPER
    return found


def paper(name: str) -> Paper:
    """One paper by name; ValueError lists the known ones."""
    known = papers()
    if name not in known:
        raise ValueError(f"unknown paper {name!r}; known are {', '.join(known)}")
    return known[name]


def require(config, names: Iterable[str], rule: str, holds: Callable[[Any], bool]) -> None:
    """ValueError "NAME must be RULE, got VALUE" for the first of a Config's fields whose value breaks a rule; NaN breaks every comparison."""
    for name in names:
        if not holds(getattr(config, name)):
            raise ValueError(f"{name} must be {rule}, got {getattr(config, name)}")


def config_to_dict(config) -> dict:
    """A Config as plain JSON-ready values."""
    return dataclasses.asdict(config)


def config_from_dict(cls: type, values: Mapping):
    """A Config from plain values. Missing keys take their defaults, unknown keys are a ValueError: a typing error must not train the wrong network."""
    if not isinstance(values, Mapping):
        raise ValueError(f"a {cls.__name__} is a table of values, got {values!r}")
    hints = typing.get_type_hints(cls)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise ValueError(f"unknown {cls.__name__} keys {', '.join(unknown)}; known are {', '.join(hints)}")

    def convert(value, hint):
        if dataclasses.is_dataclass(hint):
            return config_from_dict(hint, value)
        return tuple(value) if typing.get_origin(hint) is tuple else value

    return cls(**{key: convert(value, hints[key]) for key, value in values.items()})
