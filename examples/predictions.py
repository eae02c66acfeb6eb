"""A table for `twinrun import`: two models, five seeds each, what every run predicts for every test image.

`python examples/predictions.py` writes examples/predictions.csv; the images are scikit-learn's digits.
"""

import csv
from pathlib import Path

from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.neural_network import MLPClassifier

TEST, TRAIN = 100, 400
images, labels = load_digits(return_X_y=True)
test, test_labels = images[:TEST], labels[:TEST]
train, train_labels = images[TEST : TEST + TRAIN] / 16, labels[TEST : TEST + TRAIN]

rows = []
for seed in range(5):
    models = {
        "forest": RandomForestClassifier(20, random_state=seed),
        "network": MLPClassifier((32,), max_iter=60, random_state=seed),
    }
    for name, model in models.items():
        predicted = model.fit(train, train_labels).predict(test / 16)
        rows += [(name, seed, f"digit_{n}", test_labels[n], predicted[n]) for n in range(TEST)]

with Path(__file__).with_suffix(".csv").open("w", newline="") as file:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerows([("model", "seed", "example", "label", "prediction"), *sorted(rows)])
