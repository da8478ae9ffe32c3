"""The chain from a clean image to a pair, and its promises."""

from dataclasses import fields, replace

import cv2
import numpy as np
import pytest

from paper_cgrdn import camera, postprocessing, scanning
from paper_cgrdn.distortions import contact_sheet, distort, optional_steps
from paper_cgrdn.recipes import RECIPES, ScanRecipe, SemRecipe, TemRecipe

MODALITIES = tuple(RECIPES)
# What changes the mean of x against that of y; all other steps keep it.
CHANGES_MEAN = {"bands", "xray_hits", "hot_pixels", "dead_pixels", "clipping", "line_dropouts", "hum", "intensity_drift", "interlacing", "displacement"}


def picture(shape=(128, 128), seed=0):
    image = cv2.GaussianBlur(np.random.default_rng(seed).uniform(0, 1, shape).astype(np.float32), (0, 0), 3.0)
    image = (image - image.min()) / np.ptp(image) + 0.2
    return image / image.mean()


def rng(seed=0):
    return np.random.default_rng(seed)


def names(pair):
    return [name for name, _ in pair.draws]


def electrons(pair):
    """x and y in electrons per pixel."""
    numbers = dict(pair.draws)["codes"]
    return tuple(image / numbers["scale"] + numbers["offset"] for image in (pair.distorted, pair.target))


@pytest.mark.parametrize("modality", MODALITIES)
def test_pairs_are_codes_and_repeat(modality):
    for seed in range(15):
        pair, again = (distort(picture(), RECIPES[modality], rng(seed)) for _ in range(2))
        assert pair.draws == again.draws
        for image, other in ((pair.distorted, again.distorted), (pair.target, again.target)):
            assert image.shape == (128, 128) and image.dtype == np.float32
            np.testing.assert_array_equal(image, other)
            np.testing.assert_array_equal(image, np.uint16(image))
        assert min(pair.distorted.min(), pair.target.min()) == 0
        assert 26_999 <= max(pair.distorted.max(), pair.target.max()) <= 63_001


@pytest.mark.parametrize("modality", MODALITIES)
def test_how_much_counting_draws_changes_no_other_draw(modality, monkeypatch):
    """A processor that rounds otherwise makes Poisson's rejections take another number or two; the pair must stay the same but for its noise."""
    counting = camera.counting

    def longer(expected, generator):
        generator.random()
        return counting(expected, generator)

    for seed in range(5):
        before = distort(picture(), RECIPES[modality], rng(seed), identity=False)
        with monkeypatch.context() as patch:
            patch.setattr(camera, "counting", longer)
            after = distort(picture(), RECIPES[modality], rng(seed), identity=False)
        assert names(before) == names(after) and before.draws[:-1] == after.draws[:-1]  # the last one is of codes, which fit the noise
        assert not np.array_equal(before.distorted, after.distorted)


def test_other_seeds_give_other_pairs():
    assert distort(picture(), RECIPES["hrstem"], rng(0)).draws != distort(picture(), RECIPES["hrstem"], rng(1)).draws


@pytest.mark.parametrize("modality", MODALITIES)
def test_identity_is_exact_and_as_frequent_as_the_recipe_says(modality):
    recipe = RECIPES[modality]
    small = picture((32, 32))
    pairs = [distort(small, recipe, rng(seed)) for seed in range(300)]
    exact = [pair for pair in pairs if "identity" in names(pair)]
    assert len(exact) / 300 == pytest.approx(recipe.identity_probability, abs=0.06)
    for pair in exact:
        assert names(pair) == ["identity", "codes"]
        np.testing.assert_array_equal(pair.distorted, pair.target)
    certain = replace(recipe, identity_probability=1.0)
    assert names(distort(small, certain, rng())) == ["identity", "codes"]
    assert "counting" in names(distort(small, certain, rng(), identity=False))


@pytest.mark.parametrize("modality", MODALITIES)
def test_only_what_was_asked_for_happens(modality):
    recipe = RECIPES[modality]
    assert names(distort(picture(), recipe, rng(), only=())) == ["counting", "codes"]
    for name in optional_steps(recipe):
        pair = distort(picture(), recipe, rng(1), dose=100.0, only=(name,))
        assert set(names(pair)) == {"counting", "codes", name}
        assert dict(pair.draws)["counting"]["electrons"] == 100
    everything = distort(picture(), recipe, rng(2), only=optional_steps(recipe))
    assert set(names(everything)) == {"counting", "codes", *optional_steps(recipe)}
    with pytest.raises(ValueError, match="unknown steps fog; known are"):
        distort(picture(), recipe, rng(), only=("fog",))


