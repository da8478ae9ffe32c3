"""SEMNet's degradation: each operation against its moments or a closed form, the pipeline against its promises."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from paper_semnet import Config, Degradation
from paper_semnet.data import Pairs, blur, degrade, dihedral, gaussian_kernel, gaussian_noise, poisson_noise, resize, samples, test_pairs, training_pairs
from tests.paper_semnet import oracle

test_pairs.__test__ = False  # a function of the package, not a test
NOTHING = Degradation(
    passes=1, blur_probability=0, resize_up_probability=0, resize_down_probability=0, gaussian_probability=0, poisson_probability=0, shuffle_probability=0
)


def picture(shape=(128, 128), seed=0):
    return cv2.GaussianBlur(np.random.default_rng(seed).uniform(size=shape).astype(np.float32), (0, 0), 1.5)


def test_poisson_noise_has_the_moments_of_a_count():
    flat = np.full((1000, 1000), 128 / 255, np.float32)
    for low in (2.0, 3.0, 3.9):
        record = []
        noisy = poisson_noise(flat, np.random.default_rng(1), replace(NOTHING, poisson_probability=1, poisson_log10=(low, low)), record)
        lam = record[0][1]["lam"]
        assert lam == pytest.approx(10**low)
        assert noisy.mean() == pytest.approx(flat[0, 0], rel=0.01)
        assert noisy.var() == pytest.approx(flat[0, 0] / lam, rel=0.03)


def test_ranges_of_the_draws():
    d = replace(NOTHING, gaussian_probability=1, poisson_probability=1)
    small = np.full((4, 4), 0.5, np.float32)
    records = []
    for k in range(3000):
        gaussian_noise(small, np.random.default_rng(k), d, records)
        poisson_noise(small, np.random.default_rng(k), d, records)
    sigmas = [v["sigma"] for name, v in records if name == "gaussian"]
    exponents = np.log10([v["lam"] for name, v in records if name == "poisson"])
    assert set(sigmas) == set(range(2, 26))
    np.testing.assert_allclose(np.histogram(exponents, 4, (2, 4))[0] / 3000, 0.25, atol=0.03)


def test_gaussian_noise_has_its_sigma():
    record = []
    noisy = gaussian_noise(np.full((500, 500), 0.5, np.float32), np.random.default_rng(0), replace(NOTHING, gaussian_probability=1), record)
    assert noisy.std() * 255 == pytest.approx(record[0][1]["sigma"], rel=0.01)


@pytest.mark.parametrize(("variances", "angle"), [((2.0, 2.0), 0.0), ((4.0, 1.0), 0.6)])
def test_gaussian_kernel_equals_the_equation(variances, angle):
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    covariance = turn @ np.diag(variances) @ turn.T  # of (column, row)
    np.testing.assert_allclose(gaussian_kernel(21, variances, angle), oracle.gaussian_kernel(21, covariance), atol=1e-6)


def test_zero_blur_is_the_identity():
    image = picture()
    d = replace(NOTHING, blur_probability=1, isotropic_sigma=(0.0, 0.0), anisotropic_variance=(0.0, 0.0))
    for seed in range(4):
        np.testing.assert_allclose(blur(image, np.random.default_rng(seed), d, []), image, atol=1e-6)


def test_blur_keeps_the_mean_and_sizes_are_odd():
    record = []
    d = replace(NOTHING, blur_probability=1)
    for seed in range(60):
        out = blur(np.full((40, 40), 0.3, np.float32), np.random.default_rng(seed), d, record)
        np.testing.assert_allclose(out, 0.3, atol=1e-5)
    assert {v["size"] for _, v in record} == set(range(7, 26, 2))


def test_shares_of_resizing():
    d = replace(NOTHING, resize_up_probability=0.2, resize_down_probability=0.7)
    records = []
    for seed in range(2000):
        resize(np.zeros((8, 8), np.float32), np.random.default_rng(seed), d, records)
    factors = np.array([v["factor"] for _, v in records])
    assert np.mean(factors > 1) * len(factors) / 2000 == pytest.approx(0.2, abs=0.03)
    assert np.mean(factors < 1) * len(factors) / 2000 == pytest.approx(0.7, abs=0.03)
    assert factors.min() >= 0.25 and factors.max() <= 2


def test_with_everything_off_low_is_the_area_average():
    image = picture()
    d = replace(NOTHING, resize_methods=("area",), quantise=False)
    low, record = degrade(image, np.random.default_rng(0), d)
    np.testing.assert_allclose(low, image.reshape(64, 2, 64, 2).mean((1, 3)), atol=1e-6)
    assert [name for name, _ in record] == ["final"]


def test_pairs_are_aligned():
    """Patches cut from both images lie on the same specimen: the area average of the target is the input when nothing else is done."""
    config = replace(Config.tiny(), degradation=replace(NOTHING, resize_methods=("area",), quantise=False))
    pairs = Pairs(config, ([picture((200, 260), k) for k in range(3)],))
    for i in range(6):
        low, high = pairs(i)
        assert (low.shape, high.shape) == pairs.shapes
        np.testing.assert_allclose(low[..., 0], high[..., 0].reshape(32, 2, 32, 2).mean((1, 3)), atol=1e-6)


def test_result_is_8_bit_half_the_size_and_a_function_of_the_generator():
    image = picture((96, 160))
    one, record = degrade(image, np.random.default_rng(5), Degradation())
    other, _ = degrade(image, np.random.default_rng(5), Degradation())
    np.testing.assert_array_equal(one, other)
    assert one.shape == (48, 80) and one.dtype == np.float32
    np.testing.assert_allclose(one * 255, np.round(one * 255), atol=1e-4)
    assert sum(name == "gaussian" for name, _ in record) == 2


def test_order_is_shuffled_as_often_as_said():
    image = picture((32, 32))

    def firsts(share):
        d = replace(Degradation(), shuffle_probability=share)
        return {degrade(image, np.random.default_rng(k), d)[1][0][0] for k in range(40)}

    assert firsts(0) == {"blur"}
    assert len(firsts(1)) > 1


def test_mean_quality_is_the_specified_one():
    """The specification's prototype: 23.0 dB (17.0 .. 32.5) for bicubic enlargement of six standard pictures; ours must lie near it on such pictures."""
    from skimage import data

    from common.classical import upscale
    from common.metrics import psnr

    pictures = [p.astype(np.float32) / 255 for p in (data.camera(), data.coins(), data.moon(), data.page(), data.brick(), data.grass())]
    scores = []
    for k in range(90):
        rng = np.random.default_rng(k)
        source = pictures[k % 6] if min(pictures[k % 6].shape) >= 320 else np.pad(pictures[k % 6], 160, mode="symmetric")
        top, left = (rng.integers(n - 320 + 1) for n in source.shape)
        high = source[top : top + 320, left : left + 320]
        scores.append(psnr(high, upscale(degrade(high, rng, Degradation())[0], 2)))
    assert np.mean(scores) == pytest.approx(23.0, abs=1.5)


