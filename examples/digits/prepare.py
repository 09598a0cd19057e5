"""Split the digits that come with scikit-learn into training and test data."""

import argparse
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

parser = argparse.ArgumentParser()
parser.add_argument("--out", type=Path, required=True)
arguments = parser.parse_args()

digits = load_digits()
parts = train_test_split(digits.data / 16.0, digits.target, test_size=0.25, random_state=0)
arguments.out.mkdir(parents=True, exist_ok=True)
for name, part in zip(("train_x", "test_x", "train_y", "test_y"), parts, strict=True):
    np.save(arguments.out / f"{name}.npy", part)
print(f"{len(parts[0])} digits to train on, {len(parts[1])} to test on")
