from __future__ import annotations

import threading
import time

import pytest
from threadpoolctl import threadpool_info

from medtool.split.duplicates.threads import MOST_THREADS, map_in_threads


def halved(context, number):
    if number % 2:
        raise ValueError(f"{number} is odd")
    return context, number // 2


@pytest.mark.parametrize("threads", [1, 2, 64])
def test_every_item_has_its_outcome(threads):
    found = sorted(
        map_in_threads(halved, range(50), setup=lambda: "context", threads=threads), key=lambda one: one.index
    )
    assert [one.index for one in found] == list(range(50))
    assert [one.get() for one in found[::2]] == [("context", number // 2) for number in range(0, 50, 2)]
    assert [str(one.error) for one in found[1::2]] == [f"{number} is odd" for number in range(1, 50, 2)]


def test_no_items_have_no_outcomes():
    assert list(map_in_threads(halved, [], setup=dict, threads=2)) == []


def test_each_thread_has_one_context_of_its_own():
    made = []

    def setup():
        made.append(threading.get_ident())
        return len(made)

    def slow(context, item):
        time.sleep(0.01)
        return context, threading.get_ident()

    answers = {one.get() for one in map_in_threads(slow, range(40), setup=setup, threads=64)}
    assert len(answers) == len(made) == len(set(made)) == MOST_THREADS


def test_a_failing_setup_is_the_outcome_of_every_item():
    def setup():
        raise OSError("nothing there")

    assert [str(one.error) for one in map_in_threads(halved, range(3), setup=setup, threads=1)] == ["nothing there"] * 3


def test_matrix_products_are_not_shared_out_among_further_threads_meanwhile():
    def threads_of_blas(context, item):
        return {one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"}

    before = threads_of_blas(None, None)
    assert [one.get() for one in map_in_threads(threads_of_blas, range(3), setup=dict, threads=2)] == [{1}] * 3
    assert threads_of_blas(None, None) == before


def test_only_a_few_answers_wait_to_be_taken_so_that_memory_does_not_grow_with_the_items():
    done = []
    outcomes = map_in_threads(lambda _, item: done.append(item), range(1000), setup=dict, threads=2)
    next(outcomes)
    time.sleep(0.2)
    assert len(done) <= 8
    assert len(list(outcomes)) == 999


def test_who_stops_asking_stops_the_work():
    done = []

    def slow(context, item):
        time.sleep(0.01)
        done.append(item)

    outcomes = map_in_threads(slow, range(1000), setup=dict, threads=2)
    next(outcomes)
    outcomes.close()
    assert len(done) < 20
    assert threading.active_count() < 10
