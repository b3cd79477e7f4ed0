"""Work in threads: in order, and never far ahead of whoever takes the results."""

from concurrent.futures import ThreadPoolExecutor
from itertools import count, islice
import time

import numpy as np
from PIL import Image
import pytest

from raytricks.data import decoding_store
from raytricks.data.decode import DecodeSpec
from raytricks.data.decoding_store import FileStore
from raytricks.data.threads import map_in_order


def test_map_keeps_the_order_and_stays_within_its_room():
    begun: list[int] = []

    def double(number: int) -> int:
        begun.append(number)
        time.sleep(0.002 * (number % 3))
        return 2 * number

    with ThreadPoolExecutor(3) as pool:
        results = map_in_order(pool, double, count(), 5)  # of items without an end
        assert list(islice(results, 10)) == list(range(0, 20, 2))
        time.sleep(0.1)
        assert len(begun) <= 10 + 5
        results.close()


def test_map_raises_what_the_function_raised_and_leaves_the_rest():
    def fail(number: int) -> int:
        if number == 3:
            raise KeyError(number)
        return number

    taken = []
    with ThreadPoolExecutor(2) as pool, pytest.raises(KeyError):
        for result in map_in_order(pool, fail, range(100), 4):
            taken.append(result)
    assert taken == [0, 1, 2]


def test_decoding_stays_a_bounded_number_of_images_ahead(tmp_path, monkeypatch):
    monkeypatch.setattr(decoding_store, "_DECODED_AHEAD", 4)
    for number in range(40):
        Image.new("L", (4, 4), number).save(tmp_path / f"{number:02}.png")
    store = FileStore([str(path) for path in sorted(tmp_path.iterdir())], DecodeSpec(None, square=False, channels=1))
    decoded: list[int] = []
    decode = store.decode
    store.decode = lambda index: (decoded.append(index), decode(index))[1]  # type: ignore[method-assign]
    images = store.decode_many(range(40))
    assert int(next(images)[0, 0, 0]) == 0
    time.sleep(0.1)
    assert len(decoded) <= 5
    assert [int(np.asarray(image)[0, 0, 0]) for image in images] == list(range(1, 40))
