"""Simulated chips against the truth that they carry: areas, fitted edges, resampled views, moments of the noise."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from scipy.ndimage import map_coordinates
from scipy.optimize import curve_fit
from scipy.special import erf

from paper_ssum_cyclegan.layouts import CURVES, KINDS, Layout, draw_curves, draw_layout, paint
from paper_ssum_cyclegan.simulator import displacement_field, image_by_superlens, look, sem_view, signed_distance, simulate_pair

NO_LINES = np.zeros((0, 5))


@pytest.fixture(scope="module")
def layouts():
    return [draw_layout((3, k)) for k in range(8)]


def edge_at(place, shape=(192, 128), pixel_size=20.0, metal_left=True):
    """A layout of one vertical edge at a column coordinate (pixel centres are whole numbers)."""
    share = np.clip(place + 0.5 - np.arange(shape[1]), 0, 1)
    return Layout(np.tile(np.float32(share if metal_left else 1 - share), (shape[0], 1)), pixel_size, NO_LINES)


def across(image, line, pixel_size, reach, half=18):
    """Pixels about a line of `Layout.lines`, averaged along it: their offsets from the line's centre, and the profile."""
    row, column, width, _, vertical = line
    along, place, image = (row, column, image) if vertical else (column, row, image.T)
    columns = np.arange(int(place - reach), int(place + reach) + 2)
    columns = columns[(columns >= 0) & (columns < image.shape[1])]
    return columns - place, image[round(along) - half : round(along) + half + 1, columns].mean(0)


# --- Layouts ---


def test_layouts_are_functions_of_the_seed(layouts):
    again = draw_layout((3, 0))
    np.testing.assert_array_equal(layouts[0].mask, again.mask)
    np.testing.assert_array_equal(layouts[0].lines, again.lines)
    assert layouts[0].parameters == again.parameters
    assert np.abs(layouts[0].mask - layouts[1].mask).mean() > 0.1
    for layout in layouts:
        assert layout.mask.shape == (512, 512) and layout.mask.dtype == np.float32 and layout.mask.min() == 0 and layout.mask.max() == 1
        assert 0.1 < layout.mask.mean() < 0.75


def test_widths_pitches_and_kinds_are_those_asked_for():
    drawn = [draw_layout((8, k), (256, 256)) for k in range(40)]
    blocks = [block for layout in drawn for block in layout.parameters["blocks"]]
    assert {block["kind"] for block in blocks} == set(KINDS)
    assert np.mean([len({block["kind"] for block in layout.parameters["blocks"]}) > 1 for layout in drawn]) > 0.3
    widths, ratios = (np.array([f(block) for block in blocks]) for f in (lambda b: b["line_width"], lambda b: b["pitch"] / b["line_width"]))
    assert 80 <= widths.min() < 95 and 250 < widths.max() <= 400
    assert 1.6 <= ratios.min() < 1.8 and 2.8 < ratios.max() <= 3
    angles = np.array([layout.parameters["angle"] for layout in drawn])
    assert np.abs(angles).max() <= 1 and 0.3 < (angles == 0).mean() < 0.7


def test_true_widths_and_centres_are_those_of_the_mask(layouts):
    errors, offsets = [], []
    for layout in layouts:
        for line in layout.lines:
            x, profile = across(layout.mask, line, 20.0, line[2] / 40 + 1.3)
            errors.append(profile.sum() * 20 - line[2])
            offsets.append((x * profile).sum() / profile.sum() * 20)
    assert len(errors) > 500
    assert np.mean(errors) == pytest.approx(0, abs=0.4) and np.std(errors) < 2.5  # nm; roughness is a deviation of 1.5 to 5 at every place
    assert np.mean(offsets) == pytest.approx(0, abs=0.3) and np.std(offsets) < 2
    assert min(layout.lines[:, 2].min() for layout in layouts if len(layout.lines)) >= 80


def test_true_pitches_are_distances_of_equal_neighbours(layouts):
    found = 0
    for layout in layouts:
        inner = np.all((layout.lines[:, :2] > 80) & (layout.lines[:, :2] < 432), axis=1)
        for line in layout.lines[np.isfinite(layout.lines[:, 3]) & inner]:
            reach, x = line[3] / 20, None
            x, profile = across(layout.mask, line, 20.0, reach + line[2] / 40 + 1)
            for side in (-1, 1):
                near = np.abs(x - side * reach) < line[2] / 40 + 1.3
                assert (x * profile)[near].sum() / profile[near].sum() == pytest.approx(side * reach, abs=0.4)
                assert profile[near].sum() * 20 == pytest.approx(line[2], abs=10)
            found += 1
    assert found > 100


