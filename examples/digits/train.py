"""Train a network with one hidden layer; prints the loss of each epoch."""

import argparse
import json
from pathlib import Path

import numpy as np
from sklearn.neural_network import MLPClassifier

parser = argparse.ArgumentParser()
parser.add_argument("--data", type=Path, required=True)
parser.add_argument("--out", type=Path, required=True)
parser.add_argument("--epochs", type=int, default=30)
parser.add_argument("--lr", type=float, default=0.002)
parser.add_argument("--hidden", type=int, default=64)
arguments = parser.parse_args()

inputs = np.load(arguments.data / "train_x.npy")
targets = np.load(arguments.data / "train_y.npy")
network = MLPClassifier(hidden_layer_sizes=(arguments.hidden,), learning_rate_init=arguments.lr, random_state=0)
for epoch in range(1, arguments.epochs + 1):
    network.partial_fit(inputs, targets, classes=range(10))
    print(f"epoch {epoch}/{arguments.epochs}: loss {network.loss_:.4f}", flush=True)

arguments.out.mkdir(parents=True, exist_ok=True)
np.savez(arguments.out / "weights.npz", *network.coefs_, *network.intercepts_)
(arguments.out / "settings.json").write_text(json.dumps({"hidden": arguments.hidden, "loss": network.loss_}))
