"""Labels that are probably wrong: confident learning on out-of-fold predictions. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

COLUMNS = ("path", "label", "likely_label", "label_probability", "likely_probability")


def find_suspects(
    paths: Sequence[str], labels: np.ndarray, probabilities: np.ndarray, classes: Sequence[str]
) -> pd.DataFrame:
    """Return the suspected photos with the columns ``COLUMNS``, the most suspicious first.

    ``labels``: int (n,), the given ones. ``probabilities``: (n, classes), by models that did not see the photo.

    Confident learning (Northcutt, Jiang & Chuang 2021, JAIR 70): a photo counts as class j where p(j) reaches the mean
    of p(j) over the photos labelled j. From the counts of (given, likely) follows how many labels of each pair are
    wrong; as many photos, those with the largest p(likely) - p(given), are suspects. Ranked by the probability of the
    given label, the smallest first ("self-confidence").
    """
    import logging

    from cleanlab.filter import find_label_issues  # seconds to import

    logging.getLogger("cleanlab").setLevel(logging.ERROR)
    present = np.unique(labels)  # cleanlab wants an example of each class
    place = np.searchsorted(present, labels)
    own = probabilities[:, present]
    own = own / np.maximum(own.sum(axis=1, keepdims=True), 1e-12)
    found = find_label_issues(place, own, filter_by="prune_by_noise_rate", n_jobs=1)
    given = own[np.arange(len(labels)), place]
    likely = own.argmax(axis=1)
    suspects = np.flatnonzero(found & (likely != place))
    suspects = suspects[np.argsort(given[suspects], kind="stable")]
    return pd.DataFrame(
        {
            "path": [paths[i] for i in suspects.tolist()],
            "label": [classes[label] for label in labels[suspects].tolist()],
            "likely_label": [classes[label] for label in present[likely[suspects]].tolist()],
            "label_probability": given[suspects],
            "likely_probability": own[suspects, likely[suspects]],
        },
        columns=list(COLUMNS),
    )
