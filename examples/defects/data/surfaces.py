"""Metal surfaces under an inspection camera, made up: most are good, few have a scratch, a pit or a stain.

The images are drawn from a seed, so that every machine has the same ones and nothing is downloaded.
"""

from __future__ import annotations

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

Batches = DataLoader[tuple[Tensor, ...]]

SIZE = 48  # pixels, both ways
CLASSES = ("good", "scratch", "pit", "stain")
SHARES = (0.91, 0.04, 0.03, 0.02)  # as on a line that works: nine of ten parts are good


def draw_surfaces(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Images (count, 1, SIZE, SIZE) as float32 in [0, 1] and labels (count,) as int64, index of CLASSES."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.multinomial(torch.tensor(SHARES), count, replacement=True, generator=generator)
    images = _brushed_metal(count, generator)
    for label, draw in ((1, _scratches), (2, _pits), (3, _stains)):
        chosen = labels == label
        images[chosen] += draw(int(chosen.sum()), generator)
    images += 0.04 * torch.randn(images.shape, generator=generator)  # the camera's own
    return images.clamp(0, 1), labels


def _uniform(generator: torch.Generator, count: int, low: float, high: float) -> Tensor:
    """(count, 1, 1, 1), to stand before a picture's rows and columns."""
    return low + (high - low) * torch.rand(count, 1, 1, 1, generator=generator)


def _grid() -> tuple[Tensor, Tensor]:
    """Row and column of each pixel, in [-1, 1]."""
    line = torch.linspace(-1, 1, SIZE)
    rows, columns = torch.meshgrid(line, line, indexing="ij")
    return rows, columns


def _brushed_metal(count: int, generator: torch.Generator) -> Tensor:
    """Fine lines along the rows, brighter on one side: no defect, though it looks like many scratches."""
    grain = torch.randn(count, 1, SIZE, SIZE, generator=generator)
    brushed = functional.avg_pool2d(grain, (1, 13), stride=1, padding=(0, 6), count_include_pad=False)
    _, columns = _grid()
    light = _uniform(generator, count, 0.4, 0.6) + _uniform(generator, count, -0.15, 0.15) * columns
    return light + 0.25 * brushed


def _scratches(count: int, generator: torch.Generator) -> Tensor:
    """A thin bright line that crosses the brushing at an angle, over a part of the picture."""
    rows, columns = _grid()
    angle = _uniform(generator, count, 0.35, 2.8)  # from the rows, in radians
    y, x = (rows - _uniform(generator, count, -0.5, 0.5)), (columns - _uniform(generator, count, -0.5, 0.5))
    along, across = x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()
    thickness, length = _uniform(generator, count, 0.02, 0.05), _uniform(generator, count, 0.25, 0.8)
    line = torch.exp(-((across / thickness) ** 2)) * torch.sigmoid((length - along.abs()) / 0.05)
    return _uniform(generator, count, 0.15, 0.4) * line


def _pits(count: int, generator: torch.Generator) -> Tensor:
    """A small dark hole with a bright rim."""
    rows, columns = _grid()
    y, x = (rows - _uniform(generator, count, -0.8, 0.8)), (columns - _uniform(generator, count, -0.8, 0.8))
    radius, away = _uniform(generator, count, 0.06, 0.12), (x**2 + y**2).sqrt()
    hole, rim = torch.exp(-((away / radius) ** 2)), torch.exp(-(((away - 1.5 * radius) / (0.4 * radius)) ** 2))
    return _uniform(generator, count, 0.2, 0.45) * (0.5 * rim - hole)


def _stains(count: int, generator: torch.Generator) -> Tensor:
    """A wide, faint, darker patch without an edge."""
    rows, columns = _grid()
    y, x = (rows - _uniform(generator, count, -0.5, 0.5)), (columns - _uniform(generator, count, -0.5, 0.5))
    wide, high = _uniform(generator, count, 0.2, 0.5), _uniform(generator, count, 0.2, 0.5)
    return -_uniform(generator, count, 0.1, 0.25) * torch.exp(-((x / wide) ** 2) - (y / high) ** 2)


class SurfacesDataModule(LightningDataModule):
    """Images (batch, 1, SIZE, SIZE) as float32 in [0, 1], labels (batch,) as int64, index of CLASSES.

    Args:
        batch_size: images a step, for each process.
        train_images: how many are drawn to learn from.
        val_images: how many are drawn to measure on; they are the same whatever else is chosen.
    """

    def __init__(self, batch_size: int = 64, train_images: int = 6000, val_images: int = 2000) -> None:
        super().__init__()
        self.save_hyperparameters()

    def setup(self, stage: str) -> None:
        self.train_set = TensorDataset(*draw_surfaces(self.hparams.train_images, seed=1))
        self.val_set = TensorDataset(*draw_surfaces(self.hparams.val_images, seed=2))

    def train_dataloader(self) -> Batches:
        return DataLoader(self.train_set, batch_size=self.hparams.batch_size, shuffle=True)

    def val_dataloader(self) -> Batches:
        return DataLoader(self.val_set, batch_size=256)
