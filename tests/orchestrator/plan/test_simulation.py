"""A sweep played from its costs: by hand where it is small, by what must hold where it is drawn."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.plan.calibration import Machine
from orchestrator.plan.estimates import Speeds
from orchestrator.plan.simulation import Cluster, PrefillCost, SimulatedRun, SimulationSettings, simulate, standing
from orchestrator.plan.stopping import Never, rule_of
from orchestrator.plan.workload import FitWork, fit_work
from tests.support.sweep_costs import CALIBRATION, PHOTOS
from trainers.config import TrialConfig

SPEEDS = Speeds(CALIBRATION, Machine(1))
COST = PrefillCost(SPEEDS.decode_s, SPEEDS.augment_s)
HEAD_EPOCH_S = 100 * 3e-5 + 20 * 1e-5
DECODE_S, PREFIX_S = 120 * 4e-3, 120 * 16e-3


def work(**values: object) -> FitWork:
    return fit_work(TrialConfig(**values), PHOTOS, SPEEDS)  # type: ignore[arg-type]


def terms(workers: int = 1, **values: object) -> SimulationSettings:
    machine = {"nodes": values.pop("nodes", 1), "shared_store": values.pop("shared_store", True)}
    return SimulationSettings(Machine(workers, **machine), COST, **({"trial_s": 0.0} | values))  # type: ignore[arg-type]


def played(
    works: list[FitWork], about: SimulationSettings, epochs: int = 10, stored: dict | None = None, seed: int = 0
) -> SimulatedRun:
    return simulate(works, Never(epochs), about, Cluster.cold(about, stored or {}), random.Random(seed))


def test_a_trial_alone_builds_its_rows_and_trains() -> None:
    one = work()
    found = played([one], terms())
    build_s = DECODE_S + PREFIX_S + 2.0 + 0.5  # opening, tracing the prefix
    assert found.build_s == pytest.approx(build_s)
    assert found.seconds == pytest.approx(build_s + 1.0 + 10 * HEAD_EPOCH_S)
    assert (found.epochs, found.complete) == ((10,), (0,))
    assert sum(found.built.values()) == 240  # 120 images, 120 features


def test_a_second_trial_of_the_architecture_costs_its_epochs_alone() -> None:
    one, two = played([work()], terms()), played([work(), work()], terms())
    assert two.seconds - one.seconds == pytest.approx(10 * HEAD_EPOCH_S)
    assert two.built == one.built


def test_what_is_stored_is_not_built() -> None:
    one = work()
    stored = {rows.place: rows.count for rows in one.features}
    found = played([one], terms(), stored=stored)
    assert (found.build_s, found.built) == (0.0, {})
    assert found.seconds == pytest.approx(3.0 + 10 * HEAD_EPOCH_S)


def test_stored_images_leave_the_prefix_to_run() -> None:
    one = work()
    found = played([one], terms(), stored={rows.place: rows.count for rows in one.images})
    assert found.build_s == pytest.approx(PREFIX_S + 2.5)


def test_copies_of_a_larger_multiplier_build_what_is_new() -> None:
    few, many = work(multiplier=2.0), work(multiplier=3.0)
    found = played([few, many], terms())
    assert sum(found.built.values()) == 2 * (100 + 20 + 200)


def test_without_sharing_the_prefix_runs_in_every_epoch_and_images_are_decoded_once() -> None:
    found = played([work(), work()], terms(share=False))
    assert sum(found.built.values()) == 120
    assert found.seconds == pytest.approx(DECODE_S + 3.0 + 2 * 10 * (HEAD_EPOCH_S + PREFIX_S))


def test_a_set_that_does_not_fit_runs_live() -> None:
    found = played([work()], terms(fits=lambda size: size < 1000))
    assert found.seconds == pytest.approx(DECODE_S + 3.0 + 10 * (HEAD_EPOCH_S + PREFIX_S))


def test_two_workers_share_one_build() -> None:
    found = played([work()], terms(2))
    assert found.build_s == pytest.approx(DECODE_S + PREFIX_S + 2 * 2.5) or found.build_s < DECODE_S + PREFIX_S + 5.1


def test_two_prefixes_begun_at_once_decode_each_photo_once() -> None:
    both = [work(), work(unfrozen_layers=5)]
    about = terms(2)
    found = played(both, about)
    photos = both[0].images[0].place
    assert found.built[photos] == sum(rows.count for rows in both[0].images if rows.place == photos)


def test_no_more_workers_fill_one_set_than_a_shelf_has_parts() -> None:
    of_many = [played([work()], terms(workers)).seconds for workers in (16, 64)]
    assert of_many[0] == pytest.approx(of_many[1])


def test_heads_train_while_the_next_prefix_is_built() -> None:
    deep = work(unfrozen_layers=13)
    heads = [work(dropout=0.1 * k) for k in range(5)]
    stored = {rows.place: rows.count for rows in heads[0].features}
    found = played([deep, *heads], terms(2), epochs=200, stored=stored)
    alone_s = played([deep], terms(1), epochs=200, stored=stored).seconds
    assert found.seconds <= alone_s + 1e-6  # the other worker trained all the heads meanwhile


@pytest.mark.parametrize(("known_ahead", "complete"), [(0, {0}), (10, {1, 2, 3})])
def test_a_trial_whose_rows_are_stored_overtakes_if_no_result_decides_the_next_trial(
    known_ahead: int, complete: set[int]
) -> None:
    """A learning sampler is asked for the second trial once the first, which needs a prefill, has a worker."""
    deep, heads = work(unfrozen_layers=13), [work(dropout=0.1 * k) for k in range(3)]
    stored = {rows.place: rows.count for rows in heads[0].features}
    alone_s = played([deep], terms(), stored=stored).seconds
    found = played([deep, *heads], terms(known_ahead=known_ahead, hours_s=alone_s + 1e-6), stored=stored)
    assert set(found.complete) == complete


def test_two_workers_fill_two_sets_before_they_share_one() -> None:
    """As the search does: a second trial is requested while the first one's rows are computed."""
    both = [work(), work(unfrozen_layers=5)]
    alone = [played([each], terms()) for each in both]
    found = played(both, terms(2))
    # Each opens and traces its own prefix and network; the photos are decoded once.
    assert found.build_s <= sum(each.build_s for each in alone) - DECODE_S + 1e-6


