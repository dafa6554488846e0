"""Random histories of the whole chain: made from a seed, run in several processes, checked after every block, shrunk when they fail.

    script.py      a history as data: blocks of operations, written to and read from JSON
    world.py       what operations may look at: accounts with keys, and the chain's own queries
    operations/    one file per module: its operations, and its genesis parameters
    generate.py    draws blocks: operations, and the faults that every one of them can be given
    run.py         runs a history on an application and checks everything that must hold
    imported.py    a chain made of an export, which has to go on as the original does
    shrink.py      finds a small history that fails in the same way
    processes.py   the same seed in processes that differ in everything but the outcome

``python -m tests.simulation --help`` runs it.
"""
