"""The same map over this process, local processes and a Dask cluster."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from medtool.errors import ImageError, UsageError
from medtool.parallel import WorkerDiedError, choose_workers, map_unordered


def make_context() -> str:
    return "context"


def fail_to_make_context() -> str:
    raise ImageError("no context", hint="mend it")


def square(context: str, item: int) -> int:
    assert context == "context"
    print("noise")  # noqa: T201
    if item == 13:
        raise ImageError("thirteen", hint="take another")
    return item * item


def die_on_seven(context: str, item: int) -> int:
    if item == 7:
        os.kill(os.getpid(), signal.SIGKILL) if sys.platform != "win32" else os._exit(9)
    return item * item


def unpicklable(context: str, item: int) -> object:
    return lambda: item


def name_or_wait(context: str, item: Path) -> int:
    if item.name == "slow":
        time.sleep(60)
    return os.getpid()


@pytest.mark.parametrize("workers", [1, 2])
def test_every_item_has_one_outcome_and_errors_stay_with_their_item(
    workers: int, capfd: pytest.CaptureFixture[str]
) -> None:
    outcomes = list(map_unordered(square, range(20), setup=make_context, workers=workers))
    assert sorted(outcome.index for outcome in outcomes) == list(range(20))
    by_index = {outcome.index: outcome for outcome in outcomes}
    assert [by_index[index].get() for index in range(20) if index != 13] == [i * i for i in range(20) if i != 13]
    with pytest.raises(ImageError, match="thirteen") as caught:
        by_index[13].get()
    assert caught.value.hint == "take another"
    if workers > 1:
        assert "noise" not in capfd.readouterr().out  # stdout is for data, and workers have none


def test_a_worker_that_dies_costs_one_item_and_the_rest_goes_on() -> None:
    outcomes = {
        outcome.index: outcome for outcome in map_unordered(die_on_seven, range(12), setup=make_context, workers=2)
    }
    assert isinstance(outcomes[7].error, WorkerDiedError)
    assert {index: outcome.value for index, outcome in outcomes.items() if index != 7} == {
        index: index * index for index in range(12) if index != 7
    }


def test_a_result_that_cannot_travel_is_an_error_of_its_item() -> None:
    (outcome,) = map_unordered(unpicklable, [1], setup=make_context, workers=2)
    assert outcome.error is not None
    assert "pickle" in str(outcome.error).lower()


def test_a_context_that_cannot_be_made_is_an_error_of_every_item() -> None:
    for outcome in map_unordered(square, range(3), setup=fail_to_make_context, workers=2):
        with pytest.raises(ImageError, match="no context"):
            outcome.get()


def test_nothing_to_do_makes_no_context_and_no_process() -> None:
    assert list(map_unordered(square, [], setup=fail_to_make_context, workers=1)) == []
    assert list(map_unordered(square, [], setup=fail_to_make_context, workers=2)) == []


def test_leaving_early_ends_the_workers_at_once(tmp_path: Path) -> None:
    outcomes = map_unordered(
        name_or_wait, [tmp_path / "first", *[tmp_path / "slow"] * 3], setup=make_context, workers=2
    )
    process = next(outcomes).get()
    before = time.monotonic()
    outcomes.close()
    assert time.monotonic() - before < 5
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


def test_the_number_of_workers_is_one_for_little_work_and_never_above_the_items() -> None:
    assert choose_workers(0, items=3) == 1
    assert 1 <= choose_workers(0, items=1000) <= 16
    assert choose_workers(5, items=1000) == 5
    with pytest.raises(UsageError, match="-1"):
        choose_workers(-1, items=1)
