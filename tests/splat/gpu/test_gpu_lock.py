"""Only one thread holds the GPU lock, and one that waits releases it."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

from stages.splat.gpu import lock
from stages.splat.gpu.lock import gpu_lock, gpu_lock_released, others_wait, pass_gpu_lock


def test_threads_exclude_each_other_except_while_waiting() -> None:
    inside, most, waiting = 0, 0, threading.Barrier(3, timeout=10)

    def work(_: int) -> None:
        nonlocal inside, most
        with gpu_lock():
            for _ in range(3):
                inside += 1
                most = max(most, inside)
                inside -= 1
                with gpu_lock_released():
                    waiting.wait()  # all three are here at once

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(work, range(3)))
    assert most == 1


def test_a_failure_while_waiting_frees_the_lock() -> None:
    try:
        with gpu_lock(), gpu_lock_released():
            raise ValueError
    except ValueError:
        pass
    with gpu_lock():
        pass


def test_a_thread_without_the_lock_has_nothing_to_release() -> None:
    with gpu_lock_released(), gpu_lock():
        pass


def test_a_lock_that_is_passed_on_goes_round() -> None:
    order: list[int] = []

    def work(number: int) -> None:
        with gpu_lock():
            for _ in range(4):
                order.append(number)
                pass_gpu_lock()

    with ThreadPoolExecutor(3) as pool:
        with gpu_lock():
            assert not others_wait()
            results = [pool.submit(work, number) for number in range(3)]
            while len(lock._LOCK._waiting) < 3:
                time.sleep(0.001)
            assert others_wait()
        for result in results:
            result.result()
    assert order == order[:3] * 4
    assert sorted(order[:3]) == [0, 1, 2]


def test_a_lock_that_nobody_waits_for_is_kept() -> None:
    with gpu_lock():
        pass_gpu_lock()
        pass_gpu_lock()
    with gpu_lock():
        pass
