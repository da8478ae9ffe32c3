"""The command line: `empapers` or `python -m common`. Bad input ends in one line on stderr and exit status 2."""

from __future__ import annotations

import contextlib
import inspect
import io
import os
import re
import sys
import warnings
from collections import Counter
from pathlib import Path
from typing import Annotated, Literal

import tyro

from .devices import Devices, strategy
from .papers import config_from_dict, paper, papers

USAGE = """usage: empapers COMMAND ...

  papers                                list the papers that exist
  demo [--input FILE] [--out DIR]       restore sample micrographs with every paper and write a report
  train PAPER [--preset P] --out RUN    train; every number of the paper is a flag
  evaluate PAPER --out DIR              measure; results.json, tables, figures
  restore PAPER IN... --out DIR         restore micrographs, calibration kept
  export PAPER --format F --out PATH    SavedModel or ONNX, raw intensities in and out

empapers COMMAND PAPER --help says more, and empapers demo --help."""


class UsageError(ValueError):
    """The command line itself is wrong."""


def parse(function, arguments: list[str], prog: str, tensorflow: bool = True):
    """Call `function` with its parameters taken from flags; wrong flags become a UsageError of one line."""
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            call = tyro.cli(_deferred(function), args=arguments, prog=prog)
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        lines = [re.sub(r"[╭╮╰╯│─]+", " ", line).strip() for line in printed.getvalue().splitlines()]
        text = " ".join(line for line in lines if line).split(" For full helptext")[0].removeprefix("Parsing error").strip()
        raise UsageError(f"{re.sub(' +', ' ', text)} (see {prog} --help)") from None
    if tensorflow:
        start_tensorflow()
    return call()


def start_tensorflow() -> None:
    """Import TensorFlow without the lines that its C++ part writes to stderr before any setting reaches it; errors are raised, so nothing is lost."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        import tensorflow as tf

        tf.config.list_physical_devices()
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _deferred(function):
    """The same signature, but it returns the call instead of making it: errors of parsing and of running must not mix."""

    def defer(*args, **kwargs):
        return lambda: function(*args, **kwargs)

    defer.__signature__, defer.__doc__, defer.__name__ = inspect.signature(function, eval_str=True), function.__doc__, function.__name__
    defer.__annotations__ = {n: p.annotation for n, p in defer.__signature__.parameters.items()}
    return defer


def with_config(function, config):
    """A training function with `config`'s fields as flags of their own, its values as defaults, and without what no flag can say."""
    signature = inspect.signature(function, eval_str=True)
    parameters = []
    for name, parameter in signature.parameters.items():
        if name == "config":
            parameter = parameter.replace(annotation=Annotated[type(config), tyro.conf.arg(name="")], default=config, kind=parameter.KEYWORD_ONLY)
        elif name == "strategy":
            told = tyro.conf.arg(help="one device, all GPUs of this machine, or the workers that the environment variable TF_CONFIG names.")
            parameter = parameter.replace(name="devices", annotation=Annotated[Devices, told], default="one", kind=parameter.KEYWORD_ONLY)
        elif name == "resume":
            told = tyro.conf.arg(help="go on with the run in --out from its last checkpoint, or start where there is none.")
            parameter = parameter.replace(annotation=Annotated[bool, told], kind=parameter.KEYWORD_ONLY)
        else:
            parameter = parameter.replace(kind=parameter.KEYWORD_ONLY)
        parameters.append(parameter)

    def call(devices: Devices = "one", **kwargs):
        return function(**kwargs) if devices == "one" else function(**kwargs, strategy=strategy(devices))

    call.__signature__, call.__doc__, call.__name__ = signature.replace(parameters=parameters), function.__doc__, function.__name__
    return call


def take_paper(arguments: list[str], prog: str):
    """The paper named first among the arguments, and the rest."""
    if not arguments or arguments[0].startswith("-"):
        raise UsageError(f"name a paper first: {prog} PAPER ...; known are {', '.join(papers())}")
    return paper(arguments[0]), arguments[1:]


# --- Commands ---


def papers_command(arguments: list[str]) -> None:
    if arguments:
        raise UsageError(f"papers takes no arguments, got {' '.join(arguments)}")
    for name, entry in papers().items():
        print(f"{name:16}x{entry.scale or 's'}  {entry.title}  [{entry.citation}]")


def train_command(arguments: list[str]) -> None:
    chosen, rest = take_paper(arguments, "empapers train")
    preset = "small"
    for k, word in enumerate(rest):
        if word == "--preset" or word.startswith("--preset="):
            preset = word.partition("=")[2] or (rest[k + 1] if k + 1 < len(rest) else "")
            rest = rest[:k] + rest[k + (1 if "=" in word else 2) :]
            break
    if preset not in chosen.presets:
        raise UsageError(f"unknown preset {preset!r} of {chosen.name}; known are {', '.join(chosen.presets)}")
    start_tensorflow()
    function = with_config(inspect.unwrap(chosen.train), chosen.presets[preset])
    parse(function, rest, f"empapers train {chosen.name}")


