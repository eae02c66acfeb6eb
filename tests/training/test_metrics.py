"""Metrics against scikit-learn, and what they are where it has no answer."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from twinrun.training.metrics import auc_score, evaluate_metrics


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 5), st.integers(10, 80), st.integers(0, 2**31), st.booleans())
def test_against_scikit_learn(classes: int, count: int, seed: int, ties: bool) -> None:
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), rng.integers(0, classes, count - classes)])
    raw = rng.random((count, classes)).round(1 if ties else 8) + 0.01
    probabilities = (raw / raw.sum(axis=1, keepdims=True)).astype(np.float32)
    logs = np.log(probabilities.astype(np.float64))
    found = evaluate_metrics(probabilities, labels, logs)
    predicted = probabilities.argmax(axis=1)
    average = "binary" if classes == 2 else "macro"
    assert found.accuracy == reference.accuracy_score(labels, predicted)
    expected_f1 = reference.f1_score(labels, predicted, average=average, zero_division=0.0)
    # scikit-learn leaves out classes that are neither there nor predicted; here every class is there.
    assert found.f1 == pytest.approx(expected_f1, abs=1e-12)
    aucs = [reference.roc_auc_score(labels == c, probabilities[:, c]) for c in range(classes)]
    assert found.auc == pytest.approx(aucs[1] if classes == 2 else np.mean(aucs), abs=1e-12)
    assert found.loss == pytest.approx(reference.log_loss(labels, probabilities), rel=1e-5)


def test_auc_is_undefined_with_one_class() -> None:
    assert auc_score(np.array([0.1, 0.9], np.float32), np.array([True, True])) is None
    one_class = evaluate_metrics(np.full((3, 2), 0.5, np.float32), np.zeros(3, np.int64), np.zeros((3, 2)))
    assert one_class.auc is None
    assert one_class.accuracy == 1.0


def test_auc_counts_ties_half() -> None:
    assert auc_score(np.array([0.5, 0.5, 0.5], np.float32), np.array([True, False, False])) == 0.5


def test_f1_is_undefined_without_a_positive_and_over_the_classes_that_are_there() -> None:
    two, three = np.full((4, 2), 0.5, np.float32), np.array([[0.8, 0.1, 0.1], [0.1, 0.1, 0.8]], np.float32)
    assert evaluate_metrics(two, np.zeros(4, np.int64), np.log(two.astype(float))).f1 is None
    # Both are class 0; one is called 2, which the test set has not.
    assert evaluate_metrics(three, np.zeros(2, np.int64), np.log(three.astype(float))).f1 == pytest.approx(2 / 3)


@given(st.permutations(range(12)))
def test_metrics_do_not_depend_on_the_order_of_examples(order: list[int]) -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(3), 12).astype(np.float32)
    labels, logs = np.arange(12) % 3, np.log(probabilities.astype(np.float64))
    assert evaluate_metrics(probabilities[order], labels[order], logs[order]) == evaluate_metrics(
        probabilities, labels, logs
    )


def test_confident_predictions_keep_their_order_in_the_auc() -> None:
    """Logit differences of 17.8 and 25: both are the probability 1 in float32."""
    logits = np.array([[0.0, 25.0], [0.0, 18.0], [0.0, 20.0], [0.0, 17.8]])
    logs = logits - np.logaddexp(logits[:, 0], logits[:, 1])[:, None]
    probabilities = np.exp(logs).astype(np.float32)
    assert set(probabilities[:, 1]) == {np.float32(1)}
    assert evaluate_metrics(probabilities, np.array([1, 0, 1, 0]), logs).auc == 1.0
    assert evaluate_metrics(probabilities, np.array([0, 1, 1, 0]), logs).auc == 0.5
