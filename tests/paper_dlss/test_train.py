"""DLSS-STEM's training: what each kind of step does, Adam on the written losses, runs that are cut, killed and resumed, and that it learns."""

import shutil
from dataclasses import replace
from types import SimpleNamespace

import cv2
import keras
import numpy as np
import pytest
import tensorflow as tf

from common.__main__ import main
from paper_dlss.config import Config
from paper_dlss.discriminator import multi_scale_crops
from paper_dlss.replay import uniform
from paper_dlss.sampling import scan, start
from paper_dlss.train import DLSS, OneStage, supersampled, train_dlss
from tests.helpers import check_runs_equal, check_survives_kills, checkpointed, read_metrics

FLAGS = "--preset tiny --side 32 --inner 4 4 4 4 4 --outer 4 --crops 4 --plateau 4 --tracked 3 --steps 12 --replay-share 0.5 --replay-slots 3".split()
FLAGS += "--ema-decay 0.5 --no-biases --no-data-initialisation --checkpoint-every 2 --validate-every 12".split()
QUICK = replace(Config.tiny(), side=32, inner=(4,) * 5, outer=4, crops=4, plateau=4, tracked=3, steps=12, replay_share=0.5, replay_slots=3, biases=False,
                data_initialisation=False, checkpoint_every=2, validate_every=12)  # fmt: skip
AVERAGED = replace(QUICK, ema_decay=0.5)  # what FLAGS say
# steps 1-3 tracking, 4-8 supervised, 9-12 adversarial


def example(seed, which=0, side=32):
    return np.random.default_rng(seed).uniform(-1, 1, (side, side, 1)).astype(np.float32), np.array([which], np.float32)


def batch_of(*examples):
    return tuple(tf.constant(np.stack(arrays)) for arrays in zip(*examples, strict=True))


def built(config, kind=DLSS):
    keras.utils.set_random_seed(config.seed)
    return kind(config, [example(100 + k, k % len(config.scan_steps), config.side) for k in range(config.replay_slots)])


def stepped(trainer, batch, kind):
    return {name: float(value) for name, value in trainer.train_step(batch, kind).items()}


# --- The same in NumPy ---


def blurred(image, size=5, sigma=2.5):
    return cv2.GaussianBlur(image, (size, size), sigma)


