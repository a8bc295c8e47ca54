"""The pictures of the tutorials: figures that their commands have drawn, at the size of a page."""

from pages import REPO
from PIL import Image

# The picture of a tutorial, and the figure that it is.
FIGURES = {
    "reproduce": "demo/evaluate/confusion_all.png",
    "finetune": "ring/evaluate/ring/gallery.png",
    "predict": "cutouts/spirals.png",
    "campaign": "bars/evaluate/gallery/bar.png",
    "search": "demo/search/rings/gallery.png",
}
WIDTH = 900


def main():
    """Write the pictures into docs/tutorials/; a figure that is not there is an error."""
    for name, figure in FIGURES.items():
        with Image.open(REPO / "results" / figure) as opened:
            picture = opened.convert("RGB")
        picture.thumbnail((WIDTH, 10 * WIDTH))
        picture.quantize(64).save(REPO / "docs/tutorials" / f"{name}.png", optimize=True)
        print(f"docs/tutorials/{name}.png: {figure}, {picture.width} x {picture.height}")


if __name__ == "__main__":
    main()