STORED = ("clipping", "quantise", "eight_bit", "warp", "blur", "binning", "overlays", "codes")
TEM = ("mtf", "counting", "noise_transfer", "dark_current", "readout", "quadrants", "gain_pattern", "bands", "xray_hits", "dead_pixels", *STORED)
SEM = ("edge_brightening", "probe_blur", "displacement", "interlacing", "counting", "charging", "intensity_drift", "response", "pmt_noise", "readout",
       "row_offsets", "line_dropouts", "hum", "hot_pixels", "dead_pixels", *STORED)  # fmt: skip
ORDER = {"tem": TEM, "sem": SEM, "stem": tuple(name for name in SEM if name not in ("edge_brightening", "charging", "intensity_drift"))}


@pytest.mark.parametrize("modality", MODALITIES)
def test_order_of_steps(modality):
    recipe = RECIPES[modality]
    found = tuple(dict.fromkeys(names(distort(picture(), recipe, rng(), only=optional_steps(recipe)))))
    assert found == ORDER[modality[2:]]


PROBABILITIES = {
    TemRecipe: {"mtf": 0.7, "noise_transfer": 0.15, "dark_current": 0.5, "readout": 0.7, "quadrants": 0.2, "gain_pattern": 0.3, "bands": 0.15, "xray_hits": 0.5,
                "dead_pixels": 0.4, "clipping": 0.1, "eight_bit": 0.2},
    ScanRecipe: {"displacement": 0.85, "interlacing": 0.1, "response": 0.4, "readout": 0.5, "row_offsets": 0.5, "line_dropouts": 0.2, "hum": 0.1,
                 "hot_pixels": 0.1, "dead_pixels": 0.1, "clipping": 0.3, "eight_bit": 0.2},
    SemRecipe: {"edge_brightening": 0.3, "charging": 0.3, "intensity_drift": 0.3, "eight_bit": 0.4},
}  # fmt: skip
RANGES = {
    TemRecipe: {"mtf_a": (0.2, 0.8), "mtf_b": (0.05, 0.4), "mtf_c": (0.5, 2), "dark_current": (0.01, 10), "readout": (0.05, 1.5), "quadrant_gain": 0.005,
                "quadrant_offset": (0, 0.3), "gain_pattern": (0, 0.02), "bands": 6, "band_gain": (-0.35, 0.3), "band_width": (1, 6), "hit_rate": (0.5, 20),
                "hit_length": 8, "hit_excess": (1.5, 10), "dead_rate": (1, 10), "dead_length": 3, "dead_level": 0.05, "clip_upper": (0.95, 1),
                "gain": (1, 500)},
    ScanRecipe: {"probe_blur": (0, 1.5), "drift": 3, "waves": 10, "vertical": (0.3, 1), "row_constant_probability": 0.7, "response": (0.1, 8),
                 "slow_share": (0, 0.3), "slow_lifetime": (5, 30), "pmt_noise": (0, 0.8), "readout": (0.02, 1), "row_offsets": (0, 0.3),
                 "row_correlation": (0, 0.95), "line_dropouts": 6, "dropout_length": (0.1, 1), "dropout_level": (0, 0.3), "interlacing": (-2, 2),
                 "hum": (0, 0.1), "clip_lower": (0, 0.05), "hit_length": 2},
    SemRecipe: {"charging": (-0.3, 0.3), "charging_lifetime": (20, 200), "intensity_drift": (-0.2, 0.2)},
}  # fmt: skip


@pytest.mark.parametrize("modality", MODALITIES)
def test_numbers_of_the_recipes(modality):
    """Written down a second time; doses and jitter are in the test below."""
    recipe = RECIPES[modality]
    probabilities, ranges = {"identity": 0.1, "warp": 0.2, "blur": 0.1, "binning": 0.05, "overlays": 0.1, "quantise": 1}, {}
    for kind in (TemRecipe, ScanRecipe, SemRecipe):
        if isinstance(recipe, kind):
            probabilities |= PROBABILITIES[kind]
            ranges |= RANGES[kind]
    assert {name: getattr(recipe, f"{name}_probability") for name in probabilities} == probabilities
    assert {name: getattr(recipe, name) for name in ranges} == ranges
    assert (recipe.angle, recipe.scale, recipe.blur) == ((-30, 30), (0.8, 1.25), (0.3, 1.2))


