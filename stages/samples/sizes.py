"""Image sizes that the network can take: skips need sides that halve evenly."""


def working_size(width: int, height: int, resolution: int, multiple: int) -> tuple[int, int]:
    """Size (width, height) in px at which an image is worked on.

    The shorter side becomes `resolution` (0 keeps the image's own), the other keeps the aspect;
    both then snap to the nearest multiple, so the aspect may change by half a multiple.

    >>> working_size(940, 1280, 320, 16), working_size(324, 332, 0, 16), working_size(5, 9, 0, 16)
    ((320, 432), (320, 336), (16, 16))
    """
    scale = resolution / min(width, height) if resolution else 1.0
    return snapped(scale * width, multiple), snapped(scale * height, multiple)


def snapped(length: float, multiple: int) -> int:
    """The nearest positive multiple; halves go up.

    >>> [snapped(length, 16) for length in (1, 300, 312, 320)]
    [16, 304, 320, 320]
    """
    return max(1, int(length / multiple + 0.5)) * multiple


def padded(length: int, multiple: int) -> int:
    """The next multiple that is not smaller.

    >>> [padded(length, 16) for length in (1, 16, 17)]
    [16, 16, 32]
    """
    return -(-length // multiple) * multiple
