"""The thousand classes of ImageNet, as torchvision names them."""

from __future__ import annotations

import click


def labels() -> list[str]:
    """The class names in the order of a model's outputs."""
    from torchvision.models._meta import _IMAGENET_CATEGORIES

    return list(_IMAGENET_CATEGORIES)


@click.command()
@click.argument("path", type=click.Path(dir_okay=False), default="-")
def main(path: str) -> None:
    """Write the class names, a line each, to PATH (default: the terminal)."""
    with click.open_file(path, "w", encoding="utf-8") as file:
        file.writelines(f"{label}\n" for label in labels())


if __name__ == "__main__":
    main()