def evaluate_command(arguments: list[str]) -> None:
    chosen, rest = take_paper(arguments, "empapers evaluate")
    start_tensorflow()
    items = parse(inspect.unwrap(chosen.evaluate), rest, f"empapers evaluate {chosen.name}")
    for name, entry in items.items():
        print(f"{name}: {entry['value']:.4g} {entry['unit']}")


def restore_command(arguments: list[str]) -> None:
    chosen, rest = take_paper(arguments, "empapers restore")

    def restore_files(
        files: tyro.conf.Positional[tuple[Path, ...]],
        out: Path,
        weights: str = "small",
        frame: int | None = None,
        step: int | None = None,
        force: bool = False,
        tile: int | None = None,
        exact: bool = False,
        strength: float = 1.0,
        ensemble: bool = False,
        trust: bool = False,
        keep_bar: bool = False,
        as_float: bool = False,
        precision: str = "float32",
    ) -> None:
        """Restore micrographs (files, or folders of them) into a folder: TIFF with calibration, PNG for PNG and JPEG input without.

        Args:
            files: micrographs, or folders of micrographs.
            out: folder for the results, made if missing; existing results are replaced.
            weights: a shipped name, a .weights.h5 file or a run folder.
            frame: which image of a stack, from 0.
            step: scan step in pixels per scan point, for papers that supersample.
            force: allow a step that the weights were not trained for.
            tile: side of a tile in input pixels.
            exact: make tiles equal the whole image, where that is possible.
            strength: from 0 (the classical method) to 1 (the network).
            ensemble: average over the mirror images that the acquisition knows; a little better, at twice the work (ssum_cyclegan: eight times).
            trust: also write NAME_trust.tif, float32 in the image's units: how much each pixel is to be doubted.
            keep_bar: restore the data bar too, which is left out otherwise where the file says that it has one.
            as_float: take integers as float32: results keep fractions, and 8-bit images get the black and white of their own grey values.
            precision: float32, mixed_bfloat16, mixed_float16 or auto.
        """
        import numpy as np

        from .data import image_files
        from .micrograph import load_micrograph, save_micrograph
        from .restoring import find_weights, restore

        if not files:
            raise UsageError("name at least one micrograph to restore")
        _, card = find_weights(chosen, weights)
        chosen.scaled(step, config_from_dict(type(chosen.presets["paper"]), card["config"]), force)  # a wrong step is said once, not for every file
        inputs = [f for path in files for f in (image_files(path) if path.is_dir() else [path])]
        names = result_names(inputs, chosen.name if frame is None else f"f{frame}_{chosen.name}")
        check_out(out, files, inputs, [more for name in names for more in (name, f"{name}_trust")])
        failures = []
        for path, name in zip(inputs, names, strict=True):
            try:
                micrograph = load_micrograph(path, frame=frame, keep_bar=keep_bar)
                if as_float:
                    micrograph = micrograph.replace(data=micrograph.data.astype(np.float32))
                options = {"weights": weights, "step": step, "force": force, "tile": tile, "exact": exact, "strength": strength, "ensemble": ensemble}
                restored = restore(micrograph, chosen, **options, precision=precision, return_trust=trust, progress=True)
                restored, doubt = restored if trust else (restored, None)
                if frame is not None:
                    restored.metadata["restored"]["frame"] = frame
                png = path.suffix.lower() in (".png", ".jpg", ".jpeg") and restored.pixel_size is None and not as_float
                target = out / f"{name}{'.png' if png else '.tif'}"
                out.mkdir(parents=True, exist_ok=True)
                save_micrograph(target, restored)
                if doubt is not None:
                    save_micrograph(target.with_name(f"{target.stem}_trust.tif"), doubt)
            except (ValueError, OSError, MemoryError) as error:
                failures.append(error)
                if len(inputs) > 1:
                    print(f"empapers: {first_line(error)}", file=sys.stderr)
                continue
            size = "no pixel size" if restored.pixel_size is None else f"{restored.pixel_size:.6g} nm/px"
            print(f"{path} {micrograph.data.shape} {micrograph.data.dtype} -> {target} {restored.data.shape} {size}")
        if failures:
            raise failures[0] if len(inputs) == 1 else ValueError(f"{len(failures)} of {len(inputs)} files could not be restored")

    parse(restore_files, rest, f"empapers restore {chosen.name}")


