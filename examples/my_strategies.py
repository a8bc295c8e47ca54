"""A strategy of your own: copy this file, change it, and name your class in the YAML.

`PYTHONPATH=examples` lets Snakemake find it. docs/finetuning.md explains the parts.
"""

from zoolib.config.strategies import Stage, Strategy


class TopFirst(Strategy):
    """The head, then one more block from the top every few epochs (Howard and Ruder 2018, arXiv:1801.06146).

    Args:
        blocks: how many blocks train in the end.
        each: epochs of a stage.
    """

    def __init__(self, blocks=3, each=5):
        self.blocks, self.each = blocks, each

    def stages(self, blocks, task):
        """A stage for the head, and one for each more block, at half of the rate before it."""
        stages = []
        for count in range(min(self.blocks, len(blocks)) + 1):
            layers = [name for block in blocks[len(blocks) - count :] for name in block]
            rate = task["learning_rate"] * 0.5**count
            stages.append(Stage(f"top {count}", tuple(layers), self.each, rate, None, from_best=False))
        return stages
