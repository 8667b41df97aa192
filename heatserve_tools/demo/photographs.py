"""Three photographs that the scikit-image package ships."""

from __future__ import annotations

from pathlib import Path

PHOTOGRAPHS = ("chelsea", "coffee", "astronaut")


def photographs() -> dict[str, bytes]:
    """The photographs by name, as PNG files."""
    import skimage.data

    folder = Path(skimage.data.__file__).parent
    return {name: (folder / f"{name}.png").read_bytes() for name in PHOTOGRAPHS}
