"""The shapes of what lies in a file of a run and of what travels between laptop and host, for both floors.

`TypedDict`s, which cost nothing where they are used: import them under `TYPE_CHECKING` where only annotations need them.
Times are unix seconds and sizes are bytes unless a name says otherwise. A key that may be missing, because an earlier gpurun
did not write it, is in a class with `total=False`; a key that is always there may be None.
"""
