"""Several runs by one command: `hp-lightning train -m ...`.

Each job of a sweep is an `hp-lightning train` of its own, with a run folder of its own: nothing that happens to
one can harm the others or the sweep; and as a run can be stopped and resumed at any point, so can a sweep.
"""
