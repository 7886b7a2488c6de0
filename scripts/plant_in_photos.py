"""Puts known faults into a copy of a picture data set, for `mappa data check`, and counts which of them it found.

    python scripts/plant_in_photos.py plant FLOWERS.tar DIR       # 50 copies, 20 broken files, 30 swapped labels
    mappa train --data DIR/flowers-96 --config configs/photos-transfer.toml --weights efficientnet_lite0-imagenet.safetensors --out DIR/run
    mappa data check DIR/flowers-96 --run DIR/run --json > check.json
    python scripts/plant_in_photos.py count check.json

The archive holds one folder with train/CLASS and val/CLASS.
"""

import json
import os
import random
import shutil
import sys
import tarfile

from PIL import Image


def plant(archive, folder):
    random.seed(4)
    shutil.rmtree(folder, ignore_errors=True)
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    root = os.path.join(folder, os.listdir(folder)[0])
    classes = sorted(os.listdir(f"{root}/train"))
    train = [(c, f) for c in classes for f in sorted(os.listdir(f"{root}/train/{c}"))]
    random.shuffle(train)
    for i, (c, f) in enumerate(train[:50]):
        picture = Image.open(f"{root}/train/{c}/{f}").convert("RGB")
        half, twice = ((picture.width // 2, picture.height // 2), (picture.width * 2, picture.height * 2))
        copy, quality = [
            (picture, 35),
            (picture.resize(half), 85),
            (picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT), 85),
            (picture.transpose(Image.Transpose.FLIP_TOP_BOTTOM).resize(twice), 70),
        ][i % 4]
        # Half of them across the parts: leaks.
        copy.save(f"{root}/{'train' if i < 25 else 'val'}/{c}/planted-{i}.jpg", quality=quality)
    for i, (c, f) in enumerate(train[50:70]):
        whole = open(f"{root}/train/{c}/{f}", "rb").read()
        noise = bytes(random.randrange(256) for _ in range(4000))
        with open(f"{root}/train/{c}/corrupt-{i}.jpg", "wb") as file:
            file.write([b"", whole[:200], noise, whole[:100] + bytes(300)][i % 4])
    for c, f in train[70:100]:
        other = random.choice([x for x in classes if x != c])
        shutil.move(f"{root}/train/{c}/{f}", f"{root}/train/{other}/swapped-{c}-{f}")


def count(file):
    events = [json.loads(line) for line in open(file, encoding="utf-8") if line.startswith("{")]
    of = lambda kind: [event for event in events if event["event"] == kind]
    planted = [pair for pair in of("duplicate") if any("planted-" in item for item in pair["items"])]
    names = lambda pairs: {item for pair in pairs for item in pair["items"] if "planted-" in item}
    swapped = sum("swapped-" in suspect["item"] for suspect in of("suspect")[:60])
    print(f"broken files {sum('corrupt-' in event['what'] for event in of('unreadable'))} of 20, others {sum('corrupt-' not in e['what'] for e in of('unreadable'))}")
    print(f"copies {len(names(planted))} of 50, as leaks {len(names(p for p in planted if p['leak']))} of 25; other pairs {len(of('duplicate')) - len(planted)}")
    print(f"swapped labels among the first 60 suspects: {swapped} of 30")


{"plant": plant, "count": count}[sys.argv[1]](*sys.argv[2:])