def test_roughness_has_the_drawn_deviation_and_moves_no_edge(layouts):
    ratios = []
    for seed in range(60):
        layout = draw_layout((12, seed), (256, 256))
        if layout.parameters["angle"] != 0:
            continue
        for row, column, width, _, vertical in layout.lines:
            mask = layout.mask if vertical else layout.mask.T
            along, place = (row, column) if vertical else (column, row)
            piece = mask[round(along) - 18 : round(along) + 19, int(place) : int(place + width / 40 + 2.3)]
            ratios.append(np.mean((piece.sum(1) + int(place) - 0.5 - place - width / 40) ** 2) * 400 / layout.parameters["edge_roughness"] ** 2)
    assert len(ratios) > 200 and np.mean(ratios) ** 0.5 == pytest.approx(1, abs=0.12)


def test_curves_have_the_drawn_width_and_share():
    """Lines of one width have twice its reciprocal in outline for each unit of area, however they run."""
    drawn = [draw_curves((4, k)) for k in range(60)]
    assert {layout.parameters["kind"] for layout in drawn} == set(CURVES) and not any(len(layout.lines) for layout in drawn)
    np.testing.assert_array_equal(drawn[0].mask, draw_curves((4, 0)).mask)
    found = {kind: [] for kind in CURVES}
    for layout in drawn:
        drawn_width, pitch = (layout.parameters[name] / 20 for name in ("line_width", "pitch"))
        outline = np.hypot(*np.gradient(layout.mask)).sum()
        found[layout.parameters["kind"]].append((2 * layout.mask.sum() / outline / drawn_width, layout.mask.mean() * pitch / drawn_width))
    for kind, width, share in (("rings", 0.04, 0.01), ("labyrinth", 0.15, 0.01)):
        assert np.all(np.abs(np.mean(found[kind], axis=0) - 1) < (width, share))


def test_spokes_have_their_width_at_the_disc():
    centred = SimpleNamespace(uniform=lambda low, high: high / 2)
    y, x = np.indices((512, 512), dtype=np.float32)
    distance = CURVES["spokes"](centred, y, x, 6.0, 15.0)
    disc = 256 * 2**0.5 / 3
    angles = np.linspace(0, 2 * np.pi, 20_000)
    for radius in (disc + 2, 250.0):
        circle = map_coordinates(distance, [256 + radius * np.sin(angles), 256 + radius * np.cos(angles)], order=1) < 0
        assert np.count_nonzero(np.diff(circle.astype(int)) == 1) == round(2 * np.pi * disc / 15)
        assert circle.mean() == pytest.approx(6 / 15, abs=0.02)
    assert np.all(distance[np.hypot(y - 256, x - 256) < disc - 1] < 0)


def test_painting_is_exact():
    canvas = np.zeros((20, 30))
    paint(canvas, [(2.25, 3.5, 7.75, 9.1)])
    assert canvas.sum() == pytest.approx(5.5 * 5.6) and canvas[2, 3] == pytest.approx(0.75 * 0.5)
    np.testing.assert_allclose(canvas[4], np.r_[np.zeros(3), 0.5, np.ones(5), 0.1, np.zeros(20)], atol=1e-12)
    paint(canvas, [(4.0, 5.0, 5.0, 7.5)], erase=True)
    assert canvas.sum() == pytest.approx(5.5 * 5.6 - 2.5)
    paint(canvas, [(-3.0, 28.0, 40.0, 35.0), (50, 50, 60, 60)])
    assert canvas[:, 28:].min() == 1


def test_signed_distance_of_a_disc():
    fine = (np.arange(96 * 8) + 0.5) / 8 - 0.5
    inside = np.hypot(fine[:, None] - 47.3, fine - 48.1) < 30.3
    mask = inside.reshape(96, 8, 96, 8).mean((1, 3))
    expected = np.hypot(np.arange(96)[:, None] - 47.3, np.arange(96) - 48.1) - 30.3
    error = np.abs(signed_distance(mask) - expected)
    assert error[np.abs(expected) < 1].max() < 0.08 and (error - 0.04 * np.abs(expected)).max() < 0.5


