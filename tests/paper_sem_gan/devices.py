"""Training on two devices, in a process of its own because TensorFlow fixes its devices when it starts: `python -m tests.paper_sem_gan.devices PAIRS RUN`.

Resumes the run and writes one JSON object: every loss weight and average of the calibration as each device holds it, and one hash of all the rest per device.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

import tensorflow as tf

from paper_sem_gan import Config
from paper_sem_gan.train import train_sem_gan
from tests.common.devices import fingerprints

QUICK = replace(
    Config.tiny(),
    base=2,
    levels=2,
    discriminator_base=1,
    patch=16,
    stride=14,
    batch=4,
    warm_up=6,
    calibration=8,
    steps=24,
    checkpoint_every=4,
    validate_every=12,
)  # generator steps 1-6 on L1 alone, 7-14 calibration, then training; the discriminator after 8, 12, 16, 20 and 24
JOINT = replace(QUICK, warm_up=2, calibration=6, steps=10, checkpoint_every=5)  # calibration in steps 3-8

if __name__ == "__main__":
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    trainer = train_sem_gan(JOINT, Path(sys.argv[2]), resume=True, pairs=Path(sys.argv[1]), strategy=strategy)
    print(json.dumps({"state": {name: [float(v) for v in variable.values] for name, variable in trainer.state.items()}, "fingerprints": fingerprints(trainer)}))
