"""Measure the accuracy on the test digits, and draw the confusion matrix as a picture."""

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image

parser = argparse.ArgumentParser()
parser.add_argument("--data", type=Path, required=True)
parser.add_argument("--model", type=Path, required=True)
parser.add_argument("--out", type=Path, required=True)
arguments = parser.parse_args()

inputs = np.load(arguments.data / "test_x.npy")
targets = np.load(arguments.data / "test_y.npy")
with np.load(arguments.model / "weights.npz") as weights:
    first, second, first_bias, second_bias = (weights[name] for name in weights.files)
hidden = np.maximum(inputs @ first + first_bias, 0)
guesses = np.argmax(hidden @ second + second_bias, axis=1)
accuracy = float((guesses == targets).mean())

confusion = np.zeros((10, 10))
np.add.at(confusion, (targets, guesses), 1)
shades = 255 - np.clip(confusion / confusion.max() * 255, 0, 255).astype("uint8")
arguments.out.mkdir(parents=True, exist_ok=True)
Image.fromarray(shades).resize((320, 320), Image.Resampling.NEAREST).save(arguments.out / "confusion.png")
(arguments.out / "metrics.json").write_text(json.dumps({"accuracy": accuracy}))
print(f"accuracy {accuracy:.3f} on {len(targets)} digits")