# --- The electron microscope ---


@pytest.mark.parametrize("metal_left", [True, False])
def test_the_white_line_lies_on_the_edge(metal_left):
    places, widths = [], []
    for seed in range(24):
        true = 64 + (seed % 8) / 8
        profile = sem_view(edge_at(true, metal_left=metal_left), seed, noise=False)[20:-20].mean(0)
        top = int(np.argmax(profile))
        before, peak, after = profile[top - 1 : top + 2]
        places.append((top + 0.5 * (before - after) / (before - 2 * peak + after) - true) * 20)
        left, right = profile[:30].mean(), profile[-30:].mean()
        assert peak > 1.15 * max(left, right)
        bright = profile - max(left, right) > (peak - max(left, right)) / 2
        widths.append(bright.sum() * 20)
    assert np.mean(places) == pytest.approx(0, abs=1.5) and np.abs(places).max() < 12  # nm, textures included
    assert 20 <= min(widths) and max(widths) <= 100


def test_widths_between_white_lines_are_the_true_ones(layouts):
    errors = []
    for k, layout in enumerate(layouts[:4]):
        clean = sem_view(layout, k, noise=False)
        for line in layout.lines[layout.lines[:, 2] > 140]:
            x, profile = across(clean, line, 20.0, line[2] / 40 + 1.5)
            crests = []
            for side in (x < 0, x > 0):
                top = np.clip(np.flatnonzero(side)[np.argmax(profile[side])], 1, len(x) - 2)
                before, peak, after = profile[top - 1 : top + 2]
                crests.append(x[top] + 0.5 * (before - after) / (before - 2 * peak + after))
            errors.append((crests[1] - crests[0]) * 20 - line[2])
    assert len(errors) > 60 and np.median(errors) == pytest.approx(0, abs=3) and np.median(np.abs(errors)) < 6


def test_noise_of_the_sem_is_counting_noise():
    pair = simulate_pair((4, 2), (256, 256))
    numbers = pair.parameters["sem"]
    middle = (pair.sem_clean > 0.15) & (pair.sem_clean < 0.7)
    residual = (pair.sem - pair.sem_clean)[middle]
    assert residual.mean() == pytest.approx(0, abs=4 * float(residual.std()) / residual.size**0.5)
    expected = pair.sem_clean[middle] / numbers["dose"] + numbers["amplifier"] ** 2
    assert (residual**2 / expected).mean() == pytest.approx(1, abs=0.03)
    np.testing.assert_array_equal(sem_view(pair.layout, 5, noise=False), sem_view(pair.layout, 5, noise=False))
    assert np.abs(sem_view(pair.layout, 5) - sem_view(pair.layout, 5, noise=False)).mean() < 0.08


def test_metal_is_brighter_than_the_shadowed_ground(layouts):
    for k, layout in enumerate(layouts[:4]):
        distance, clean = signed_distance(layout.mask), sem_view(layout, k, noise=False)
        assert clean[distance < -2].mean() > clean[distance > 4].mean()
        assert clean[np.abs(distance) < 0.5].mean() > clean[distance < -3].mean() + 0.1


# --- The superlens ---


def test_an_edge_is_as_wide_as_the_point_spread():
    ratios, factors, places = [], [], []
    for seed in range(20):
        layout = edge_at(63.7)
        image, _, drawn = image_by_superlens(layout, (1, seed))
        assert 80 <= drawn["fwhm"] <= 145 and 1 <= drawn["relative_blur"].min() < 1.05 and drawn["relative_blur"].max() <= 1.6 + 1e-6
        for top in range(0, 192, 48):
            x, profile = np.arange(40, 88), image[top : top + 48, 40:88].mean(0)

            def model(x, level, slope, step, place, sigma):
                return (level + slope * (x - 64)) * (1 + step * erf((x - place) / (2**0.5 * sigma)))

            start = (profile.mean(), 0, (profile[-5:].mean() - profile[:5].mean()) / profile.mean() / 2, 63.7, 2.5)
            (*_, place, sigma), _ = curve_fit(model, x, profile, start)
            factor = np.sqrt((drawn["relative_blur"][top : top + 48, 60:68] ** 2).mean())
            expected = np.hypot(1.0879 * drawn["fwhm"] / 20 * factor, 2.5631 / 12**0.5)  # 10-90 %, with the pixel's own width
            ratios.append(2.5631 * abs(sigma) / expected)
            factors.append(factor)
            places.append(place)
    assert np.median(ratios) == pytest.approx(1, abs=0.02) and np.quantile(np.abs(np.array(ratios) - 1), 0.9) < 0.1
    assert np.median(places) == pytest.approx(63.7, abs=0.05) and np.quantile(np.abs(np.array(places) - 63.7), 0.9) < 0.3
    assert max(factors) > 1.25 and abs(np.corrcoef(ratios, factors)[0, 1]) < 0.5