def result_names(inputs: list[Path], suffix: str) -> list[str]:
    """STEM_suffix for every input; the extension as well where two inputs differ by nothing else. UsageError where two still have one name."""
    counts = Counter(path.stem for path in inputs)
    names = [f"{path.stem if counts[path.stem] == 1 else path.name.replace('.', '_')}_{suffix}" for path in inputs]
    twins = sorted(name for name, count in Counter(names).items() if count > 1)
    if twins:
        raise UsageError(f"several inputs would be written to {', '.join(twins)}; restore them into different folders")
    return names


def check_out(out: Path, named: tuple[Path, ...], inputs: list[Path], results: list[str]) -> None:
    """UsageError, before anything is done, where results could not be written, or would stand among the inputs; results: their names without extension."""
    existing = next(path for path in (out, *out.absolute().parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise UsageError(f"cannot write into {out}: {existing} is {'read-only' if existing.is_dir() else 'no folder'}; choose another --out")
    if any(path.is_dir() and path.resolve() == out.resolve() for path in named):
        raise UsageError(f"{out} is a folder of inputs: results there would be restored themselves the next time; choose another --out")
    lost = [path for path in inputs if path.resolve().parent == out.resolve() and path.stem in results]
    if lost:
        raise UsageError(f"{lost[0]} is an input, and a result would replace it; choose another --out")


def export_command(arguments: list[str]) -> None:
    chosen, rest = take_paper(arguments, "empapers export")

    def export_model(
        format: Literal["savedmodel", "onnx"],
        out: Path,
        weights: str = "small",
        pixels: Literal["float32", "uint8"] = "float32",
        step: int | None = None,
        force: bool = False,
    ) -> None:
        """Export the whole way from raw intensities to raw intensities, float32, any height and width.

        Args:
            format: savedmodel (a folder) or onnx (a file).
            out: where to write; must not exist.
            weights: a shipped name, a .weights.h5 file or a run folder.
            pixels: what the model will be fed, always as float32 numbers; uint8 says that they come from 8-bit images.
            step: scan step in pixels per scan point, for papers that supersample; the model is for this one.
            force: allow a step that the weights were not trained for.
        """
        from .export import TOLERANCE, export

        written = export(chosen, format, out, weights, pixels, step, force)
        print(f"done: {written} (checked against the network to {TOLERANCE:g} of the range)")

    parse(export_model, rest, f"empapers export {chosen.name}")


def demo_command(arguments: list[str]) -> None:
    start_tensorflow()
    from .demo import demo

    parse(demo, arguments, "empapers demo")


COMMANDS = {
    "papers": papers_command,
    "demo": demo_command,
    "train": train_command,
    "evaluate": evaluate_command,
    "restore": restore_command,
    "export": export_command,
}


def first_line(error: BaseException) -> str:
    """What an error says, without the names of graph nodes that TensorFlow puts first."""
    unsaid = "out of memory; close other programs or take a smaller image" if isinstance(error, MemoryError) else type(error).__name__
    lines = [re.sub(r"^\{\{.*?\}\} ?", "", line) for line in (str(error) or unsaid).splitlines()]
    return next((line for line in lines if line.strip() and line not in ("Graph execution error:", "in user code:")), unsaid)


def guarded(action, *arguments) -> int:
    """Run an action of the command line; returns the exit status. Expected failures end in one line on stderr, warnings are one line too."""
    warnings.showwarning = lambda message, *rest, **more: print(f"empapers: warning: {first_line(message)}", file=sys.stderr)
    try:
        action(*arguments)
    except KeyboardInterrupt:
        print("empapers: interrupted", file=sys.stderr)
        return 130
    except (ValueError, OSError, MemoryError, ImportError, RuntimeError, AssertionError, *library_errors()) as error:
        print(f"empapers: {first_line(error)}", file=sys.stderr)
        return 2
    return 0


def library_errors() -> tuple[type[Exception], ...]:
    """What OpenCV and TensorFlow raise when memory, disk or a file lets them down; neither is an OSError."""
    import cv2

    tensorflow = sys.modules.get("tensorflow")
    return (cv2.error, tensorflow.errors.OpError) if tensorflow else (cv2.error,)


def run_tool(function, prog: str, tensorflow: bool = True) -> int:
    """The command line of a tool that only one paper has (`python -m paper_x.tool`); returns the exit status. Not all need TensorFlow, which takes seconds."""
    return guarded(parse, function, sys.argv[1:], prog, tensorflow)


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        return 0 if arguments else 2
    if arguments[0] not in COMMANDS:
        print(f"empapers: unknown command {arguments[0]!r}; known are {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    return guarded(COMMANDS[arguments[0]], arguments[1:])


def script() -> None:
    """The installed `empapers` command."""
    raise SystemExit(main())


if __name__ == "__main__":
    script()
