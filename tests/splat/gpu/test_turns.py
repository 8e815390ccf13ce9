"""Only one thread has the turn, and one that waits gives it away."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

from stages.splat.gpu import lock as turns
from stages.splat.gpu.lock import gpu_lock_released, pass_on, turn


def test_turns_exclude_each_other_except_while_waiting() -> None:
    inside, most, waiting = 0, 0, threading.Barrier(3, timeout=10)

    def work(_: int) -> None:
        nonlocal inside, most
        with turn():
            for _ in range(3):
                inside += 1
                most = max(most, inside)
                inside -= 1
                with gpu_lock_released():
                    waiting.wait()  # all three are here at once

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(work, range(3)))
    assert most == 1


def test_a_failure_while_waiting_passes_the_turn_on() -> None:
    try:
        with turn(), gpu_lock_released():
            raise ValueError
    except ValueError:
        pass
    with turn():
        pass


def test_without_a_turn_there_is_nothing_to_give_away() -> None:
    with gpu_lock_released(), turn():
        pass


def test_a_turn_that_is_passed_on_goes_round() -> None:
    order: list[int] = []

    def work(number: int) -> None:
        with turn():
            for _ in range(4):
                order.append(number)
                pass_on()

    with ThreadPoolExecutor(3) as pool:
        with turn():
            results = [pool.submit(work, number) for number in range(3)]
            while len(turns._TURNS._waiting) < 3:
                time.sleep(0.001)
        for result in results:
            result.result()
    assert order == order[:3] * 4
    assert sorted(order[:3]) == [0, 1, 2]


def test_a_turn_that_nobody_waits_for_is_kept() -> None:
    with turn():
        pass_on()
        pass_on()
    with turn():
        pass
