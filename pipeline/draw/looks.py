"""Colours and sizes that a picture can have."""

from PIL import ImageColor

RGB = tuple[float, float, float]  # shares of white
CLAY: RGB = (0.80, 0.77, 0.74)
WHITE: RGB = (1.0, 1.0, 1.0)
SMALLEST, LARGEST = 16, 4096  # picture side in pixels


def rgb(colour: str) -> RGB:
    """Shares of red, green and blue in a CSS colour, or in `clay`. ValueError for another word."""
    if colour == "clay":
        return CLAY
    try:
        red, green, blue = ImageColor.getrgb(colour)[:3]
    except ValueError as error:
        raise ValueError(f"colour: found {colour!r}, expected clay, a CSS name as tomato, or #rrggbb") from error
    return red / 255, green / 255, blue / 255


def check_size(size: int, antialias: int) -> None:
    """ValueError for a picture side in pixels, or a factor of antialiasing, that cannot be drawn."""
    if not SMALLEST <= size <= LARGEST:
        raise ValueError(f"picture size: found {size} px, expected {SMALLEST} to {LARGEST}")
    if not 1 <= antialias <= 2 * LARGEST // size:
        raise ValueError(f"antialias: found {antialias} at {size} px, expected 1 to {2 * LARGEST // size}")
