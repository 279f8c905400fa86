"""The unix users of every box, as recipes/host.sh makes them."""

from __future__ import annotations

from dataclasses import dataclass

PASSWORD = "lab password"


@dataclass(frozen=True)
class User:
    """`alias` is what the lab's SSH configuration calls this user on the host with the engine."""

    alias: str
    uid: int

    @property
    def name(self) -> str:
        return f"gpurun-{self.alias}"

    @property
    def home(self) -> str:
        """The home folder in the box."""
        return f"/home/{self.name}"


ADA = User("ada", 21001)
BOB = User("bob", 21002)
CARL = User("carl", 21003)
PAT = User("pat", 21004)
SUE = User("sue", 21005)
USERS = (ADA, BOB, CARL, PAT, SUE)
