"""The crash-point test: fault a real, tiny training at every point where it touches the world.

points.py      what a point is, and how a fault is committed there
server.py      a process with the training libraries loaded; forks one boot after the other
stories.py     a run with its restarts, from first boot to last, and what it left
invariants.py  what must be true of every story
campaign.py    which faults there are to try, found by watching an undisturbed run
__main__.py    one story again:  python -m tests.crash sft "kill@on_save 4 #1"
"""
