"""The machine underneath: devices, memory layout, processes, sharded weights, signals, files and locks.

May import the vocabulary alone; everything that computes or writes may import it.
"""