def test_displacements_keep_their_bound():
    for shape in ((96, 96), (64, 160)):
        fields = [displacement_field(np.random.default_rng(seed), shape, 3.0) for seed in range(100)]
        lengths = np.array([np.hypot(*np.moveaxis(each, -1, 0)) for each in fields])
        assert fields[0].shape == (*shape, 2) and lengths.max() <= 3 + 1e-5 and lengths.max((1, 2)).min() > 2
        assert lengths.mean() == pytest.approx(1.5, abs=0.15)
        steps = max(np.abs(np.diff(each, axis=axis)).max() for each in fields for axis in (0, 1))
        assert steps < 16 / min(shape)  # smooth: no two neighbours differ by more than a steep affine map over the frame
        angles = np.array([np.arctan2(*each.mean((0, 1))) for each in fields])
        assert np.abs(np.exp(1j * angles).mean()) < 0.3


def test_the_displacement_leads_back_to_the_chip():
    still, moved = (simulate_pair((6, 1), (256, 256), misalignment=m) for m in (0.0, 5.0))
    for name in ("sem", "sem_clean"):
        np.testing.assert_array_equal(getattr(still, name), getattr(moved, name))
    np.testing.assert_array_equal(still.layout.mask, moved.layout.mask)
    assert not still.displacement.any()
    grid = np.indices((256, 256))
    inner = np.s_[12:-12, 12:-12]

    def error(sign):
        there = map_coordinates(still.optical, grid + sign * np.moveaxis(moved.displacement, -1, 0), order=1, mode="nearest")
        return (moved.optical - there)[inner].std()

    assert error(1) < 0.45 * error(0) < 0.45 * error(-1)


def test_metal_is_darker_in_a_third_of_the_optical_pictures():
    layout = draw_layout((2, 2), (96, 96))
    signs = []
    for seed in range(300):
        image, _, drawn = image_by_superlens(layout, seed)
        signs.append(np.sign(drawn["contrast"]))
        assert 0.15 <= abs(drawn["contrast"]) <= 0.55
        assert np.sign(np.cov(image.ravel(), layout.mask.ravel())[0, 1]) == signs[-1]
    assert np.mean(np.array(signs) < 0) == pytest.approx(0.3, abs=0.08)


def test_light_falls_off_by_the_drawn_share():
    blank = Layout(np.ones((128, 160), np.float32), 20.0, NO_LINES)
    found, expected = [], []
    rows, columns = np.indices(blank.mask.shape)
    for seed in range(40):
        image, _, drawn = image_by_superlens(blank, seed)
        y, x = drawn["vignetting_centre"]
        assert 0.37 * 127 <= y <= 0.63 * 127 and 0.37 * 159 <= x <= 0.63 * 159
        square = ((rows - y) / 63.5) ** 2 + ((columns - x) / 79.5) ** 2
        slope, level = np.polyfit((square / square.max()).ravel(), image.ravel(), 1)
        found.append(-slope / level)
        expected.append(drawn["vignetting"])
    assert 0 <= min(expected) < 0.05 and 0.3 < max(expected) <= 0.35
    assert np.corrcoef(found, expected)[0, 1] > 0.85 and np.mean(found) == pytest.approx(np.mean(expected), abs=0.03)


