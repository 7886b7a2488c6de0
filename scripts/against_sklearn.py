"""Compares the scores in a run's report.html with scikit-learn's, of the same predictions.

    mappa eval RUN --predictions predictions.csv
    python scripts/against_sklearn.py RUN/report.html predictions.csv
"""

import csv
import json
import re
import sys

import numpy as np
from sklearn import metrics

report, predictions = sys.argv[1:]
page = open(report, encoding="utf-8").read()
ours = json.loads(re.search(r"id=scores>(.*?)</script>", page, re.S).group(1))
rows = list(csv.reader(open(predictions, encoding="utf-8", newline="")))
classes = rows[0][1:]
truth = np.array([classes.index(row[0]) for row in rows[1:]])
p = np.array([[float(value) for value in row[1:]] for row in rows[1:]])
answers = p.argmax(1)
labels = range(len(classes))
precision, recall, f1, _ = metrics.precision_recall_fscore_support(truth, answers, labels=labels, zero_division=0)
area = [metrics.roc_auc_score(truth == c, p[:, c]) for c in labels]
matrix = np.zeros((len(classes), len(classes)), int)
for t, a, n in ours["confusion_matrix"]:
    matrix[t, a] = n

# Calibration: ten bins (low, high] of the confidence; of each, how far its accuracy is from it, weighted by its share.
confidence, right = p.max(1), answers == truth
bins = np.clip(np.ceil(confidence * 10).astype(int) - 1, 0, 9)
calibration = sum(abs(right[bins == b].mean() - confidence[bins == b].mean()) * (bins == b).mean() for b in range(10) if (bins == b).any())

worst = 0.0
for name, own, theirs in [
    ("accuracy", ours["accuracy"], metrics.accuracy_score(truth, answers)),
    ("loss", ours["loss"], metrics.log_loss(truth, p, labels=labels)),
    ("precision", ours["precision"], precision),
    ("recall", ours["recall"], recall),
    ("f1", ours["f1"], f1),
    ("macro_f1", ours["macro_f1"], metrics.f1_score(truth, answers, average="macro")),
    ("auc", ours["auc"], np.mean(area)),
    ("calibration_error", ours["calibration_error"], calibration),
    ("confusion_matrix", matrix, metrics.confusion_matrix(truth, answers, labels=labels)),
]:
    difference = float(np.max(np.abs(np.asarray(own) - np.asarray(theirs))))
    worst = max(worst, difference)
    print(f"{name:18} {difference:.1e}")
# The areas in the legend of the ROC chart have four digits.
legend = dict(re.findall(r"</i>([^<]+) (\d\.\d{4})</span>", page))
for c in labels:
    if classes[c] in legend:
        worst = max(worst, max(0.0, abs(float(legend[classes[c]]) - area[c]) - 5e-5))
print(f"{len(truth)} predictions, {len(legend)} areas: the largest difference is {worst:.1e}")
sys.exit(worst > 1e-6)
