"""Compares exported networks with what mappa computes: onnxruntime's logits, and PyTorch's state dict.

    python scripts/against_onnxruntime.py MAPPA_BINARY [MODEL...]

Each network of the zoo gets one step of training on random pictures, so that weights and running statistics are not the initial ones; then it is exported to
ONNX, plain and folded, and to a PyTorch checkpoint. Eight pictures: the probabilities of `mappa predict` and those of onnxruntime's logits are compared.
"""

import csv
import json
import os
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime
import torch
from PIL import Image

binary, names = sys.argv[1], sys.argv[2:]
ALL = "cnn mlp lenet5 alexnet resnet8 resnet18 resnet20 resnet34 resnet50 resnet56 mobilenet_v2 efficientnet_lite0 squeezenet1_0 squeezenet1_1 vgg11_bn vgg16_bn"
SIDE = 48


def mappa(*args):
    done = subprocess.run([binary, *args], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{args}: {done.stderr}")
    return done.stdout


worst_of_all = 0.0
with tempfile.TemporaryDirectory() as folder:
    rng = np.random.default_rng(1)
    for split, count in [("train", 16), ("val", 4)]:
        for c in ["a", "b"]:
            os.makedirs(f"{folder}/data/{split}/{c}")
            for i in range(count):
                picture = rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
                Image.fromarray(picture).save(f"{folder}/data/{split}/{c}/{i}.png")
    pictures = sorted(f"{folder}/data/val/{c}/{i}.png" for c in "ab" for i in range(4))
    for name in names or ALL.split():
        run = f"{folder}/{name}"
        mappa("train", "--device", "cpu", "--data", f"{folder}/data", "--model", name, "--size", str(SIDE), "--max-steps", "2", "--lr", "0.001", "--out", run)
        table = f"{folder}/p.csv"
        mappa("eval", run, "--device", "cpu", "--data", f"{folder}/data", "--predictions", table)
        ours = np.array([[float(v) for v in row[1:]] for row in list(csv.reader(open(table)))[1:]])
        line = f"{name:20}"
        for fold in [False, True]:
            file = f"{folder}/{name}.onnx"
            mappa("export", run, "--out", file, *(["--fold"] if fold else []))
            model = onnx.load(file)
            onnx.checker.check_model(model, full_check=True)
            about = {entry.key: entry.value for entry in model.metadata_props}
            mean, std = (np.array(json.loads(about[key]), np.float32)[:, None, None] for key in ["mean", "std"])
            x = np.stack([np.asarray(Image.open(p), np.float32).transpose(2, 0, 1) for p in pictures])
            x = ((x / np.float32(about["scale"])) - mean) / std
            session = onnxruntime.InferenceSession(file)
            logits = session.run(None, {"input": x})[0].astype(np.float64)
            one = session.run(None, {"input": x[:1]})[0]
            assert np.abs(one - logits[:1]).max() < 1e-3, "the batch is free"
            p = np.exp(logits - logits.max(1, keepdims=True))
            p /= p.sum(1, keepdims=True)
            # Logits up to a constant a picture.
            difference = np.abs((logits - logits.mean(1, keepdims=True)) - (np.log(ours) - np.log(ours).mean(1, keepdims=True))).max()
            size = np.abs(logits - logits.mean(1, keepdims=True)).max()
            # Untrained networks have small logits: what counts is the difference beside them.
            worst_of_all = max(worst_of_all, difference / size)
            line += f"  {'folded' if fold else 'plain'} {difference:.1e} of {size:.1e}, {len(model.graph.node)} nodes"
        mappa("export", run, "--out", f"{folder}/{name}.pth")
        state = torch.load(f"{folder}/{name}.pth", weights_only=True)
        from safetensors.torch import load_file

        saved = load_file(f"{run}/model.safetensors")
        assert state.keys() == saved.keys() and all(torch.equal(state[key], saved[key]) for key in saved)
        print(line, flush=True)
print(f"largest difference of a logit, as a share of the largest logit: {worst_of_all:.1e}")
sys.exit(worst_of_all > 1e-4)