def test_nodes_with_stores_of_their_own_build_what_each_needs() -> None:
    works = [work(dropout=0.1), work(dropout=0.2)]
    shared = played(works, terms(2, nodes=2), epochs=3000)
    apart = played(works, terms(2, nodes=2, shared_store=False), epochs=3000)
    assert sum(shared.built.values()) == 240
    assert sum(apart.built.values()) == 480


def test_the_search_ends_at_its_hours() -> None:
    found = played([work(unfrozen_layers="all")] * 5, terms(hours_s=100.0), epochs=10)
    assert found.seconds == 100.0
    assert found.complete == (0,)  # 53 s an epoch of ten: only the first came so far


def test_the_best_come_first() -> None:
    found = played([work()] * 30, terms(3))
    assert sorted(found.complete) == list(range(30))
    assert found.complete != tuple(range(30))


CONFIGS = st.fixed_dictionaries(
    {
        "unfrozen_layers": st.sampled_from([0, 5, 13, "all"]),
        "multiplier": st.sampled_from([1.0, 2.0]),
        "head": st.sampled_from(["softmax", "arcface"]),
        "mixup": st.sampled_from([0.0, 0.0, 0.2]),
    }
)
SCHEDULERS = ("none", "asha", "hyperband", "median")


@settings(max_examples=60, deadline=None)
@given(
    st.lists(CONFIGS, min_size=1, max_size=14),
    st.sampled_from(SCHEDULERS),
    st.integers(1, 6),
    st.booleans(),
    st.integers(0, 5),
)
def test_every_trial_ends_and_no_time_is_lost(
    configs: list[dict], scheduler: str, workers: int, share: bool, seed: int
) -> None:
    about, works = terms(workers, share=share), [work(**config) for config in configs]
    cluster = Cluster.cold(about, {})
    found = simulate(works, rule_of(scheduler, 9), about, cluster, random.Random(seed))
    assert len(found.epochs) == len(works)
    assert all(1 <= epochs <= 9 for epochs in found.epochs)
    assert {place for place, epochs in enumerate(found.epochs) if epochs == 9} == set(found.complete)
    assert found.busy_s / workers <= found.seconds * (1 + 1e-9) + 1e-9
    least_s = sum(epochs * each.epoch_s for epochs, each in zip(found.epochs, works, strict=True))
    assert found.busy_s >= least_s * (1 - 1e-9)
    again = simulate(works, rule_of(scheduler, 9), about, Cluster.cold(about, {}), random.Random(seed))
    assert again == found


