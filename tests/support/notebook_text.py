"""Notebooks made for a test."""

from __future__ import annotations

import json
from typing import Any


def of(*cells: str | dict[str, Any], **metadata: Any) -> str:
    """The text of a notebook with these code cells (source) and other cells (whole)."""
    made = [
        {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": [], "source": cell}
        if isinstance(cell, str)
        else cell
        for cell in cells
    ]
    return json.dumps({"cells": made, "metadata": metadata, "nbformat": 4, "nbformat_minor": 4})
