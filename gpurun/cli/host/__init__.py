"""`gpurun host`: the machines with the GPUs."""

from __future__ import annotations

from gpurun.cli.command import VerbCommand, noun
from gpurun.cli.host import add, check, known, leave, prepare

app = noun("host", "The machines with the GPUs: any alias of your SSH configuration, and those that you add.")

app.command("add", cls=VerbCommand, epilog=add.EXAMPLES)(add.add)
app.command("use", cls=VerbCommand)(known.use)
app.command("ls", cls=VerbCommand)(known.ls)
app.command("rm", cls=VerbCommand)(known.rm)
app.command("check", cls=VerbCommand, epilog=check.EXAMPLES)(check.check)
app.command("prepare", cls=VerbCommand, epilog=prepare.EXAMPLES)(prepare.prepare)
app.command("leave", cls=VerbCommand)(leave.leave)