def infilled(crop, step):
    """The network's input by brute force: every pixel takes its nearest sample, on the samples' own range."""
    side = len(crop)
    probed = range(side % step // 2, side, step)
    near = [min(probed, key=lambda p: (abs(p - i), p)) for i in range(side)]
    samples = crop[np.ix_(probed, probed)]
    return ((crop[np.ix_(near, near)] - samples.min()) / np.ptp(samples)).astype(np.float32)


def half(image):
    side = len(image) // 2
    return image.reshape(side, 2, side, 2).mean((1, 3))


def mse(a, b):
    return np.mean((np.asarray(a, float) - b) ** 2)


def p_of(step):
    raw = [0.002211 - 0.037887 / s**2 + 0.289451 / s**4 for s in (step, *range(4, 11))]
    return raw[0] / np.mean(raw[1:])


def outputs(trainer, crop, step):
    return [np.asarray(o)[0, ..., 0] for o in trainer.trained(infilled(crop[..., 0], step)[None, ..., None], training=False)]


# --- Kinds of steps ---


def kinds(config, steps, kind=DLSS):
    return [kind.kind(SimpleNamespace(config=config), step) for step in steps]


def test_kinds_of_the_papers_steps():
    paper = replace(Config.paper(), steps=2_000_000)
    borders = (1, 100, 101, 1_000_000, 1_000_001, 2_000_000)
    assert kinds(paper, borders) == ["tracking"] * 2 + ["supervised"] * 2 + ["adversarial"] * 2
    assert kinds(replace(paper, tracked=None), borders) == ["tracking"] * 4 + ["adversarial"] * 2
    assert kinds(replace(paper, tracked=0), borders) == kinds(replace(paper, statistics="batch"), borders) == ["supervised"] * 4 + ["adversarial"] * 2
    assert kinds(Config.one_stage(), (1, 50_000, 50_001, 100_000), OneStage) == ["supervised"] * 2 + ["frozen"] * 2


def test_optimizers_are_the_papers():
    trainer = built(QUICK)
    assert {name: (float(adam.learning_rate), adam.beta_2, adam.epsilon) for name, adam in trainer.solvers.items()} == {
        "adam": (pytest.approx(1e-3), 0.999, 1e-8),
        "adam_adversarial": (pytest.approx(1e-4), 0.999, 1e-8),
        "adam_discriminator": (pytest.approx(1e-4), 0.999, 1e-8),
    }
    head = {v.path for v in trainer.networks["trainer"].trainable_variables}
    for name in ("adam", "adam_adversarial"):
        assert trainer.solvers[name].factors == dict.fromkeys(head, 2.0)
    assert trainer.solvers["adam_discriminator"].beta_1 == 0.5
    assert {id(v) for v in trainer.networks["final"].variables}.isdisjoint(id(v) for v in trainer.networks["trainer"].variables)
    assert len(trainer.trained.variables) == len(trainer.networks["final"].variables) + len(trainer.networks["trainer"].variables)
    one = OneStage(replace(Config.one_stage(), plateau=8, steps=16)).solvers["adam"]
    assert [float(one._learning_rate(k)) for k in (0, 1, 2, 3, 4, 15)] == pytest.approx([1e-3, 1e-3, 5e-4, 5e-4, 2.5e-4, 2.5e-4])


# --- Losses at work ---


@pytest.mark.parametrize("kind", ["supervised", "adversarial"])
@pytest.mark.parametrize("which", [0, 5])
def test_losses_of_a_step(kind, which):
    """Everything that is logged, from the outputs before the step and the equations; clipped at the limit of the start, 74.75."""
    trainer, (crop, _) = built(replace(QUICK, replay=False, adversarial_weight=2.0, trainer_loss=3.0)), example(1)
    step = QUICK.scan_steps[which]
    output, small = outputs(trainer, crop, step)
    judged = blurred(output, 3, 1.5) if kind == "adversarial" else output
    raw, raw_aux = (200 * mse(*pair) / p_of(step) for pair in ((judged, blurred(crop)), (small, half(blurred(crop)))))
    logs = stepped(trainer, batch_of(example(1, which)), kind)
    expected = {"L_out_raw": raw, "L_out": min(raw, 74.7494), "L_aux": min(raw_aux, 74.7494), "L_aux*w": 3 * min(raw_aux, 74.7494)}
    assert {name: logs[name] for name in expected} == pytest.approx(expected, rel=1e-3)
    assert logs["root_mse"] == pytest.approx(np.sqrt(mse(judged, blurred(crop))) / 2, rel=1e-3)
    assert logs["mu_1"] == pytest.approx(0.999 * 25 + 0.001 * logs["L_out"], rel=1e-5)
    total = logs["L_out"] + logs["L_aux*w"] + (2 * logs["L_adv"] if kind == "adversarial" else 0)
    assert logs["loss"] == pytest.approx(total, rel=1e-5)
    untouched = "clip_L_out" if kind == "adversarial" else "clip_L_out_adversarial"
    assert float(trainer.state[untouched].mu1) == 25
    if kind == "adversarial":
        assert logs["L_D"] > 0 and {"D_real", "D_fake"} <= logs.keys()


def test_targets_on_the_scale_of_the_samples():
    """Loss and output are on the scale on which the input is in [0, 1]; errors are still told on the crop's, and results come back to it."""
    trainer, (crop, _) = built(replace(QUICK, replay=False, target_range="samples")), example(1)
    step = QUICK.scan_steps[0]
    values = scan(crop[..., 0], step)
    output, target = outputs(trainer, crop, step)[0], blurred(2 * (crop - values.min()) / np.ptp(values) - 1)
    found = supersampled(trainer.networks["final"], trainer.config, crop[None], tf.constant([step]))[0]
    np.testing.assert_allclose(np.squeeze(found), values.min() + np.ptp(values) * (np.squeeze(output) + 1) / 2, atol=1e-5)
    logs = stepped(trainer, batch_of(example(1, 0)), "supervised")
    assert logs["L_out_raw"] == pytest.approx(200 * mse(output, target) / p_of(step), rel=1e-3)
    assert logs["root_mse"] == pytest.approx(np.ptp(values) / 2 * np.sqrt(mse(output, target)) / 2, rel=1e-3)


@pytest.mark.parametrize("kind", ["tracking", "supervised", "adversarial"])
def test_what_a_step_changes(kind):
    """First updates of Adam move every weight by its rate against the sign of its gradient: the head by twice the generator's; discriminators in turn."""
    trainer, batch = built(replace(QUICK, replay=False)), batch_of(example(2, 3))
    rate = 1e-4 if kind == "adversarial" else 1e-3
    named = {name: network.trainable_variables for name, network in trainer.networks.items()}
    before = {name: [v.numpy() for v in variables] for name, variables in named.items()}
    means = [v for v in trainer.trained.non_trainable_variables if v.path.endswith("moving_mean")]
    followed = [v.numpy() for v in means]
    trainer.train_step(batch, kind)
    for name, variables in named.items():
        moved = [np.abs(v.numpy() - b).max() for v, b in zip(variables, before[name], strict=True)]
        if name.startswith("discriminator"):
            assert (max(moved) > 0) == (kind == "adversarial")
        else:
            assert max(moved) == pytest.approx(rate * (2 if name == "trainer" else 1), rel=1e-2)
    assert any((v.numpy() != f).any() for v, f in zip(means, followed, strict=True)) == (kind == "tracking")
    assert float(trainer.state["steps"]) == 1


def test_a_step_is_adam_on_the_written_losses():
    """Inner network, outer network and head after one step, against the gradient of eq. 3 + eq. 7 with the clipping's factors, spelled out."""
    trainer, (crop, which) = built(replace(QUICK, replay=False)), example(3, 2)
    step, variables = QUICK.scan_steps[2], trainer.trained.trainable_variables
    image, target, small_target = (a[None, ..., None] for a in (infilled(crop[..., 0], step), blurred(crop), half(blurred(crop))))
    with tf.GradientTape() as tape:
        output, small = trainer.trained(image, training=False)
        terms = [200 / p_of(step) * tf.reduce_mean((a - b) ** 2) for a, b in ((output, target), (small, small_target))]
        total = sum(term * min(1, 74.7494 / float(term)) for term in terms)
    gradients = tape.gradient(total, [v.value for v in variables])
    before, head = [v.numpy() for v in variables], {v.path for v in trainer.networks["trainer"].trainable_variables}
    trainer.train_step(batch_of((crop, which)), "supervised")
    moved = 0
    for v, w, g in zip(variables, before, gradients, strict=True):
        firm = np.abs(g) > 1e-5  # the sign of others is rounding
        moved += firm.sum()
        expected = w - 1e-3 * (2 if v.path in head else 1) * g * np.sqrt(1e-3) / (np.sqrt(1e-3) * np.abs(g) + 1e-8)
        np.testing.assert_allclose(v.numpy()[firm], expected[firm], atol=1e-6)
    assert moved > 0.5 * sum(w.size for w in before)


def test_adversarial_terms():
    """Scores of the three discriminators on the same crops of output and sharp target; L_adv alone moves the generator; discriminators learn to tell them."""
    trainer, (crop, which) = built(replace(QUICK, replay=False, loss_scale=1e-30, discriminator_rate=1e-2)), example(4, 1)
    output, _ = outputs(trainer, crop, 5)
    corners = uniform(QUICK.seed, "corners", 0, (3, 2))
    crops = multi_scale_crops(tf.constant(np.stack([output, crop[..., 0]], -1)[None]), corners)
    fake, real = ([float(judge(c[..., k : k + 1])[0, 0]) for judge, c in zip(trainer.judges, crops, strict=True)] for k in (0, 1))
    kernel = trainer.trained.get_layer("outer").get_layer("outer_image").trainable_variables[0]
    before, seen = kernel.numpy(), []
    for number in range(8):
        seen.append(stepped(trainer, batch_of((crop, which)), "adversarial"))
        if number == 0:
            assert np.abs(kernel.numpy() - before).max() == pytest.approx(1e-4, rel=1e-2)
    expected = {"L_adv": np.mean([(d - 1) ** 2 for d in fake]), "D_fake": np.mean(fake), "D_real": np.mean(real)}
    expected["L_D"] = np.mean([d**2 for d in fake]) + np.mean([(d - 1) ** 2 for d in real])
    assert {name: seen[0][name] for name in expected} == pytest.approx(expected, rel=1e-3, abs=1e-4)
    assert seen[-1]["L_D"] < seen[0]["L_D"]


def test_replayed_examples_bring_their_own_coverage():
    config = replace(QUICK, replay_share=0.999, replay_slots=1)
    trainer = built(config)
    (crop, _), batch = example(100), batch_of(example(5, 6))
    trainer.state["replay"].which.assign([[2.0]])
    output, _ = outputs(trainer, crop, 6)
    logs = stepped(trainer, batch, "supervised")
    assert logs["replayed"] == 1 and logs["L_out_raw"] == pytest.approx(200 * mse(output, blurred(crop)) / p_of(6), rel=1e-3)


def test_the_product_is_an_average_of_the_weights():
    """a <- d a + (1 - d) w after every step, with d = min(decay, (n + 1) / (n + 10)) after n earlier ones."""
    trainer = built(replace(QUICK, ema_decay=0.25, replay=False))
    expected = trainer.networks["final"].get_weights()
    for number in range(4):
        trainer.train_step(batch_of(example(number, number)), "tracking")
        d = min(0.25, (number + 1) / (number + 10))
        expected = [d * a + (1 - d) * w for a, w in zip(expected, trainer.networks["raw"].get_weights(), strict=True)]
    for found, a, w in zip(trainer.networks["final"].get_weights(), expected, trainer.networks["raw"].get_weights(), strict=True):
        np.testing.assert_allclose(found, a, atol=1e-6)
        assert np.any(found != w) or w.size == 1  # the decay of tracked means is a constant
    assert "raw" not in built(QUICK).networks


def test_a_batch_is_treated_image_by_image():
    config = replace(QUICK, batch=2, replay=False)
    trainer, examples = built(config), (example(6, 0), example(7, 6))
    raw = [200 * mse(outputs(trainer, crop, step)[0], blurred(crop)) / p_of(step) for (crop, _), step in zip(examples, (4, 10), strict=True)]
    logs = stepped(trainer, batch_of(*examples), "supervised")
    assert logs["L_out_raw"] == pytest.approx(np.mean(raw), rel=1e-3)
    assert logs["L_out"] == pytest.approx(np.mean(np.minimum(raw, 74.7494)), rel=1e-3)


# --- Sharp targets, tracked coverage, other presets ---


def test_sharp_targets_with_tracked_coverage():
    """Probed pixels are not judged, the loss is weighed by mu_1 over the predictor's error, the predictor learns; p(c) follows the losses of its step."""
    config = replace(QUICK, target="sharp", coverage="tracked", coverage_decay=0.5, replay=False)
    trainer, averages = built(config), np.ones(7)
    for number, which in enumerate((0, 3, 3)):
        (crop, _), step = example(10 + number), config.scan_steps[which]
        probed = np.zeros((32, 32), bool)
        probed[start(32, step) :: step, start(32, step) :: step] = True
        output, _ = outputs(trainer, crop, step)
        raw = 200 * mse(np.where(probed, crop[..., 0], output), crop[..., 0]) * averages.mean() / averages[which]
        mean, predictor = averages.mean(), trainer.networks["predictor"].get_weights()
        logs = stepped(trainer, batch_of(example(10 + number, which)), "supervised")
        assert logs["L_out_raw"] == pytest.approx(raw, rel=1e-3)
        assert logs["L_out*w"] == pytest.approx(logs["L_out"] * logs["mu_1"] / max(logs["M"], 0.1), rel=1e-4)
        assert any((a != b).any() for a, b in zip(predictor, trainer.networks["predictor"].get_weights(), strict=True)) and logs["L_M"] > 0
        averages[which] = 0.5 * averages[which] + 0.5 * logs["L_out"] * averages[which] / mean
        np.testing.assert_allclose(trainer.state["p"].numpy(), averages, rtol=1e-4)
    predictor = trainer.networks["predictor"].get_weights()
    logs = stepped(trainer, batch_of(example(20, 1)), "adversarial")
    assert "L_M" not in logs and np.isfinite(logs["loss"])
    for a, b in zip(predictor, trainer.networks["predictor"].get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_predictor_learns_to_tell_noisy_images():
    trainer, rng = built(replace(QUICK, target="sharp", predictor_rate=3e-3, plateau=1000)), np.random.default_rng(0)
    learn = tf.function(trainer.learn_noise)
    for number in range(300):
        noise = (0.05, 0.4)[number % 2]
        learn(tf.constant(rng.normal(0, noise, (1, 32, 32, 1)), tf.float32), tf.constant([200 * noise**2], tf.float32))
        trainer.state["steps"].assign_add(1)
    quiet, loud = (
        float(tf.reduce_mean(trainer.networks["predictor"](trainer.noise(tf.constant(rng.normal(0, noise, (1, 32, 32, 1)), tf.float32)))))
        for noise in (0.05, 0.4)
    )
    assert quiet < 8 and loud > 20


@pytest.mark.parametrize("changes", [{"precision": "mixed_bfloat16"}, {"precision": "mixed_float16"}, {"legacy": True}, {"statistics": "hybrid"}])
def test_other_ways_of_computing_are_finite(changes):
    legacy = Config.legacy_code()
    names = ("zeros_in_range activation normalised statistics biases halving data_initialisation blur_before_halving trainer_loss trainer_rate beta_falls"
             " adversarial_weight adversarial_blur discriminator_initialiser").split()  # fmt: skip
    config = replace(QUICK, **({name: getattr(legacy, name) for name in names} if "legacy" in changes else changes))
    trainer = built(config)
    for number, kind in enumerate(("supervised", "adversarial")):
        logs = stepped(trainer, batch_of(example(number, number)), kind)
        assert all(np.isfinite(value) for value in logs.values())
    for network in trainer.networks.values():
        assert all(v.dtype == "float32" and np.isfinite(v.numpy()).all() for v in network.variables)
    if "precision" in changes:
        assert {isinstance(solver, keras.optimizers.LossScaleOptimizer) for solver in trainer.solvers.values()} == {changes["precision"] == "mixed_float16"}
        assert keras.config.dtype_policy().name == "float32" and trainer.state["clip_L_out"].mu1.dtype == "float32"


def test_one_stage_steps():
    """At its real size: losses on the scale of the samples, decay of kernels, batch normalisation that learns and then stays."""
    config = replace(Config.one_stage(), batch=2)
    trainer, examples = built(config, OneStage), (example(1, 0, 512), example(2, 0, 512))
    network, errors = trainer.networks["final"], []
    for crop, _ in examples:
        samples = crop[1::5, 1::5, 0]
        middle, scale = (samples.max() + samples.min()) / 2, np.ptp(samples) / 2
        output = np.asarray(network(((samples - middle) / scale)[None, ..., None], training=False))[0, ..., 0]
        errors.append(mse(output, (blurred(crop) - middle) / scale))
    kernels = sum(np.sum(v.numpy().astype(float) ** 2) for v in network.trainable_variables if v.name == "kernel")
    logs = stepped(trainer, batch_of(*examples), "frozen")
    assert logs["L_out_raw"] == pytest.approx(200 * np.mean(errors), rel=1e-3)
    assert logs["L_out"] == pytest.approx(np.mean(np.minimum(200 * np.array(errors), 74.7494)), rel=1e-3)
    assert logs["decay*w"] == pytest.approx(1e-5 * kernels / 2, rel=1e-3) and logs["loss"] == pytest.approx(logs["L_out"] + logs["decay*w"], rel=1e-5)
    moments = [v for v in network.non_trainable_variables if "moving" in v.path]
    before = [v.numpy() for v in moments]
    assert all((v.numpy() == b).all() for v, b in zip(moments, before, strict=True))
    stepped(trainer, batch_of(*examples), "supervised")
    assert all((v.numpy() != b).any() for v, b in zip(moments, before, strict=True))


# --- Runs ---


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reference") / "run"
    train_dlss(AVERAGED, folder)
    return folder


def test_run_folder(reference):
    (row,) = read_metrics(reference)
    assert int(row["step"]) == 12 and all(np.isfinite(float(value)) for value in row.values())
    assert {"L_out", "L_out_raw", "L_out*w", "L_aux", "L_aux_raw", "loss", "root_mse", "mu_1", "threshold", "L_adv", "L_D"} <= row.keys()
    assert 0 < float(row["replayed"]) < 1 and float(row["val_root_mse"]) > 0 and 0 < float(row["val_root_mse_bilinear"]) < 0.2
    names = ["config.json", "previews/0000012.png", "checkpoints/ckpt-12/state.index"]
    names += [f"{name}.weights.h5" for name in ("final", "raw", "trainer", "discriminator_1", "discriminator_2", "discriminator_3")]
    assert all((reference / name).is_file() for name in names)
    assert cv2.imread(str(reference / "previews/0000012.png"), cv2.IMREAD_GRAYSCALE).shape == (128, 96)
    held = checkpointed(reference, 12)
    for part in ("steps", "replay/crops", "replay/which", "replay/threshold", "clip_L_out/mu1", "clip_L_aux/mu2", "clip_L_out_adversarial/mu1"):
        assert sum(name.startswith(f"state_{part}/") for name in held) == 1, part
    assert next(value for name, value in held.items() if name.startswith("state_steps/")) == 12
    assert all(value != np.float32(25) for name, value in held.items() if "/mu1/" in name)
    iterations = {name.split("/")[0]: int(value) for name, value in held.items() if value.dtype == np.int64 and name.startswith("solver")}
    assert iterations == {"solver_adam": 8, "solver_adam_adversarial": 4, "solver_adam_discriminator": 4}


def test_resumed_run_is_bit_identical(reference, tmp_path):
    """Inside the adversarial stage: both stages' optimizers, three clippings, the replay buffer and the discriminators' own state."""
    run = shutil.copytree(reference, tmp_path / "run")
    for newer in ("ckpt-11", "ckpt-12"):
        shutil.rmtree(run / "checkpoints" / newer, ignore_errors=True)
    train_dlss(AVERAGED, run, resume=True)
    check_runs_equal(reference, run)


def test_killed_run_is_bit_identical(reference, tmp_path):
    """Killed while supervised; it goes on from there into the adversarial stage, in another process."""
    check_survives_kills("dlss", FLAGS, reference, tmp_path / "run", [5])


def test_learns(tmp_path):
    """Sharp targets and tracked coverage: both losses fall, and all that they need is in the checkpoint."""
    more = {"steps": 250, "plateau": 1000, "learning_rate": 2e-3, "checkpoint_every": 250, "validate_every": 250, "replay_share": 0.2}
    train_dlss(replace(QUICK, biases=True, tracked=0, target="sharp", coverage="tracked", **more), tmp_path / "run")
    rows = read_metrics(tmp_path / "run")
    assert len(rows) == 5 and float(rows[4]["root_mse"]) < 0.9 * float(rows[0]["root_mse"]) and float(rows[4]["L_M"]) < 0.3 * float(rows[0]["L_M"])
    assert float(rows[4]["L_out_raw"]) < 0.8 * float(rows[0]["L_out_raw"])
    held = checkpointed(tmp_path / "run", 250)
    assert all(any(name.startswith(part) for name in held) for part in ("state_p/", "solver_adam_predictor/"))
    assert (tmp_path / "run" / "predictor.weights.h5").is_file()


def test_several_devices_are_refused_in_one_line_also_where_there_is_one(tmp_path):
    with pytest.raises(ValueError, match="trains on one device") as refused:
        train_dlss(QUICK, tmp_path / "run", strategy=SimpleNamespace(num_replicas_in_sync=1))
    assert "\n" not in str(refused.value) and not (tmp_path / "run").exists()


def test_what_is_wrong_is_said_before_anything_is_made(reference, tmp_path, capsys):
    with pytest.raises(FileExistsError, match="--resume"):
        train_dlss(AVERAGED, reference)
    with pytest.raises(ValueError, match="loss_scale: 200.0 -> 100.0"):
        train_dlss(replace(AVERAGED, loss_scale=100.0), reference, resume=True)
    assert main(["train", "dlss", *FLAGS, "--data", str(tmp_path / "none"), "--out", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1 and "none" in said[0] and not (tmp_path / "run").exists()
