"""matplotlib's backend in a job: `show` saves and closes, as the one of Jupyter draws and closes."""

import atexit
from typing import Any

from matplotlib.backend_bases import FigureManagerBase
from matplotlib.backends.backend_agg import FigureCanvasAgg

from .shown import end_of_cell, open_figures, save_figure

atexit.register(end_of_cell)  # behind pyplot, which closes all figures at the end


class FigureManager(FigureManagerBase):
    def show(self) -> None:
        save_figure(self.canvas.figure)

    @classmethod
    def pyplot_show(cls, *, block: Any = None) -> None:
        for figure in open_figures():
            save_figure(figure)


class FigureCanvas(FigureCanvasAgg):
    manager_class = FigureManager