def test_dihedral_modes_are_eight_different_ones():
    image = picture((6, 6))
    assert len({dihedral(image, m).tobytes() for m in range(8)}) == 8


def test_two_sources_are_sampled_one_to_one():
    config = replace(Config.tiny(), degradation=NOTHING)
    dark, bright = [np.zeros((128, 128), np.float32)] * 5, [np.ones((128, 128), np.float32)]
    means = [Pairs(config, (dark, bright))(i)[1].mean() for i in range(20)]
    assert np.mean(means) == 0.5


def test_examples_depend_on_seed_and_index_only():
    config = Config.tiny()
    pairs, again = training_pairs(config), training_pairs(config)
    for i in (7, 3, 7):
        for a, b in zip(pairs(i), again(i), strict=True):
            np.testing.assert_array_equal(a, b)
    assert not np.array_equal(pairs(3)[0], pairs(4)[0])
    assert not np.array_equal(pairs(3)[0], training_pairs(replace(config, seed=1))(3)[0])


def test_frozen_test_set_does_not_depend_on_its_length():
    images = [picture((64, 64), k) for k in range(3)]
    others = [picture((40, 90), 8), picture((30, 30), 9), images[2]]
    np.testing.assert_array_equal(test_pairs(images, Degradation(), 4)[2][0], test_pairs(others, Degradation(), 4)[2][0])


def test_folders_of_the_user(tmp_path):
    for name, level in (("sem", 0), ("natural", 3)):
        (tmp_path / name).mkdir()
        for k in range(2):
            cv2.imwrite(str(tmp_path / name / f"{k}.png"), np.round(picture((140, 100), k + level) * 65535).astype(np.uint16))
    pairs = training_pairs(Config.tiny(), tmp_path / "sem", tmp_path / "natural")
    low, high = pairs(0)
    assert low.shape == (32, 32, 1) and high.shape == (64, 64, 1)
    with pytest.raises(ValueError, match="holds no image"):
        training_pairs(Config.tiny(), tmp_path)
    with pytest.raises(ValueError, match="hq_crop"):
        training_pairs(replace(Config.tiny(), hq_crop=60))


def test_samples_are_calibrated():
    for _, micrograph, truth in samples(0)[:2]:
        assert micrograph.pixel_size > 0
        assert truth.shape == tuple(2 * n for n in micrograph.data.shape) and truth.dtype == micrograph.data.dtype == np.uint8