def test_noise_of_the_camera_is_shot_and_readout_noise():
    blank, curve = Layout(np.ones((256, 256), np.float32), 20.0, NO_LINES), np.outer((1, -2, 1), (1, -2, 1)) / 6.0
    for seed in range(4):
        image, _, drawn = image_by_superlens(blank, seed)
        residual = cv2.filter2D(image, -1, curve)[5:-5, 5:-5]  # of unit gain for white noise, blind to anything smooth
        assert np.mean(residual**2) == pytest.approx(image.mean() / drawn["electrons"] + (drawn["readout"] / drawn["electrons"]) ** 2, rel=0.04)


# --- Pairs ---


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_frames_without_an_edge_are_seen(level):
    blank = Layout(np.full((64, 80), level, np.float32), 20.0, NO_LINES)
    assert np.sign(signed_distance(blank.mask)).mean() == (-1 if level else 1)
    for image in (sem_view(blank, 1), image_by_superlens(blank, 1, 2.0)[0]):
        assert np.isfinite(image).all() and image.std() > 0


def test_pairs_are_functions_of_the_arguments():
    first, again, other = simulate_pair((9, 1), (96, 128)), simulate_pair((9, 1), (96, 128)), simulate_pair((9, 2), (96, 128))
    for name in ("optical", "sem", "sem_clean", "displacement"):
        one, two = getattr(first, name), getattr(again, name)
        np.testing.assert_array_equal(one, two)
        assert one.dtype == np.float32 and one.shape[:2] == (96, 128)
        assert not np.array_equal(one, getattr(other, name)) or name == "displacement"
    assert first.parameters["optical"]["fwhm"] == again.parameters["optical"]["fwhm"] != other.parameters["optical"]["fwhm"]


def test_microscopes_do_not_depend_on_the_layout():
    one, other = simulate_pair((9, 1), (96, 128)), simulate_pair((9, 1), (96, 128), draw=draw_curves)
    assert not np.array_equal(one.layout.mask, other.layout.mask)
    for view, name in (("optical", "contrast"), ("optical", "fwhm"), ("optical", "electrons"), ("sem", "metal"), ("sem", "probe")):
        assert one.parameters[view][name] == other.parameters[view][name]


def test_pictures_fill_their_range():
    for seed in range(6):
        pair = simulate_pair(seed, (160, 160), misalignment=2.0)
        for image in (pair.optical, pair.sem, pair.sem_clean):
            assert image.min() >= 0 and image.max() <= 1 and np.isfinite(image).all()
        assert np.ptp(pair.sem_clean) > 0.6 and pair.optical.max() > 0.6 and pair.optical.std() > 0.01
        assert (pair.optical >= 1).mean() < 0.02


@pytest.mark.parametrize("pixel_size", [5.0, 12.5, 30.0])
def test_other_pixel_sizes_show_the_same_widths(pixel_size):
    pair = simulate_pair((7, 7), (200, 240), pixel_size)
    assert pair.layout.pixel_size == pixel_size and pair.sem.shape == (200, 240)
    for block in pair.layout.parameters["blocks"]:
        assert 79.999 < block["line_width"] < 400.001
    for line in pair.layout.lines:
        _, profile = across(pair.layout.mask, line, pixel_size, line[2] / (2 * pixel_size) + 1.3)
        assert profile.sum() * pixel_size == pytest.approx(line[2], abs=8)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"shape": (512, 16)}, "32 x 32"),
        ({"shape": (512,)}, "32 x 32"),
        ({"pixel_size": 60.0}, "5 to 30 nm"),
        ({"pixel_size": float("nan")}, "5 to 30 nm"),
        ({"misalignment": -1.0}, "misalignment"),
        ({"misalignment": float("nan")}, "misalignment"),
    ],
)
def test_bad_arguments_are_refused(arguments, reason):
    with pytest.raises(ValueError, match=reason):
        simulate_pair(0, **{"shape": (64, 64)} | arguments)
    if "misalignment" not in arguments:
        with pytest.raises(ValueError, match=reason):
            draw_curves(0, **{"shape": (64, 64)} | arguments)


def test_contact_sheet(tmp_path):
    look(tmp_path / "sheet.png", pairs=1)
    assert cv2.imread(str(tmp_path / "sheet.png"), cv2.IMREAD_GRAYSCALE).shape == (512, 1536)
    with pytest.raises(ValueError, match="cannot write"):
        look(tmp_path / "missing" / "sheet.png")