@pytest.mark.parametrize("modality", ["lrtem", "lrstem"])
def test_noise_levels_grow_with_the_root_of_the_dose(modality):
    recipe, steps = RECIPES[modality], {"readout": "deviation"} | ({"row_offsets": "deviation"} if modality == "lrstem" else {})
    for dose in (1.0, 10_000.0):
        for step, key in steps.items():
            drawn = [dict(distort(picture((32, 32)), recipe, rng(seed), dose=dose, only=(step,)).draws)[step][key] / dose**0.5 for seed in range(60)]
            low, high = getattr(recipe, step)
            assert low <= min(drawn) and max(drawn) <= high and max(drawn) > 0.6 * high
    if modality == "lrstem":
        slow = [dict(distort(picture((32, 32)), recipe, rng(seed), dose=10.0, only=("response",)).draws)["response"] for seed in range(60)]
        ratios = [numbers["slow_lifetime"] / numbers["lifetime"] for numbers in slow]
        assert 5 <= min(ratios) < 9 and 18 < max(ratios) <= 30


@pytest.mark.parametrize("modality", MODALITIES)
def test_every_field_of_the_recipe_is_used(modality):
    recipe = RECIPES[modality]
    read = set()

    class Spy(type(recipe)):
        def __getattribute__(self, name):
            read.add(name)
            return super().__getattribute__(name)

    spy = Spy(**vars(recipe))
    distort(picture(), spy, rng(), only=optional_steps(recipe))
    distort(picture(), spy, rng(), identity=False)
    assert {field.name for field in fields(recipe)} <= read


def test_recipes_differ_as_the_specification_has_it():
    assert [type(recipe) for recipe in RECIPES.values()] == [TemRecipe] * 2 + [ScanRecipe] * 2 + [SemRecipe] * 2
    assert [recipe.dose for recipe in RECIPES.values()] == [(1, 3000), (2, 1e4), (0.3, 2000), *[(0.5, 5000)] * 3]
    assert [RECIPES[m].jitter[1] for m in MODALITIES[2:]] == [2, 3, 2, 3]


def test_the_draws_keep_to_their_ranges():
    recipe = RECIPES["lrsem"]
    draws = [dict(distort(picture((64, 64)), recipe, rng(seed), identity=False).draws) for seed in range(200)]
    doses = np.array([d["counting"]["electrons"] for d in draws])
    np.testing.assert_allclose(np.histogram(np.log(doses), 4, np.log(recipe.dose))[0] / 200, 0.25, atol=0.1)
    drawn = (("pmt_noise", "deviation", recipe.pmt_noise), ("response", "lifetime", recipe.response), ("charging", "amplitude", recipe.charging))
    for step, key, bounds in drawn:
        values = np.array([d[step][key] for d in draws if step in d])
        assert (values >= bounds[0]).all() and (values <= bounds[1]).all() and np.ptp(values) > 0.7 * np.ptp(bounds)
    for name in ("response", "clipping", "line_dropouts", "eight_bit", "charging", "overlays"):
        assert np.mean([name in d for d in draws]) == pytest.approx(getattr(recipe, f"{name}_probability"), abs=0.12)


@pytest.mark.parametrize("modality", MODALITIES)
def test_x_and_y_share_one_scale(modality):
    recipe = RECIPES[modality]
    kept = [name for name in optional_steps(recipe) if name not in CHANGES_MEAN]
    for seed in range(5):
        dose = float(np.exp(rng((seed, 1)).uniform(np.log(50), np.log(3000))))
        for name in kept:
            x, y = electrons(distort(picture(seed=seed), recipe, rng(seed), dose=dose, only=(name,)))
            assert x.mean() / y.mean() == pytest.approx(1, abs=0.03), (name, dose)
        x, y = electrons(distort(picture((256, 256)), recipe, rng(seed), dose=dose, only=kept))
        assert x.mean() / y.mean() == pytest.approx(1, abs=0.03), dose
        if recipe is RECIPES["hrtem"]:
            assert y.mean() == pytest.approx(dose, rel=0.5)  # overlays and borders aside


@pytest.mark.parametrize("modality", ["hrtem", "hrstem"])
def test_counting_alone_is_poisson_about_the_target(modality):
    image = picture((256, 256))
    x, y = electrons(distort(image, RECIPES[modality], rng(), dose=20.0, only=()))
    np.testing.assert_allclose(y, 20 * image, atol=0.02)
    np.testing.assert_allclose(x, np.rint(x), atol=0.02)
    assert ((x - y) ** 2 / y).mean() == pytest.approx(1, abs=0.03)


