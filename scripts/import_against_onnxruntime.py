"""Compares imported ONNX classifiers with onnxruntime: the probabilities of a random picture.

    python scripts/import_against_onnxruntime.py MAPPA_BINARY FILE.onnx...
"""

import json
import os
import subprocess
import sys
import tempfile

import numpy as np
import onnxruntime
from PIL import Image

binary, files = sys.argv[1], sys.argv[2:]
worst = 0.0
with tempfile.TemporaryDirectory() as folder:
    for file in files:
        session = onnxruntime.InferenceSession(file)
        _, channels, height, width = session.get_inputs()[0].shape
        picture = np.random.default_rng(1).integers(0, 256, (height, width, channels), dtype=np.uint8)
        Image.fromarray(picture).save(f"{folder}/x.png")
        name = os.path.basename(file)
        weights = f"{folder}/{name}.safetensors"
        subprocess.run([binary, "import", file, "--out", weights], check=True, capture_output=True)
        line = subprocess.run([binary, "predict", weights, f"{folder}/x.png", "--json", "--top", "100000", "--device", "cpu"], check=True, capture_output=True)
        top = json.loads(line.stdout)["top"]
        ours = np.array([entry["probability"] for entry in sorted(top, key=lambda entry: int(entry["class"]))])
        x = (picture.astype(np.float32) / 255).transpose(2, 0, 1)[None]
        logits = session.run(None, {session.get_inputs()[0].name: x})[0][0].astype(np.float64)
        theirs = logits - logits.mean()
        difference = np.abs(np.log(ours) - np.log(ours).mean() - theirs).max()
        # Untrained networks have small logits: what counts is the difference beside them.
        worst = max(worst, difference / np.abs(theirs).max())
        print(f"{name:30} {difference:.1e} of {np.abs(theirs).max():.2g}", flush=True)
print(f"largest difference of a logit, as a share of the largest logit: {worst:.1e}")
sys.exit(worst > 1e-4)
