"""A contact sheet: all figures of a run on one PNG, to look at them together.

`python -m zoolib.figures.contact_sheet results/<run> sheet.png`, from `workflow/scripts`.
"""

import sys
from pathlib import Path

from PIL import Image

from zoolib.figures.style import FAINT, drawing
from zoolib.job.logs import UserError

ACROSS = 4


def draw_contact_sheet(folder, output):
    """Draw every PNG of a folder and its subfolders on one page.

    Args:
        folder: the results of a run; every SVG has a PNG of the same name beside it.
        output: PNG to write.

    Returns:
        Number of figures.

    Raises:
        UserError: the folder holds no figure.
    """
    output = Path(output)
    found = sorted(path for path in Path(folder).rglob("*.png") if path.resolve() != output.resolve())
    figures = [path for path in found if not path.name.startswith(".")]
    if not figures:
        raise UserError(f"{folder}: holds no figure (*.png); run `snakemake evaluate` first.")
    down = -(-len(figures) // ACROSS)
    with drawing([output], figsize=(6 * ACROSS, 5 * down), layout="constrained") as page:
        panels = page.subplots(down, ACROSS, squeeze=False).ravel()
        for panel in panels:
            panel.set_axis_off()
        for panel, path in zip(panels, figures, strict=False):
            with Image.open(path) as image:
                image.thumbnail((1200, 1000))
                panel.imshow(image.convert("RGB"))
            panel.set_title(str(path.relative_to(folder)), fontsize=11, color=FAINT)
    return len(figures)


if __name__ == "__main__":
    try:
        if len(sys.argv) != 3:
            raise UserError("give the folder of a run and the PNG to write: results/<run> sheet.png")
        count = draw_contact_sheet(*sys.argv[1:])
    except UserError as error:
        sys.exit(str(error))
    print(f"{sys.argv[2]}: {count} figures")
