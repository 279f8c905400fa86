"""Define matplotlib's backend for a job: `show` saves and closes a figure, where Jupyter's backend draws and closes it."""

import atexit
from typing import Any

from matplotlib.backend_bases import FigureManagerBase
from matplotlib.backends.backend_agg import FigureCanvasAgg

from .shown import end_of_cell, open_figures, save_figure

atexit.register(end_of_cell)  # registered after pyplot's function, which closes all figures, so it runs first


class FigureManager(FigureManagerBase):
    def show(self) -> None:
        save_figure(self.canvas.figure)

    @classmethod
    def pyplot_show(cls, *, block: Any = None) -> None:
        for figure in open_figures():
            save_figure(figure)


class FigureCanvas(FigureCanvasAgg):
    manager_class = FigureManager