@settings(max_examples=40, deadline=None)
@given(st.lists(CONFIGS, min_size=1, max_size=12), st.integers(1, 5))
def test_sharing_is_never_slower_but_for_what_it_opens(configs: list[dict], workers: int) -> None:
    works = [work(**config) for config in configs]
    shared, alone = (played(works, terms(workers, share=share), epochs=9) for share in (True, False))
    # A build opens and traces a prefix in each worker that takes part; a worker may wait for a trial that runs longest.
    kinds = len({each.prefix for each in works if each.has_prefix})
    assert shared.busy_s <= alone.busy_s + 6.0 * kinds * workers + 1e-6


@settings(max_examples=40, deadline=None)
@given(st.lists(CONFIGS, min_size=1, max_size=12), st.integers(1, 6))
def test_more_workers_are_not_slower_but_for_what_each_opens(configs: list[dict], workers: int) -> None:
    works = [work(**config) for config in configs]
    fewer, more = (played(works, terms(count), epochs=9).seconds for count in (workers, 2 * workers))
    assert more <= fewer + 6.0 * len({each.architecture for each in works}) + 1e-6


def test_a_thousand_trials_on_64_workers_play_in_seconds() -> None:
    draw = random.Random(0)
    kinds = [work(unfrozen_layers=n, multiplier=m) for n in (0, 5, 13, "all") for m in (1.0, 2.0)]
    works = [draw.choice(kinds) for _ in range(1000)]
    began_s = time.perf_counter()
    found = simulate(works, rule_of("asha", 20, 2), terms(64), Cluster.cold(terms(64), {}), draw)
    assert time.perf_counter() - began_s < 5
    assert len(found.epochs) == 1000
    assert sum(epochs >= 6 for epochs in found.epochs) < 550


def test_standing_is_a_quantile_that_equals_share() -> None:
    assert standing([3.0, 3.0, 3.0]) == [0.0, 0.0, 0.0]
    low, high, middle = standing([1.0, 100.0, 2.0])
    assert (low, middle) == (pytest.approx(-high), 0.0)
    assert high == pytest.approx(0.967, abs=1e-3)


def test_what_trains_longer_wins_more_often() -> None:
    """With ten deep trials among twenty, chance alone would give half of the sweeps to one of them."""
    works = [work(unfrozen_layers=5 if place % 2 else 0) for place in range(20)]
    best = [played(works, terms(2), seed=seed).complete[0] for seed in range(100)]
    assert 70 <= sum(place % 2 for place in best) <= 99


def test_a_photo_is_decoded_once_for_all_its_copies_and_again_for_new_ones() -> None:
    rows = work(multiplier=3.0, unfrozen_layers="all").images
    train = next(r for r in rows if r.split == "train" and not r.recipe)
    copies = next(r for r in rows if r.recipe)
    photo_s, copy_s = COST.of_image(train), COST.of_image(copies)
    assert (train.count, copies.count) == (100, 200)
    assert COST.of_images([(train, 100), (copies, 200)], rows) == pytest.approx(100 * photo_s + 200 * copy_s)
    assert COST.of_images([(copies, 200)], rows) == pytest.approx(100 * photo_s + 200 * copy_s)
    assert COST.of_images([(copies, 20)], rows) == pytest.approx(20 * photo_s + 20 * copy_s)
    assert COST.of_images([], rows) == 0