def test_the_mtf_is_in_the_target():
    """Or not, where the recipe says so; what is recorded is the same."""
    image = picture((128, 128))
    image[64, 64] = 50
    recorded, sharp = electrons(distort(image, replace(RECIPES["hrtem"], mtf_in_target=False), rng(), dose=1e4, only=("mtf",)))
    x, y = electrons(distort(image, RECIPES["hrtem"], rng(), dose=1e4, only=("mtf",)))
    np.testing.assert_allclose(sharp, 1e4 * image, rtol=1e-3, atol=15)
    np.testing.assert_allclose(recorded, x, rtol=1e-3, atol=15)
    assert y[64, 64] < 0.95 * 1e4 * 50
    assert x[64, 64] == pytest.approx(y[64, 64], rel=0.01)


def test_the_target_follows_the_linear_part_of_the_displacement():
    image = picture((128, 128))
    recipe = replace(RECIPES["hrstem"], jitter=(1e-6, 1e-6), drift=3.0)
    x, y = electrons(distort(image, recipe, rng(5), dose=1e5, only=("displacement",)))
    assert np.abs(y - 1e5 * image).mean() > 500  # drift moved it
    assert ((x - y) ** 2 / y)[4:-4, 4:-4].mean() == pytest.approx(1, abs=0.2)  # and x with it
    pair = distort(image, RECIPES["hrstem"], rng(6), dose=1e5, only=("displacement",))
    numbers = dict(pair.draws)["displacement"]
    assert len(numbers["dy"]) == len(numbers["dx"]) == 128
    if numbers["row_constant"]:
        dy, dx = (np.tile(np.float32(numbers[key])[:, None], (1, 128)) for key in ("dy", "dx"))
        expected = scanning.scan_distortion(image, scanning.linear_part(dy), scanning.linear_part(dx))
        np.testing.assert_allclose(electrons(pair)[1], 1e5 * expected, rtol=1e-3)


@pytest.mark.parametrize("modality", ["lrtem", "hrsem"])
def test_borders_and_overlays_are_noise_free_and_equal(modality):
    recipe = RECIPES[modality]
    for seed in range(6):
        pair = distort(picture(), recipe, rng(seed), dose=30.0, only=("warp", "blur", "binning", "overlays"))
        drawn, found = dict(pair.draws), np.zeros((128, 128), bool)
        matrix = postprocessing.warp_matrix((128, 128), *(drawn["warp"][key] for key in ("angle", "scale", "perspective")))
        found |= postprocessing.warp(*[np.ones((128, 128), np.float32)] * 2, matrix, drawn["warp"]["interpolation"])[2]
        for name, numbers in pair.draws:
            if name == "overlays":
                found |= postprocessing.overlay((128, 128), **{key: value for key, value in numbers.items() if key != "value"})
        np.testing.assert_array_equal(pair.distorted[found], pair.target[found])
        assert (pair.distorted != pair.target)[~found].mean() > 0.99


def test_no_warp_when_told():
    recipe = replace(RECIPES["hrtem"], warp_probability=1.0)
    assert "warp" in names(distort(picture(), recipe, rng(), identity=False))
    assert "warp" not in names(distort(picture(), recipe, rng(), identity=False, warp=False))


def test_dropouts_are_recorded_where_they_are():
    recipe = RECIPES["hrstem"]
    for seed in range(5):
        pair = distort(picture(), recipe, rng(seed), dose=500.0, only=("line_dropouts",))
        x, y = electrons(pair)
        numbers = dict(pair.draws)["line_dropouts"]
        assert 1 <= len(numbers["rows"]) <= recipe.line_dropouts
        for row, start, length, level in zip(*(numbers[key] for key in ("rows", "starts", "lengths", "levels")), strict=True):
            assert 0.1 * 128 - 1 <= length and start + length <= 128 and 0 <= level <= 0.3
            assert (x / y)[row, start : start + length].mean() < 0.35


@pytest.mark.parametrize("bad", [np.zeros((4, 4, 1)), -np.ones((8, 8)), np.full((8, 8), np.nan)])
def test_what_is_no_image_is_refused(bad):
    with pytest.raises(ValueError, match="expected one finite image"):
        distort(bad, RECIPES["hrtem"], rng())


@pytest.mark.parametrize("modality", MODALITIES)
def test_dark_frames_and_odd_sizes_pass(modality):
    for image in (np.zeros((32, 32), np.float32), picture((33, 47))):
        for seed in range(5):
            pair = distort(image, RECIPES[modality], rng(seed))
            assert pair.distorted.shape == image.shape and np.isfinite(pair.distorted).all() and np.isfinite(pair.target).all()


def test_contact_sheet(tmp_path):
    contact_sheet(tmp_path / "sheet.png", "lrtem")
    height, width = cv2.imread(str(tmp_path / "sheet.png")).shape[:2]
    assert width < 1500 < height
