"""Studies of the words of training: what one has trained, another copies."""

from benchmarks.training.words import COLUMNS, STUDIES, shared

ROW = {
    **dict.fromkeys(COLUMNS, ""),
    **{"study": "bottom_rate", "data": "trashnet", "base": "mobilenet_0.25, all", "value": "1.0", "seed": "1"},
    **{"val_accuracy": "0.9", "val_loss": "0.3", "seconds": "12.0"},
}


def test_a_configuration_that_another_study_trained_is_copied():
    found = shared("ema", "trashnet", "mobilenet_0.25, all", "0.0", 1, [ROW])
    assert found == {"val_accuracy": "0.9", "val_loss": "0.3", "seconds": "12.0"}


def test_another_configuration_seed_or_source_is_not_copied():
    asked = [
        ("ema", "trashnet", "mobilenet_0.25, all", "0.9", 1),
        ("ema", "trashnet", "mobilenet_1.0, 20 layers", "0.0", 1),
        ("ema", "trashnet", "mobilenet_0.25, all", "0.0", 2),
        ("ema", "clothing", "mobilenet_0.25, all", "0.0", 1),
    ]
    assert [shared(*each, [ROW]) for each in asked] == [{}] * 4


def test_every_value_of_a_study_is_another_configuration():
    from trainers.config import canonical

    seen = 0
    for study in STUDIES.values():
        for base in study.bases.values():
            found = [canonical({**base, **value}) for value in study.values.values()]
            assert len(found) == len({str(each) for each in found})
            seen += len(found)
    assert seen > 50
